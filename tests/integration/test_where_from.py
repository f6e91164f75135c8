"""What a node keeps of where a blob came from, whether its own registry or other nodes brought the pieces."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hack.origin import Fault, Image, Origin
from tests.swarm import PIECE, REPOSITORY, Lab, Node, noise, wait_until

BODY = noise(16 * PIECE + 99)
GET = frozenset({"GET"})
SLOW = 8 * PIECE
"""Bytes a second of a registry, so that nobody has all of it before others take part."""


@pytest.fixture
def other() -> Iterator[Origin]:
    with Origin() as origin:
        origin.push(REPOSITORY, "1", Image.of([BODY]))
        yield origin


@pytest.fixture
def lab(tmp_path: Path, other: Origin) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    lab.insecure.append(other.address)
    with lab:
        yield lab


def kept(node: Node, digest: str) -> frozenset[str]:
    """As a restart finds it: a reader has the last byte a little earlier."""
    wait_until(lambda: digest in node.store.holdings())
    return node.store._origins_of(digest).entries


def both(origin: Origin) -> frozenset[str]:
    return frozenset({origin.address, f"{origin.address}/{REPOSITORY}"})


def test_what_nodes_share_of_one_registry_came_from_there_for_each_of_them(lab: Lab) -> None:
    lab.origin.behave(Fault(path="/blobs/", methods=GET, bytes_per_second=SLOW))
    nodes = [lab.node() for _ in range(3)]
    digest = lab.push(BODY).layers[0]
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(lambda node: node.pull(digest), nodes)) == {BODY}
    assert any(node.sources() for node in nodes), "some of it came from other nodes"
    assert {kept(node, digest) for node in nodes} == {both(lab.origin)}


def test_what_other_nodes_have_of_another_registry_did_not_come_from_ones_own(lab: Lab, other: Origin) -> None:
    other.behave(Fault(path="/blobs/", methods=GET, status=503))
    first, second = lab.node(), lab.node()
    digest = lab.push(BODY).layers[0]
    assert first.pull(digest) == BODY
    assert second.pull(digest, registry=other.address) == BODY
    assert kept(first, digest) == both(lab.origin)
    assert kept(second, digest) == frozenset()


def test_what_came_from_ones_own_registry_and_from_nodes_of_another_is_neithers(lab: Lab, other: Origin) -> None:
    for origin in (lab.origin, other):
        origin.behave(Fault(path="/blobs/", methods=GET, bytes_per_second=SLOW))
    nodes = {lab.node(): lab.origin, lab.node(): other}
    digest = lab.push(BODY).layers[0]
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(lambda node: node.pull(digest, registry=nodes[node].address), nodes)) == {BODY}
    assert any(node.sources() for node in nodes)
    for node, origin in nodes.items():
        if not node.sources():
            assert kept(node, digest) == both(origin)
        else:
            assert kept(node, digest) in (frozenset(), both(origin)), "both, if others had it from there"
    assert frozenset() in {kept(node, digest) for node in nodes}
