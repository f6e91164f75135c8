"""The registry endpoint as runtimes use it: who may have what, what is asked of the origin, and what is counted."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import metrics
from hack.origin import Access, Fault, Origin
from tests.endpoint import DIGEST, IMAGE, LAYER, Endpoint, push, wait_until

ALICE = "Basic " + base64.b64encode(b"alice:s3cret").decode()
MALLORY = "Basic " + base64.b64encode(b"mallory:guess").decode()
BLOB = f"blobs/{DIGEST}"


@pytest.fixture(params=["basic", "bearer"])
def private(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Endpoint]:
    """Before an origin that shows its image to alice alone."""
    access = Access({"alice": "s3cret"}, private=frozenset({"team/app"}), bearer=request.param == "bearer")
    with Origin(access=access) as origin, Endpoint(tmp_path / "store", origin) as endpoint:
        push(origin)
        yield endpoint


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    with Origin() as origin, Endpoint(tmp_path / "store", origin) as endpoint:
        push(origin)
        yield endpoint


def received(source: str) -> float:
    value: float = metrics.RECEIVED_BYTES.labels(source)._value.get()
    return value


def test_a_pull_by_tag_is_three_questions_and_the_next_one_is_none(endpoint: Endpoint) -> None:
    config = next(digest for digest in IMAGE.blobs if digest != DIGEST)
    for _ in range(2):
        assert endpoint.ask("manifests/1", "HEAD").headers["Docker-Content-Digest"] == IMAGE.digest
        assert endpoint.ask(f"manifests/{IMAGE.digest}").body == IMAGE.manifest
        for digest in (config, DIGEST):
            assert endpoint.ask(f"blobs/{digest}").body == IMAGE.blobs[digest]
            wait_until(lambda digest=digest: digest in endpoint.store.holdings())
    asked = [(request.method, request.path.removeprefix("/v2/team/app/")) for request in endpoint.origin.requests]
    assert asked == [("GET", "manifests/1"), ("GET", f"blobs/{config}"), ("GET", BLOB)]


def test_a_client_that_looks_a_moment_too_early_begins_no_second_download(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.ask("manifests/1")
    endpoint.ask(BLOB)
    wait_until(lambda: DIGEST in endpoint.store.holdings())
    looks = []
    really = endpoint.store.blob
    monkeypatch.setattr(endpoint.store, "blob", lambda digest: really(digest) if looks else looks.append(digest))
    assert endpoint.ask(BLOB).body == LAYER
    assert looks == [DIGEST]
    assert len(endpoint.origin.asked(DIGEST)) == 1


def test_where_bytes_came_from_is_counted(endpoint: Endpoint) -> None:
    endpoint.ask("manifests/1")
    for source in ("origin", "store"):
        before = received(source)
        endpoint.ask(BLOB)
        wait_until(lambda: DIGEST in endpoint.store.holdings())
        wait_until(lambda source=source, before=before: received(source) - before == len(LAYER))


def test_a_ping_needs_nobody(endpoint: Endpoint) -> None:
    endpoint.origin.stop()
    assert endpoint.ask("/v2/").body == b"{}"


def test_lists_are_passed_through_as_the_origin_tells_them(endpoint: Endpoint) -> None:
    assert json.loads(endpoint.ask("tags/list").body) == {"name": "team/app", "tags": ["1"]}
    referrers = endpoint.ask(f"referrers/{IMAGE.digest}?artifactType=application/x")
    assert referrers.headers["Content-Type"] == "application/vnd.oci.image.index.v1+json"
    assert endpoint.origin.requests[-1].path.endswith("?artifactType=application/x")
    endpoint.ask("tags/list?n=5&last=1&evil=http://169.254.169.254/")
    assert endpoint.origin.requests[-1].path == "/v2/team/app/tags/list?n=5&last=1"


def test_a_tag_is_what_it_was_with_a_warning_when_its_origin_goes_away(endpoint: Endpoint) -> None:
    assert endpoint.ask("manifests/1").headers["Warning"] is None
    endpoint.origin.stop()
    registry_manifests(endpoint)._interval = 0.0
    stale = endpoint.ask("manifests/1")
    assert (stale.status, stale.body) == (200, IMAGE.manifest)
    assert stale.headers["Warning"].startswith("110 ")


def registry_manifests(endpoint: Endpoint):  # type: ignore[no-untyped-def]
    return endpoint.listener._handle.__self__._manifests  # type: ignore[attr-defined]


# Who may have what.


def test_what_is_private_is_challenged_and_given_to_whoever_the_origin_gives_it(private: Endpoint) -> None:
    for path in ("manifests/1", f"manifests/{IMAGE.digest}", BLOB, "tags/list"):
        refused = private.ask(path)
        assert (refused.status, refused.code) == (401, "UNAUTHORIZED"), path
        assert refused.headers["WWW-Authenticate"] == 'Basic realm="darner"'
        assert private.ask(path, Authorization=MALLORY).status == 401, path
        assert private.ask(path, Authorization=ALICE).status == 200, path


def test_what_is_here_already_is_refused_to_whoever_the_origin_refuses(private: Endpoint) -> None:
    private.ask("manifests/1", Authorization=ALICE)
    private.ask(BLOB, Authorization=ALICE)
    wait_until(lambda: DIGEST in private.store.holdings())
    for authorization in ({}, {"Authorization": MALLORY}):
        for path in ("manifests/1", f"manifests/{IMAGE.digest}", BLOB):
            for method in ("GET", "HEAD"):
                answer = private.ask(path, method, **authorization)
                assert (answer.status, LAYER in answer.body) == (401, False), path


def test_a_blob_is_not_given_through_a_repository_that_does_not_hold_it(endpoint: Endpoint) -> None:
    endpoint.origin.push("other/app", "1", push(endpoint.origin, b"another layer", tag="2"))
    endpoint.ask("manifests/1")
    endpoint.ask(BLOB)
    other = endpoint.prefix.replace("team/app", "other/app")
    answer = endpoint.ask(f"{other}/{BLOB}")
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")


def test_a_blob_that_no_manifest_named_is_asked_for_at_the_origin_once(endpoint: Endpoint) -> None:
    assert endpoint.ask(BLOB).body == LAYER
    assert endpoint.ask(BLOB).body == LAYER
    assert [request.method for request in endpoint.origin.asked(DIGEST)] == ["HEAD", "GET"]


def test_a_head_that_the_origin_just_answered_is_not_asked_twice(endpoint: Endpoint) -> None:
    assert endpoint.ask(BLOB, "HEAD").headers["Content-Length"] == str(len(LAYER))
    assert len(endpoint.origin.asked(DIGEST)) == 1


def test_a_mistake_of_ours_is_a_500_in_oci_form_and_the_endpoint_goes_on(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(endpoint.store, "blob", lambda _: 1 / 0)
        endpoint.ask("manifests/1")
        answer = endpoint.ask(BLOB)
        assert (answer.status, answer.code, answer.message) == (500, "UNKNOWN", "the request failed inside: ZeroDivisionError")
    assert endpoint.ask(BLOB).body == LAYER


def test_too_many_requests_to_the_origin_are_passed_on_as_such(endpoint: Endpoint) -> None:
    endpoint.origin.fail(Fault(status=429, headers={"Retry-After": "0"}))
    assert endpoint.ask("manifests/1").status == 429
