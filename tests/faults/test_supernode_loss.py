"""Rows 37 and 38: the supernode dies, comes back empty, is one of two, or says what no supernode says. Pulls end all the same."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest
from blake3 import blake3

from agent.download import planner
from agent.http.server import Exchange
from agent.swarm import messages
from agent.swarm.channel import frame
from agent.values.address import Address
from agent.values.errors import DigestError, OriginError
from hack.origin import Fault
from supernode import metrics
from tests.swarm import PIECE, SECONDS, Lab, Node, RawSupernode, free_address, noise, piece_listener, wait_until

BODY = noise(12 * PIECE + 99)
SLOW = 2 << 20
"""Bytes a second from the origin: a pull takes about two seconds."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


@contextlib.contextmanager
def rollout(lab: Lab, digest: str, nodes: list[Node], pieces: int = 3) -> Iterator[list[Future[bytes]]]:
    """Pulls that are under way: each node has some pieces, and none has all."""
    lab.origin.fail(Fault(path="/blobs/", bytes_per_second=SLOW))
    with ThreadPoolExecutor(len(nodes)) as pool:
        pulls = [pool.submit(node.pull, digest) for node in nodes]
        wait_until(lambda: all(node.held(digest) >= pieces for node in nodes))
        assert not any(pull.done() for pull in pulls)
        yield pulls


def test_a_pull_that_was_under_way_when_the_supernode_died_ends_at_the_origin(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "REOPEN_SECONDS", 0.3)
    digest = lab.push(BODY).layers[0]
    node = lab.node()
    with rollout(lab, digest, [node]) as pulls:
        lab.stop_supernode()
        assert pulls[0].result(SECONDS) == BODY
    assert lab.origin.blob_bytes_sent < 2 * len(BODY), "what had arrived is not fetched again"


def test_a_supernode_that_comes_back_empty_costs_at_most_one_more_fetch(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "REOPEN_SECONDS", SECONDS)
    digest = lab.push(BODY).layers[0]
    nodes = [lab.node() for _ in range(8)]
    with rollout(lab, digest, nodes) as pulls:
        lab.stop_supernode()
        before = lab.settled()  # runs that were under way have ended
        lab.origin.heal()
        lab.start_supernode()
        assert {pull.result(SECONDS) for pull in pulls} == {BODY}
    assert lab.settled() <= before + len(BODY)


