"""The origin registry of the demo and the tests: other tests believe what it counts, so it is tested itself."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import http.client
import json
import time
from collections.abc import Iterator

import pytest

from hack.origin import Access, Fault, Image, Origin, sha256

LAYERS = [bytes([number]) * (300_000 + number) for number in range(3)]


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as running:
        running.push("team/app", "1.0", Image.of(LAYERS))
        yield running


@pytest.fixture
def image() -> Image:
    return Image.of(LAYERS)


def get(origin: Origin, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(origin.address, timeout=5)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_an_image_is_pulled_by_tag_and_every_digest_is_right(origin: Origin, image: Image) -> None:
    response, body = get(origin, "/v2/team/app/manifests/1.0")
    assert response.headers["Docker-Content-Digest"] == sha256(body) == image.digest
    manifest = json.loads(body)
    for described in [manifest["config"], *manifest["layers"]]:
        _, blob = get(origin, f"/v2/team/app/blobs/{described['digest']}")
        assert (sha256(blob), len(blob)) == (described["digest"], described["size"])
    assert origin.blob_bytes_sent == image.size


def test_the_same_layers_make_the_same_image() -> None:
    assert Image.of(LAYERS).digest == Image.of(LAYERS).digest != Image.of(LAYERS[1:]).digest


def test_head_and_get_agree_and_a_head_counts_no_bytes(origin: Origin, image: Image) -> None:
    for path in ("/v2/team/app/manifests/1.0", f"/v2/team/app/blobs/{image.layers[0]}", "/v2/team/app/blobs/sha256:none", "/v2/"):
        head, nothing = get(origin, path, "HEAD")
        assert nothing == b""
        whole, _ = get(origin, path)
        assert head.status == whole.status
        assert {k: v for k, v in head.getheaders() if k != "Date"} == {k: v for k, v in whole.getheaders() if k != "Date"}
    assert sum(request.body_bytes for request in origin.asked(method="HEAD")) == 0


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=299999-", 206, slice(299_999, None)),
        ("bytes=-5", 206, slice(-5, None)),
        ("bytes=5-1000000", 206, slice(5, None)),
        ("bytes=1000000-", 416, None),
        ("bytes=0-1,3-4", 200, slice(0, None)),
        ("garbage", 200, slice(0, None)),
    ],
)
def test_a_single_range_is_exact(origin: Origin, image: Image, asked: str, status: int, part: slice | None) -> None:
    response, body = get(origin, f"/v2/team/app/blobs/{image.layers[0]}", Range=asked)
    assert response.status == status
    if part is not None:
        assert body == LAYERS[0][part]
        assert origin.blob_bytes_sent == len(body)


def test_an_unchanged_manifest_is_answered_with_304(origin: Origin, image: Image) -> None:
    response, body = get(origin, "/v2/team/app/manifests/1.0", If_None_Match=f'"{image.digest}"')
    assert (response.status, body) == (304, b"")


def test_a_tag_moves_with_a_second_push_and_the_old_digest_stays(origin: Origin, image: Image) -> None:
    moved = origin.push("team/app", "1.0", Image.of([b"new"]))
    assert get(origin, "/v2/team/app/manifests/1.0")[1] == moved.manifest
    assert get(origin, f"/v2/team/app/manifests/{image.digest}")[1] == image.manifest


def test_a_flipped_byte_is_the_same_wrong_byte_in_the_whole_and_in_a_range(origin: Origin, image: Image) -> None:
    path = f"/v2/team/app/blobs/{image.layers[1]}"
    origin.fail(Fault(path=path, flip_byte=290_000))
    _, whole = get(origin, path)
    assert [at for at, (a, b) in enumerate(zip(whole, LAYERS[1], strict=True)) if a != b] == [290_000]
    _, part = get(origin, path, Range="bytes=289999-290001")
    assert part == whole[289_999:290_002]


def test_a_fault_hits_as_many_requests_as_it_was_switched_on_for(origin: Origin) -> None:
    origin.fail(Fault(path="/manifests/", status=429, headers={"Retry-After": "7"}), times=2)
    seen = [get(origin, "/v2/team/app/manifests/1.0")[0] for _ in range(3)]
    assert [response.status for response in seen] == [429, 429, 200]
    assert seen[0].headers["Retry-After"] == "7"
    assert [request.status for request in origin.asked("/manifests/", "GET")] == [429, 429, 200]


def test_a_body_can_be_cut_by_a_reset_or_end_too_early_or_too_late(origin: Origin, image: Image) -> None:
    path = f"/v2/team/app/blobs/{image.layers[0]}"
    origin.fail(Fault(cut_after=1000), times=1)
    with pytest.raises(ConnectionResetError):
        get(origin, path)
    assert origin.blob_bytes_sent == 1000
    origin.fail(Fault(headers={"Content-Length": "400000", "Connection": "close"}), times=1)
    with pytest.raises(http.client.IncompleteRead):
        get(origin, path)
    origin.fail(Fault(headers={"Content-Length": None}, extra=b"more"), times=1)
    assert get(origin, path)[1] == LAYERS[0] + b"more"


def test_an_answer_can_be_late_and_slow(origin: Origin, image: Image) -> None:
    origin.fail(Fault(delay_seconds=0.2))
    began = time.monotonic()
    get(origin, "/v2/")
    assert time.monotonic() - began >= 0.2
    origin.heal()
    origin.fail(Fault(bytes_per_second=1_000_000))
    began = time.monotonic()
    get(origin, f"/v2/team/app/blobs/{image.layers[0]}")
    assert time.monotonic() - began >= 0.25


def test_another_version_of_a_blob_has_another_etag_and_is_never_spliced_with_the_first(origin: Origin, image: Image) -> None:
    path = f"/v2/team/app/blobs/{image.layers[0]}"
    origin.fail(Fault(etag='"first"'), times=1)
    origin.behave(Fault(etag='"second"'))
    assert [get(origin, path)[0].headers["ETag"] for _ in range(2)] == ['"first"', '"second"']
    whole, body = get(origin, path, Range="bytes=1000-", If_Range='"first"')
    assert (whole.status, whole.headers["ETag"], body) == (200, '"second"', LAYERS[0])
    part, body = get(origin, path, Range="bytes=1000-", If_Range='"second"')
    assert (part.status, body) == (206, LAYERS[0][1000:])


def test_so_many_answers_are_given_at_a_time_and_one_more_is_refused(origin: Origin, image: Image) -> None:
    path = f"/v2/team/app/blobs/{image.layers[0]}"
    origin.behave(Fault(path="/blobs/", at_once_max=2))
    origin.fail(Fault(path="/blobs/", stall_after=10), times=1)
    with contextlib.closing(http.client.HTTPConnection(origin.address, timeout=30)) as stalled:
        stalled.request("GET", path)
        stalled.getresponse()
        for _ in range(20):  # of which each has ended for the origin when it has for its reader
            assert get(origin, path)[0].status == get(origin, path, "HEAD")[0].status == 200
        origin.fail(Fault(path="/blobs/", stall_after=10), times=1)
        with contextlib.closing(http.client.HTTPConnection(origin.address, timeout=30)) as second:
            second.request("GET", path)
            second.getresponse()
            refused, _ = get(origin, path)
            assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
            assert get(origin, "/v2/team/app/manifests/1.0")[0].status == 200, "only blobs are counted"
        origin.stop()  # or the second one would stall on


def test_a_signed_url_is_good_for_as_long_as_it_says(origin: Origin, image: Image) -> None:
    path = f"/v2/team/app/blobs/{image.layers[0]}"
    with Origin() as store:
        store.push("team/app", "1.0", image)
        store.behave(Fault(path="/blobs/", runs_out=True))
        moved = Fault(path="/blobs/", status=307, headers={"Location": f"{store.url}{{path}}?until={{until}}"})
        for valid_seconds, status in ((600.0, 200), (-1.0, 403)):
            origin.fail(dataclasses.replace(moved, valid_seconds=valid_seconds), times=1)
            location = get(origin, path)[0].headers["Location"]
            assert get(store, location.removeprefix(store.url))[0].status == status
        assert get(store, path)[0].status == 403, "it says nothing of a time"


def test_stopping_cuts_what_is_being_sent_and_starting_comes_back_on_the_same_port(origin: Origin, image: Image) -> None:
    address = origin.address
    origin.fail(Fault(stall_after=10), times=1)
    connection = http.client.HTTPConnection(address, timeout=5)
    connection.request("GET", f"/v2/team/app/blobs/{image.layers[0]}")
    response = connection.getresponse()
    assert response.read(10) == LAYERS[0][:10]
    origin.stop()
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        response.read()
    connection.close()
    response.close()
    with pytest.raises(ConnectionRefusedError):
        get(origin, "/v2/")
    origin.start()
    assert origin.address == address
    assert get(origin, "/v2/")[0].status == 200


def test_a_private_repository_wants_basic_credentials(image: Image) -> None:
    with Origin(access=Access({"alice": "s3cret"}, private=frozenset({"team/app"}))) as origin:
        origin.push("team/app", "1.0", image)
        refused, _ = get(origin, "/v2/team/app/manifests/1.0")
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="origin"')
        for password, status in (("s3cret", 200), ("wrong", 401)):
            assert get(origin, "/v2/team/app/manifests/1.0", Authorization=basic("alice", password))[0].status == status


def test_the_token_flow_issues_tokens_that_are_good_for_one_repository(image: Image) -> None:
    with Origin(access=Access({"alice": "s3cret"}, private=frozenset({"team/app"}), bearer=True)) as origin:
        for repository in ("team/app", "open/app"):
            origin.push(repository, "1.0", image)
        challenge = get(origin, "/v2/open/app/manifests/1.0")[0].headers["WWW-Authenticate"]
        assert challenge == f'Bearer realm="{origin.url}/token",service="origin",scope="repository:open/app:pull"'

        def pulled(repository: str, scope: str, **headers: str) -> int:
            token = json.loads(get(origin, f"/token?service=origin&scope=repository:{scope}:pull", **headers)[1])["token"]
            return get(origin, f"/v2/{repository}/manifests/1.0", Authorization=f"Bearer {token}")[0].status

        assert pulled("open/app", "open/app") == 200
        assert pulled("team/app", "open/app") == 401
        assert pulled("team/app", "team/app") == 401
        assert pulled("team/app", "team/app", Authorization=basic("alice", "s3cret")) == 200


def test_what_is_not_there_is_answered_in_oci_form(origin: Origin) -> None:
    for path, code in (
        ("/v2/team/app/manifests/2.0", "MANIFEST_UNKNOWN"),
        ("/v2/team/app/blobs/sha256:" + hashlib.sha256(b"").hexdigest(), "BLOB_UNKNOWN"),
        ("/v2/nobody/manifests/1.0", "NAME_UNKNOWN"),
    ):
        response, body = get(origin, path)
        assert (response.status, json.loads(body)["errors"][0]["code"]) == (404, code)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
