"""Rows 11 to 15: what a client may ask of the registry endpoint, and what it is told when it may not. Over raw sockets."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.origin.client import Origin as OriginClient
from hack.origin import Fault, Origin
from tests.endpoint import DIGEST, IMAGE, LAYER, Endpoint, push

HEX = "0" * 64
ABSENT = f"sha256:{HEX}"
SIZE = len(LAYER)


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        push(origin)
        yield origin


@pytest.fixture(scope="module")
def endpoint(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with Endpoint(tmp_path_factory.mktemp("node") / "store", origin) as endpoint:
        yield endpoint


@pytest.fixture(params=["cached", "not cached"])
def either(request: pytest.FixtureRequest, origin: Origin, tmp_path: Path) -> Iterator[Endpoint]:
    """An endpoint that has the image already, or has nothing."""
    with Endpoint(tmp_path / "store", origin) as endpoint:
        if request.param == "cached":
            assert endpoint.ask("manifests/1").status == 200
            assert endpoint.ask(f"blobs/{DIGEST}").status == 200
        yield endpoint


@pytest.fixture
def untouched(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever happens in the test, no file comes or goes, and no registry is asked for anything."""

    def ask(*_: object) -> None:
        raise AssertionError("a registry is asked")

    monkeypatch.setattr(OriginClient, "_ask", ask)
    before = files(endpoint.store.root.parent)
    yield
    assert files(endpoint.store.root.parent) == before


def files(root: Path) -> list[str]:
    return sorted(os.path.join(directory, name) for directory, _, names in os.walk(root) for name in names)


def say(endpoint: Endpoint, line: str, *headers: str) -> tuple[int, str, str]:
    """Status, head and body of the answer to a request line, which is sent as it is."""
    lines = [line, "Host: 127.0.0.1:65001", "Connection: close", *headers]
    received = endpoint.say("\r\n".join([*lines, "", ""]).encode("latin-1"))
    head, _, body = received.decode("latin-1").partition("\r\n\r\n")
    return int(head.split()[1]), head, body


# Row 11 and 12: names, tags and digests that are none.

NAMES = [
    "../../../etc/passwd",
    "docker.io/library/../../../../etc",
    "docker.io/./nginx",
    "docker.io//nginx",
    "docker.io/library/%2e%2e/nginx",
    "docker.io%2flibrary%2fnginx",
    "docker.io/nginx%00",
    "docker.io/nginx%0d%0aX-Evil:%201",
    "docker.io\\nginx",
    "docker.io/NGINX",
    "docker.io/nginx/",
    "docker.io/-nginx",
    "docker.io",
    "nginx",
    "169.254.169.254",
    "user@docker.io/nginx",
    "docker.io:443/nginx",
    "docker.io/" + "a" * 300,
    "a" * 8192,
]
TAGS = ["..", "%2e%2e", ".hidden", "-dash", "a/b", "a%2fb", "a%00", "a\\b", "a" * 129, "", "*", "1?ns=../..", "1?ns=a&ns=b"]
DIGESTS = [
    "md5:" + "0" * 32,
    "sha256:" + "0" * 63,
    "sha256:" + "0" * 65,
    "sha256:" + "A" * 64,
    "sha256:" + "g" * 64,
    f"sha256:{HEX}%0a",
    f"sha256:{HEX}/",
    f"sha256:../{HEX}",
    f"sha256:{HEX}:{HEX}",
    f"SHA256:{HEX}",
    f"sha256:{HEX}?ns=..",
    "sha256:",
    ":",
]
TARGETS = [
    *(f"/v2/{name}/manifests/1" for name in NAMES),
    *(f"/v2/docker.io/library/nginx/manifests/{tag}" for tag in TAGS),
    *(f"/v2/docker.io/library/nginx/{what}/{digest}" for digest in DIGESTS for what in ("manifests", "blobs", "referrers")),
    *("*", "/", "//", "/v2/../v2/", "/v2//", "/v3/", "/v2/docker.io/library/nginx", "/v2/docker.io/library/nginx/tags/other"),
    *("http://127.0.0.1:65001/v2/", "https://docker.io/v2/docker.io/library/nginx/manifests/1", "docker.io:443"),
    *("/v2/_catalog", f"/v2/docker.io/library/nginx/blobs/uploads/{HEX}", "/healthz", "/metrics", f"/pieces/{ABSENT}/0"),
]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_is_no_name_no_tag_and_no_digest_is_refused_with_an_oci_error_and_touches_nothing(
    endpoint: Endpoint, method: str
) -> None:
    for target in TARGETS:
        status, head, body = say(endpoint, f"{method} {target} HTTP/1.1")
        assert status in (400, 404), target[:100]
        assert "application/json" in head, target[:100]
        assert (body == "") if method == "HEAD" else ('"errors"' in body), target[:100]
        assert "X-Evil" not in head


@pytest.mark.usefixtures("untouched")
def test_sha512_is_told_to_be_unsupported(endpoint: Endpoint) -> None:
    for what in ("manifests", "blobs"):
        assert endpoint.ask(f"{what}/sha512:{'0' * 128}").code == "UNSUPPORTED"


