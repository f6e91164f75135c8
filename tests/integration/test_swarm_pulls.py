"""A swarm at work: each byte leaves the origin once, whoever wants it, and everybody is served while it still arrives."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.values.errors import OriginError
from hack.origin import Fault, Image
from tests.swarm import PIECE, REPOSITORY, SECONDS, Lab, Node, noise, wait_until

BODY = noise(12 * PIECE + 345)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


def test_twenty_nodes_at_once_cost_the_origin_each_byte_once(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    for _ in range(20):
        lab.node()
    assert set(lab.pull_everywhere(digest)) == {BODY}
    assert lab.origin.blob_bytes_sent == len(BODY)
    assert len([asked for asked in lab.origin.asked(digest) if asked.method == "HEAD"]) <= 1
    from_peers = sum(where != lab.seed_address() for node in lab.nodes for _, where, _ in node.fetched)
    assert from_peers > 20 * 12 / 2, "most pieces come from other nodes"


def test_a_blob_of_no_bytes_is_pulled_and_the_supernode_is_not_taken_for_silent(lab: Lab) -> None:
    digest = lab.push(b"").layers[0]
    nodes = [lab.node(), lab.node()]
    assert lab.pull_everywhere(digest) == [b"", b""]
    assert [node.swarm.memory._failed for node in nodes] == [{}, {}]


def test_all_layers_of_an_image_are_distributed_side_by_side(lab: Lab) -> None:
    layers = [noise(3 * PIECE + number, seed=number) for number in range(5)]
    image = lab.push(*layers)
    nodes = [lab.node() for _ in range(4)]
    with ThreadPoolExecutor(20) as pool:
        pulls = {(node, digest): pool.submit(node.pull, digest) for node in nodes for digest in image.layers}
        for (_, digest), pull in pulls.items():
            assert pull.result(SECONDS) == layers[image.layers.index(digest)]
    assert lab.origin.blob_bytes_sent == sum(map(len, layers))


def test_many_who_want_one_blob_on_one_node_are_one_download(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    node = lab.node()
    with ThreadPoolExecutor(30) as pool:
        assert set(pool.map(lambda _: node.pull(digest), range(30))) == {BODY}
    assert lab.origin.blob_bytes_sent == len(BODY)


def test_a_node_is_served_while_the_blob_still_arrives_at_the_supernode(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    lab.origin.fail(Fault(path="/blobs/", stall_after=6 * PIECE), times=1)
    node = lab.node()
    progress: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        pull = pool.submit(node.pull, digest, on_bytes=progress.append)
        wait_until(lambda: progress and progress[-1] >= 4 * PIECE)
        assert not pull.done()
        lab.origin.stop()
        lab.origin.heal()
        lab.origin.start()
        assert pull.result(SECONDS) == BODY
    assert lab.origin.blob_bytes_sent < len(BODY) + 3 * PIECE, "it went on where it was"


def test_a_blob_that_others_hold_comes_to_a_newcomer_without_the_origin(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    first = lab.node()
    assert first.pull(digest) == BODY
    lab.origin.stop()
    newcomer = lab.node()
    assert newcomer.pull(digest) == BODY
    assert newcomer.sources() <= {lab.seed_address(), first.pieces.address}


def test_what_a_node_had_of_a_blob_it_does_not_fetch_again(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    lab.origin.fail(Fault(path="/blobs/", stall_after=3 * PIECE + 100))
    node = lab.node()
    reached = threading.Event()

    def leave(count: int) -> None:
        if count >= 3 * PIECE:
            reached.set()
            raise InterruptedError

    with pytest.raises(InterruptedError):
        node.pull(digest, on_bytes=leave)
    wait_until(lambda: not node.downloads._active)
    lab.origin.stop()
    lab.origin.heal()
    lab.origin.start()
    sent = lab.origin.blob_bytes_sent
    assert node.pull(digest) == BODY
    assert lab.origin.blob_bytes_sent - sent <= len(BODY) - 3 * PIECE


def test_a_download_that_nobody_waits_for_stops_and_leaves_its_swarm(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    lab.origin.fail(Fault(path="/blobs/", stall_after=3 * PIECE))
    node = lab.node()

    def leave(count: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        node.pull(digest, on_bytes=leave)
    began = time.monotonic()
    wait_until(lambda: not node.downloads._active)
    assert time.monotonic() - began < 5
    wait_until(lambda: not any(swarm["takers"] for swarm in lab.state()["swarms"]))


def test_a_blob_of_no_bytes_and_one_of_one_byte_are_blobs(lab: Lab) -> None:
    image = lab.push(b"", b"x", noise(PIECE), noise(PIECE + 1))
    nodes = [lab.node() for _ in range(2)]
    for digest, size in zip(image.layers, (0, 1, PIECE, PIECE + 1), strict=True):
        assert [len(body) for body in lab.pull_everywhere(digest, nodes)] == [size, size]


def test_a_node_without_a_supernode_pulls_from_the_origin(tmp_path: Path) -> None:
    with Lab(tmp_path, supernodes=0) as lab:
        digest = lab.push(BODY).layers[0]
        node = lab.node()
        assert node.pull(digest) == BODY
        assert node.fetched == []
        assert node.pull(digest) == BODY
        assert lab.origin.blob_bytes_sent == len(BODY)


def test_zones_keep_their_pieces_to_themselves_once_they_have_them(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    nodes = [lab.node(zone=f"zone-{number % 2}") for number in range(8)]
    assert set(lab.pull_everywhere(digest)) == {BODY}
    zones = {node.pieces.address: number % 2 for number, node in enumerate(nodes)}
    across = sum(
        zones.get(where, own) != own for number, node in enumerate(nodes) for own in [number % 2] for _, where, _ in node.fetched
    )
    assert across < 8 * 13 / 2


# Names.


def test_a_tag_costs_the_whole_swarm_one_question_in_an_interval(lab: Lab) -> None:
    image = lab.push(BODY)
    nodes = [lab.node() for _ in range(10)]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda number: nodes[number % 10].resolve("1"), range(50)))
    assert {manifest.digest for manifest in answers} == {image.digest}
    assert len(lab.origin.asked("/manifests/")) == 1


def test_a_tag_that_moved_is_seen_by_everybody_after_the_interval(tmp_path: Path) -> None:
    with Lab(tmp_path, tag_interval=1.0) as lab:
        old = lab.push(BODY)
        nodes = [lab.node() for _ in range(3)]
        assert {node.resolve("1").digest for node in nodes} == {old.digest}
        new = lab.push(b"new")
        wait_until(lambda: {node.resolve("1").digest for node in nodes} == {new.digest})
        asked = lab.origin.asked("/manifests/")
        assert {request.method for request in asked} == {"GET", "HEAD"}
        assert [request.method for request in asked].count("GET") == 2


def test_while_the_origin_is_away_a_newcomer_learns_the_last_answer_and_that_it_is_old(tmp_path: Path) -> None:
    with Lab(tmp_path, tag_interval=0.0) as lab:
        image = lab.push(BODY)
        assert not lab.node().resolve("1").stale
        lab.origin.stop()
        manifest = lab.node().resolve("1")
        assert (manifest.digest, manifest.stale) == (image.digest, True)
        with pytest.raises(OriginError) as failed:
            lab.node().resolve("2")
        assert failed.value.status == 502
        assert lab.origin.address in str(failed.value)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_the_origin_refuses_is_refused_with_its_words_and_asked_once(lab: Lab, status: int) -> None:
    lab.push(BODY)
    lab.origin.fail(Fault(path="/manifests/", status=status, body=b'{"errors": [{"code": "X", "message": "because"}]}'))
    with pytest.raises(OriginError, match="because") as refused:
        lab.node().resolve("1")
    assert refused.value.status == (401 if status == 403 else status)
    assert len(lab.origin.requests) == 1


def test_what_the_supernode_could_not_learn_a_node_asks_for_itself(lab: Lab) -> None:
    image = lab.push(BODY)
    lab.origin.fail(Fault(path="/manifests/", status=503), times=1)
    assert lab.node().resolve("1").digest == image.digest
    assert [request.status for request in lab.origin.requests] == [503, 200]


# Stopping.


def test_a_node_and_a_supernode_that_are_stopped_in_the_middle_leave_nothing_running(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    lab.origin.fail(Fault(path="/blobs/", stall_after=5 * PIECE))
    nodes = [lab.node() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        pulls = [pool.submit(node.pull, digest) for node in nodes]
        wait_until(lambda: all(node.fetched for node in nodes))
        began = time.monotonic()
        for node in nodes:
            node.close()
        lab.nodes.clear()
        lab.stop_supernode()
        assert time.monotonic() - began < 10
        assert all(pull.exception(SECONDS) for pull in pulls)


def test_the_image_that_was_pushed_is_the_image_that_is_pulled(lab: Lab) -> None:
    """Manifest, config and layers, as a runtime would."""
    image: Image = lab.push(BODY, noise(PIECE))
    node: Node = lab.node()
    manifest = node.resolve("1")
    assert manifest.body == image.manifest
    for digest in manifest.lists():
        assert node.pull(digest) == image.blobs[digest]
    assert lab.origin.blob_bytes_sent == image.size
    assert REPOSITORY in lab.origin.requests[0].path
