"""Clients that read a blob a part at a time, as stargz-snapshotter does: its end first, then here and there, the rest later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.http.ratelimit import Pace
from agent.origin.client import BLOB_SECONDS_MAX
from hack.origin import Fault, Origin
from tests.endpoint import Endpoint, push, runtime_at_node
from tests.swarm import PIECE, Lab, noise, wait_until

BODY = noise(48 * PIECE)
ORIGIN_BYTES_PER_SECOND = 2 << 20
"""All of the blob takes twelve seconds."""
PARTS = [(len(BODY) - 100, len(BODY) - 1), (10 * PIECE + 5, 10 * PIECE + 2000), (30 * PIECE, 31 * PIECE), (5, 90)]
"""First and last byte."""
PART_SECONDS_MAX = 6.0
"""For each, on a busy machine: half of what the blob takes."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


def read(endpoint: Endpoint, digest: str, first: int, last: int) -> bytes:
    answer = endpoint.ask(f"blobs/{digest}", Range=f"bytes={first}-{last}")
    assert answer.status == 206
    return answer.body


def assert_all_parts_are_right(endpoint: Endpoint, digest: str) -> None:
    for first, last in PARTS:
        assert read(endpoint, digest, first, last) == BODY[first : last + 1]


def test_each_part_comes_from_the_registry_at_once_and_the_rest_behind_it(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    lab.origin.fail(Fault(path="/blobs/", bytes_per_second=ORIGIN_BYTES_PER_SECOND))
    node = lab.node()
    with runtime_at_node(node, lab.origin, lazy=True) as endpoint:
        endpoint.ask("manifests/1")
        for first, last in PARTS:
            began = time.monotonic()
            assert read(endpoint, digest, first, last) == BODY[first : last + 1]
            assert time.monotonic() - began < PART_SECONDS_MAX
        lab.origin.heal()
        wait_until(lambda: node.store.blob(digest) is not None)  # nobody reads any more
        assert lab.origin.blob_bytes_sent < 1.1 * len(BODY), "the blob once, and the parts that did not wait for it"
        lab.origin.stop()
        assert endpoint.ask(f"blobs/{digest}").body == BODY


def test_what_other_nodes_have_comes_from_them(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    lab.node().pull(digest)
    with runtime_at_node(lab.node(), lab.origin, lazy=True) as endpoint:
        endpoint.ask("manifests/1")
        assert_all_parts_are_right(endpoint, digest)
    assert lab.origin.blob_bytes_sent < 1.1 * len(BODY)


def test_a_registry_that_does_not_answer_is_not_waited_for_where_nodes_have_the_blob(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    first_node, second = lab.node(), lab.node()
    first_node.pull(digest)
    with runtime_at_node(second, lab.origin, lazy=True) as endpoint:
        endpoint.ask("manifests/1")
        endpoint.ask(f"blobs/{digest}", "HEAD")  # the registry lets this client have it
        lab.origin.fail(Fault(path="/blobs/", status=503))
        assert_all_parts_are_right(endpoint, digest)


def test_a_registry_that_is_silent_holds_up_nobody_whom_nodes_can_serve(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    first_node, second = lab.node(), lab.node()
    first_node.pull(digest)
    with runtime_at_node(second, lab.origin, lazy=True) as endpoint:
        endpoint.ask("manifests/1")
        endpoint.ask(f"blobs/{digest}", "HEAD")
        lab.origin.fail(Fault(path="/blobs/", delay_seconds=600))
        second.downloads.fetcher._download = Pace(4 << 20)  # so that the part is not here when the registry is asked
        began = time.monotonic()
        first, last = PARTS[2]
        assert read(endpoint, digest, first, last) == BODY[first : last + 1]
        assert time.monotonic() - began < BLOB_SECONDS_MAX / 2, "the registry may take that long, and longer, to say nothing"


def test_the_registry_is_asked_for_the_part_and_no_more(tmp_path: Path) -> None:
    with Origin() as origin, Endpoint(tmp_path, origin, lazy=True) as endpoint:
        digest = push(origin, BODY).layers[0]
        origin.fail(Fault(path="/blobs/", bytes_per_second=ORIGIN_BYTES_PER_SECOND))
        endpoint.ask("manifests/1")
        assert_all_parts_are_right(endpoint, digest)
        ranges = [request.headers.get("Range") for request in origin.asked("/blobs/", "GET")]
        assert f"bytes={PARTS[0][0]}-{PARTS[0][1]}" in ranges
        assert not [one for one in ranges if one and one.endswith("-")], "what is left of a blob would be on its way too"


def test_a_registry_that_sends_whole_blobs_only_is_not_made_to_for_each_part(tmp_path: Path) -> None:
    with Origin() as origin, Endpoint(tmp_path, origin, lazy=True) as endpoint:
        digest = push(origin, BODY).layers[0]
        origin.behave(Fault(path="/blobs/", ignores_range=True, bytes_per_second=4 * ORIGIN_BYTES_PER_SECOND))
        endpoint.ask("manifests/1")
        first, last = PARTS[0]
        assert read(endpoint, digest, first, last) == BODY[first : last + 1]
        assert origin.blob_bytes_sent < 1.5 * len(BODY)


def test_a_blob_that_has_no_place_in_the_store_comes_only_while_somebody_reads(tmp_path: Path) -> None:
    with Origin() as origin, Endpoint(tmp_path, origin, lazy=True, quota=len(BODY) // 2) as endpoint:
        digest = push(origin, BODY).layers[0]
        origin.fail(Fault(path="/blobs/", bytes_per_second=ORIGIN_BYTES_PER_SECOND))
        endpoint.ask("manifests/1")
        first, last = PARTS[0]
        assert read(endpoint, digest, first, last) == BODY[first : last + 1]
        wait_until(lambda: not endpoint.downloads._active)
        assert origin.blob_bytes_sent < len(BODY) // 2


def test_without_a_supernode_too(tmp_path: Path) -> None:
    with Origin() as origin, Endpoint(tmp_path, origin, lazy=True) as endpoint:
        digest = push(origin, BODY).layers[0]
        origin.fail(Fault(path="/blobs/", bytes_per_second=ORIGIN_BYTES_PER_SECOND))
        endpoint.ask("manifests/1")
        assert_all_parts_are_right(endpoint, digest)
        origin.heal()
        wait_until(lambda: endpoint.store.blob(digest) is not None)
