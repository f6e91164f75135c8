"""Where the bytes of an image came from, by what an agent tells."""

from __future__ import annotations

from typing import Any

from agent.values.reference import to_local
from cli.explain.sources import pulls_of, repository


def told(image: str | None, **more: Any) -> dict[str, Any]:
    sources = {"peer": 600, "supernode": 0, "origin": 400, "store": 0, "containerd": 0}
    entry = {"image": image, "digest": "sha256:a", "bytes": 1000, "seconds": 1.5, "firstByteSeconds": 0.1, "secondsAgo": 7}
    return {**entry, "sources": sources, "error": None, **more}


def test_pulls_of_an_image_are_told_by_source_and_the_newest_first() -> None:
    state = {
        "pulls": [
            told("docker.io/library/nginx", secondsAgo=90, digest="sha256:b"),
            told("docker.io/library/nginx"),
            told("reg.test/other"),
            told(None),
        ]
    }
    for image in ("nginx:1", to_local("nginx:1")):
        newest, oldest = pulls_of("n1", state, [image])
        assert (newest.node, newest.digest, newest.bytes, newest.seconds, newest.first_byte_seconds) == (
            "n1",
            "sha256:a",
            1000,
            1.5,
            0.1,
        )
        assert newest.share == "peer 60 %, origin 40 %"
        assert newest.error == ""
        assert oldest.digest == "sha256:b"


def test_what_is_malformed_or_missing_is_no_pull() -> None:
    assert list(pulls_of("n1", {}, ["nginx"])) == []
    assert list(pulls_of("n1", {"pulls": 7}, ["nginx"])) == []
    (pull,) = pulls_of("n1", {"pulls": [{"image": "docker.io/library/nginx", "sources": 3}]}, ["nginx"])
    assert (pull.bytes, pull.share) == (0, "nothing")


def test_an_image_is_named_by_its_repository() -> None:
    assert repository("Reg.Test:5000/a/b@sha256:" + 64 * "0") == "reg.test:5000/a/b"
    assert repository("no name !") == ""
