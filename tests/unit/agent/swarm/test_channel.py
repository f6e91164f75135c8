"""The agent's end of a channel, against a supernode that says what it is told to: answers, silence, garbage, and its loss."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from agent.swarm import channel as module
from agent.swarm import messages
from agent.swarm.channel import Channel, ChannelError, frame
from agent.swarm.supernodes import Supernodes
from agent.values import pieces
from agent.values.address import Address
from agent.values.errors import OriginError
from agent.values.manifest import Manifest
from agent.values.reference import raw_digest
from tests.swarm import SECONDS, RawSupernode, free_address, knows_nothing, nothing_left_running, wait_until

DIGEST = "sha256:" + "ab" * 32
HOLDING = messages.Holding(raw_digest(DIGEST), 5)
HELLO = messages.Hello(messages.VERSION, "node", "zone", "10.0.0.1", 65002, 0, [HOLDING])
WELCOME = messages.Welcome(messages.VERSION, "supernode", 30.0, "10.0.0.2", 65002)
MANIFEST = Manifest.of("application/vnd.oci.image.manifest.v1+json", b'{"schemaVersion": 2}')

Converse = Callable[[socket.socket, Iterator[messages.FromAgent]], None]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "RETRY_SECONDS_MIN", 0.02)
    monkeypatch.setattr(module, "RETRY_SECONDS_MAX", 0.1)
    with nothing_left_running():
        yield


class Conversation:
    """A supernode with which one agent at a time talks: the test reads what it said, and says what it likes."""

    def __init__(self, welcome: messages.Message | None = WELCOME) -> None:
        self.heard: queue.SimpleQueue[messages.FromAgent] = queue.SimpleQueue()
        self.sockets: list[socket.socket] = []
        self._welcome = welcome

    def __call__(self, sock: socket.socket, heard: Iterator[messages.FromAgent]) -> None:
        self.sockets.append(sock)
        for message in heard:
            self.heard.put(message)
            if isinstance(message, messages.Hello) and self._welcome:
                self.say(self._welcome)

    def say(self, *said: messages.Message) -> None:
        self.sockets[-1].sendall(b"".join(map(frame, said)))

    def hear(self, kind: type[messages.Message]) -> messages.Message:
        while not isinstance(message := self.heard.get(timeout=SECONDS), kind):
            continue
        return message

    def hang_up(self) -> None:
        self.sockets[-1].shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def channel_to(converse: Converse, up: bool = True) -> Iterator[Channel]:
    with RawSupernode(converse) as supernode:
        channel = Channel(supernode.where, lambda: HELLO, lambda _: None, knows_nothing)
        channel.start()
        try:
            if up:
                wait_until(lambda: channel.up)
            yield channel
        finally:
            channel.stop()


class Listener:
    """Hears of one swarm."""

    def __init__(self) -> None:
        self.heard: queue.SimpleQueue[messages.FromSupernode | None] = queue.SimpleQueue()

    def __call__(self, message: messages.FromSupernode | None) -> None:
        self.heard.put(message)

    def next(self) -> messages.FromSupernode | None:
        return self.heard.get(timeout=SECONDS)


# Its life.


def test_it_says_hello_with_what_the_node_holds_and_learns_where_the_supernodes_pieces_are() -> None:
    talk = Conversation()
    with channel_to(talk) as channel:
        assert talk.hear(messages.Hello) == HELLO
        assert channel.peers == {messages.SEED: Address("10.0.0.2", 65002)}


def test_a_lost_connection_comes_back_and_says_hello_again() -> None:
    talk = Conversation()
    ups: list[Channel] = []
    with RawSupernode(talk) as supernode:
        channel = Channel(supernode.where, lambda: HELLO, ups.append, knows_nothing)
        channel.start()
        for times in (1, 2, 3):
            wait_until(lambda times=times: len(ups) == times)
            assert talk.hear(messages.Hello) == HELLO
            talk.hang_up()
        channel.stop()


def test_a_supernode_that_is_not_there_yet_is_found_when_it_is() -> None:
    where = free_address()
    channel = Channel(where, lambda: HELLO, lambda _: None, knows_nothing)
    channel.start()
    time.sleep(0.1)
    assert not channel.up
    talk = Conversation()
    with socket.create_server(where) as server:
        sock, _ = server.accept()
        with sock:
            talk.sockets.append(sock)
            talk.say(WELCOME)
            wait_until(lambda: channel.up)
            channel.stop()
    assert not channel.up


def test_both_sides_of_a_silent_channel_keep_it_alive() -> None:
    talk = Conversation(messages.Welcome(messages.VERSION, "supernode", 1.5, "10.0.0.2", 65002))
    with channel_to(talk):
        for _ in range(3):
            assert talk.hear(messages.Heartbeat)
            talk.say(messages.Heartbeat())
        assert len(talk.sockets) == 1


def test_a_supernode_that_says_nothing_any_more_is_left() -> None:
    talk = Conversation(messages.Welcome(messages.VERSION, "supernode", 1.0, "10.0.0.2", 65002))
    with channel_to(talk):
        wait_until(lambda: len(talk.sockets) > 1)


def test_a_supernode_that_never_welcomes_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEND_SECONDS_MAX", 0.2)
    talk = Conversation(welcome=None)
    with channel_to(talk, up=False) as channel:
        wait_until(lambda: len(talk.sockets) > 1)
        assert not channel.up


def test_a_lease_of_no_time_does_not_make_the_agent_say_nothing_but_heartbeats() -> None:
    talk = Conversation(messages.Welcome(messages.VERSION, "supernode", 1e-9, "10.0.0.2", 65002))
    with channel_to(talk):
        talk.hear(messages.Hello)
        time.sleep(0.5)
        assert talk.heard.qsize() < 5


def test_a_refusal_is_logged_once_with_its_reason_and_tried_again_later(caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 39: nobody at the agent would know else that an upgrade has stopped halfway."""
    talk = Conversation(messages.Refused("version 1 is not spoken here"))
    with caplog.at_level("WARNING"), channel_to(talk, up=False) as channel:
        wait_until(lambda: len(talk.sockets) > 3)
        assert not channel.up
    assert caplog.text.count("it refuses this agent: version 1 is not spoken here") == 1


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\x00\x00\x01\xc1",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        frame(HELLO),
        frame(messages.Heartbeat()),
        frame(messages.Seeding(1)),
        frame(WELCOME) * 2,
        frame(messages.Welcome(messages.VERSION, "supernode", -1.0, "10.0.0.2", 65002)),
        frame(messages.Welcome(messages.VERSION, "supernode", float("nan"), "10.0.0.2", 65002)),
    ],
    ids=[
        *("http", "no msgpack", "too long", "empty", "an agent's message", "a heartbeat first", "a task first", "welcome twice"),
        *("a lease in the past", "a lease that is no number"),
    ],
)
def test_garbage_ends_the_connection_and_not_the_agent(said: bytes) -> None:
    sockets: list[socket.socket] = []

    def converse(sock: socket.socket, heard: Iterator[messages.FromAgent]) -> None:
        next(heard)
        sockets.append(sock)
        with contextlib.suppress(OSError):
            sock.sendall(said)
            while sock.recv(1 << 16):
                continue

    with channel_to(converse, up=False):
        wait_until(lambda: len(sockets) > 2)


