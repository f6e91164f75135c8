"""Invariant 1 in the swarm: wrong bytes at the origin end no pull cleanly, on no node, and everybody hears why."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from agent.values.errors import DigestError
from hack.origin import Fault
from tests.swarm import PIECE, SECONDS, Lab, noise, wait_until

BODY = noise(6 * PIECE + 99)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


@pytest.mark.parametrize("at", [0, 3 * PIECE, len(BODY) - 1])
def test_a_flipped_byte_at_the_origin_reaches_no_node_as_a_whole_blob(lab: Lab, at: int) -> None:
    digest = lab.push(BODY).layers[0]
    lab.origin.fail(Fault(path="/blobs/", flip_byte=at))
    nodes = [lab.node() for _ in range(5)]
    received: dict[str, int] = {node.name: 0 for node in nodes}
    with ThreadPoolExecutor(5) as pool:
        pulls = [pool.submit(node.pull, digest, on_bytes=partial(received.__setitem__, node.name)) for node in nodes]
        errors = [pull.exception(SECONDS) for pull in pulls]
    assert {type(error) for error in errors} == {DigestError}
    assert all(digest in str(error) for error in errors)
    assert all(count < len(BODY) for count in received.values()), "the end is held back, so that nobody ends cleanly"
    assert all(node.store.blob(digest) is None for node in nodes)


def test_when_the_origin_is_right_again_so_is_the_next_pull_everywhere(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supernode.tracker.seeds.FAILURE_SECONDS", 0.0)
    digest = lab.push(BODY).layers[0]
    lab.origin.fail(Fault(path="/blobs/", methods=frozenset({"GET"}), flip_byte=PIECE), times=1)
    nodes = [lab.node() for _ in range(3)]
    with pytest.raises(DigestError):
        nodes[0].pull(digest)
    wait_until(lambda: not lab.state()["swarms"])  # until then others would join what is wrong, and fail once with it
    assert set(lab.pull_everywhere(digest)) == {BODY}


def test_a_node_alone_does_not_end_cleanly_either(tmp_path: Path) -> None:
    with Lab(tmp_path, supernodes=0) as lab:
        digest = lab.push(BODY).layers[0]
        lab.origin.fail(Fault(path="/blobs/", flip_byte=PIECE))
        node = lab.node()
        received: list[int] = []
        with pytest.raises(DigestError, match=digest):
            node.pull(digest, on_bytes=received.append)
        assert max(received) < len(BODY)
        assert node.store.blob(digest) is None


def test_wrong_bytes_from_the_origin_are_nobody_elses_fault(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    lab.origin.fail(Fault(path="/blobs/", flip_byte=0))
    nodes = [lab.node() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert all(pull.exception(SECONDS) for pull in [pool.submit(node.pull, digest) for node in nodes])
    assert lab.state()["quarantines"] == []