@pytest.mark.usefixtures("untouched")
def test_a_target_with_bytes_that_no_target_has_is_refused_before_it_is_parsed(endpoint: Endpoint) -> None:
    for target in ("/v2/\x00", "/v2/\xff\xfe", "/v2/a b", "/v2/\t", "/v2/\x1b[2J", "/" + "a" * 40_000):
        status, _, body = say(endpoint, f"GET {target} HTTP/1.1")
        assert (status, '"errors"' in body) == (400, True), ascii(target[:20])


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("authorization", ["Bearer token", "Basic", "Basic !!!!", "Basic bm9jb2xvbg==", "Basic " + "QQ==" * 4000])
def test_credentials_that_are_none_are_answered_with_a_challenge(endpoint: Endpoint, authorization: str) -> None:
    answer = endpoint.ask("manifests/1", Authorization=authorization)
    assert (answer.status, answer.code, answer.headers["WWW-Authenticate"]) == (401, "UNAUTHORIZED", 'Basic realm="darner"')


def test_the_log_is_one_line_for_each_refusal_whatever_the_target_says(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    for target in ("/v2/%1b%5b2J%0d%0a/manifests/1", "/v2/\\x1b[2J", "/" + "a" * 8000):
        caplog.clear()
        say(endpoint, f"GET {target} HTTP/1.1")
        assert len(caplog.messages) == 1
        assert caplog.messages[0].isprintable()
        assert len(caplog.messages[0]) < 400


# Row 13: methods.


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "CONNECT"])
def test_other_methods_are_not_allowed_and_told_which_are(endpoint: Endpoint, method: str) -> None:
    for target in ("/v2/", f"{endpoint.prefix}/manifests/1", f"{endpoint.prefix}/blobs/{DIGEST}", "*", "docker.io:443"):
        status, head, body = say(endpoint, f"{method} {target} HTTP/1.1")
        assert (status, '"UNSUPPORTED"' in body) == (405, True)
        assert "\r\nAllow: GET, HEAD\r\n" in head


@pytest.mark.usefixtures("untouched")
def test_an_upload_is_refused_without_reading_it(endpoint: Endpoint) -> None:
    began = time.monotonic()
    status, head, _ = say(endpoint, f"PUT {endpoint.prefix}/manifests/1 HTTP/1.1", "Content-Length: 1000000000")
    assert status == 405
    assert "Connection: close" in head
    assert time.monotonic() - began < 1


# Row 14: ranges.

RANGES: list[tuple[str | None, int, slice | None]] = [
    (None, 200, slice(0, SIZE)),
    ("bytes=0-0", 206, slice(0, 1)),
    ("bytes=0-", 206, slice(0, SIZE)),
    ("bytes=300000-", 206, slice(300_000, SIZE)),
    ("bytes=300000-300009", 206, slice(300_000, 300_010)),
    (f"bytes={SIZE - 1}-", 206, slice(SIZE - 1, SIZE)),
    (f"bytes=0-{SIZE}", 206, slice(0, SIZE)),
    ("bytes=5-9999999999999999999", 206, slice(5, SIZE)),
    ("bytes=-7", 206, slice(SIZE - 7, SIZE)),
    (f"bytes=-{SIZE + 1}", 206, slice(0, SIZE)),
    ("bytes=-0", 416, None),
    (f"bytes={SIZE}-", 416, None),
    ("bytes=9999999999999999999-", 416, None),
    ("bytes=9-8", 200, slice(0, SIZE)),
    ("bytes=-", 200, slice(0, SIZE)),
    ("bytes=0-0,5-5", 200, slice(0, SIZE)),
    ("bytes=" + ",".join(f"{at}-{at}" for at in range(1000)), 200, slice(0, SIZE)),
    ("bytes=99999999999999999999999999999999-", 416, None),
    ("bytes=" + "9" * 10_000 + "-", 200, slice(0, SIZE)),
    ("bytes = 0-0", 200, slice(0, SIZE)),
    ("bytes=0x0-0x1", 200, slice(0, SIZE)),
    ("bytes=+0-+1", 200, slice(0, SIZE)),
    ("lines=0-1", 200, slice(0, SIZE)),
    ("", 200, slice(0, SIZE)),
]


@pytest.mark.parametrize(("wanted", "status", "part"), RANGES, ids=lambda value: str(value)[:20])
def test_a_range_is_exact_or_as_if_not_there_or_told_the_size(
    endpoint: Endpoint, wanted: str | None, status: int, part: slice | None
) -> None:
    endpoint.ask(f"blobs/{DIGEST}")
    answer = endpoint.ask(f"blobs/{DIGEST}", **({} if wanted is None else {"Range": wanted}))
    assert answer.status == status
    if part is None:
        assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
        assert answer.code == "SIZE_INVALID"
    else:
        assert answer.body == LAYER[part]
        told = f"bytes {part.start}-{part.stop - 1}/{SIZE}" if status == 206 else None
        assert answer.headers["Content-Range"] == told