# Questions.


def test_a_name_is_resolved() -> None:
    talk = Conversation()
    with channel_to(talk) as channel:
        answer: list[Manifest] = []
        asking = threading.Thread(target=lambda: answer.append(channel.resolve("registry.test", "team/app", "1", SECONDS)))
        asking.start()
        question = talk.hear(messages.Resolve)
        assert question == messages.Resolve(question.request, "registry.test", "team/app", "1")
        talk.say(
            messages.Resolved(question.request + 1000, "x", b"of another question", False),
            messages.Resolved(question.request, MANIFEST.media_type, MANIFEST.body, True),
            messages.Resolved(question.request, "x", b"said twice", False),
        )
        asking.join()
        assert answer == [MANIFEST.as_stale()]


def resolving(channel: Channel, talk: Conversation, *answers: messages.Message, reference: str = "1") -> None:
    """Ask, and have each question answered by the next of `answers`."""

    def answer() -> None:
        for message in answers:
            question = talk.hear(messages.Resolve)
            talk.say(msgspec.structs.replace(message, request=question.request))

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        channel.resolve("registry.test", "team/app", reference, SECONDS)
    finally:
        thread.join()


def test_the_origins_refusal_comes_as_the_origin_said_it() -> None:
    talk = Conversation()
    with channel_to(talk) as channel, pytest.raises(OriginError, match="who are you") as refused:
        resolving(channel, talk, messages.Unresolved(0, 401, "UNAUTHORIZED", "who are you"))
    assert (refused.value.status, refused.value.code, refused.value.answered) == (401, "UNAUTHORIZED", True)


@pytest.mark.parametrize(
    "body", [b"something else", b"x" * ((4 << 20) + 1)], ids=["another manifest", "a manifest over its limit"]
)
def test_a_manifest_that_cannot_be_right_is_not_believed(body: bytes) -> None:
    talk = Conversation()
    with channel_to(talk) as channel, pytest.raises(ChannelError, match="the supernode 127"):
        resolving(channel, talk, messages.Resolved(0, "x", body, False), reference=MANIFEST.digest)


def test_a_question_that_is_not_answered_is_given_up() -> None:
    with channel_to(Conversation()) as channel, pytest.raises(ChannelError, match="does not answer"):
        channel.resolve("registry.test", "team/app", "1", 0.1)


