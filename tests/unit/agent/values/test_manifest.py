"""Manifests: passed on as they came, with a type that a header can carry, and what they list as their own."""

from __future__ import annotations

import hashlib
import json

import pytest

from agent.values.manifest import LISTED_MAX, MEDIA_TYPE_DEFAULT, Manifest

INDEX = "application/vnd.oci.image.index.v1+json"
DIGESTS = [f"sha256:{number:064x}" for number in range(8)]


def described(digest: object, **more: object) -> dict[str, object]:
    return {"digest": digest, "size": 1, "mediaType": "x/y", **more}


def of(content: object, media_type: str = "") -> Manifest:
    return Manifest.of(media_type, json.dumps(content).encode())


def test_a_manifest_is_named_by_the_sha256_of_its_bytes_as_they_came() -> None:
    body = b'{ "schemaVersion" : 2 }\n'
    manifest = Manifest.of(INDEX, body)
    assert manifest.body is body
    assert manifest.digest == "sha256:" + hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("told", [INDEX, f"{INDEX}; charset=utf-8", f"  {INDEX}  ", "application/vnd.cncf.helm.config.v1+json"])
def test_the_media_type_is_the_one_that_it_came_with(told: str) -> None:
    assert Manifest.of(told, b"{}").media_type == told.partition(";")[0].strip()


@pytest.mark.parametrize("told", ["", " ", "; charset=utf-8", "index", "a/b/c", "a b/c", "é/a", "a/b\r\nX: 1", "a/" + "b" * 200])
def test_where_none_was_told_that_can_be_it_is_what_the_manifest_says(told: str) -> None:
    assert of({"mediaType": INDEX}, told).media_type == INDEX
    assert of({}, told).media_type == MEDIA_TYPE_DEFAULT


@pytest.mark.parametrize("said", ["a/b\r\nSet-Cookie: x", "a/b\x00", "ü/ü", "index", "a/" + "b" * 2000, 5, None, ["a/b"]])
def test_what_no_header_or_message_could_carry_is_no_media_type_though_the_manifest_says_it(said: object) -> None:
    assert of({"mediaType": said}).media_type == MEDIA_TYPE_DEFAULT


def test_config_layers_manifests_and_blobs_are_listed() -> None:
    content = {
        "config": described(DIGESTS[0]),
        "layers": [described(DIGESTS[1]), described(DIGESTS[2])],
        "manifests": [described(DIGESTS[3], platform={"os": "linux"})],
        "blobs": [described(DIGESTS[4])],
    }
    assert of(content).lists() == DIGESTS[:5]


def test_what_a_repository_need_not_hold_is_not_listed() -> None:
    foreign = described(DIGESTS[1], urls=["http://169.254.169.254/"])
    content = {
        "subject": described(DIGESTS[0]),
        "layers": [foreign, described(DIGESTS[2], urls=[]), described(DIGESTS[3], urls=None)],
    }
    assert of(content).lists() == DIGESTS[2:4]


def test_a_list_that_is_null_is_empty() -> None:
    assert of({"config": None, "layers": None, "manifests": [described(DIGESTS[0])], "blobs": None}).lists() == DIGESTS[:1]


@pytest.mark.parametrize(
    "digest", ["", None, "sha512:" + "0" * 128, "md5:" + "0" * 32, DIGESTS[0] + "\n", DIGESTS[0].upper(), "x" * 1_000_000]
)
def test_what_is_no_sha256_digest_is_not_listed(digest: object) -> None:
    assert of({"layers": [described(digest), described(DIGESTS[1])]}).lists() == [DIGESTS[1]]


def test_only_so_much_is_listed() -> None:
    assert len(of({"layers": [described(DIGESTS[0])] * (LISTED_MAX + 1)}).lists()) == LISTED_MAX


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"null",
            b"[]",
            b"5",
            b'"x"',
            b"<html>",
            b"\xff\xfe",
            b'{"layers": 5}',
            b'{"layers": [5]}',
            b'{"layers": [{"digest": 5}]}',
        ),
        *(
            b"[" * 2_000_000,
            b'{"a":' * 800_000,
            b'{"layers": ' + b"[" * 2_000_000,
            b'{"mediaType": "\xff"}',
            b'{"config": "\\ud800"}',
        ),
    ],
)
def test_what_is_no_manifest_lists_nothing_and_raises_nothing(body: bytes) -> None:
    manifest = Manifest.of("", body)
    assert manifest.lists() == []
    assert manifest.media_type == MEDIA_TYPE_DEFAULT


def test_a_stale_manifest_says_so_and_is_the_same_otherwise() -> None:
    manifest = Manifest.of(INDEX, b"{}")
    assert not manifest.stale
    assert manifest.as_stale().stale
    assert manifest.as_stale().body is manifest.body
