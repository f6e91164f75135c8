"""Frames and messages between agent and supernode: their limits, and what is said of what is none."""

from __future__ import annotations

import msgspec
import pytest

from agent.swarm import messages
from agent.swarm.channel import FRAME_BYTES_MAX, Frames, WireError, agent_message, frame, supernode_message
from agent.swarm.messages import (
    HOLDINGS_MAX,
    Close,
    Done,
    Grant,
    Granted,
    Heartbeat,
    Hello,
    Holding,
    Open,
    Report,
    Resolved,
    Seeding,
    Task,
    Welcome,
)
from agent.values.pieces import BLOB_BYTES_MAX, PIECES_MAX

DIGEST = bytes(range(32))
HELLO = Hello(messages.VERSION, "node-1", "zone-a", "10.0.0.7", 65002, 0, [Holding(DIGEST, 7)])


def raw(*items: object) -> bytes:
    return msgspec.msgpack.encode(items)


def body(message: messages.Message) -> bytes:
    return frame(message)[4:]


# Frames.


def test_a_frame_is_the_length_of_a_message_and_the_message() -> None:
    assert frame(Close(1)) == b"\x00\x00\x00\x08" + b"\x92\xa5Close\x01"
    assert list(Frames().feed(frame(Close(1)))) == [b"\x92\xa5Close\x01"]


def test_what_a_release_before_clocks_says_is_understood() -> None:
    assert agent_message(b"\x91\xa9Heartbeat") == Heartbeat()
    assert supernode_message(b"\x92\xa7Seeding\x07") == Seeding(7)
    assert Welcome(1, "s", 30.0, "10.0.0.9", 65002).unix_seconds == 0.0


def test_a_frame_that_comes_byte_by_byte_is_there_with_its_last_byte() -> None:
    frames = Frames()
    *first, last = frame(HELLO)
    assert [found for byte in first for found in frames.feed(bytes([byte]))] == []
    assert [agent_message(found) for found in frames.feed(bytes([last]))] == [HELLO]


def test_several_frames_that_come_together_are_told_apart_and_the_rest_is_kept() -> None:
    frames = Frames()
    sent = frame(HELLO) + frame(Heartbeat()) + frame(HELLO)
    assert [agent_message(found) for found in frames.feed(sent[:-1])] == [HELLO, Heartbeat()]
    assert [agent_message(found) for found in frames.feed(sent[-1:])] == [HELLO]