def test_whoever_waits_is_told_when_the_channel_is_lost() -> None:
    talk = Conversation()
    listener = Listener()
    with channel_to(talk) as channel:
        channel.open(DIGEST, "registry.test", "team/app", 0, (), listener)
        threading.Timer(0.2, talk.hang_up).start()
        with pytest.raises(ChannelError, match="is gone"):
            channel.resolve("registry.test", "team/app", "1", SECONDS)
        assert listener.next() is None


def test_nothing_is_said_over_a_channel_that_is_not_up() -> None:
    channel = Channel(free_address(), lambda: HELLO, lambda _: None, knows_nothing)
    for say in (
        lambda: channel.send(messages.Heartbeat()),
        lambda: channel.resolve("registry.test", "team/app", "1", SECONDS),
        lambda: channel.open(DIGEST, "registry.test", "team/app", 0, (), Listener()),
    ):
        with pytest.raises(ChannelError, match="is not connected"):
            say()


# Swarms.


def test_a_swarm_is_joined_heard_and_left() -> None:
    talk, listener = Conversation(), Listener()
    with channel_to(talk) as channel:
        channel.open(DIGEST, "registry.test", "team/app", 0b101, (2,), listener)
        question = talk.hear(messages.Open)
        assert isinstance(question, messages.Open)
        assert (question.digest, question.have, question.readers) == (raw_digest(DIGEST), pieces.to_bytes(0b101), [2])
        task = messages.Task(question.request, 7, 5, 1 << 18, {})
        grant = messages.Grant(7, [messages.Granted(0, b"d" * 32, 3, 3)])
        talk.say(task, messages.Peer(3, "10.0.0.3", 65002), messages.Grant(8, []), messages.Seeding(7), grant)
        assert [listener.next() for _ in range(3)] == [task, messages.Seeding(7), grant]
        assert channel.peers[3] == Address("10.0.0.3", 65002)
        channel.leave(listener)
        assert talk.hear(messages.Close) == messages.Close(7)
        talk.say(grant, messages.TaskFailed(0, 7, 502, "late", False))
        channel.leave(listener)
    assert listener.heard.empty()


def test_what_is_to_be_fetched_from_the_origin_is_heard_by_its_swarm_alone() -> None:
    talk, listener = Conversation(), Listener()
    with channel_to(talk) as channel:
        channel.open(DIGEST, "registry.test", "team/app", 0, (), listener, 5)
        question = talk.hear(messages.Open)
        assert isinstance(question, messages.Open)
        assert question.size == 5
        talk.say(messages.Task(question.request, 7, 5, 1 << 18, {}), messages.Run(8, 0, 1), messages.Run(7, 0, 1))
        assert isinstance(listener.next(), messages.Task)
        assert listener.next() == messages.Run(7, 0, 1)
        channel.tell(messages.Brought(7, {0: b"d" * 32}))
        assert talk.hear(messages.Brought) == messages.Brought(7, {0: b"d" * 32})


def test_a_supernode_that_wants_a_blob_described_is_answered_over_its_channel() -> None:
    talk = Conversation()
    wanted = messages.Describe(7, raw_digest(DIGEST), 5, 1 << 18)

    def describe(asked: messages.Describe, tell: Callable[[messages.Message], None]) -> None:
        assert asked == wanted
        tell(messages.Brought(asked.task, {0: b"d" * 32}))

    with RawSupernode(talk) as supernode:
        channel = Channel(supernode.where, lambda: HELLO, lambda _: None, knows_nothing, describe=describe)
        channel.start()
        wait_until(lambda: channel.up)
        talk.say(wanted)
        assert talk.hear(messages.Brought) == messages.Brought(7, {0: b"d" * 32})
        channel.stop()


def test_a_node_that_describes_nothing_is_not_disturbed_by_the_question() -> None:
    talk = Conversation()
    with channel_to(talk) as channel:
        talk.say(messages.Describe(7, raw_digest(DIGEST), 5, 1 << 18))
        channel.tell(messages.Close(1))
        assert talk.hear(messages.Close) == messages.Close(1)
        assert channel.up


def test_a_swarm_that_was_left_before_it_was_joined_is_left_as_soon_as_it_is() -> None:
    talk, listener = Conversation(), Listener()
    with channel_to(talk) as channel:
        channel.open(DIGEST, "registry.test", "team/app", 0, (), listener)
        question = talk.hear(messages.Open)
        assert isinstance(question, messages.Open)
        channel.leave(listener)
        talk.say(messages.Task(question.request, 7, 5, 1 << 18, {}))
        assert talk.hear(messages.Close) == messages.Close(7)
    assert listener.heard.empty()


