"""What the un-rewriting promises: when a pull by a rewritten name fails, for whatever reason, the pod gets its own name back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from hack.cluster import Cluster
from hack.cluster.origin import NAME, OPEN
from hack.lab.process import wait_until
from tests.e2e.release import Release
from tests.e2e.space import DECISION, LOCAL, Space, container_images, local, notes, waiting_reasons

pytestmark = pytest.mark.unrewrites

BACK_SECONDS_MAX = 10
RUNNING_SECONDS_MAX = 15
PODS_BEFORE_A_PAUSE = 3
TOLD_SECONDS_MAX = 15
"""Until every replica knows what one of them has learnt."""


@pytest.mark.parametrize("node", ["n0", "n1"])
def test_a_rewritten_pod_that_waits_for_an_agent_that_is_gone_gets_its_image_back_and_runs(
    darner: Release, space: Space, node: str
) -> None:
    image = space.push()
    assert container_images(space.gated("web", image.name, node=node)) == [local(image.name)]
    with darner.without_agents([node]):
        space.open("web")
        space.wait_for("web", lambda pod: container_images(pod) == [image.name], BACK_SECONDS_MAX)
        space.wait_running("web")
        wait_until(lambda: space.darners_words("web"))
        (said,) = space.darners_words("web")
        assert image.name in said
        assert "connection refused" in said, "what the runtime said of the agent"


def test_a_container_that_runs_keeps_its_image_while_another_of_its_pod_gets_its_own_back(darner: Release, space: Space) -> None:
    present, missing = space.push("present"), space.push("missing")
    space.run("warm", present.name, node="n1")
    space.gated("web", present.name, missing.name, node="n1")
    with darner.without_agents(["n1"]):
        space.open("web")
        pod = space.wait_running("web")
        assert container_images(pod) == [local(present.name), missing.name]
        assert [status["restartCount"] for status in pod["status"]["containerStatuses"]] == [0, 0]


def test_a_registry_that_only_the_node_knows_costs_seconds_and_after_three_pods_nothing(
    darner: Release, space: Space, cluster: Cluster
) -> None:
    host = f"known-to-the-node-{space.name[-6:]}.test:{OPEN}"
    image = f"{host}/{space.push().path}"
    with named_in_the_runtime(cluster, "n2", host):
        for number in range(PODS_BEFORE_A_PAUSE):
            assert container_images(space.pod(f"web-{number}", image, node="n2")) == [local(image)]
            begin = time.monotonic()
            assert container_images(space.wait_running(f"web-{number}")) == [image]
            assert time.monotonic() - begin < RUNNING_SECONDS_MAX
        wait_until(lambda: darner.metric("webhook", "darner_webhook_paused", kind="registry") == 2, TOLD_SECONDS_MAX)
        pod = space.run("spared", image, node="n2")
        assert container_images(pod) == [image]
        assert host in notes(pod)[DECISION]
        assert [word for word in space.all_words() if word.startswith("DarnerLeftAlone: ") and host in word]
        assert darner.metric("webhook", "darner_webhook_pauses_total", kind="registry") >= 1


@pytest.mark.parametrize("node", ["n0", "n1"])
def test_of_an_image_that_does_not_exist_the_registrys_own_answer_is_told_last(darner: Release, space: Space, node: str) -> None:
    image = f"{NAME}/{space.name}/nothing:1"
    assert container_images(space.pod("web", image, node=node)) == [local(image)]
    space.wait_for("web", lambda pod: container_images(pod) == [image], BACK_SECONDS_MAX)
    wait_until(lambda: LOCAL not in _last_failure(space, "web"))
    assert image in _last_failure(space, "web")
    assert "not found" in _last_failure(space, "web")
    # The kubelet tries again, and whoever looks later sees that last: in its words too it is the author's name.
    space.wait_for("web", lambda pod: waiting_reasons(pod) == ["ImagePullBackOff"])
    wait_until(lambda: LOCAL not in space.events("web")[-1]["message"])
    assert image in space.events("web")[-1]["message"]


@contextlib.contextmanager
def named_in_the_runtime(cluster: Cluster, node: str, host: str) -> Iterator[None]:
    """An administrator tells one node's containerd where a registry is, and that it speaks plain HTTP."""
    directory = f"/etc/containerd/certs.d/{host}"
    server = f"http://{cluster.layout.origin.address}:{OPEN}"
    cluster.run(node, ["sh", "-c", f"mkdir -p {directory} && echo 'server = \"{server}\"' >{directory}/hosts.toml"])
    try:
        yield
    finally:
        cluster.run(node, ["rm", "-r", directory])


def _last_failure(space: Space, pod: str) -> str:
    """What the last event says about why an image could not be pulled."""
    said = [str(event["message"]) for event in space.events(pod) if event["reason"] == "Failed"]
    return [message for message in said if message.startswith("Failed to pull image")][-1]