@pytest.mark.parametrize("wanted", ["bytes=0-0", "bytes=300000-", "bytes=-7", f"bytes={SIZE}-", "bytes=-0"])
def test_a_range_of_a_blob_that_still_arrives_is_what_it_would_be_later(either: Endpoint, wanted: str) -> None:
    either.origin.fail(Fault(path="/blobs/", bytes_per_second=8 << 20))
    first, second = (either.ask(f"blobs/{DIGEST}", Range=wanted) for _ in range(2))
    either.origin.heal()
    assert (first.status, first.body, first.headers.items()) == (second.status, second.body, second.headers.items())


def test_a_range_counts_for_nothing_with_a_validator_that_was_never_given(endpoint: Endpoint) -> None:
    for validator in ('"anything"', f'"{DIGEST}"', "Tue, 24 Nov 2026 15:00:00 GMT"):
        answer = endpoint.ask(f"blobs/{DIGEST}", Range="bytes=0-0", If_Range=validator)
        assert (answer.status, answer.body) == (200, LAYER)


def test_a_range_of_any_length_is_parsed_in_no_time(endpoint: Endpoint) -> None:
    endpoint.ask(f"blobs/{DIGEST}")
    began = time.monotonic()
    for hostile in ("bytes=" + "1-1," * 3000, "bytes=" + "-" * 12_000, "bytes=" + "0" * 12_000):
        with endpoint.asked(f"blobs/{DIGEST}", Range=hostile) as answer:
            assert answer.status == 200
    assert time.monotonic() - began < 1


def test_a_range_of_a_manifest_is_answered_with_all_of_it(endpoint: Endpoint) -> None:
    answer = endpoint.ask("manifests/1", Range="bytes=0-")
    assert (answer.status, answer.body) == (200, IMAGE.manifest)


# Row 15: HEAD and GET.

AGREE = [
    *("manifests/1", f"manifests/{IMAGE.digest}", f"blobs/{DIGEST}", f"blobs/{IMAGE.layers[0]}"),
    *("manifests/absent", f"manifests/{ABSENT}", f"blobs/{ABSENT}", "tags/list", f"referrers/{IMAGE.digest}", "/v2/", "/v3/"),
]


@pytest.mark.parametrize("path", AGREE)
def test_head_and_get_agree_in_all_but_the_body(either: Endpoint, path: str) -> None:
    before = either.ask(path, "HEAD")
    get = either.ask(path)
    after = either.ask(path, "HEAD")
    for head in (before, after):
        assert head.body == b""
        assert (head.status, head.headers.items()) == (get.status, get.headers.items())
    assert int(get.headers["Content-Length"]) == len(get.body)
    if get.status == 200 and path.startswith(("manifests", "blobs")):
        assert get.headers["Docker-Content-Digest"] == "sha256:" + hashlib.sha256(get.body).hexdigest()
    if get.status == 200 and path.startswith("manifests"):
        assert get.headers["Content-Type"] == IMAGE.media_type


def test_a_head_of_a_blob_that_still_arrives_tells_its_size_without_asking_the_origin_again(
    endpoint: Endpoint, origin: Origin
) -> None:
    slow = push(origin, b"slow" + LAYER, tag="slow").layers[0]
    endpoint.ask("manifests/slow")
    origin.fail(Fault(path="/blobs/", bytes_per_second=300_000))
    with endpoint.asked(f"blobs/{slow}") as arriving:
        head = endpoint.ask(f"blobs/{slow}", "HEAD")
        assert (head.status, head.headers["Content-Length"]) == (200, arriving.headers["Content-Length"])
    origin.heal()
    assert [request.method for request in origin.asked(slow)] == ["GET"]


def test_a_head_of_a_blob_moves_no_blob(endpoint: Endpoint, origin: Origin) -> None:
    config = next(digest for digest in IMAGE.blobs if digest != DIGEST)
    before = len(origin.asked(config, "GET"))  # of this blob: what earlier tests began may still be on its way
    assert endpoint.ask(f"blobs/{config}", "HEAD").status == 200
    assert len(origin.asked(config, "GET")) == before


def test_a_head_knows_no_ranges(either: Endpoint) -> None:
    head = either.ask(f"blobs/{DIGEST}", "HEAD", Range="bytes=0-0")
    assert (head.status, head.headers["Content-Length"]) == (200, str(SIZE))


def test_every_answer_says_which_protocol_is_spoken(endpoint: Endpoint) -> None:
    for path in ("/v2/", "/v2", "manifests/1", "manifests/absent", f"blobs/{DIGEST}", "/nowhere"):
        assert endpoint.ask(path).headers["Docker-Distribution-Api-Version"] == "registry/2.0", path


def test_a_mirrors_question_is_the_same_question(endpoint: Endpoint, origin: Origin) -> None:
    answer = endpoint.ask(f"/v2/team/app/manifests/1?ns={origin.address}")
    assert (answer.status, answer.body) == (200, IMAGE.manifest)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", answer.headers["Docker-Content-Digest"])
