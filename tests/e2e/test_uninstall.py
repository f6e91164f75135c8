"""`helm uninstall` leaves nothing behind, and nobody in the lurch: what runs runs on, and what waits gets its own images back.

Each test uninstalls the release that all tests share, and installs it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from hack.cluster import Cluster
from hack.cluster.api import Object
from hack.cluster.layout import ClusterError
from hack.cluster.origin import NAME, PASSWORD, PRIVATE_TLS, USER
from hack.lab.process import wait_until
from tests.e2e.release import NAMESPACE, Release
from tests.e2e.space import DECISION, Space, container_images, local, notes, running, waiting_reasons

KINDS = (
    "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,roles,rolebindings,serviceaccounts,secrets,leases,"
    "services,deployments,statefulsets,daemonsets,jobs,poddisruptionbudgets,networkpolicies,persistentvolumeclaims"
)
UNINSTALL_SECONDS_MAX = 240
"""Agents that stand still take all of their grace period, and afterwards everything is installed again."""


def test_nothing_of_the_release_is_left(darner: Release, space: Space, cluster: Cluster) -> None:
    image = space.push()
    space.pull_secret("pull", f"{NAME}:{PRIVATE_TLS}", USER, PASSWORD)
    pod = space.run("web", image.private, imagePullSecrets=[{"name": "pull"}])
    assert container_images(pod) == [local(image.private)]
    assert _secrets(space) == ["darner-pull", "pull"]
    assert _of_release(cluster, darner)
    with uninstalled(darner):
        assert _of_release(cluster, darner) == []
        assert cluster.kubectl("get", "secrets,leases", "--namespace", NAMESPACE, "--output", "name").split() == []
        assert _secrets(space) == ["pull"]
    assert container_images(space.run("again", space.push("again").name)) == [local(f"{NAME}/{space.name}/again:1")]


def test_what_runs_runs_on_and_successors_have_original_images(darner: Release, space: Space, cluster: Cluster) -> None:
    image = space.push()
    space.workload("Deployment", "web", image.name, replicas=2)
    before = space.wait_all_running("web", 2)
    assert [container_images(pod) for pod in before] == [[local(image.name)]] * 2
    with uninstalled(darner):
        assert _run_of(space.pods("web")) == _run_of(before)
        for node in {pod["spec"]["nodeName"] for pod in before}:
            cluster.run(node, ["ctr", "--namespace", "k8s.io", "images", "remove", "--sync", local(image.name)])
        assert _run_of(space.pods("web")) == _run_of(before)
        for pod in before:
            space.api.delete("Pod", space.name, pod["metadata"]["name"], grace_seconds=0)
        wait_until(lambda: not {_uid(pod) for pod in before} & {_uid(pod) for pod in space.pods("web")})
        after = space.wait_all_running("web", 2)
        assert [container_images(pod) for pod in after] == [[image.name]] * 2


def test_a_pod_that_no_node_is_chosen_for_gets_its_original_images_back_and_runs(darner: Release, space: Space) -> None:
    image = space.push()
    first = {"name": "first", "image": image.name, "command": ["true"]}
    assert container_images(space.gated("web", image.name, initContainers=[first])) == [local(image.name)]
    with uninstalled(darner):
        pod = space.get("web")
        assert container_images(pod) == [image.name]
        assert [container["image"] for container in pod["spec"]["initContainers"]] == [image.name]
        assert "Darner stands aside" in notes(pod)[DECISION]
        space.open("web")
        space.wait_running("web")


@pytest.mark.timeout(UNINSTALL_SECONDS_MAX, func_only=True)
def test_pods_in_the_middle_of_a_pull_get_their_original_images_back_and_run(
    darner: Release, space: Space, cluster: Cluster
) -> None:
    image = space.push()
    with darner.stopped("agent"):
        for node in cluster.plan.nodes:
            assert container_images(space.pod(f"web-{node}", image.name, node=node)) == [local(image.name)]
        for node in cluster.plan.nodes:
            _wait_for_pull(space, f"web-{node}")
        with uninstalled(darner):
            for node in cluster.plan.nodes:
                pod = space.wait_running(f"web-{node}")
                assert container_images(pod) == [image.name]
                assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


@contextlib.contextmanager
def uninstalled(darner: Release) -> Iterator[None]:
    """The release as it was before afterwards, as somebody has it who installs it again."""
    darner.helm("uninstall", darner.name)
    try:
        yield
    finally:
        darner.helm("install", darner.name, darner.chart, values=darner.values)
        darner.wait_ready()


def _of_release(cluster: Cluster, darner: Release) -> list[str]:
    labels = f"app.kubernetes.io/instance={darner.name}"
    return cluster.kubectl("get", KINDS, "--all-namespaces", "--selector", labels, "--output", "name").split()


def _secrets(space: Space) -> list[str]:
    return sorted(secret["metadata"]["name"] for secret in space.api.all("Secret", space.name))


def _wait_for_pull(space: Space, name: str) -> None:
    wait_until(lambda: any(event["reason"] == "Pulling" for event in space.events(name)))
    pod = space.get(name)
    if running(pod) or waiting_reasons(pod) != ["ContainerCreating"]:
        raise ClusterError(f"{name} does not wait for its pull: {pod['status']}")


def _run_of(pods: list[Object]) -> dict[str, str]:
    """Which container runs in each pod."""
    return {_uid(pod): pod["status"]["containerStatuses"][0]["containerID"] for pod in pods if running(pod)}


def _uid(pod: Object) -> str:
    return str(pod["metadata"]["uid"])
