"""Never worse than without: each part is taken away in turn, and pods run."""

from __future__ import annotations

import json
import time

import pytest

from hack.cluster import Cluster
from hack.cluster.api import Api, Object
from hack.lab.process import wait_until
from tests.e2e.release import Release
from tests.e2e.space import Space, container_images, local, running

ADMISSION_SECONDS_MAX = 5
"""The webhook's own timeout of 3 s, and what the API server and a busy machine need."""
JOIN_SECONDS_MAX = 30
NEXT_NODE = "n3"
"""What the cluster calls a fourth one."""


def test_with_the_origin_stopped_a_new_pod_on_a_node_that_never_had_the_image_runs(darner: Release, space: Space) -> None:
    image = space.push(layers=(3_000_000, 500_000))
    space.run("first", image.name, node="n0")
    with darner.without_origin():
        before = darner.received("n1")
        pod = space.run("second", image.name, node="n1")
        assert container_images(pod) == [local(image.name)]
        assert _received_since(darner, "n1", before)["origin"] == 0


def test_with_all_supernodes_gone_pods_run(darner: Release, space: Space) -> None:
    image = space.push()
    with darner.without_supernodes():
        pods = [space.pod(f"web-{node}", image.name, node=node) for node in darner.agents()]
        for pod in pods:
            assert container_images(space.wait_running(pod["metadata"]["name"])) == [local(image.name)]


def test_with_all_supernodes_and_peers_gone_a_pod_runs_from_the_origin(darner: Release, space: Space) -> None:
    image = space.push()
    with darner.without_supernodes(), darner.without_agents(["n0", "n2"]):
        before = darner.received("n1")
        assert container_images(space.run("web", image.name, node="n1")) == [local(image.name)]
        received = _received_since(darner, "n1", before)
        assert received == {"store": 0, "peer": 0, "supernode": 0, "origin": sum(image.new_blobs.values())}


@pytest.mark.parametrize("node", ["n0", "n1"])
def test_a_pod_bound_to_a_node_whose_agent_is_gone_is_admitted_unchanged_and_runs(
    darner: Release, space: Space, node: str
) -> None:
    image = space.push()
    with darner.without_agents([node]):
        wait_until(lambda: darner.metric("webhook", "darner_webhook_agents", state="ready") == 2 * 2)
        assert container_images(space.run("web", image.name, node=node)) == [image.name]


def test_with_the_webhook_gone_pods_are_admitted_unchanged_and_run(darner: Release, space: Space) -> None:
    image = space.push()
    with darner.without_webhook():
        assert container_images(space.run("web", image.name)) == [image.name]


def test_a_webhook_that_stands_still_holds_no_pod_up_for_longer_than_its_timeout(darner: Release, space: Space) -> None:
    image = space.push()
    with darner.stopped("webhook"):
        begin = time.monotonic()
        pod = space.pod("web", image.name)
        assert time.monotonic() - begin < ADMISSION_SECONDS_MAX
        assert container_images(pod) == [image.name]
        space.wait_running("web")


def test_a_new_node_that_joins_during_a_rollout_runs_its_pods_at_once(
    darner: Release, space: Space, cluster: Cluster, api: Api
) -> None:
    image = space.push()
    space.workload("DaemonSet", "web", image.name)
    node = cluster.add("2")
    try:
        wait_until(lambda: _is_ready(api.get("Node", None, node)), 60)
        wait_until(lambda: any(_runs_on(node, pod) for pod in space.pods("web")), JOIN_SECONDS_MAX)
        wait_until(lambda: node in darner.agents())
        darner.wait_ready()
        later = space.push("later")
        assert container_images(space.run("later", later.name, node=node)) == [local(later.name)]
    finally:
        cluster.remove(node)
        darner.wait_ready()


def test_a_new_node_without_an_agent_runs_its_pods_at_once_too(darner: Release, space: Space, cluster: Cluster, api: Api) -> None:
    image = space.push()
    space.workload("DaemonSet", "web", image.name)
    with darner.without_agents([NEXT_NODE]):
        assert cluster.add("2") == NEXT_NODE
        try:
            wait_until(lambda: _is_ready(api.get("Node", None, NEXT_NODE)), 60)
            wait_until(lambda: any(_runs_on(NEXT_NODE, pod) for pod in space.pods("web")), JOIN_SECONDS_MAX)
            (pod,) = [pod for pod in space.pods("web") if _runs_on(NEXT_NODE, pod)]
            assert container_images(pod) == [image.name]
        finally:
            cluster.remove(NEXT_NODE)


def test_a_node_that_lost_its_power_serves_what_its_agent_had_verified(darner: Release, space: Space, cluster: Cluster) -> None:
    image = space.push(layers=(3_000_000,))
    space.run("before", image.name, node="n2")
    agent = _container(darner.agents()["n2"])
    cluster.kill("n2")
    cluster.boot("n2")
    wait_until(lambda: _container(darner.agents()["n2"]) != agent, 60)
    darner.wait_ready()
    with darner.without_origin(), darner.without_supernodes():
        space.api.delete("Pod", space.name, "before", grace_seconds=0)
        space.forget("n2", image)
        before = darner.received("n2")
        assert container_images(space.run("after", image.name, node="n2")) == [local(image.name)]
        received = _received_since(darner, "n2", before)
        assert received == {"store": sum(image.new_blobs.values()), "peer": 0, "supernode": 0, "origin": 0}


def _runs_on(node: str, pod: Object) -> bool:
    return pod["spec"].get("nodeName") == node and running(pod)


def _received_since(darner: Release, node: str, before: dict[str, int]) -> dict[str, int]:
    after = darner.received(node)
    return {source: after[source] - before[source] for source in after}


def _container(pod: Object) -> str:
    """Which start of the pod's container runs now; nothing, while none does."""
    statuses = pod["status"].get("containerStatuses", [])
    return json.dumps([status["containerID"] for status in statuses if "running" in status["state"]])


def _is_ready(node: Object | None) -> bool:
    conditions = {item["type"]: item["status"] for item in node["status"].get("conditions", [])} if node else {}
    return conditions.get("Ready") == "True"
