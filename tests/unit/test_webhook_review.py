"""The form of an answer to the API server."""

from __future__ import annotations

import json

from tests.webhook_lab import LOCAL, container, operations, pod, respond, review
from webhook.review import WARNING_LENGTH_MAX, WARNINGS_MAX
from webhook.rewrite import ORIGINAL_IMAGES


def test_an_answer_has_a_patch_type_only_with_a_patch() -> None:
    rewritten = respond(review(pod(container("a", "nginx"))))
    assert set(rewritten) == {"uid", "allowed", "patchType", "patch"}
    assert rewritten["patchType"] == "JSONPatch"
    assert set(respond(review(pod(container("a", LOCAL + "docker.io/library/nginx"))))) == {"uid", "allowed", "auditAnnotations"}
    assert set(respond(review(pod(container("a", "nginx")), operation="DELETE"))) == {"uid", "allowed"}


def test_every_replacement_is_tested_first() -> None:
    stale = json.dumps({"containers": {"a": "other"}})
    subject = pod(container("a", "nginx"), container("b", "redis"), metadata={"annotations": {ORIGINAL_IMAGES: stale}})
    patch = operations(respond(review(subject)))
    assert [operation["op"] for operation in patch] == ["test", "replace"] * 3
    for test, replace in zip(patch[::2], patch[1::2], strict=True):
        assert test["path"] == replace["path"]
    assert patch[0] == {"op": "test", "path": "/spec/containers/0/image", "value": "nginx"}
    assert patch[4]["path"] == "/metadata/annotations/darner.dev~1original-images"


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
