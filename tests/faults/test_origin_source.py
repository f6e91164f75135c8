"""Rows 90 and 102: origins with habits of their own, as sources of a swarm. Each byte leaves once, and nothing is spliced."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.values.errors import DigestError
from hack.origin import Fault, Image, Origin
from tests.swarm import PIECE, REPOSITORY, SECONDS, Lab, as_a_runtime, noise, wait_until

BODY = noise(16 * PIECE + 99)
SLOW = 4 * PIECE
SHARED = 1.5
"""Times the blob that leave the registry at most: on a busy machine what one node is slow to bring another may be granted too."""
GET = frozenset({"GET"})


@pytest.fixture
def other() -> Iterator[Origin]:
    """Another registry, or a store that one redirects to."""
    with Origin() as origin:
        origin.push(REPOSITORY, "1", Image.of([BODY]))
        yield origin


@pytest.fixture
def lab(tmp_path: Path, other: Origin) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    lab.insecure.append(other.address)
    with lab:
        yield lab


def refusals(origin: Origin) -> int:
    return sum(request.status == 429 for request in origin.requests)


# Row 90.


def test_a_registry_that_sends_wrong_bytes_is_charged_and_not_the_right_one(
    lab: Lab, other: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    """FAULTS 90: the first to open a digest names it. The members of the right one end right, and no node is held to lie."""
    other.behave(Fault(path="/blobs/", methods=GET, flip_byte=PIECE, bytes_per_second=SLOW))
    lab.origin.behave(Fault(path="/blobs/", methods=GET, bytes_per_second=SLOW))
    first, others = lab.node(), [lab.node() for _ in range(3)]
    digest = lab.push(BODY).layers[0]
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(4) as pool:
        deceived = pool.submit(first.pull, digest, registry=other.address)
        wait_until(lambda: first.held(digest) >= 2)
        assert set(pool.map(lambda node: as_a_runtime(node, digest), others)) == {BODY}
        assert isinstance(deceived.exception(SECONDS), DigestError)
        wait_until(lambda: f"{other.address}/{REPOSITORY} sends something else than {digest}" in caplog.text)
    assert f"{lab.origin.address}/{REPOSITORY} sends" not in caplog.text
    assert lab.state()["quarantines"] == []


def test_a_registry_that_sends_a_byte_a_second_costs_others_nothing(lab: Lab, other: Origin) -> None:
    """FAULTS 90: what its member was to get, the origin of the next one is asked for."""
    other.behave(Fault(path="/blobs/", methods=GET, bytes_per_second=1))
    first, others = lab.node(), [lab.node() for _ in range(3)]
    digest = lab.push(BODY).layers[0]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(first.pull, digest, registry=other.address)
        wait_until(lambda: other.asked(digest, "GET"))
        assert set(lab.pull_everywhere(digest, others)) == {BODY}
        granted = 2 * 2 * PIECE  # two runs, which the others are let ask for themselves after a few seconds
        assert lab.settled() <= SHARED * len(BODY) + len(others) * granted
        lab.nodes.remove(first)
        first.close()


# Row 102.


def test_an_origin_that_gives_a_connection_little_is_asked_over_several_and_sends_each_byte_once(lab: Lab) -> None:
    """FAULTS 102: over no more of them than an operator lets it be asked."""
    lab.origin.behave(Fault(path="/blobs/", methods=GET, bytes_per_second=2 * PIECE, at_once_max=8))
    digest = lab.push(BODY).layers[0]
    for _ in range(10):
        lab.node()
    most = 0
    with ThreadPoolExecutor(1) as pool:
        pulls = pool.submit(lab.pull_everywhere, digest)
        while not pulls.done():
            most = max(most, len(lab.origin._under_way))
        assert set(pulls.result()) == {BODY}
    assert most > 1
    assert refusals(lab.origin) == 0
    assert lab.settled() <= SHARED * len(BODY)


def test_an_origin_that_knows_no_ranges_is_asked_for_the_whole_by_one_node(lab: Lab) -> None:
    """FAULTS 102."""
    lab.origin.behave(Fault(path="/blobs/", ignores_range=True, headers={"Accept-Ranges": "none"}, bytes_per_second=8 * PIECE))
    digest = lab.push(BODY).layers[0]
    for _ in range(6):
        lab.node()
    assert set(lab.pull_everywhere(digest)) == {BODY}
    whole = [request for request in lab.origin.asked(digest, "GET") if request.body_bytes == len(BODY)]
    assert len(whole) == 1
    assert lab.settled() < 2 * len(BODY), "the others were left when their first bytes told that they were the whole"


def test_a_signed_url_that_runs_out_in_a_run_is_asked_for_anew(lab: Lab, other: Origin) -> None:
    """FAULTS 102: what breaks off when the first has run out goes on under another one, from there."""
    location = f"{other.url}{{path}}?until={{until}}"
    lab.origin.behave(Fault(path="/blobs/", status=307, headers={"Location": location}, valid_seconds=0.5))
    other.behave(Fault(path="/blobs/", runs_out=True))
    other.fail(Fault(path="/blobs/", methods=GET, bytes_per_second=PIECE, cut_after=PIECE + PIECE // 2), times=2)
    digest = lab.push(BODY).layers[0]
    assert lab.node().pull(digest) == BODY, "alone, for others may be granted what a slow run still has to bring"
    wait_until(lambda: not other._under_way)
    assert len(BODY) <= other.blob_bytes_sent <= len(BODY) + 2 * PIECE, "no more than what broke off is sent twice"


def test_an_origin_that_answers_429_to_the_third_connection_sees_few_of_these(lab: Lab) -> None:
    """FAULTS 102: it is asked over two from then on, and each byte leaves once."""
    lab.origin.behave(Fault(path="/blobs/", methods=GET, at_once_max=2, bytes_per_second=SLOW))
    digest = lab.push(BODY).layers[0]
    for _ in range(8):
        lab.node()
    assert set(lab.pull_everywhere(digest)) == {BODY}
    assert lab.settled() <= SHARED * len(BODY)
    assert 0 < refusals(lab.origin) <= 8


def test_four_connections_at_most_are_four_at_most(tmp_path: Path) -> None:
    """FAULTS 102: what an operator says of registries is kept, so that one which counts has nothing to refuse."""
    with Lab(tmp_path, registry_connections=4) as lab:
        lab.origin.behave(Fault(path="/blobs/", methods=GET, at_once_max=4, bytes_per_second=SLOW))
        digest = lab.push(BODY).layers[0]
        for _ in range(10):
            lab.node()
        assert set(lab.pull_everywhere(digest)) == {BODY}
        assert refusals(lab.origin) == 0
        assert lab.settled() <= SHARED * len(BODY)
