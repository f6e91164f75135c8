"""Which pods run with rewritten images, and which are left as they are."""

from __future__ import annotations

import json

import pytest

from hack.cluster import Cluster
from hack.cluster.api import Api, Object
from hack.origin.image import size_of
from tests.e2e.release import NAMESPACE, Release
from tests.e2e.space import INJECT, LOCAL, ORIGINALS, Space, container_images, local, notes, pod_spec

UPLOADED = "darner_uploaded_bytes_total"


def test_a_bare_pod_runs_with_a_rewritten_image(darner: Release, space: Space) -> None:
    image = space.push()
    pod = space.run("web", image.name)
    assert container_images(pod) == [local(image.name)]
    assert json.loads(notes(pod)[ORIGINALS]) == {"containers": {"c0": image.name}}


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet", "Job"])
def test_pods_of_a_workload_run_with_rewritten_images_and_the_workload_keeps_its_own(
    darner: Release, space: Space, kind: str
) -> None:
    image = space.push()
    number = {"Deployment": 2, "DaemonSet": 3, "Job": 1}[kind]
    workload: Object
    if kind == "Job":
        spec = {**pod_spec(image.name), "restartPolicy": "Never"}
        workload = space.create(kind, "web", {"template": {"metadata": {"labels": {"app": "web"}}, "spec": spec}})
    else:
        workload = space.workload(kind, "web", image.name, **({"replicas": 2} if kind == "Deployment" else {}))
    pods = space.wait_all_running("web", number)
    assert [container_images(pod) for pod in pods] == [[local(image.name)]] * number
    assert workload["spec"]["template"]["spec"]["containers"][0]["image"] == image.name


def test_in_an_unlabelled_namespace_nothing_is_touched(darner: Release, plain_space: Space) -> None:
    image = plain_space.push()
    pod = plain_space.run("web", image.name)
    assert container_images(pod) == [image.name]
    assert notes(pod) == {}


@pytest.mark.parametrize("where", ["labels", "annotations"])
def test_a_pod_that_opts_out_is_not_touched(darner: Release, space: Space, where: str) -> None:
    image = space.push()
    pod = space.create("Pod", "web", pod_spec(image.name), **{where: {INJECT: "disabled"}})
    assert container_images(pod) == [image.name]
    assert container_images(space.wait_running("web")) == [image.name]


def test_the_releases_own_namespace_is_not_touched_even_with_the_label(darner: Release, api: Api) -> None:
    namespace = api.merge("Namespace", None, NAMESPACE, {"metadata": {"labels": {INJECT: "enabled"}}})
    try:
        assert namespace["metadata"]["labels"][INJECT] == "enabled"
        spec = {**pod_spec("nginx"), "schedulingGates": [{"name": "darner.test/never"}]}
        pod = api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": NAMESPACE}, "spec": spec})
        api.delete("Pod", NAMESPACE, "web")
        assert container_images(pod) == ["nginx"]
    finally:
        api.merge("Namespace", None, NAMESPACE, {"metadata": {"labels": {INJECT: None}}})


def test_init_containers_and_a_sidecar_are_pulled_through_the_agent(darner: Release, space: Space) -> None:
    first, sidecar, main = space.push("first"), space.push("sidecar"), space.push("main")
    spec = pod_spec(main.name)
    spec["initContainers"] = [
        {"name": "first", "image": first.name, "command": ["/bin/true"]},
        {"name": "sidecar", "image": sidecar.name, "restartPolicy": "Always"},
    ]
    space.create("Pod", "web", {**spec, "nodeName": "n0"})
    pod = space.wait_running("web")
    images = [container["image"] for container in pod["spec"]["initContainers"] + pod["spec"]["containers"]]
    assert images == [local(first.name), local(sidecar.name), local(main.name)]
    pulled = [event["message"] for event in space.events("web") if event["reason"] == "Pulled"]
    assert [any(f'"{image}"' in message for message in pulled) for image in images] == [True, True, True]


def test_an_ephemeral_container_is_pulled_through_the_agent(darner: Release, space: Space, cluster: Cluster) -> None:
    main, tools = space.push(), space.push("tools")
    space.run("web", main.name, node="n1")
    cluster.kubectl(
        "debug", "--namespace", space.name, "pod/web", "--image", tools.name, "--container", "debug", "--profile=general"
    )

    def runs(pod: Object) -> bool:
        return any("running" in status["state"] for status in pod["status"].get("ephemeralContainerStatuses", []))

    pod = space.wait_for("web", runs)
    assert [container["image"] for container in pod["spec"]["ephemeralContainers"]] == [local(tools.name)]


def test_an_image_volume_is_pulled_through_the_agent(darner: Release, space: Space, api: Api) -> None:
    main, data = space.push(), space.push("data")
    # A volume's image cannot be put back, so it is rewritten where its registry is known to work. containerd 1.6 has no volumes.
    space.run("first", main.name, node="n1")
    spec = pod_spec(main.name)
    spec["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    spec["volumes"] = [{"name": "data", "image": {"reference": data.name}}]
    space.create("Pod", "web", {**spec, "nodeName": "n1"})
    pod = space.wait_running("web")
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["data"]["image"]["reference"] == local(data.name)
    listed = space.cluster.kubectl("exec", "--namespace", space.name, "web", "--", "ls", "/data")
    assert "random-0" in listed


def test_a_daemon_set_costs_the_origin_one_image_and_the_nodes_feed_each_other(darner: Release, space: Space) -> None:
    image = space.push(layers=(6_000_000, 3_000_000))
    assert len(image.image.layers) == 3
    before = {node: darner.received(node) for node in darner.agents()}
    sent_before = {part: darner.metric(part, UPLOADED) for part in ("agent", "supernode")}
    space.workload("DaemonSet", "web", image.name)
    pods = space.wait_all_running("web", 3)
    assert {container_images(pod)[0] for pod in pods} == {local(image.name)}
    by_origin = space.sent_by_origin(image)
    assert {digest: by_origin[digest] for digest in image.new_blobs} == image.new_blobs
    assert set(by_origin.values()) <= {size_of(content) for content in image.image.blobs.values()}, "nor was anything sent twice"
    after = {node: darner.received(node) for node in before}
    fed = {node: {source: after[node][source] - before[node][source] for source in after[node]} for node in after}
    assert {node: sum(sources.values()) for node, sources in fed.items()} == dict.fromkeys(fed, sum(image.new_blobs.values()))
    from_origin = sum(sources["origin"] for sources in fed.values())
    assert from_origin == sum(image.new_blobs.values()), "nodes get each byte from the origin once, for all of them"
    received = {source: sum(sources[source] for sources in fed.values()) for source in ("peer", "supernode")}
    assert received["peer"] > 0
    sent = {part: darner.metric(part, UPLOADED) - sent_before[part] for part in sent_before}
    assert sent["agent"] >= received["peer"], "what nodes had from each other they sent each other"
    assert sent["supernode"] >= received["supernode"]


def test_no_rewritten_name_is_ever_asked_for_outside_its_node(darner: Release, space: Space) -> None:
    """The literal loopback address: nothing that a name server or another machine could answer."""
    image = space.push()
    assert container_images(space.pod("web", image.plain))[0].startswith(LOCAL)
    assert container_images(space.wait_running("web")) == [local(image.plain)]
