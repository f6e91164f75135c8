"""The form of an answer to the API server."""

from __future__ import annotations

import json

from tests.webhook_lab import LOCAL, admitted, container, operations, pod, respond, review
from webhook.admission.review import WARNING_LENGTH_MAX, WARNINGS_MAX, patch, read
from webhook.admission.rewrite import Verdict
from webhook.pods import ORIGINAL_IMAGES


def test_an_answer_has_a_patch_type_only_with_a_patch() -> None:
    rewritten = respond(review(pod(container("a", "nginx"))))
    assert set(rewritten) == {"uid", "allowed", "patchType", "patch"}
    assert rewritten["patchType"] == "JSONPatch"
    noted = admitted(pod(container("a", LOCAL + "docker.io/library/nginx")))
    assert set(respond(review(noted))) == {"uid", "allowed"}
    never = pod(container("a", "nginx", imagePullPolicy="Never"))
    assert set(respond(review(never))) == {"uid", "allowed", "auditAnnotations"}
    assert set(respond(review(pod(container("a", "nginx")), operation="DELETE"))) == {"uid", "allowed"}


def test_every_replacement_is_tested_first() -> None:
    stale = json.dumps({"containers": {"a": "other"}})
    subject = pod(container("a", "nginx"), container("b", "redis"), metadata={"annotations": {ORIGINAL_IMAGES: stale}})
    replaced = operations(respond(review(subject)))
    assert [operation["op"] for operation in replaced] == [*["test", "replace"] * 3, "add"]
    for test, replace in zip(replaced[:-1:2], replaced[1::2], strict=True):
        assert test["path"] == replace["path"]
    assert replaced[0] == {"op": "test", "path": "/spec/containers/0/image", "value": "nginx"}
    assert replaced[4]["path"] == "/metadata/annotations/darner.dev~1original-images"


def test_what_is_left_alone_is_told_to_the_audit_log() -> None:
    response = respond(review(pod(container("a", "nginx", imagePullPolicy="Never"))))
    assert response["auditAnnotations"]["decision"].startswith("containers/a: its image is never pulled")
    assert "warnings" not in response


def test_warnings_are_few_and_short() -> None:
    subject = pod(*(container(f"c{index}", "no name " + "x" * 1000) for index in range(50)))
    warnings = respond(review(subject))["warnings"]
    assert len(warnings) == WARNINGS_MAX + 1
    assert all(len(warning) <= WARNING_LENGTH_MAX for warning in warnings)
    assert warnings[-1] == f"darner: {50 - WARNINGS_MAX} more like these"


def test_pull_secrets_are_appended_once_and_those_that_are_there_stay() -> None:
    subject = pod(container("a", "nginx"), imagePullSecrets=[{"name": "registry"}, {"name": "darner-there"}])
    verdict = Verdict(pull_secrets=("darner-registry", "darner-there"))
    admission = read(json.dumps(review(subject)).encode())
    assert patch(admission.pod, verdict) == [
        {"op": "add", "path": "/spec/imagePullSecrets/-", "value": {"name": "darner-registry"}}
    ]


def test_a_pod_without_metadata_is_given_one() -> None:
    subject = pod(container("a", "nginx"))
    del subject["metadata"]
    after = admitted(subject)
    assert set(after["metadata"]) == {"annotations", "labels"}
