"""Row 93: blobs that a registry gives only to who proves who it is. Nodes share them, and credentials stay where they are."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3

from agent.http.server import Exchange
from agent.swarm import messages
from agent.values.credential import Credential
from agent.values.reference import raw_digest
from hack.origin import Fault
from hack.origin.access import Access
from tests.forwarder import Forwarder
from tests.swarm import PIECE, REPOSITORY, SECONDS, Lab, Node, RawAgent, as_a_runtime, noise, piece_listener, wait_until

BODY = noise(12 * PIECE + 99)
ALICE = Credential("alice-3f9c", "0a1b2c3d4e5f60718293a4b5c6d7e8f9")
BOB = Credential("bob-77d0", "f9e8d7c6b5a493827160f5e4d3c2b1a0")
STRANGER = Credential("mallory", "00")
USERS = {user.username: user.password for user in (ALICE, BOB)}
SLOW = 4 * PIECE
SHARED = 1.5
"""Times the blob that leave the registry at most: on a busy machine what one node is slow to bring another may be granted too."""


@pytest.fixture(params=[False, True], ids=["basic", "tokens"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        lab.origin.repositories.access = Access(users=dict(USERS), private=frozenset({REPOSITORY}), bearer=request.param)
        yield lab


def pushed(lab: Lab, nodes: list[Node]) -> str:
    """A private blob whose size the nodes know, as from its manifest."""
    digest = lab.push(BODY).layers[0]
    for node in nodes:
        node.client.sizes.learn(lab.origin.address, REPOSITORY, {digest: len(BODY)})
    return digest


def test_eight_nodes_with_one_credential_share_one_fetch_of_each_byte(lab: Lab) -> None:
    nodes = [lab.node() for _ in range(8)]
    digest = pushed(lab, nodes)
    with ThreadPoolExecutor(len(nodes)) as pool:
        assert set(pool.map(lambda node: node.pull(digest, credential=ALICE), nodes)) == {BODY}
    sent = lab.settled()
    assert sent <= SHARED * len(BODY)
    wait_until(lambda: lab.state()["swarms"][0]["whole"], said=lambda: str(lab.state()))
    assert lab.settled() == sent, "the supernode has its copy from nodes"


def test_a_credential_never_leaves_its_node(lab: Lab) -> None:
    """What the channel carries, and what other nodes are asked, has nothing in it of what opens the registry."""
    way = Forwarder(lab.channels[0])
    lab.channels[0], supernode = way.where, lab.channels[0]
    nodes = [lab.node() for _ in range(2)]
    pieces = [Forwarder(node.pieces.address) for node in nodes]
    lab.channels[0] = supernode
    digest = pushed(lab, nodes)
    lab.origin.fail(Fault(path="/blobs/", bytes_per_second=SLOW))
    with ThreadPoolExecutor(len(nodes)) as pool:
        assert set(pool.map(lambda node: node.pull(digest, credential=ALICE), nodes)) == {BODY}
    sent = [request.headers["Authorization"] for request in lab.origin.requests if request.headers["Authorization"]]
    assert sent, "the registry was shown something"
    secrets = [*sent, *(header.partition(" ")[2] for header in sent), ALICE.username, ALICE.password, ALICE.header]
    secrets.append(base64.b64encode(ALICE.password.encode()).decode())
    assert raw_digest(digest) in way.carried
    assert not [secret for secret in secrets if secret.encode() in way.carried]
    for node in list(lab.nodes):
        lab.nodes.remove(node)
        node.close()
    for forwarder in (way, *pieces):
        forwarder.close()


def test_a_node_that_dies_while_it_fetches_a_private_blob_is_followed_by_another(lab: Lab) -> None:
    """FAULTS 93."""
    nodes = [lab.node() for _ in range(4)]
    digest = pushed(lab, nodes)
    lab.origin.fail(Fault(path="/blobs/", bytes_per_second=SLOW))
    dying, others = nodes[0], nodes[1:]
    with ThreadPoolExecutor(len(nodes)) as pool:
        pull = pool.submit(dying.pull, digest, credential=ALICE)
        wait_until(lambda: dying.held(digest) >= 3)
        rest = [pool.submit(node.pull, digest, credential=ALICE) for node in others]
        lab.nodes.remove(dying)
        dying.close()
        lost = lab.origin.blob_bytes_sent
        assert {other.result(SECONDS) for other in rest} == {BODY}
        assert pull.exception(SECONDS)
    assert lab.settled() <= SHARED * len(BODY) + lost


def test_a_node_that_the_registry_refuses_costs_the_others_nothing(lab: Lab) -> None:
    """FAULTS 93."""
    nodes = [lab.node() for _ in range(4)]
    digest = pushed(lab, nodes)
    with ThreadPoolExecutor(len(nodes)) as pool:
        refused = pool.submit(nodes[0].pull, digest, credential=STRANGER)
        wait_until(lambda: [request for request in lab.origin.requests if request.status == 401])
        assert set(pool.map(lambda node: node.pull(digest, credential=BOB), nodes[1:])) == {BODY}
        assert refused.exception(SECONDS) or refused.result() == BODY
    assert lab.settled() <= SHARED * len(BODY)


def test_a_node_that_loses_its_permission_meanwhile_is_followed_by_one_that_has_it(lab: Lab) -> None:
    """FAULTS 93."""
    nodes = [lab.node() for _ in range(2)]
    digest = pushed(lab, nodes)
    lab.origin.fail(Fault(path="/blobs/", bytes_per_second=SLOW))
    with ThreadPoolExecutor(len(nodes)) as pool:
        first = pool.submit(nodes[0].pull, digest, credential=ALICE)
        wait_until(lambda: nodes[0].held(digest))
        lab.origin.repositories.access.users = {BOB.username: BOB.password}
        other = pool.submit(nodes[1].pull, digest, credential=BOB)
        assert (first.result(SECONDS), other.result(SECONDS)) == (BODY, BODY)
    assert lab.settled() <= SHARED * len(BODY)
    assert [request for request in lab.origin.requests if request.status == 401]


def test_a_node_that_names_a_private_blob_wrongly_is_found_out_and_the_others_end_right(lab: Lab) -> None:
    """FAULTS 93: it serves bytes that fit what it says, and the supernode itself cannot ask the registry."""
    nodes = [lab.node() for _ in range(3)]
    digest = pushed(lab, nodes)
    wrong = bytes(PIECE)

    def lie(exchange: Exchange) -> None:
        exchange.answer(200, {}, wrong)

    listener = piece_listener(lie)
    try:
        with RawAgent.joined(lab.channels[0], "liar", listener.address) as liar:
            liar.say(messages.Open(1, raw_digest(digest), lab.origin.address, REPOSITORY, b"", [], len(BODY)))
            run = liar.hear(messages.Run)
            names = dict.fromkeys(range(run.first, run.end), blake3(wrong).digest())
            liar.say(messages.Brought(run.task, names), messages.RunEnded(run.task, run.first, messages.RUN_WHOLE))
            with ThreadPoolExecutor(len(nodes)) as pool:
                assert set(pool.map(lambda node: as_a_runtime(node, digest, credential=ALICE), nodes)) == {BODY}
            # A node that sent what is right may be blamed until the supernode has its own copy from them, and compares.
            wait_until(lambda: [item["name"] for item in lab.state()["quarantines"]] == ["liar"], said=lambda: str(lab.state()))
    finally:
        listener.stop()