def test_a_supernode_that_comes_back_with_its_store_goes_on_where_it_was(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the blob itself, for no node can."""
    monkeypatch.setattr(planner, "REOPEN_SECONDS", SECONDS)
    received = metrics.ORIGIN_RECEIVED_BYTES._value.get()
    digest = lab.push(BODY).layers[0]
    nodes = [lab.node() for _ in range(3)]
    for node in nodes:
        refused = OriginError(403, "the registry refuses this node", "DENIED")
        monkeypatch.setattr(node.client, "open_blob", Mock(side_effect=refused))
    with rollout(lab, digest, nodes) as pulls:
        lab.stop_supernode()
        lab.origin.heal()
        lab.start_supernode(empty=False)
        assert {pull.result(SECONDS) for pull in pulls} == {BODY}
    assert lab.origin.asked(digest, "GET")[-1].headers["Range"] is not None
    assert metrics.ORIGIN_RECEIVED_BYTES._value.get() - received == len(BODY), "each piece once, all in all"


def test_what_a_supernode_has_lost_it_takes_back_from_its_nodes_and_not_from_the_origin(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    assert lab.node().pull(digest) == BODY
    lab.stop_supernode()
    lab.start_supernode()
    wait_until(lambda: lab.state()["nodesTotal"] == 1)
    newcomers = [lab.node() for _ in range(4)]
    assert set(lab.pull_everywhere(digest, newcomers)) == {BODY}
    assert lab.origin.blob_bytes_sent == len(BODY)


def test_also_while_the_origin_is_away(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    holder = lab.node()
    assert holder.pull(digest) == BODY
    lab.stop_supernode()
    lab.origin.stop()
    lab.start_supernode()
    wait_until(lambda: lab.state()["nodesTotal"] == 1)
    newcomer = lab.node()
    assert newcomer.pull(digest) == BODY
    assert newcomer.sources() <= {lab.seed_address(), holder.pieces.address}


def test_a_node_that_lied_to_the_supernode_is_known_and_the_blob_comes_right(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    liar = lab.node()
    assert liar.pull(digest) == BODY
    path = liar.store.root / "blobs" / "sha256" / digest.removeprefix("sha256:")
    wait_until(path.exists)
    with path.open("r+b") as file:
        file.seek(3 * PIECE)
        file.write(bytes(100))
    lab.stop_supernode()
    lab.start_supernode()
    wait_until(lambda: lab.state()["nodesTotal"] == 1)
    taker = lab.node()
    with pytest.raises(DigestError):
        taker.pull(digest)
    assert taker.pull(digest) == BODY, "as soon as its runtime asks again"
    wait_until(lambda: lab.state()["quarantines"])
    assert [item["name"] for item in lab.state()["quarantines"]] == [liar.name]
    assert lab.settled() == 2 * len(BODY)


# Several.


def test_when_the_owner_of_a_blob_is_lost_the_next_supernode_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "REOPEN_SECONDS", SECONDS)
    with Lab(tmp_path, supernodes=2) as lab:
        digest = lab.push(BODY).layers[0]
        nodes = [lab.node() for _ in range(4)]
        owner = nodes[0].swarm.owners(digest)[0].where
        with rollout(lab, digest, nodes) as pulls:
            lab.stop_supernode(lab.channels.index(owner))
            before = lab.settled()
            lab.origin.heal()
            assert {pull.result(SECONDS) for pull in pulls} == {BODY}
        assert lab.settled() <= before + len(BODY)
        wait_until(lambda: lab.state(1 - lab.channels.index(owner))["swarms"][0]["whole"])


def test_a_newcomer_gets_what_the_others_hold_when_the_owner_and_the_origin_are_gone(tmp_path: Path) -> None:
    with Lab(tmp_path, supernodes=2) as lab:
        digest = lab.push(BODY).layers[0]
        holder = lab.node()
        assert holder.pull(digest) == BODY
        lab.stop_supernode(lab.channels.index(holder.swarm.owners(digest)[0].where))
        lab.origin.stop()
        newcomer = Node(tmp_path, "newcomer", lab, wait=False)
        lab.nodes.append(newcomer)
        wait_until(lambda: newcomer.swarm.owners(digest))
        assert newcomer.pull(digest) == BODY


def test_two_supernodes_share_the_blobs_between_them(tmp_path: Path) -> None:
    with Lab(tmp_path, supernodes=2) as lab:
        image = lab.push(*(noise(PIECE, seed=number) for number in range(12)))
        nodes = [lab.node() for _ in range(2)]
        for digest in image.layers:
            lab.pull_everywhere(digest, nodes)
        assert lab.origin.blob_bytes_sent == 12 * PIECE
        assert sorted(len(lab.state(number)["swarms"]) for number in (0, 1))[0] > 0


# None, or none that makes sense.


def alone(tmp_path: Path, *channels: Address) -> Lab:
    lab = Lab(tmp_path, supernodes=0)
    lab.channels += channels
    return lab


def test_a_supernode_that_is_not_there_is_not_waited_for(tmp_path: Path) -> None:
    with alone(tmp_path, free_address()) as lab:
        digest = lab.push(BODY).layers[0]
        node = Node(tmp_path, "node", lab, wait=False)
        lab.nodes.append(node)
        assert node.pull(digest, seconds=5) == BODY


def says(
    *answers: Callable[[messages.Open], list[messages.Message]],
) -> Callable[[socket.socket, Iterator[messages.FromAgent]], None]:
    """A supernode that answers each Open like that, and each Resolve not at all."""

    def converse(sock: socket.socket, heard: Iterator[messages.FromAgent]) -> None:
        for message in heard:
            replies: list[messages.Message] = []
            if isinstance(message, messages.Hello):
                replies = [messages.Welcome(messages.VERSION, "raw", 30.0, "127.0.0.1", 1)]
            if isinstance(message, messages.Open):
                replies = [reply for answer in answers for reply in answer(message)]
            sock.sendall(b"".join(map(frame, replies)))

    return converse


def task(opened: messages.Open, size: int = len(BODY), length: int = PIECE, number: int = 1) -> list[messages.Message]:
    return [messages.Task(opened.request, number, size, length, {})]


def grants(*granted: messages.Granted, number: int = 1) -> Callable[[messages.Open], list[messages.Message]]:
    return lambda opened: [messages.Grant(number, list(granted))]


WRONG_DIGEST = b"\x01" * 32


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [task],
        [lambda opened: [messages.TaskFailed(opened.request, 0, 502, "no", False)]],
        [task, lambda opened: [messages.TaskFailed(0, 1, 502, "no", False)]],
        [lambda opened: task(opened, size=len(BODY), length=3)],
        [lambda opened: task(opened, size=1 << 40, length=PIECE)],
        [task, grants(messages.Granted(0, WRONG_DIGEST, messages.SEED, messages.SEED))],
        [task, grants(messages.Granted(0, WRONG_DIGEST, 77, 78), messages.Granted(40_000, WRONG_DIGEST, 77, 78))],
        [task, grants(messages.Granted(0, WRONG_DIGEST, 77, 78), number=2)],
        [task, grants(messages.Granted(0, messages.COMING, messages.SEED, messages.SEED))],
        [task, task, lambda opened: task(opened, number=2)],
    ],
    ids=[
        *("silence", "a task and silence", "a failure", "a failure later", "impossible pieces", "an impossible size"),
        *("a source that is dead", "sources that nobody knows", "grants of another task"),
        *("a piece that is coming from nowhere", "the task three times"),
    ],
)
def test_whatever_a_supernode_says_the_origin_ends_the_pull(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[Callable[[messages.Open], list[messages.Message]]]
) -> None:
    monkeypatch.setattr(planner, "OPEN_SECONDS_MAX", 0.5)
    monkeypatch.setattr(planner, "EVIDENCE_SECONDS", 0.5)
    with RawSupernode(says(*answers)) as supernode, alone(tmp_path, supernode.where) as lab:
        digest = lab.push(BODY).layers[0]
        node = lab.node()
        assert node.pull(digest) == BODY
        assert lab.origin.blob_bytes_sent == len(BODY)


def test_no_node_but_the_supernode_is_believed_what_a_piece_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "EVIDENCE_SECONDS", 0.5)
    asked: list[str] = []

    def lie(exchange: Exchange) -> None:
        asked.append(exchange.request.target)
        exchange.answer(200, {}, bytes(PIECE) + blake3(bytes(PIECE)).digest())

    liar = piece_listener(lie)
    peer = messages.Peer(77, *liar.address)
    answers = says(task, lambda opened: [peer], grants(messages.Granted(0, messages.COMING, 77, 77)))
    with RawSupernode(answers) as supernode, alone(tmp_path, supernode.where) as lab:
        assert lab.node().pull(lab.push(BODY).layers[0]) == BODY
    liar.stop()
    assert asked == []


def test_a_supernode_that_names_another_size_ends_in_an_error_and_never_in_wrong_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "EVIDENCE_SECONDS", 0.5)
    with (
        RawSupernode(says(lambda opened: task(opened, size=5 * PIECE), grants())) as supernode,
        alone(tmp_path, supernode.where) as lab,
    ):
        digest = lab.push(BODY).layers[0]
        node = lab.node()
        with pytest.raises(Exception, match=r"differ in its size|another size"):
            node.pull(digest)
        assert node.store.blob(digest) is None


def test_a_supernode_that_cuts_blobs_in_another_way_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "EVIDENCE_SECONDS", 0.5)
    with RawSupernode(says(lambda opened: task(opened, length=2 * PIECE))) as supernode, alone(tmp_path, supernode.where) as lab:
        digest = lab.push(BODY).layers[0]
        assert lab.node().pull(digest) == BODY


def test_a_supernode_that_says_nothing_of_a_name_is_not_waited_for_longer_than_a_runtime_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.swarm.supernodes.RESOLVE_SECONDS_MAX", 0.5)
    with RawSupernode(says()) as supernode, alone(tmp_path, supernode.where) as lab:
        image = lab.push(BODY)
        assert lab.node().resolve("1").digest == image.digest


def test_a_corrupt_blob_by_the_supernodes_word_ends_the_pull_with_its_reason(tmp_path: Path) -> None:
    failed = messages.TaskFailed(0, 1, 502, "the bytes are wrong", True)
    with RawSupernode(says(task, lambda opened: [failed])) as supernode, alone(tmp_path, supernode.where) as lab:
        digest = lab.push(BODY).layers[0]
        with pytest.raises(Exception, match="the bytes are wrong"):
            lab.node().pull(digest)


def test_without_supernode_and_origin_the_answer_names_the_registry(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        digest = lab.push(BODY).layers[0]
        node = lab.node()
        lab.origin.stop()
        with pytest.raises(OriginError, match=f"the registry {lab.origin.address} cannot be reached") as failed:
            node.pull(digest)
        assert failed.value.status == 502
        with pytest.raises(OriginError, match=f"the registry {lab.origin.address} cannot be reached"):
            node.resolve("1")
