"""Which image names are rewritten, and what the pod remembers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from agent.values.pattern import pattern
from tests.webhook_lab import LOCAL, admitted, applied, container, image_volume, originals, pod, respond, review
from webhook.admission.policy import Policy
from webhook.admission.rewrite import rewrite_pod
from webhook.gates import LeftAlone, Reason, Rewrite
from webhook.pods import DECISION, ORIGINAL_IMAGES, RELEASE, REWRITTEN, Pod

DIGEST = "sha256:" + "0123456789abcdef" * 4


def full_pod() -> dict[str, Any]:
    """Three containers, two init containers (one of them a native sidecar) and an image volume, among much else."""
    return pod(
        container("web", "nginx:1.27", ports=[{"containerPort": 80}], resources={"limits": {"memory": "1Gi"}}),
        container("api", f"reg.example.com:5000/shop/api@{DIGEST}", env=[{"name": "IMAGE", "value": "nginx:1.27"}]),
        container("jobs", f"Quay.io/shop/jobs:v2@{DIGEST}", imagePullPolicy="Always"),
        metadata={"labels": {"app": "shop"}, "annotations": {"team": "web"}, "unknown": {"kept": [1, None, 2.5]}},
        initContainers=[container("migrate", "shop/migrate"), container("proxy", "localhost/proxy:1", restartPolicy="Always")],
        volumes=[
            {"name": "data", "emptyDir": {}},
            image_volume("model", "ghcr.io/shop/model:7", pullPolicy="IfNotPresent"),
            {"name": "image", "configMap": {"name": "image"}},
        ],
        nodeSelector={"kubernetes.io/os": "linux"},
        unknownField={"image": "nginx"},
    )


def test_three_containers_two_init_containers_and_an_image_volume_come_back_rewritten_exactly() -> None:
    before = full_pod()
    expected = copy.deepcopy(before)
    spec = expected["spec"]
    spec["containers"][0]["image"] = LOCAL + "docker.io/library/nginx:1.27"
    spec["containers"][1]["image"] = LOCAL + f"reg.example.com_5000/shop/api@{DIGEST}"
    spec["containers"][2]["image"] = LOCAL + f"quay.io/shop/jobs:v2@{DIGEST}"
    spec["initContainers"][0]["image"] = LOCAL + "docker.io/shop/migrate"
    spec["initContainers"][1]["image"] = LOCAL + "localhost/proxy:1"
    spec["volumes"][1]["image"]["reference"] = LOCAL + "ghcr.io/shop/model:7"
    after = admitted(before)
    assert after["metadata"]["labels"].pop(REWRITTEN) == "true"
    assert json.loads(after["metadata"]["annotations"].pop(ORIGINAL_IMAGES)) == {
        "containers": {
            "web": "nginx:1.27",
            "api": f"reg.example.com:5000/shop/api@{DIGEST}",
            "jobs": f"Quay.io/shop/jobs:v2@{DIGEST}",
        },
        "initContainers": {"migrate": "shop/migrate", "proxy": "localhost/proxy:1"},
        "volumes": {"model": "ghcr.io/shop/model:7"},
    }
    assert after == expected
    assert before == full_pod()


def test_a_second_pass_changes_nothing() -> None:
    once = admitted(full_pod())
    response = respond(review(once))
    assert "patch" not in response
    assert applied(once, response) == once


def test_a_pod_without_metadata_annotations_or_images_in_part_is_rewritten_where_it_has_some() -> None:
    bare = {"spec": {"containers": [{"name": "a", "image": "nginx"}, {"name": "b"}, {"image": "redis"}]}}
    after = applied(bare, respond(review(bare)))
    assert [item.get("image") for item in after["spec"]["containers"]] == [
        LOCAL + "docker.io/library/nginx",
        None,
        LOCAL + "docker.io/library/redis",
    ]
    assert originals(after) == {"containers": {"a": "nginx", "": "redis"}}


def test_a_decision_says_in_words_why_a_container_was_not_rewritten() -> None:
    mixed = pod(
        container("a", "nginx"),
        container("b", "redis", imagePullPolicy="Never"),
        container("c", "no name"),
        container("d", LOCAL + "quay.io/a/b"),
        container("e", "private.example.com/e"),
        {"name": "f"},
        volumes=[image_volume("g", "quay.io/g/g", pullPolicy="Never")],
    )
    after = admitted(mixed, Policy(exclude=(pattern("private.example.com"),)))
    decision = after["metadata"]["annotations"][DECISION]
    said = dict(part.split(": ", 1) for part in decision.split("; ") if ": " in part)
    assert said["containers/b"].startswith("its image is never pulled")
    assert "is not a repository" in said["containers/c"]
    assert said["containers/d"] == "its image is already named at the node's agent"
    assert said["containers/e"] == "private.example.com/e is excluded"
    assert said["containers/f"] == "it names no image"
    assert said["volumes/g"].startswith("its image is never pulled")
    assert "containers/a" not in said
    assert originals(after) == {"containers": {"a": "nginx", "d": "quay.io/a/b"}}
    assert "patch" not in respond(review(after), Policy(exclude=(pattern("private.example.com"),)))


def test_an_annotation_that_somebody_copied_along_is_replaced_by_the_truth() -> None:
    copied = pod(
        container("a", "nginx"),
        container("b", LOCAL + "docker.io/library/redis"),
        metadata={
            "annotations": {
                ORIGINAL_IMAGES: json.dumps({"containers": {"a": "other", "b": "evil", "gone": "x"}}),
                DECISION: "old words",
            }
        },
    )
    after = admitted(copied)
    assert originals(after) == {"containers": {"a": "nginx", "b": "docker.io/library/redis"}}
    assert after["metadata"]["annotations"][DECISION] == "containers/b: its image is already named at the node's agent"


def copy_of_a_rewritten_pod(**metadata: Any) -> dict[str, Any]:
    return pod(
        container("debugger", LOCAL + "reg.example.com_5000/shop/app:1"),
        metadata=metadata,
        initContainers=[container("init", LOCAL + "docker.io/library/busybox")],
        volumes=[image_volume("model", LOCAL + "ghcr.io/shop/model:7")],
    )


NAMED = {
    "containers": {"debugger": "reg.example.com:5000/shop/app:1"},
    "initContainers": {"init": "docker.io/library/busybox"},
    "volumes": {"model": "ghcr.io/shop/model:7"},
}


@pytest.mark.parametrize(
    "noted", [{}, {ORIGINAL_IMAGES: '{"containers": {"app": "reg.example.com:5000/shop/app:1"}}', DECISION: "pod: old words"}]
)
def test_a_pod_made_from_another_pod_is_noted_and_labelled_from_its_local_names(noted: dict[str, str]) -> None:
    """FAULTS 72: `kubectl debug --copy-to`, a restored backup, a controller that copies a spec."""
    before = copy_of_a_rewritten_pod(annotations=noted)
    after = admitted(before, Policy(release="one"))
    assert after["spec"] == before["spec"]
    assert originals(after) == NAMED
    assert after["metadata"]["labels"] == {REWRITTEN: "true", RELEASE: "one"}
    assert "already named at the node's agent" in after["metadata"]["annotations"][DECISION]
    assert "patch" not in respond(review(after), Policy(release="one"))


def test_a_copy_that_has_kept_its_annotations_gets_the_label_back_and_its_authors_words_stay() -> None:
    """FAULTS 72: `kubectl debug --copy-to` drops labels, and keeps annotations on request."""
    before = admitted(pod(container("a", "nginx")))
    del before["metadata"]["labels"]
    after = admitted(before)
    assert originals(after) == {"containers": {"a": "nginx"}}
    assert after["metadata"]["labels"] == {REWRITTEN: "true"}


@pytest.mark.parametrize("metadata", [{"labels": {"darner.dev/inject": "disabled"}}, {"namespace": "kube-system"}])
def test_local_names_are_noted_also_where_nothing_would_be_rewritten(metadata: dict[str, Any]) -> None:
    """FAULTS 72: who opts out does not ask for a pod that waits for ever."""
    before = copy_of_a_rewritten_pod(**metadata)
    before["spec"]["containers"].append(container("new", "nginx"))
    after = admitted(before, Policy(excluded_namespaces=frozenset({"kube-system"})), namespace=metadata.get("namespace", "shop"))
    assert after["spec"] == before["spec"]
    assert originals(after) == NAMED
    assert after["metadata"]["labels"][REWRITTEN] == "true"


@pytest.mark.parametrize(
    "image", ["docker.io/nginx", "nginx", "Reg.example.com/a/b", "docker.io/library/nginx@sha512:" + "0" * 128, "a b"]
)
def test_a_local_name_that_the_webhook_would_not_have_written_is_left_alone(image: str) -> None:
    subject = pod(container("a", LOCAL + image))
    assert admitted(subject) == subject


def test_a_mirror_pod_with_a_local_name_is_not_touched() -> None:
    subject = copy_of_a_rewritten_pod(annotations={"kubernetes.io/config.mirror": "x"})
    assert admitted(subject) == subject


@pytest.mark.parametrize("noted", ["", "not json", "[]", "null", '{"containers": 7}', '{"containers": {"a": 7}}', "[" * 100_000])
def test_an_annotation_that_is_not_ours_is_no_obstacle(noted: str) -> None:
    after = admitted(pod(container("a", "nginx"), metadata={"annotations": {ORIGINAL_IMAGES: noted}}))
    assert originals(after) == {"containers": {"a": "nginx"}}


def test_a_stale_decision_is_removed_with_the_next_rewrite() -> None:
    after = admitted(pod(container("a", "nginx"), metadata={"annotations": {DECISION: "old words", "team": "web"}}))
    assert set(after["metadata"]["annotations"]) == {ORIGINAL_IMAGES, "team"}


def test_a_pod_whose_annotations_have_no_room_is_left_alone() -> None:
    full = pod(container("a", "nginx"), metadata={"annotations": {"big": "x" * (256 * 1024 - 20)}})
    response = respond(review(full))
    assert "patch" not in response
    assert "no room" in response["warnings"][0]


@pytest.mark.parametrize(
    ("include", "exclude", "rewritten"),
    [
        ("", "", {"nginx", "quay.io/team/app", "reg.example.com:5000/a"}),
        ("docker.io", "", {"nginx"}),
        ("*.example.com*", "", {"reg.example.com:5000/a"}),
        ("quay.io/team/*,docker.io/library/*", "", {"nginx", "quay.io/team/app"}),
        ("", "Quay.io", {"nginx", "reg.example.com:5000/a"}),
        ("", "reg.example.com:5000", {"nginx", "quay.io/team/app"}),
        ("", "reg.example.com", {"nginx", "quay.io/team/app", "reg.example.com:5000/a"}),
        ("", "*/app,docker.io/library/nginx", {"reg.example.com:5000/a"}),
        ("quay.io", "quay.io/team/*", set()),
    ],
)
def test_images_are_included_and_excluded_by_registry_or_pattern(include: str, exclude: str, rewritten: set[str]) -> None:
    images = ("nginx", "quay.io/team/app", "reg.example.com:5000/a")
    patterns = [tuple(pattern(item) for item in text.split(",") if item) for text in (include, exclude)]
    subject = pod(*(container(f"c{index}", image) for index, image in enumerate(images)))
    outcome = rewrite_pod(subject, "shop", Policy(include=patterns[0], exclude=patterns[1]))
    assert {item.original for item in outcome.rewrites} == rewritten
    assert {left.reason for left in outcome.left} <= {Reason.EXCLUDED_IMAGE}


def test_containers_with_names_that_no_api_server_accepts_are_shown_harmlessly() -> None:
    outcome = rewrite_pod(pod(container("a\r\nb\x1b[31m", "no name")), "shop", Policy())
    assert outcome.decision.isprintable()


def refuse_redis(namespace: str, subject: Pod, rewrites: Sequence[Rewrite]) -> Iterator[LeftAlone]:
    assert (namespace, subject["kind"]) == ("shop", "Pod")
    yield from (LeftAlone(item.place.where, Reason.AGENTS_UNKNOWN, "not redis") for item in rewrites if item.original == "redis")


def refuse_all(namespace: str, subject: Pod, rewrites: Sequence[Rewrite]) -> Iterator[LeftAlone]:
    yield LeftAlone("pod", Reason.AGENT_NOT_READY, f"not now, none of {len(rewrites)}")


def test_what_a_gate_refuses_stays_and_the_rest_is_rewritten() -> None:
    after = admitted(pod(container("a", "nginx"), container("b", "redis")), gates=(refuse_redis,))
    assert [item["image"] for item in after["spec"]["containers"]] == [LOCAL + "docker.io/library/nginx", "redis"]
    assert after["metadata"]["annotations"][DECISION] == "containers/b: not redis"
    assert after["metadata"]["labels"] == {REWRITTEN: "true"}
    assert originals(after) == {"containers": {"a": "nginx"}}


def test_a_pod_that_was_to_be_rewritten_and_could_not_be_says_why_and_is_otherwise_unchanged() -> None:
    subject = pod(container("a", "nginx"), container("b", "redis"))
    after = admitted(subject, gates=(refuse_redis, refuse_all, refuse_redis))
    assert after["metadata"].pop("annotations") == {DECISION: "containers/b: not redis; pod: not now, none of 1"}
    assert after == subject


def test_gates_are_not_asked_about_a_pod_of_which_nothing_would_be_rewritten() -> None:
    subject = pod(container("a", "redis", imagePullPolicy="Never"))
    assert admitted(subject, gates=(refuse_all,)) == subject


def test_a_pod_that_is_refused_twice_is_annotated_once_and_rewritten_when_the_gate_opens() -> None:
    subject = pod(container("a", "nginx"))
    once = admitted(subject, gates=(refuse_all,))
    assert "patch" not in respond(review(once), gates=(refuse_all,))
    after = admitted(once)
    assert DECISION not in after["metadata"]["annotations"]
    assert originals(after) == {"containers": {"a": "nginx"}}


def test_a_refused_ephemeral_container_stays_without_a_word_on_the_running_pod() -> None:
    before = admitted(pod(container("a", "nginx")))
    given = copy.deepcopy(before)
    given["spec"]["ephemeralContainers"] = [container("debug", "busybox")]
    update = review(given, operation="UPDATE", subResource="ephemeralcontainers", oldObject=before)
    response = respond(update, gates=(refuse_all,))
    assert "patch" not in response
    assert response["auditAnnotations"]["decision"] == "pod: not now, none of 1"
