"""Rows 11, 12 and 14 as far as they can be decided from the request alone: what is no plain path, no digest, no single range."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from agent.registry.target import BlobResource, Ping, parse_range, parse_target
from agent.values.errors import DarnerError, RequestError, oci_body

SHA = "sha256:" + "0123456789abcdef" * 4
SIZE = 1000

NOT_PLAIN = [
    *(
        "..",
        ".",
        "%2e%2e",
        "%2E%2E",
        "..%2f..",
        "%2f",
        "%5c",
        "%00",
        "\x00",
        "a//b",
        "a/../b",
        "a/./b",
        "a\\b",
        "a%2fb",
        "a%20b",
        "a b",
    ),
    *("a;b", "a#b", "a@b", "a\nb", "a\rb", "a\tb", "a~b", "a+b", "ä", "\uff0e\uff0e", "~root", "$(id)", "'", "/etc/passwd", ""),
]
REFUSALS = {"NAME_INVALID", "DIGEST_INVALID", "UNSUPPORTED"}


def refusal(target: str) -> DarnerError:
    with pytest.raises(DarnerError) as refused:
        parse_target(target)
    assert refused.value.status in (400, 404)
    assert refused.value.code in REFUSALS
    said = json.loads(oci_body(refused.value))["errors"][0]["message"]
    assert said.isprintable()
    assert len(said) < 300
    return refused.value


# Row 11.


@pytest.mark.parametrize("part", NOT_PLAIN)
@pytest.mark.parametrize("what", ["manifests/latest", f"blobs/{SHA}", "tags/list", f"referrers/{SHA}"])
def test_a_name_that_is_no_plain_path_is_refused(part: str, what: str) -> None:
    refusal(f"/v2/docker.io/{part}/{what}")
    refusal(f"/v2/docker.io/a/{part}/{what}")
    refusal(f"/v2/{part}/a/{what}")


@pytest.mark.parametrize("part", NOT_PLAIN)
@pytest.mark.parametrize("what", ["manifests", "blobs", "referrers"])
def test_a_tag_or_digest_that_is_no_plain_word_is_refused(part: str, what: str) -> None:
    refusal(f"/v2/docker.io/library/nginx/{what}/{part}")
    refusal(f"/v2/docker.io/library/nginx/{what}/{SHA}{part or '/'}")


@pytest.mark.parametrize(
    "target",
    [
        *("", "/", "//", "v2", "/v1/", "/v2//", "/v2/..", "/v2/../v2/", "/V2/", "/v2/_catalog", "*", "/v2/\x00"),
        *(
            "http://127.0.0.1:65001/v2/",
            "https://docker.io/v2/docker.io/a/manifests/1",
            "//docker.io/v2/a/manifests/1",
            "docker.io:443",
        ),
        *("/v2/docker.io/a/manifests", "/v2/docker.io/a/manifests/", "/v2/manifests/latest", "/v2/a/manifests/latest"),
        *(
            "/v2/docker.io/a/uploads/1",
            "/v2/docker.io/a/blobs/uploads/",
            "/v2/docker.io/a/manifests/1/",
            "/v2/docker.io/A/manifests/1",
        ),
        *("/v2/docker.io/a/manifests/.1", "/v2/docker.io/a/manifests/-1", "/v2/docker.io/a/manifests/" + "t" * 129),
        *(
            "/v2/host_port/a/manifests/1",
            "/v2/host_0/a/manifests/1",
            "/v2/host_65536/a/manifests/1",
            "/v2/host:5000/a/manifests/1",
        ),
        *("/v2/[::1]_5000/a/manifests/1", "/v2/5000/a/manifests/1", "/v2/-a.io/b/manifests/1", "/v2/a..io/b/manifests/1"),
        f"/v2/docker.io/{'a' * 300}/manifests/1",
    ],
)
def test_what_is_no_target_of_the_specification_is_refused(target: str) -> None:
    refusal(target)


@pytest.mark.parametrize("filling", ["a", "a/", "/", ".", "..", "../", "-", "_", "%2e", "manifests/", "/manifests/a", "a/blobs/"])
def test_a_path_of_8_kib_or_of_a_megabyte_is_refused_in_no_time(filling: str) -> None:
    for length in (8 << 10, 1 << 20):
        target = ("/v2/docker.io/" + filling * length)[:length]
        began = time.perf_counter()
        refusal(target)
        refusal(target + "/manifests/latest")
        assert time.perf_counter() - began < 0.1


# Row 12.


@pytest.mark.parametrize("what", ["manifests", "blobs", "referrers"])
@pytest.mark.parametrize(
    ("digest", "code"),
    [
        ("md5:" + "0" * 32, "DIGEST_INVALID"),
        ("sha1:" + "0" * 40, "DIGEST_INVALID"),
        (SHA[:-1], "DIGEST_INVALID"),
        (SHA + "0", "DIGEST_INVALID"),
        (SHA.upper(), "DIGEST_INVALID"),
        ("sha256:" + SHA[7:].upper(), "DIGEST_INVALID"),
        ("SHA256:" + SHA[7:], "DIGEST_INVALID"),
        ("sha256:" + "g" * 64, "DIGEST_INVALID"),
        ("sha256:", "DIGEST_INVALID"),
        ("sha256:sha256:" + SHA[7:], "DIGEST_INVALID"),
        ("sha512:" + "0" * 128, "UNSUPPORTED"),
        ("sha512:" + "0" * 64, "DIGEST_INVALID"),
        (SHA + "\n", "NAME_INVALID"),
        ("\n" + SHA, "NAME_INVALID"),
        (SHA + "%0a", "NAME_INVALID"),
        (SHA + " ", "NAME_INVALID"),
    ],
)
def test_a_digest_is_sha256_and_64_lower_case_digits_and_nothing_else(what: str, digest: str, code: str) -> None:
    assert refusal(f"/v2/docker.io/library/nginx/{what}/{digest}").code == code


def test_a_blob_is_named_by_a_digest_and_by_nothing_else() -> None:
    assert refusal("/v2/docker.io/library/nginx/blobs/latest").code == "DIGEST_INVALID"
    assert refusal(f"/v2/docker.io/library/nginx/blobs/{SHA[7:]}").code == "DIGEST_INVALID"


# Row 14.


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-", (0, SIZE)),
        ("bytes=999-", (999, SIZE)),
        ("bytes=5-9", (5, 10)),
        ("bytes=5-5", (5, 6)),
        ("bytes=990-999", (990, SIZE)),
        ("bytes=990-1000", (990, SIZE)),
        ("bytes=990-99999999999999999999999999", (990, SIZE)),
        ("bytes=-1", (999, SIZE)),
        ("bytes=-1000", (0, SIZE)),
        ("bytes=-1001", (0, SIZE)),
        ("bytes=-99999999999999999999999999", (0, SIZE)),
        ("bytes=000-009", (0, 10)),
        ("Bytes=0-0", (0, 1)),
    ],
)
def test_one_range_gives_exactly_its_bytes(header: str, span: tuple[int, int]) -> None:
    assert parse_range(header, SIZE) == span


@pytest.mark.parametrize(
    "header",
    [
        "bytes=1000-",
        "bytes=1000-1000",
        "bytes=1001-2000",
        "bytes=9223372036854775808-",
        "bytes=99999999999999999999-",
        "bytes=-0",
    ],
)
def test_a_range_past_the_end_is_416(header: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_range(header, SIZE)
    assert refused.value.status == 416
    assert str(SIZE) in str(refused.value)


@pytest.mark.parametrize(
    "header",
    [
        None,
        *(
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=9-5",
            "bytes=1000-5",
            "bytes=a-b",
            "bytes=1",
            "bytes=--1",
            "bytes=-1-",
            "bytes=1-2-3",
        ),
        *(
            "bytes=0x1-2",
            "bytes=1.0-2",
            "bytes=+1-2",
            "bytes= 0-1",
            "bytes =0-1",
            "bytes=0 -1",
            "bytes=0-1 ",
            "bytes=0-1\n",
            "items=0-1",
        ),
        *("bytes=0-0,2-2", "bytes=0-0, -1", "bytes=" + ",".join(f"{n}-{n}" for n in range(1000)), "bytes=0-1;q=1", "bytes:0-1"),
        *("bytes=١-٢", "byteſ=0-1", "bytes=" + "9" * 5000 + "-", "bytes=0-" + "9" * 5000, "bytes=" + "0" * 100_000 + "-"),
    ],
)
def test_no_range_several_and_what_is_none_give_the_whole(header: str | None) -> None:
    assert parse_range(header, SIZE) is None


@pytest.mark.parametrize(
    "made",
    [
        lambda length: "bytes=" + "9" * length + "-",
        lambda length: "bytes=-" + "9" * length,
        lambda length: "bytes=" + "-" * length,
        lambda length: "bytes=" + "0-0," * (length // 4),
        lambda length: " " * length + "bytes=0-0",
    ],
)
def test_a_range_is_read_in_constant_time(made: Callable[[int], str]) -> None:
    for length in (100, 1 << 14, 10_000_000):
        header = made(length)
        began = time.perf_counter()
        assert parse_range(header, SIZE) is None
        assert time.perf_counter() - began < 0.005


def test_what_is_allowed_is_still_allowed() -> None:
    assert parse_target("/v2/") == Ping()
    assert isinstance(parse_target(f"/v2/docker.io/library/nginx/blobs/{SHA}"), BlobResource)
