"""FAULTS.md, row 1: bodies that are no question, sent over HTTPS to a running webhook."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from tests.webhook_lab import RunningWebhook, container, operations, pod, review
from webhook.admission.http import BODY_BYTES_MAX, BODY_SECONDS_MAX


@pytest.fixture(scope="module")
def webhook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWebhook]:
    with RunningWebhook(tmp_path_factory.mktemp("webhook"), "--log-level", "debug") as running:
        yield running


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not JSON", id="not JSON"),
        pytest.param(b"\xff\xfe\x00", id="not text"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="an empty object"),
        pytest.param(b'{"kind": "Pod", "apiVersion": "v1"}', id="a pod"),
        pytest.param(b'{"kind": "AdmissionReview", "apiVersion": "handler.k8s.io/v1"}', id="no request"),
        pytest.param(b'{"kind": "AdmissionReview", "apiVersion": "handler.k8s.io/v1", "request": []}', id="a list as request"),
        pytest.param(b'{"kind": "AdmissionReview", "apiVersion": "handler.k8s.io/v1", "request": {"uid": 7}}', id="no uid"),
        pytest.param(json.dumps(review({}) | {"apiVersion": "handler.k8s.io/v1beta1"}).encode(), id="an old version"),
        pytest.param(b"[" * 1_000_000, id="a million brackets"),
        pytest.param(b"9" * 100_000, id="a huge number"),
        pytest.param(b" " * (BODY_BYTES_MAX + 1), id="a byte more than 3 MiB"),
        pytest.param(b"x" * (10 << 20), id="10 MiB"),
    ],
)
def test_a_body_that_is_no_question_is_a_bad_request_and_never_an_internal_error(webhook: RunningWebhook, body: bytes) -> None:
    status, answered = webhook.post(body)
    assert status == 400
    assert answered["error"]
    assert webhook.ask(review(pod(container("a", "nginx"))))["patch"]


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        pytest.param("Deployment", {"kind": "Deployment", "spec": {"template": {"spec": {"containers": []}}}}, id="another kind"),
        pytest.param("Pod", None, id="no object"),
        pytest.param("Pod", [], id="a list as object"),
        pytest.param("", "nginx", id="a text as object"),
    ],
)
def test_a_question_about_something_else_is_admitted_with_a_warning(webhook: RunningWebhook, kind: str, subject: object) -> None:
    response = webhook.ask(review(subject, kind={"group": "", "version": "v1", "kind": kind}))
    assert "patch" not in response
    assert response["warnings"][0].startswith("darner: ")


def test_a_pod_of_nearly_3_mib_is_rewritten(webhook: RunningWebhook) -> None:
    large = pod(container("a", "nginx", env=[{"name": "BIG", "value": "x" * (BODY_BYTES_MAX - 4096)}]))
    assert operations(webhook.ask(review(large)))[0]["value"] == "nginx"


def test_a_text_that_no_utf8_can_hold_is_answered_all_the_same(webhook: RunningWebhook) -> None:
    response = webhook.ask(review(pod(container("\ud800", "nginx"), container("b", "\udfff")), uid="\ud800"))
    assert len(operations(response)) == 4
    assert "is not a repository" in response["warnings"][0]


def test_a_body_that_does_not_arrive_is_given_up_in_time(webhook: RunningWebhook) -> None:
    connection = http.client.HTTPSConnection(webhook.address, timeout=BODY_SECONDS_MAX + 10, context=webhook.context())
    try:
        connection.putrequest("POST", "/mutate")
        connection.putheader("Content-Length", "1000")
        connection.endheaders()
        connection.send(b"{")
        response = connection.getresponse()
        assert response.status == 400
        assert "did not arrive" in json.loads(response.read())["error"]
    finally:
        connection.close()


def test_a_client_that_leaves_in_the_middle_disturbs_nobody(webhook: RunningWebhook) -> None:
    for sent in (b"", b"POST /mutate HT", b"POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{"):
        host, port = webhook.address.rsplit(":", 1)
        with (
            socket.create_connection((host, int(port))) as plain,
            webhook.context().wrap_socket(plain, server_hostname=host) as tls,
        ):
            tls.sendall(sent)
    assert webhook.ask(review(pod(container("a", "nginx"))))["patch"]
    assert "Traceback" not in webhook.process.err.read_text()


def test_another_path_or_method_is_refused(webhook: RunningWebhook) -> None:
    assert webhook.post(b"{}", "/validate")[0] == 404
    assert webhook.post(b"{}", "/mutate/")[0] in (307, 404)
    connection = http.client.HTTPSConnection(webhook.address, timeout=20, context=webhook.context())
    try:
        connection.request("GET", "/mutate")
        assert connection.getresponse().status == 405
    finally:
        connection.close()


def test_an_internal_error_admits_the_pod_unchanged_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    from webhook.admission import handler, http
    from webhook.admission.policy import Policy

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(handler, "decide", broken)
    document = review(pod(container("a", "nginx")))
    response = asyncio.run(http._answer(json.dumps(document).encode(), handler.Judge(Policy())))["response"]
    assert response["uid"] == document["request"]["uid"]
    assert response["allowed"] is True
    assert "patch" not in response
    assert response["warnings"] == ["darner: an internal error; the images are left as they are"]
