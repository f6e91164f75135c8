"""FAULTS.md, rows 2 to 5: pods of every kind, names of every kind, passes in company, and what is none of our business."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from agent.values.pattern import pattern
from tests.webhook_lab import LOCAL, admitted, applied, container, image_volume, operations, originals, pod, respond, review
from webhook.admission.policy import Policy

DIGEST = "sha256:" + "0123456789abcdef" * 4
SYSTEM = Policy(excluded_namespaces=frozenset({"darner-system", "kube-system"}))


def test_init_sidecar_and_ephemeral_containers_and_image_volumes_are_rewritten_and_everything_else_is_untouched() -> None:
    subject = pod(
        container("app", "nginx", securityContext={"runAsUser": 7}),
        initContainers=[container("init", "busybox"), container("sidecar", "envoy:1", restartPolicy="Always")],
        ephemeralContainers=[container("debug", "quay.io/tools/debug", targetContainerName="app")],
        volumes=[image_volume("v", "ghcr.io/a/v")],
        futureField={"image": "nginx", "deep": [{"image": "nginx"}]},
    )
    expected = copy.deepcopy(subject)
    expected["spec"]["containers"][0]["image"] = LOCAL + "docker.io/library/nginx"
    expected["spec"]["initContainers"][0]["image"] = LOCAL + "docker.io/library/busybox"
    expected["spec"]["initContainers"][1]["image"] = LOCAL + "docker.io/library/envoy:1"
    expected["spec"]["ephemeralContainers"][0]["image"] = LOCAL + "quay.io/tools/debug"
    expected["spec"]["volumes"][0]["image"]["reference"] = LOCAL + "ghcr.io/a/v"
    after = admitted(subject)
    assert set(after["metadata"].pop("annotations")) == {"darner.dev/original-images"}
    assert after["metadata"].pop("labels") == {"darner.dev/rewritten": "true"}
    assert after == expected


def test_an_ephemeral_container_that_a_pod_is_given_is_rewritten_and_those_it_has_are_not() -> None:
    before = pod(container("app", "nginx"), ephemeralContainers=[container("first", "busybox")])
    after = copy.deepcopy(before)
    after["spec"]["ephemeralContainers"].append(container("second", "alpine"))
    request = {"operation": "UPDATE", "subResource": "ephemeralcontainers", "oldObject": before}
    patched = admitted(after, **request)
    assert [item["image"] for item in patched["spec"]["ephemeralContainers"]] == ["busybox", LOCAL + "docker.io/library/alpine"]
    assert patched["spec"]["containers"] == before["spec"]["containers"]
    assert originals(patched) == {"ephemeralContainers": {"second": "alpine"}}
    assert "patch" not in respond(review(patched, **request))


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"containers": []},
        {"containers": None},
        {"containers": "nginx"},
        {"containers": {"image": "nginx"}},
        {"containers": ["nginx", None, 7, ["nginx"]]},
        {
            "containers": [
                {"name": "a"},
                {"name": "b", "image": None},
                {"name": "c", "image": 7},
                {"name": "d", "image": ["nginx"]},
            ]
        },
        {"volumes": [{"name": "a", "image": {}}, {"name": "b", "image": "nginx"}, {"name": "c", "image": {"reference": None}}]},
    ],
)
def test_a_pod_with_no_image_is_admitted_as_it_is(spec: Any) -> None:
    assert "patch" not in respond(review({"kind": "Pod", "metadata": {}, "spec": spec}))
    assert "patch" not in respond(review({"kind": "Pod", "metadata": None, "spec": None}))


@pytest.mark.parametrize(
    ("image", "local"),
    [
        ("nginx", "docker.io/library/nginx"),
        ("a/b", "docker.io/a/b"),
        ("host:5000/a", "host_5000/a"),
        (f"host.io/a@{DIGEST}", f"host.io/a@{DIGEST}"),
        (f"host.io/a:1@{DIGEST}", f"host.io/a:1@{DIGEST}"),
        ("localhost/a", "localhost/a"),
        ("HOST.io/a", "host.io/a"),
        ("HOST/a", "host/a"),
    ],
)
def test_a_name_is_rewritten_as_the_distribution_grammar_reads_it(image: str, local: str) -> None:
    after = admitted(pod(container("a", image)))
    assert after["spec"]["containers"][0]["image"] == LOCAL + local
    assert originals(after) == {"containers": {"a": image}}


@pytest.mark.parametrize(
    "image",
    [
        "",
        "[fd00::1]:5000/a",
        "[::1]/a",
        "nginx:ünïcode",
        "ｎginx",
        "a" * 300,
        "host.io/" + "a" * 240,
        "no name",
        "Nginx",
        f"a@{DIGEST[:-1]}",
    ],
)
def test_what_cannot_be_expressed_is_left_alone_with_a_warning(image: str) -> None:
    subject = pod(container("good", "nginx"), container("bad", image))
    response = respond(review(subject))
    after = applied(subject, response)
    assert [item["image"] for item in after["spec"]["containers"]] == [LOCAL + "docker.io/library/nginx", image]
    assert len(response["warnings"]) == 1
    assert response["warnings"][0].startswith("darner: containers/bad: its image is left as it is: ")
    alone = respond(review(pod(container("bad", image))))
    assert "patch" not in alone
    assert alone["warnings"] == response["warnings"]


def test_a_second_pass_changes_nothing() -> None:
    once = admitted(pod(container("a", "nginx"), container("b", "no name"), volumes=[image_volume("v", "ghcr.io/a/v")]))
    assert "patch" not in respond(review(once))


def test_a_sidecar_that_another_webhook_adds_between_is_all_that_the_second_pass_changes() -> None:
    once = admitted(pod(container("a", "nginx")))
    with_sidecar = copy.deepcopy(once)
    # Istio puts its container first, so every index of the first pass has moved.
    with_sidecar["spec"]["containers"].insert(0, container("proxy", "istio/proxyv2:1.29"))
    response = respond(review(with_sidecar))
    twice = applied(with_sidecar, response)
    changed = {operation["path"] for operation in operations(response)}
    assert changed == {"/spec/containers/0/image", "/metadata/annotations/darner.dev~1original-images"}
    assert originals(twice) == {"containers": {"a": "nginx", "proxy": "istio/proxyv2:1.29"}}
    assert "patch" not in respond(review(twice))


def test_an_image_that_another_webhook_replaces_between_is_rewritten_anew() -> None:
    once = admitted(pod(container("a", "nginx")))
    once["spec"]["containers"][0]["image"] = "mirror.example.com/nginx"
    twice = admitted(once)
    assert twice["spec"]["containers"][0]["image"] == LOCAL + "mirror.example.com/nginx"
    assert originals(twice) == {"containers": {"a": "mirror.example.com/nginx"}}


def plain(metadata: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return pod(container("a", "nginx"), metadata=metadata, **spec)


@pytest.mark.parametrize(
    ("subject", "request_fields"),
    [
        pytest.param(plain(), {"dryRun": True}, id="a dry run"),
        pytest.param(plain(), {"operation": "UPDATE", "oldObject": plain()}, id="an UPDATE"),
        pytest.param(None, {"operation": "DELETE", "oldObject": plain()}, id="a DELETE"),
        pytest.param(None, {"operation": "CONNECT", "subResource": "exec"}, id="a CONNECT"),
        pytest.param(plain(), {"operation": "UPDATE", "subResource": "status"}, id="a status"),
        pytest.param(plain(), {"operation": "CREATE", "subResource": "binding"}, id="a binding"),
        pytest.param(plain({"annotations": {"kubernetes.io/config.mirror": "8f3a"}}), {}, id="a mirror pod"),
        pytest.param(plain({"labels": {"darner.dev/inject": "disabled"}}), {}, id="an opt-out by label"),
        pytest.param(plain({"annotations": {"darner.dev/inject": "disabled"}}), {}, id="an opt-out by annotation"),
        pytest.param(plain(), {"namespace": "kube-system"}, id="an excluded namespace"),
        pytest.param(plain(), {"namespace": "darner-system"}, id="the own namespace"),
        pytest.param(pod(container("a", "nginx", imagePullPolicy="Never")), {}, id="Never"),
        pytest.param(pod(volumes=[image_volume("a", "nginx", pullPolicy="Never")]), {}, id="a volume that is Never pulled"),
        pytest.param(plain(os={"name": "windows"}), {}, id="a Windows pod"),
        pytest.param(plain(nodeSelector={"kubernetes.io/os": "windows"}), {}, id="a pod for Windows nodes"),
        pytest.param(admitted(pod(container("a", LOCAL + "docker.io/library/nginx"))), {}, id="a local name that is noted"),
        pytest.param(pod(container("a", LOCAL + "x/y", imagePullPolicy="Never")), {}, id="a local name that is Never pulled"),
        pytest.param(
            plain({"labels": {"darner.dev/inject": "disabled"}}, ephemeralContainers=[container("debug", "busybox")]),
            {"operation": "UPDATE", "subResource": "ephemeralcontainers", "oldObject": plain()},
            id="a debug container of a pod that opted out",
        ),
    ],
)
def test_what_is_none_of_our_business_is_admitted_without_a_patch_or_a_warning(
    subject: Any, request_fields: dict[str, Any]
) -> None:
    response = respond(review(subject, **request_fields), SYSTEM)
    assert "patch" not in response
    assert "warnings" not in response


def test_images_of_an_excluded_registry_are_admitted_without_a_patch() -> None:
    policy = Policy(exclude=(pattern("docker.io"),))
    assert "patch" not in respond(review(plain()), policy)
    assert operations(respond(review(pod(container("a", "quay.io/a/b"))), policy))


def test_opting_in_is_not_opting_out() -> None:
    assert operations(respond(review(plain({"labels": {"darner.dev/inject": "enabled"}}))))
    assert operations(respond(review(plain(os={"name": "linux"}))))
    assert operations(respond(review(plain(), namespace="kube-systems"), SYSTEM))
