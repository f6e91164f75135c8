"""FAULTS 98: a part of a blob ends cleanly only when its bytes are known to be right; else the connection is reset."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.origin import Fault, Origin
from tests.endpoint import DIGEST, LAYER, Endpoint, push, runtime_at_node
from tests.swarm import PIECE, Lab, noise

RANGES = [(0, 100), (5, 5), (PIECE - 1, PIECE), (PIECE, 2 * PIECE - 1), (1, len(LAYER) - 2)]
"""First and last byte of each: none reaches the end of the blob, which waits for the digest of the whole in any case."""


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    with Origin() as origin, Endpoint(tmp_path / "store", origin) as endpoint:
        push(origin)
        endpoint.ask("manifests/1")
        yield endpoint


@pytest.mark.parametrize(("first", "last"), RANGES)
def test_a_part_of_a_blob_that_is_wrong_in_the_end_is_cut_off_before_its_last_byte(
    endpoint: Endpoint, first: int, last: int
) -> None:
    """FAULTS 98."""
    endpoint.origin.fail(Fault(path="/blobs/", flip_byte=len(LAYER) - 1))
    received = bytearray()
    with endpoint.asked(f"blobs/{DIGEST}", Range=f"bytes={first}-{last}") as answer:
        assert answer.status == 206
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            while data := answer.read(1):
                received += data
    assert len(received) <= last - first


@pytest.mark.parametrize(("first", "last"), RANGES)
def test_a_part_of_a_blob_that_is_right_comes_whole_while_the_blob_arrives(endpoint: Endpoint, first: int, last: int) -> None:
    """FAULTS 98: whatever part is asked for, all of the blob comes for it."""
    endpoint.origin.fail(Fault(path="/blobs/", bytes_per_second=2 << 20))
    answer = endpoint.ask(f"blobs/{DIGEST}", Range=f"bytes={first}-{last}")
    assert (answer.status, answer.body) == (206, LAYER[first : last + 1])


def test_the_head_of_such_an_answer_does_not_wait_for_the_proof(endpoint: Endpoint) -> None:
    """FAULTS 98: a runtime gives up when it has no head after 30 s; a body may take longer."""
    endpoint.origin.fail(Fault(path="/blobs/", stall_after=2 * PIECE))
    with endpoint.asked(f"blobs/{DIGEST}", Range="bytes=0-0") as answer:
        assert answer.status == 206


def test_a_part_whose_pieces_the_supernode_has_named_waits_for_no_other(tmp_path: Path) -> None:
    """FAULTS 98: they are proven before the blob is."""
    body = noise(4 * PIECE)
    with Lab(tmp_path) as lab:
        image = lab.push(body)
        lab.origin.fail(Fault(path="/blobs/", stall_after=2 * PIECE + 1))
        with runtime_at_node(lab.node(), lab.origin) as runtime:
            runtime.ask("manifests/1")
            answer = runtime.ask(f"blobs/{image.layers[0]}", Range=f"bytes=10-{2 * PIECE - 1}")
            assert (answer.status, answer.body) == (206, body[10 : 2 * PIECE])
            lab.origin.stop()
