"""What one cluster runs is saved, and runs in a cluster without a registry, by the same names on every node."""

from __future__ import annotations

from cli.errors import ExitCode
from hack.cluster import Cluster
from hack.cluster.api import Api
from hack.lab.process import wait_until
from tests.e2e.person import Person
from tests.e2e.release import NAMESPACE, Release
from tests.e2e.space import Pushed, Space, container_images, local, pod_spec

STORE = "/var/lib/darner"
SPREAD = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}


def test_what_was_saved_and_loaded_runs_on_every_node_where_no_registry_is(
    darner: Release, space: Space, api: Api, cluster: Cluster, person: Person
) -> None:
    image = space.push(layers=(3_000_000, 200_000))
    space.run("before", image.name, node="n1")
    saved = person.types("save", space.name, "-o", "saved.tar")
    assert saved.returncode == ExitCode.FINE, saved.stderr
    api.delete("Pod", space.name, "before")
    space.forget("n1", image)
    with darner.without_origin():
        as_in_a_new_cluster(darner, api, cluster)
        loaded = person.types("load", "saved.tar")
        assert loaded.returncode == ExitCode.FINE, loaded.stderr
        assert loaded.stdout.startswith(f"{image.name} {image.image.digest} ")
        try:
            runs_everywhere(darner, space, image, len(cluster.plan.nodes))
            row = next(row for row in person.sees("list", "images") if row["name"] == image.name)
            assert len(row["loadedInto"]) == 2
        finally:
            assert person.types("unload", image.name).returncode == ExitCode.FINE
    assert image.name not in [row["name"] for row in person.sees("list", "images") if row["loadedInto"]]


def as_in_a_new_cluster(darner: Release, api: Api, cluster: Cluster) -> None:
    """No agent and no supernode has anything in its store."""
    for node in cluster.plan.nodes:
        cluster.run(node, ["sh", "-c", f"rm -rf {STORE}/blobs/sha256/* {STORE}/manifests/* {STORE}/tags/* {STORE}/origins/*"])
    before = {pod["metadata"]["uid"] for component in ("agent", "supernode") for pod in darner.pods(component)}
    for component in ("agent", "supernode"):
        for pod in darner.pods(component):
            api.delete("Pod", NAMESPACE, pod["metadata"]["name"])
    wait_until(
        lambda: not before & {pod["metadata"]["uid"] for component in ("agent", "supernode") for pod in darner.pods(component)},
        60,
    )
    darner.wait_ready()


def runs_everywhere(darner: Release, space: Space, image: Pushed, nodes: int) -> None:
    spec = {**pod_spec(image.name), "topologySpreadConstraints": [{**SPREAD, "labelSelector": {"matchLabels": {"app": "web"}}}]}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": spec}
    space.workload("Deployment", "web", image.name, replicas=nodes, template=template)
    pods = space.wait_all_running("web", nodes)
    assert [container_images(pod) for pod in pods] == [[local(image.name)]] * nodes
    assert len({pod["spec"]["nodeName"] for pod in pods}) == nodes
    assert {darner.received(node)["origin"] for node in darner.agents()} == {0}
