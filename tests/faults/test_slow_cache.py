"""FAULTS 101 of a later rollout: what the supernode alone has of an image, and sends far more slowly than its registry would.

Nodes have gone, or have dropped what they had, and the supernode's cache has it still.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hack.origin import Fault
from tests.swarm import PIECE, Lab, as_a_runtime, noise, wait_until

BODY = noise(12 * PIECE + 99)
BLOBS = Fault(path="/blobs/", methods=frozenset({"GET"}))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path, upload_rate=2 * PIECE) as lab:
        yield lab


def test_the_registry_is_asked_too(lab: Lab) -> None:
    digest = lab.distribute(BODY)
    sent = lab.settled()
    nodes = [lab.node() for _ in range(3)]
    assert set(lab.pull_everywhere(digest, nodes)) == {BODY}
    extra = lab.settled() - sent
    assert PIECE <= extra <= 2 * len(BODY), "what had not come in time, and again where a node leaves the swarm"


@pytest.mark.parametrize(
    "fault",
    [
        replace(BLOBS, status=404),
        replace(BLOBS, status=429, headers={"Retry-After": "60"}),
        replace(BLOBS, status=503),
        replace(BLOBS, delay_seconds=60),
        replace(BLOBS, stall_after=PIECE // 2),
        replace(BLOBS, flip_byte=8 * PIECE),
        replace(BLOBS, ignores_range=True),
        replace(BLOBS, bytes_per_second=PIECE // 8),
        replace(BLOBS, bytes_per_second=4096),
    ],
    ids=["gone", "too many", "broken", "silent", "stalls", "lies", "no ranges", "slower", "trickles"],
)
def test_a_registry_that_is_no_help_keeps_nobody_from_what_the_supernode_has(lab: Lab, fault: Fault) -> None:
    digest = lab.distribute(BODY)
    asked = len(lab.origin.requests)
    lab.origin.behave(fault)
    assert as_a_runtime(lab.node(), digest) == BODY
    wait_until(lambda: len(lab.origin.requests) > asked)


def test_of_a_supernode_that_has_begun_anew_and_knows_nothing_of_the_registry_it_is_found_out_too(tmp_path: Path) -> None:
    with Lab(tmp_path, upload_rate=PIECE // 4) as lab:
        digest = lab.distribute(BODY)
        lab.stop_supernode()
        lab.start_supernode(empty=False)
        sent = lab.settled()
        assert lab.node().pull(digest) == BODY
        assert lab.settled() > sent
