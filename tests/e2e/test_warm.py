"""Images that are made warm: later pods start without a byte from anywhere, on nodes that are there and on those that come."""

from __future__ import annotations

from cli.errors import ExitCode
from hack.cluster import Cluster
from hack.cluster.api import Api, Object
from hack.lab.process import wait_until
from tests.e2e.person import Person
from tests.e2e.release import Release
from tests.e2e.space import Space, container_images, local, pod_spec

JOIN_SECONDS_MAX = 60
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def test_pods_of_a_warm_image_start_with_the_registry_stopped_and_without_a_byte_from_another_node(
    darner: Release, space: Space, person: Person, api: Api
) -> None:
    api.merge("Namespace", None, space.name, {"metadata": {"labels": RESTRICTED}})
    image = space.push(layers=(3_000_000,))
    told = person.sees("warm", image.name, "--namespace", space.name)
    assert [(row["node"], row["state"], row["withoutAgent"]) for row in told["images"]] == [
        (node, "pulled", "") for node in sorted(darner.agents())
    ]
    assert (space.pods(), api.all("ConfigMap", space.name, "darner.dev/warm")) == ([], [])
    api.merge("Namespace", None, space.name, {"metadata": {"labels": dict.fromkeys(RESTRICTED)}})
    received, sent = _received(darner), space.sent_by_origin(image)
    with darner.without_origin():
        space.create("Deployment", "web", _one_on_each_node(image.name, len(received)))
        pods = space.wait_all_running("web", len(received))
    assert {(pod["spec"]["nodeName"], *container_images(pod)) for pod in pods} == {(node, local(image.name)) for node in received}
    assert (_received(darner), space.sent_by_origin(image)) == (received, sent)
    assert {digest: sent[digest] for digest in image.new_blobs} == image.new_blobs, "all nodes together asked for each blob once"


def test_a_node_that_comes_later_is_warm_before_its_first_pod(
    darner: Release, space: Space, person: Person, cluster: Cluster
) -> None:
    image = space.push(layers=(3_000_000,))
    done = person.types("warm", image.name, "--namespace", space.name, "--keep", "--wait")
    assert done.returncode == ExitCode.FINE, done.stderr
    (row,) = person.sees("list", "warm", "--namespace", space.name)
    nodes = len(darner.agents())
    assert (row["nodes"], row["warm"], row["images"]) == (nodes, nodes, [image.name])
    node = cluster.add("2")
    try:
        wait_until(lambda: person.sees("list", "warm", "--namespace", space.name)[0]["warm"] == nodes + 1, JOIN_SECONDS_MAX)
        wait_until(lambda: node in darner.agents(), JOIN_SECONDS_MAX)
        darner.wait_ready()
        with darner.without_origin():
            assert container_images(space.run("web", image.name, node=node)) == [local(image.name)]
        assert sum(darner.received(node).values()) == 0
    finally:
        cluster.remove(node)
        darner.wait_ready()
    assert person.types("cool", row["name"]).returncode == ExitCode.FINE
    assert person.sees("list", "warm", "--namespace", space.name) == []
    wait_until(lambda: [pod["metadata"]["name"] for pod in space.pods()] == [])


def _received(darner: Release) -> dict[str, dict[str, int]]:
    return {node: darner.received(node) for node in sorted(darner.agents())}


def _one_on_each_node(image: str, replicas: int) -> Object:
    labels = {"app": "web"}
    term = {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    template = {"metadata": {"labels": labels}, "spec": {**pod_spec(image), "affinity": affinity}}
    return {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
