"""A second release in the cluster, with a label of its own and the longest name that Helm allows; and `helm test`.

Port 65001 is one per node, so the agents of the second one are on no node here: its webhook leaves pods as they are, and says so.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from hack.chart.helm import tool
from hack.cluster import Cluster, ClusterError
from hack.cluster.api import Api
from tests.e2e.published import knowing_the_origin
from tests.e2e.release import NAMESPACE, READY_SECONDS_MAX, Release
from tests.e2e.space import DECISION, INJECT, Space, container_images, local, notes

NAME_LENGTH_MAX = 53
SECOND, SECOND_NAMESPACE, SECOND_LABEL = "second-".ljust(NAME_LENGTH_MAX, "n"), "second-darner", "second.example/inject"


def test_helm_test_finds_every_part(darner: Release, cluster: Cluster) -> None:
    assert "Succeeded" in _helm(cluster, NAMESPACE, "test", darner.name)


def test_each_release_answers_for_its_own_label(darner: Release, second: str, space: Space, plain_space: Space) -> None:
    image, other = space.push(), plain_space.push()
    plain_space.api.merge("Namespace", None, plain_space.name, {"metadata": {"labels": {SECOND_LABEL: "enabled"}}})
    assert container_images(space.run("web", image.name)) == [local(image.name)]
    pod = plain_space.run("web", other.name)
    assert container_images(pod) == [other.name]
    assert "agent" in notes(pod)[DECISION]
    assert INJECT not in notes(pod)


def test_the_second_release_goes_without_a_trace_and_the_first_one_stays(
    darner: Release, second: str, space: Space, cluster: Cluster
) -> None:
    waiting = space.push("waiting")
    assert container_images(space.gated("waits", waiting.name)) == [local(waiting.name)]
    _helm(cluster, SECOND_NAMESPACE, "uninstall", second, "--wait")
    assert container_images(space.get("waits")) == [local(waiting.name)]
    space.open("waits")
    assert container_images(space.wait_running("waits")) == [local(waiting.name)]
    kinds = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,secrets,leases"
    labels = "app.kubernetes.io/instance"
    left = cluster.kubectl("get", kinds, "--all-namespaces", "--selector", f"{labels}={second}", "--output", "name")
    assert left.split() == []
    image = space.push()
    assert darner.unready() == []
    assert container_images(space.run("web", image.name)) == [local(image.name)]


@pytest.fixture
def second(cluster: Cluster, api: Api, darner: Release) -> Iterator[str]:
    """Its name; supernodes and webhook are Ready."""
    values = {
        "agent": {"nodeSelector": {"second.example/agent": "nowhere"}},
        "supernode": {"replicas": 1},
        "webhook": {"label": SECOND_LABEL, "replicas": 1},
    }
    _helm(cluster, SECOND_NAMESPACE, "install", SECOND, darner.chart, "--create-namespace", "--wait", values=values)
    yield SECOND
    if SECOND in _helm(cluster, SECOND_NAMESPACE, "list", "--short").split():
        _helm(cluster, SECOND_NAMESPACE, "uninstall", SECOND, "--wait")
    api.delete("Namespace", None, SECOND_NAMESPACE)
    cluster.kubectl("wait", "--for=delete", f"namespace/{SECOND_NAMESPACE}", f"--timeout={READY_SECONDS_MAX}s")


def _helm(cluster: Cluster, namespace: str, verb: str, *arguments: object, values: dict[str, Any] | None = None) -> str:
    """What Helm prints."""
    given = [] if values is None else ["--values", "-"]
    command = [tool("helm"), verb, *arguments, "--namespace", namespace, *given]
    if verb != "list":
        command.append(f"--timeout={READY_SECONDS_MAX}s")
    home = {"HOME": str(cluster.layout.directory), "KUBECONFIG": str(cluster.layout.kubeconfig)}
    environment = {"PATH": os.environ["PATH"], **home}
    done = subprocess.run(
        knowing_the_origin(cluster, command),
        input=json.dumps(values),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ClusterError(f"helm {verb}: {done.stdout}{done.stderr}")
    return done.stdout
