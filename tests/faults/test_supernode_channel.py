"""Rows 38 to 42: what comes over a channel that no agent would send, and agents that are slow, silent or there twice."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.swarm import messages
from agent.swarm.channel import FRAME_BYTES_MAX, frame
from agent.values.address import Address
from hack.origin import Fault
from supernode.tracker import server
from tests.swarm import PIECE, REPOSITORY, Lab, RawAgent, noise, wait_until

HELLO = messages.Hello(messages.VERSION, "raw", "", "127.0.0.1", 1, 0, [])
BODY = noise(3 * PIECE)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


def where(lab: Lab) -> Address:
    return lab.channels[0]


def still_serves(lab: Lab) -> None:
    """Others are not disturbed."""
    image = lab.push(noise(PIECE, seed=random.randrange(1 << 30)))
    assert lab.node().pull(image.layers[0])


def test_the_state_tells_nodes_swarms_and_quarantines(lab: Lab) -> None:
    image = lab.push(BODY)
    node = lab.node(zone="zone-a")
    with RawAgent.joined(where(lab), "holder", None, ("sha256:" + "ab" * 32, 5)):
        assert node.pull(image.layers[0]) == BODY
        wait_until(lambda: lab.state()["nodes"][0]["blobs"] == 1 and lab.state()["swarms"][0]["whole"])
        found = lab.state()
    assert found["nodesTotal"] == 2
    (told,) = [one for one in found["nodes"] if one["name"] == "node-0"]
    assert (told["zone"], told["address"], told["blobs"]) == ("zone-a", str(node.pieces.address), 1)
    (swarm,) = found["swarms"]
    scheduled = {"pieces": 3, "seeded": 3, "takers": 0, "holders": 1, "parked": 0, "inFlight": 0}
    whole = {"digest": image.layers[0], "size": len(BODY), "whole": True, "failed": None, **scheduled}
    assert {name: swarm[name] for name in whole} == whole
    assert found["quarantines"] == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "over the limit"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 50, "over the limit"),
        ((FRAME_BYTES_MAX + 1).to_bytes(4), "over the limit"),
        (b"\xff\xff\xff\xff", "over the limit"),
        (b"\x00\x00\x00\x00", "not a message"),
        (b"\x00\x00\x00\x03\xc1\xc1\xc1", "not a message"),
        (b"\x00\x00\x00\x01\x90", "not a message"),
        (frame(messages.Heartbeat()), "the first message has to be Hello"),
        (frame(messages.Refused("no")), "not a message"),
        (
            frame(messages.Hello(1, "raw", "", "127.0.0.1", 1, 0, [])),
            "version 1 of the channel is not spoken here, version 2 is",
        ),
    ],
    ids=["http", "tls", "too long", "longest", "empty", "garbage", "no tag", "no hello", "a supernode's", "version"],
)
def test_what_is_no_hello_is_refused_in_words_and_closed(lab: Lab, said: bytes, why: str) -> None:
    with RawAgent(where(lab)) as agent:
        agent.sock.sendall(said)
        assert why in agent.hear(messages.Refused).reason
        agent.until_closed()
    still_serves(lab)


@pytest.mark.parametrize(
    ("node", "zone", "what"),
    [
        ("raw\n2026-01-01 00:00:00,000 WARNING supernode: forged", "", "node name"),
        ("raw\x1b[2J", "", "node name"),
        ("n" * 254, "", "node name"),
        ("", "", "node name"),
        ("node 1", "", "node name"),
        ("n\u00f6de", "", "node name"),
        ("raw", "zone\r\na", "zone"),
        ("raw", "z" * 254, "zone"),
    ],
)
def test_a_name_that_no_node_has_is_refused_in_words_and_forges_no_line_of_the_log(
    lab: Lab, caplog: pytest.LogCaptureFixture, node: str, zone: str, what: str
) -> None:
    with RawAgent(where(lab)) as agent:
        agent.say(messages.Hello(messages.VERSION, node, zone, "127.0.0.1", 1, 0, []))
        why = agent.hear(messages.Refused).reason
        assert why == f"the {what} in Hello has to be 1 to 253 printable ASCII characters without spaces"
        agent.until_closed()
    assert lab.state()["nodesTotal"] == 0
    assert [record for record in caplog.records if not record.getMessage().isprintable()] == []


def test_the_longest_name_of_a_node_is_welcome(lab: Lab) -> None:
    with RawAgent.joined(where(lab), ".".join(["n" * 63] * 3 + ["n" * 61])):
        assert lab.state()["nodesTotal"] == 1


@pytest.mark.parametrize(
    "said", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x03\xc1\xc1\xc1", frame(HELLO)], ids=["long", "garbage", "hello"]
)
def test_garbage_after_hello_ends_that_channel_alone(lab: Lab, said: bytes) -> None:
    with RawAgent(where(lab), HELLO) as agent:
        agent.sock.sendall(said)
        assert agent.hear(messages.Refused)
        agent.until_closed()
    wait_until(lambda: lab.state()["nodesTotal"] == 0)
    still_serves(lab)


def test_a_message_that_comes_byte_by_byte_is_one_and_several_at_once_are_several(lab: Lab) -> None:
    with RawAgent(where(lab)) as agent:
        for byte in frame(HELLO):
            agent.sock.sendall(bytes([byte]))
        assert agent.hear(messages.Welcome)
        agent.say(*[messages.Heartbeat()] * 100)
        for _ in range(100):
            agent.hear(messages.Heartbeat)


def test_random_bytes_never_end_the_supernode(lab: Lab) -> None:
    rng = random.Random(42)
    valid = frame(HELLO) + frame(messages.Open(1, b"d" * 32, "registry.test", "team/app", b"", []))
    for _ in range(100):
        said = bytearray(valid if rng.random() < 0.7 else rng.randbytes(200))
        for _ in range(rng.randrange(4)):
            said[rng.randrange(len(said))] = rng.randrange(256)
        with RawAgent(where(lab)) as agent:
            agent.sock.sendall(said)
    still_serves(lab)


def test_whoever_says_nothing_is_not_waited_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HELLO_SECONDS_MAX", 0.3)
    with RawAgent(where(lab)) as silent, RawAgent(where(lab)) as slow:
        slow.sock.sendall(frame(HELLO)[:7])
        silent.until_closed()
        slow.until_closed()


def test_no_more_connections_say_hello_at_a_time_than_there_is_room_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GREETINGS_MAX", 3)
    with RawAgent.joined(where(lab), "before"):
        waiting = [RawAgent(where(lab)) for _ in range(3)]
        time.sleep(0.2)
        with RawAgent(where(lab)) as one_too_many:
            assert "saying Hello already" in one_too_many.hear(messages.Refused).reason
        waiting[0].say(HELLO)
        assert waiting[0].hear(messages.Welcome)
        with RawAgent.joined(where(lab), "after"):
            pass
        for agent in waiting:
            agent.sock.close()


@pytest.mark.parametrize("limit", ["GREETINGS_PER_ADDRESS_MAX", "FRAME_BYTES_MAX"])
def test_an_address_has_its_share_of_the_room_for_hellos_and_gets_it_back(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """FAULTS 83."""
    monkeypatch.setattr(server, limit, {"GREETINGS_PER_ADDRESS_MAX": 3, "FRAME_BYTES_MAX": 100}[limit])
    half = frame(messages.Hello(messages.VERSION, "n" * 200, "", "127.0.0.1", 1, 0, []))[:33]
    waiting = [RawAgent(where(lab)) for _ in range(3)]
    for agent in waiting:
        agent.sock.sendall(half)
    time.sleep(0.2)
    with RawAgent(where(lab)) as one_too_many:
        one_too_many.sock.sendall(half)
        assert "at this address" in one_too_many.hear(messages.Refused).reason
    with socket.create_connection(where(lab), 5, source_address=("127.0.0.2", 0)) as elsewhere:
        elsewhere.sendall(frame(HELLO))
        assert elsewhere.recv(1000)
    for agent in waiting:
        agent.sock.close()
    wait_until(lambda: _welcomed(lab))


def _welcomed(lab: Lab) -> bool:
    with RawAgent(where(lab)) as agent:
        agent.say(HELLO)
        return agent.hear_or_end(messages.Welcome) is not None


def test_no_more_agents_are_welcomed_than_there_is_room_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 2)
    with RawAgent.joined(where(lab), "one"), RawAgent.joined(where(lab), "two"), RawAgent(where(lab)) as three:
        three.say(HELLO)
        assert "2 agents are connected already" in three.hear(messages.Refused).reason


def test_a_node_that_comes_back_under_its_name_takes_its_own_place(lab: Lab) -> None:
    first = RawAgent.joined(where(lab), "node")
    with RawAgent.joined(where(lab), "node") as second:
        first.until_closed()
        first.sock.close()
        second.say(messages.Heartbeat())
        assert second.hear(messages.Heartbeat)
        assert lab.state()["nodesTotal"] == 1


def test_an_agent_that_does_not_read_is_cut_off_and_the_others_go_on(lab: Lab) -> None:
    image = lab.push(noise(PIECE))
    big = json.dumps({"schemaVersion": 2, "config": {"digest": "sha256:" + "0" * 64}, "padding": "x" * (3 << 20)}).encode()
    with RawAgent.joined(where(lab), "slow") as slow:
        slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lab.node().resolve("1")
        lab.origin.fail(Fault(path="/manifests/", status=200, body=big))
        for number in range(40):
            slow.say(messages.Resolve(number, lab.origin.address, REPOSITORY, f"big-{number % 2}"))
        wait_until(lambda: lab.state()["nodesTotal"] == 1)
    assert lab.node().pull(image.layers[0])


def test_an_agent_that_is_silent_for_its_lease_is_gone_and_one_that_beats_is_not(tmp_path: Path) -> None:
    with Lab(tmp_path, peer_lease=1.5) as lab:
        node = lab.node()
        with RawAgent.joined(where(lab), "silent") as silent:
            assert silent.welcome.lease_seconds == 1.5
            silent.until_closed()
        time.sleep(2.0)
        assert [item["name"] for item in lab.state()["nodes"]] == [node.name]
        assert node.swarm.channels[0].up


@pytest.mark.parametrize(
    ("registry", "repository", "why"),
    [
        ("169.254.169.254", "team/app", "a link-local address"),
        ("127.0.0.1:1", "team/app", "a loopback address"),
        ("localhost:1", "team/app", "a loopback address"),
        ("[::1]:1", "team/app", "a loopback address"),
        ("registry.test/latest?x=", "team/app", "is not a repository"),
        ("user@127.0.0.1", "team/app", "is not a"),
        ("a b", "team/app", "is not a"),
        ("", "team/app", "is not a"),
        ("registry.test", "../../etc", "is not a repository"),
        ("registry.test", "team/app?x=", "is not a repository"),
        ("registry.test", "team/app:1", "is not a"),
        ("REGISTRY.test", "team/app", "was meant"),
    ],
)
def test_an_agent_cannot_make_the_supernode_contact_anything_but_a_registry(
    lab: Lab, registry: str, repository: str, why: str
) -> None:
    with RawAgent.joined(where(lab), "raw") as agent:
        agent.say(messages.Open(1, b"d" * 32, registry, repository, b"", []))
        failed = agent.hear(messages.TaskFailed)
        assert (failed.request, failed.corrupt) == (1, False)
        agent.say(messages.Resolve(2, registry, repository, "1"))
        unresolved = agent.hear(messages.Unresolved)
        assert unresolved.request == 2
        assert why in unresolved.reason


@pytest.mark.parametrize("reference", ["", "../1", "a b", "sha256:abc", "1?x=", "x" * 129])
def test_what_is_no_tag_and_no_digest_is_not_asked_for(lab: Lab, reference: str) -> None:
    with RawAgent.joined(where(lab), "raw") as agent:
        agent.say(messages.Resolve(1, lab.origin.address, REPOSITORY, reference))
        assert agent.hear(messages.Unresolved).status == 400
    assert not lab.origin.requests


@pytest.mark.parametrize("host", ["", "\x1b]0;host\x07", "node.example.com", "0.0.0.0", "::", "224.0.0.1"])
def test_only_the_address_of_a_host_is_told_to_others(lab: Lab, host: str) -> None:
    """FAULTS 82: a name could be another host for each that asks."""
    with RawAgent(where(lab)) as agent:
        agent.say(messages.Hello(messages.VERSION, "raw", "", host, 1, 0, []))
        assert agent.hear(messages.Refused).reason.startswith("the host in Hello")
        agent.until_closed()
    assert lab.state()["nodesTotal"] == 0
