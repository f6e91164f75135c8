"""Rows 61 to 67 and 77: registries with habits of their own, as runtimes accept them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.origin import Fault, Origin
from tests.endpoint import DIGEST, LAYER, Endpoint, push
from tests.swarm import Lab

CHUNKED = Fault(path="/blobs/", chunked=True)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        push(origin)
        yield origin


@pytest.fixture
def endpoint(origin: Origin, tmp_path: Path) -> Iterator[Endpoint]:
    with Endpoint(tmp_path / "store", origin) as endpoint:
        yield endpoint


# Blobs without a length.


@pytest.mark.parametrize("fault", [CHUNKED, Fault(path="/blobs/", headers={"Content-Length": None})], ids=["chunks", "end"])
def test_a_blob_without_a_length_has_the_length_that_its_manifest_says(endpoint: Endpoint, fault: Fault) -> None:
    """FAULTS 61."""
    endpoint.origin.fail(fault)
    endpoint.ask("manifests/1")
    assert endpoint.ask(f"blobs/{DIGEST}", "HEAD").headers["Content-Length"] == str(len(LAYER))
    answer = endpoint.ask(f"blobs/{DIGEST}")
    assert (answer.status, answer.body) == (200, LAYER)


def test_a_stream_in_chunks_that_breaks_off_goes_on_where_it_ended(endpoint: Endpoint) -> None:
    """FAULTS 61."""
    endpoint.origin.fail(Fault(path="/blobs/", chunked=True, cut_after=len(LAYER) // 2, bytes_per_second=8_000_000), times=1)
    endpoint.origin.fail(CHUNKED)
    endpoint.ask("manifests/1")
    assert endpoint.ask(f"blobs/{DIGEST}").body == LAYER
    assert "range" in endpoint.origin.asked("/blobs/")[-1].headers


def test_chunks_that_are_not_the_blob_are_refused(endpoint: Endpoint) -> None:
    """FAULTS 61: the manifest's size is somebody's word, and the digest decides."""
    endpoint.origin.fail(Fault(path="/blobs/", chunked=True, flip_byte=17))
    endpoint.ask("manifests/1")
    answer = endpoint.ask(f"blobs/{DIGEST}", Range="bytes=0-99")
    assert answer.status in (206, 502)
    assert endpoint.store.blob(DIGEST) is None


def test_the_supernode_is_told_how_long_a_blob_is_by_the_node_that_knows_its_manifest(tmp_path: Path) -> None:
    """FAULTS 61: the supernode that seeds it has seen no manifest."""
    with Lab(tmp_path) as lab:
        image = lab.push(LAYER)
        lab.origin.fail(CHUNKED)
        nodes = [lab.node() for _ in range(3)]
        for node in nodes:
            node.client.sizes.learn(lab.origin.address, "team/app", {image.layers[0]: len(LAYER)})
        assert lab.pull_everywhere(image.layers[0]) == [LAYER] * 3
        assert len(lab.origin.asked("/blobs/")) == 1
        assert lab.origin.blob_bytes_sent == len(LAYER)
