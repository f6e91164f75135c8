"""Every message comes back as it was sent, however its bytes are cut, and no bytes do more than be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from agent.swarm import messages
from agent.swarm.channel import (
    FRAME_BYTES_MAX,
    Frames,
    WireError,
    agent_message,
    frame,
    supernode_message,
    warm_answer,
    webhook_message,
)
from agent.swarm.messages import FromAgent, FromSupernode, FromWebhook, ToWebhook
from agent.values.pieces import PIECES_MAX

counts = st.integers(0, 1 << 40) | st.integers(0, 300)
pieces = st.integers(0, PIECES_MAX - 1)
ends = st.integers(1, PIECES_MAX)
texts = st.text(st.characters(codec="utf-8"), max_size=40)
digests = st.binary(min_size=32, max_size=32)
ports = st.integers(1, 65535)
marks = st.binary(max_size=32)
leases = st.floats(0.001, messages.LEASE_SECONDS_MAX)
clocks = st.floats(0, 1e10)
readers = st.lists(counts, max_size=messages.READERS_MAX)
holdings = st.builds(messages.Holding, digests, counts)
files = st.none() | st.builds(messages.OpenedFile, texts, texts, texts)
done = st.builds(messages.Done, pieces, counts, counts, st.integers(messages.DELIVERED, messages.MISSING))
granted = st.builds(messages.Granted, pieces, digests, counts, counts)

from_agent = st.one_of(
    st.builds(
        messages.Hello, st.integers(0, 1 << 31), texts, texts, texts, ports, counts, st.lists(holdings, max_size=5), texts, marks
    ),
    st.just(messages.Heartbeat()),
    st.builds(messages.Resolve, counts, texts, texts, texts),
    st.builds(messages.Open, counts, digests, texts, texts, st.binary(max_size=40), readers, counts, st.booleans(), files),
    st.builds(messages.Report, counts, st.lists(done, max_size=20), counts, readers),
    st.builds(messages.Brought, counts, st.dictionaries(pieces, digests, max_size=5)),
    st.builds(messages.RunEnded, counts, pieces, st.integers(messages.RUN_WHOLE, messages.RUN_NO_RANGES), counts),
    st.builds(messages.Disputed, counts),
    st.builds(messages.AskLeave, counts),
    st.builds(messages.Close, counts),
    st.builds(messages.Holds, holdings, st.booleans()),
    st.builds(messages.AskVerdict, counts, texts, texts, texts, st.binary(max_size=32)),
    st.builds(messages.Told, texts, texts, texts, st.binary(max_size=32), st.integers(0, 2), st.binary(max_size=100)),
    st.builds(messages.Received, counts, counts, counts, st.floats(0, 1e9)),
    st.builds(messages.Recalled, counts, st.none() | digests, st.floats(0, 1e9), texts, st.binary(max_size=100)),
)
from_supernode = st.one_of(
    st.builds(messages.Welcome, st.integers(0, 1 << 31), texts, leases, texts, ports, clocks, marks, st.booleans()),
    st.builds(messages.Refused, texts),
    st.builds(messages.Heartbeat, clocks),
    st.builds(messages.Resolved, counts, texts, st.binary(max_size=100), st.booleans()),
    st.builds(messages.Unresolved, counts, counts, texts, texts, counts),
    st.builds(messages.Recall, counts, texts, texts, texts, st.booleans()),
    st.builds(messages.Judged, counts, st.booleans(), st.none() | st.floats(0, 1e9), st.binary(max_size=100), st.booleans()),
    st.builds(messages.Revoked, texts, texts, texts, st.binary(max_size=32)),
    st.builds(messages.Task, counts, counts, counts, counts, st.dictionaries(pieces, digests, max_size=5), st.booleans()),
    st.builds(messages.Private, counts),
    st.builds(messages.Peer, counts, texts, ports, marks),
    st.builds(messages.Grant, counts, st.lists(granted, max_size=20)),
    st.builds(messages.Run, counts, pieces, ends),
    st.builds(messages.Describe, counts, digests, counts, counts),
    st.builds(messages.Seeding, counts),
    st.builds(messages.Leave, counts, st.booleans()),
    st.builds(messages.TaskFailed, counts, counts, counts, texts, st.booleans(), counts),
)

from_webhook = st.one_of(
    st.builds(messages.Warm, counts, texts, texts, texts, st.lists(texts, max_size=messages.ARCHITECTURES_MAX)),
    st.builds(messages.WarmBlob, texts, texts, holdings),
)
to_webhook = st.one_of(
    st.builds(messages.Warmed, counts, st.lists(holdings, max_size=5), st.lists(digests, max_size=messages.ARCHITECTURES_MAX)),
    st.builds(messages.Refused, texts),
)
READERS = (agent_message, supernode_message, webhook_message, warm_answer)


def refusal(read: Callable[[bytes], messages.Message], body: bytes) -> str:
    """What is said of bytes that are no message; nothing of others."""
    try:
        read(body)
    except WireError as error:
        return str(error)
    return ""


def test_the_messages_that_are_tried_here_are_all_that_there_are() -> None:
    assert len(get_args(FromAgent)) == 15
    assert len(get_args(FromSupernode)) == 17
    assert (len(get_args(FromWebhook)), len(get_args(ToWebhook))) == (2, 2)


@given(from_agent)
def test_what_an_agent_says_comes_back(message: FromAgent) -> None:
    assert agent_message(frame(message)[4:]) == message


@given(from_supernode)
def test_what_a_supernode_says_comes_back(message: FromSupernode) -> None:
    assert supernode_message(frame(message)[4:]) == message


@given(from_webhook)
def test_what_a_webhook_says_comes_back_and_is_no_word_of_an_agent(message: FromWebhook) -> None:
    body = frame(message)[4:]
    assert webhook_message(body) == message
    assert refusal(agent_message, body)


@given(to_webhook)
def test_what_a_webhook_is_told_comes_back(message: ToWebhook) -> None:
    assert warm_answer(frame(message)[4:]) == message


@given(from_agent)
def test_what_an_agent_says_is_no_word_of_a_webhook(message: FromAgent) -> None:
    assert refusal(webhook_message, frame(message)[4:])


@given(st.lists(from_agent, max_size=6), st.data())
def test_however_the_bytes_are_cut_the_messages_are_the_same(messages: list[FromAgent], data: st.DataObject) -> None:
    sent = b"".join(map(frame, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
    frames = Frames()
    parts = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert [agent_message(body) for part in parts for body in frames.feed(part)] == messages


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused_and_nothing_else_happens(body: bytes) -> None:
    for read in READERS:
        assert refusal(read, body).isprintable()


@given(from_agent | from_supernode | from_webhook | to_webhook, st.data())
def test_a_message_with_a_wrong_byte_is_read_or_refused_and_nothing_else_happens(
    message: messages.Message, data: st.DataObject
) -> None:
    body = bytearray(frame(message)[4:])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    for read in READERS:
        assert refusal(read, bytes(body)).isprintable()


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_whatever_is_fed_no_more_is_kept_than_one_frame(parts: list[bytes]) -> None:
    frames = Frames()
    given_out = 0
    try:
        for part in parts:
            given_out += sum(4 + len(body) for body in frames.feed(part))
    except WireError:
        return
    assert len(frames._buffer) == sum(map(len, parts)) - given_out
    assert len(frames._buffer) < 4 + FRAME_BYTES_MAX
