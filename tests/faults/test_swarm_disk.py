"""Row 70: a blob for which no node's quota has room is shared all the same while it arrives, and then gone everywhere."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hack.origin import Fault
from tests.swarm import PIECE, Lab, noise, wait_until

BODY = noise(24 * PIECE + 99)
QUOTA = 4 * PIECE


@pytest.mark.parametrize("supernodes", [0, QUOTA], ids=["the supernode has room", "the supernode has none either"])
def test_a_blob_over_the_quota_comes_from_the_origin_once_for_four_nodes_at_once(tmp_path: Path, supernodes: int) -> None:
    """FAULTS 70: 4 nodes asked the origin 4.1 times, with 13 requests."""
    with Lab(tmp_path, **({"store_quota": supernodes} if supernodes else {})) as lab:
        digest = lab.push(BODY).layers[0]
        lab.origin.fail(Fault(path="/blobs/", bytes_per_second=8 << 20))
        nodes = [lab.node(quota=QUOTA) for _ in range(4)]
        assert lab.pull_everywhere(digest, nodes) == [BODY] * 4
        assert lab.origin.blob_bytes_sent <= 1.1 * len(BODY)
        late = lab.node(quota=QUOTA)
        assert late.pull(digest) == BODY
        assert lab.origin.blob_bytes_sent <= 1.1 * len(BODY), "a node that comes a little later finds it too"
        for node in [*nodes, late]:
            assert not node.store.holdings()
            wait_until(lambda store=node.store: not os.listdir(store.root / "partial"))
            node.store.let_go(time.monotonic())
            node.store.shrink()
            wait_until(lambda store=node.store: store.arriving(digest) is None and not store.offered())


def test_when_all_have_dropped_it_and_it_is_wanted_again_it_is_pulled_again(tmp_path: Path) -> None:
    with Lab(tmp_path, store_quota=QUOTA) as lab:
        digest = lab.push(BODY).layers[0]
        node, other = lab.node(quota=QUOTA), lab.node(quota=QUOTA)
        assert node.pull(digest) == BODY
        node.store.let_go(time.monotonic())
        node.store.shrink()
        assert other.pull(digest) == BODY