def test_a_swarm_that_fails_is_heard_of_once_before_it_was_joined_and_after() -> None:
    talk = Conversation()
    with channel_to(talk) as channel:
        for joined in (False, True):
            listener = Listener()
            channel.open(DIGEST, "registry.test", "team/app", 0, (), listener)
            question = talk.hear(messages.Open)
            assert isinstance(question, messages.Open)
            if joined:
                talk.say(messages.Task(question.request, 7, 5, 1 << 18, {}))
                assert isinstance(listener.next(), messages.Task)
            failed = messages.TaskFailed(0 if joined else question.request, 7 if joined else 0, 502, "no", False)
            talk.say(failed, failed)
            assert listener.next() == failed
    assert listener.heard.empty()


# Several supernodes.


def swarm_of(*addresses: Address) -> Supernodes:
    return Supernodes(addresses, lambda: HELLO, lambda _: None, knows_nothing)


def up(swarm: Supernodes, *connected: int) -> None:
    for number, channel in enumerate(swarm.channels):
        channel._sock = socket.socket() if number in connected else None


def test_each_digest_belongs_to_one_supernode_and_digests_spread_evenly() -> None:
    swarm = swarm_of(*(Address(f"supernode-{number}", 65004) for number in range(3)))
    up(swarm, 0, 1, 2)
    owners = [swarm.owners(f"sha256:{number:064x}")[0].where for number in range(300)]
    assert {owners.count(channel.where) > 70 for channel in swarm.channels} == {True}
    assert [swarm.owners(f"sha256:{number:064x}")[0].where for number in range(300)] == owners
    for channel in swarm.channels:
        channel._sock.close()  # type: ignore[union-attr]


def test_when_an_owner_is_lost_its_digests_spread_and_no_others_move() -> None:
    swarm = swarm_of(*(Address(f"supernode-{number}", 65004) for number in range(3)))
    up(swarm, 0, 1, 2)
    digests = [f"sha256:{number:064x}" for number in range(300)]
    before = {digest: swarm.owners(digest) for digest in digests}
    lost = swarm.channels[1]
    assert lost._sock
    lost._sock.close()
    lost._sock = None
    for digest in digests:
        assert swarm.owners(digest) == [channel for channel in before[digest] if channel is not lost]
    for channel in (swarm.channels[0], swarm.channels[2]):
        channel._sock.close()  # type: ignore[union-attr]


def test_without_a_supernode_nobody_can_say_what_a_name_means() -> None:
    assert swarm_of().resolve("registry.test", "team/app", "1") is None
    assert swarm_of(free_address()).resolve("registry.test", "team/app", "1") is None


@contextlib.contextmanager
def connected(*talks: Conversation) -> Iterator[Supernodes]:
    with contextlib.ExitStack() as stack:
        swarm = swarm_of(*(stack.enter_context(RawSupernode(talk)).where for talk in talks))
        swarm.start()
        stack.callback(swarm.stop)
        wait_until(lambda: all(channel.up for channel in swarm.channels))
        yield swarm


def test_the_second_supernode_is_asked_when_the_first_is_gone_and_never_the_third() -> None:
    asked: list[str] = []

    class Dropping(Conversation):
        def __call__(self, sock: socket.socket, heard: Iterator[messages.FromAgent]) -> None:
            self.sockets.append(sock)
            for message in heard:
                if isinstance(message, messages.Hello):
                    self.say(WELCOME)
                if isinstance(message, messages.Resolve):
                    asked.append(message.reference)
                    return

    with connected(Dropping(), Dropping(), Dropping()) as swarm:
        assert swarm.resolve("registry.test", "team/app", "1") is None
    assert asked == ["1", "1"]


def test_two_supernodes_that_do_not_answer_are_waited_for_no_longer_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.swarm.supernodes.RESOLVE_SECONDS_MAX", 0.5)
    with connected(Conversation(), Conversation()) as swarm:
        began = time.monotonic()
        assert swarm.resolve("registry.test", "team/app", "1") is None
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(("status", "code"), [(502, "UNAVAILABLE"), (504, "UNAVAILABLE"), (429, "TOOMANYREQUESTS")])
def test_what_the_origin_did_not_say_itself_the_agent_finds_out_for_itself(status: int, code: str) -> None:
    talk = Conversation()
    with connected(talk) as swarm:
        answer = threading.Thread(
            target=lambda: talk.say(messages.Unresolved(talk.hear(messages.Resolve).request, status, code, "no"))  # type: ignore[attr-defined]
        )
        answer.start()
        assert swarm.resolve("registry.test", "team/app", "1") is None
        answer.join()


def test_every_supernode_hears_what_the_node_holds() -> None:
    talks = [Conversation(), Conversation()]
    with connected(*talks) as swarm:
        for held in (True, False):
            swarm.tell(DIGEST, 5, held)
            assert [talk.hear(messages.Holds) for talk in talks] == [messages.Holds(HOLDING, held)] * 2