def test_a_frame_over_the_limit_is_refused_by_its_length_before_its_bytes_come() -> None:
    frames = Frames()
    assert list(frames.feed(FRAME_BYTES_MAX.to_bytes(4, "big"))) == []
    with pytest.raises(WireError, match="over the limit"):
        list(Frames().feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big")))


def test_what_comes_before_a_frame_over_the_limit_is_still_given() -> None:
    found = Frames().feed(frame(Heartbeat()) + b"\xff\xff\xff\xff")
    assert next(found) == body(Heartbeat())
    with pytest.raises(WireError):
        next(found)


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-OpenSSH\r\n"])
def test_another_protocol_is_seen_by_its_first_bytes(greeting: bytes) -> None:
    with pytest.raises(WireError):
        list(Frames().feed(greeting))


def test_a_message_that_does_not_fit_a_frame_is_not_sent() -> None:
    with pytest.raises(WireError, match=r"Resolved of \d+ bytes does not fit"):
        frame(Resolved(1, "text/plain", bytes(FRAME_BYTES_MAX), False))


# Messages.


def test_the_largest_messages_that_are_allowed_fit_a_frame() -> None:
    holdings = [Holding(DIGEST, BLOB_BYTES_MAX)] * HOLDINGS_MAX
    hello = Hello(messages.VERSION, "n" * 1024, "z" * 1024, "h" * 1024, 65535, 1 << 40, holdings)
    assert agent_message(body(hello)) == hello
    task = Task(1 << 40, 1 << 40, BLOB_BYTES_MAX, 1 << 24, dict.fromkeys(range(PIECES_MAX), DIGEST))
    assert supernode_message(body(task)) == task
    manifest = Resolved(1, "m" * 255, bytes(4 << 20), True)
    assert supernode_message(body(manifest)) == manifest


def test_hello_is_understood_in_part_from_a_later_version_so_that_it_can_be_refused_by_its_number() -> None:
    later = raw(
        "Hello", 2, "node-1", "zone-a", "10.0.0.7", 65002, 0, [], "a token", b"its mark", "something new", {"and": "more"}
    )
    hello = agent_message(later)
    assert isinstance(hello, Hello)
    assert hello.version == 2


@pytest.mark.parametrize(
    "message",
    [
        raw("Report", 1, [(0, 0, 0, 0)] * (messages.BATCH_MAX + 1), 4, []),
        raw("Report", 1, [(PIECES_MAX, 0, 0, 0)], 4, []),
        raw("Report", 1, [(-1, 0, 0, 0)], 4, []),
        raw("Report", 1, [(0, 0, 0, 5)], 4, []),
        raw("Report", 1, [(0, 0, 0)], 4, []),
        raw("Report", 1, [], -1, []),
        raw("Report", 1, [], 4, list(range(messages.READERS_MAX + 1))),
        raw("Brought", 1, {PIECES_MAX: DIGEST}),
        raw("Brought", 1, {-1: DIGEST}),
        raw("Brought", 1, {0: b""}),
        raw("Brought", 1, {0: DIGEST[:-1]}),
        raw("Brought", 1, dict.fromkeys(range(messages.BATCH_MAX + 1), DIGEST)),
        raw("RunEnded", 1, PIECES_MAX, messages.RUN_WHOLE),
        raw("RunEnded", 1, 0, messages.RUN_NO_RANGES + 1),
        raw("RunEnded", 1, 0, -1),
        raw("RunEnded", 1, 0, 0, -1),
        raw("Disputed", -1),
        raw("Run", 1, 0, 1),
        raw("Open", 1, DIGEST, "r", "p", bytes(PIECES_MAX // 8 + 1), []),
        raw("Open", 1, DIGEST[:-1], "r", "p", b"", []),
        raw("Open", 1, DIGEST + b"\0", "r", "p", b"", []),
        raw("Open", 1, DIGEST.hex(), "r", "p", b"", []),
        raw("Resolve", 1, "r" * 1025, "p", "t"),
        raw("Holds", (DIGEST, -1), True),
        raw("Holds", (DIGEST, (1 << 40) + 1), True),
        raw("Holds", (DIGEST, 1), 1),
        raw("Hello", 1, "n", "z", "h", 0, 0, []),
        raw("Hello", 1, "n", "z", "h", 65536, 0, []),
        raw("Hello", "1", "n", "z", "h", 1, 0, []),
        raw("Close"),
        raw("Close", True),
        raw("Close", 1.5),
        raw("Welcome", 1, "n", 30.0, "h", 1),
        raw("hello"),
        raw(),
        raw(1, 2),
        msgspec.msgpack.encode({"Close": 1}),
        msgspec.msgpack.encode("Close"),
        b"",
        b"\xc1",
        body(HELLO)[:-1],
        body(HELLO) + b"\0",
        b"\xdd\xff\xff\xff\xff",
        b"\x95\xa6Report\x01\xdd\xff\xff\xff\xff",
    ],
)
def test_what_an_agent_could_not_mean_is_no_message(message: bytes) -> None:
    with pytest.raises(WireError, match="not a message of version 2"):
        agent_message(message)


@pytest.mark.parametrize(
    "message",
    [
        raw("Grant", 1, [(0, DIGEST, 0, 0)] * (messages.BATCH_MAX + 1)),
        raw("Grant", 1, [(PIECES_MAX, DIGEST, 0, 0)]),
        raw("Grant", 1, [(0, b"", 0, 0)]),
        raw("Task", 1, 1, 1, 1, {-1: DIGEST}),
        raw("Task", 1, 1, 1, 1, {PIECES_MAX: DIGEST}),
        raw("Task", 1, 1, 1, 1, {"0": DIGEST}),
        raw("Task", 1, 1, 1, 1, {0: b""}),
        raw("Peer", 1, "h", 65536),
        raw("Run", 1, 0, 0),
        raw("Run", 1, PIECES_MAX, PIECES_MAX),
        raw("Run", 1, 0, PIECES_MAX + 1),
        raw("Describe", 1, DIGEST[:-1], 1, 1),
        raw("Describe", 1, DIGEST, -1, 1),
        raw("Brought", 1, {0: DIGEST}),
        raw("Refused", "r" * 1025),
        *(raw("Welcome", 1, "n", seconds, "h", 1) for seconds in (0.0, -1.0, float("nan"), float("inf"), 1e9, "30")),
        *(raw("Heartbeat", seconds) for seconds in (-1.0, float("nan"), float("inf"), 1e11)),
        body(HELLO),
    ],
)
def test_what_a_supernode_could_not_mean_is_no_message(message: bytes) -> None:
    with pytest.raises(WireError, match="not a message of version 2"):
        supernode_message(message)


def test_text_that_is_not_utf_8_is_no_message() -> None:
    with pytest.raises(WireError):
        supernode_message(b"\x92\xa7Refused\xa2\xff\xfe")


def test_nesting_without_end_is_no_message() -> None:
    with pytest.raises(WireError):
        agent_message(b"\x92\xa9Heartbeat" + b"\x91" * 1_000_000)


def test_what_is_said_of_bad_bytes_is_one_short_line() -> None:
    with pytest.raises(WireError) as refused:
        agent_message(raw("Hello\r\n\x1b[31m" + "x" * 100_000))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


def test_a_seconds_field_may_be_written_as_a_whole_number() -> None:
    welcome = supernode_message(raw("Welcome", 1, "n", 30, "h", 1))
    assert welcome == Welcome(1, "n", 30.0, "h", 1)


def test_what_is_sent_is_small() -> None:
    report = Report(1, [Done(100, 7, 20, 0)] * 8, 16, [101])
    grant = Grant(1, [Granted(100, DIGEST, 7, 8)] * 8)
    assert len(frame(report)) < 70
    assert len(frame(grant)) < 8 * 40 + 20
    assert len(frame(Open(1, DIGEST, "docker.io", "library/nginx", b"", []))) < 80
