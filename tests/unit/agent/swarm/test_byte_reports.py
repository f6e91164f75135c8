"""What supernodes are told of the bytes that this node received: each byte once, also over lost channels and new supernodes."""

from __future__ import annotations

from typing import cast

import msgspec

from agent import metrics
from agent.swarm.byte_reports import ByteReports
from agent.swarm.channel import Channel, ChannelError, supernode_message
from agent.swarm.messages import COUNT_MAX, Message, Received, Welcome
from agent.values.received import HOUR_SECONDS, BytesBySource, HourlyBytes, hour_of

NOW = 500 * HOUR_SECONDS + 600.0


class FakeChannel:
    def __init__(self) -> None:
        self.takes_byte_reports, self.is_lost, self.process = True, False, b"first"
        self.heard: list[Received] = []

    def send(self, message: Message) -> None:
        if self.is_lost:
            raise ChannelError("the supernode is gone")
        assert isinstance(message, Received)
        self.heard.append(message)


def reports(*channels: FakeChannel) -> ByteReports:
    return ByteReports(lambda: cast(list[Channel], channels))


def test_only_news_is_told() -> None:
    channel = FakeChannel()
    to_tell = reports(channel)
    to_tell.look(BytesBySource(10, 20, 30), NOW)
    to_tell.look(BytesBySource(10, 20, 30), NOW + 10)
    to_tell.look(BytesBySource(15, 20, 30), NOW + 20)
    assert channel.heard == [Received(10, 20, 30, 0.0), Received(5, 0, 0, 0.0)]


def test_a_supernode_that_is_found_later_is_told_the_whole_day_and_one_that_has_gone_is_forgotten() -> None:
    first, second = FakeChannel(), FakeChannel()
    there = [first]
    to_tell = ByteReports(lambda: cast(list[Channel], there))
    to_tell.look(BytesBySource(peer=10), NOW)
    there = [first, second]
    to_tell.look(BytesBySource(peer=15), NOW + 10)
    assert sum(received.peer for received in second.heard) == 15
    there = [second]
    to_tell.look(BytesBySource(peer=15), NOW + 20)
    assert list(to_tell._told) == [second]


def test_what_came_while_the_channel_was_lost_is_told_when_it_is_back() -> None:
    channel = FakeChannel()
    to_tell = reports(channel)
    channel.is_lost = True
    to_tell.look(BytesBySource(peer=10), NOW)
    channel.is_lost = False
    to_tell.look(BytesBySource(peer=15), NOW + 10)
    assert channel.heard == [Received(15, 0, 0, 0.0)]


def test_a_supernode_that_has_started_anew_is_told_the_whole_day_and_the_others_nothing_twice() -> None:
    channel, other = FakeChannel(), FakeChannel()
    to_tell = reports(channel, other)
    to_tell.look(BytesBySource(peer=10), NOW - 5 * HOUR_SECONDS)
    to_tell.look(BytesBySource(peer=12), NOW)
    told = len(other.heard)
    channel.process, channel.heard = b"second", []
    to_tell.look(BytesBySource(peer=12), NOW + 10)
    assert [message.peer for message in channel.heard] == [10, 2]
    ages = [message.age_seconds for message in channel.heard]
    assert hour_of(NOW + 10 - ages[0]) == hour_of(NOW - 5 * HOUR_SECONDS)
    assert ages[1] == 0.0
    assert len(other.heard) == told


def test_a_supernode_of_an_earlier_version_is_told_nothing() -> None:
    channel = FakeChannel()
    channel.takes_byte_reports = False
    reports(channel).look(BytesBySource(1, 1, 1), NOW)
    assert channel.heard == []


def test_a_supernode_that_does_not_know_such_reports_asks_for_none_in_its_welcome() -> None:
    whole = msgspec.msgpack.decode(
        msgspec.msgpack.encode(Welcome(1, "supernode", 30.0, "10.0.0.1", 65002, takes_byte_reports=True))
    )
    said = [supernode_message(msgspec.msgpack.encode(part)) for part in (whole, whole[:-1])]
    assert [isinstance(message, Welcome) and message.takes_byte_reports for message in said] == [True, False]


def test_more_than_a_message_holds_is_told_in_several() -> None:
    channel = FakeChannel()
    to_tell = reports(channel)
    for _ in range(3):
        to_tell.look(BytesBySource(peer=2 * COUNT_MAX + 5), NOW)
    assert [message.peer for message in channel.heard] == [COUNT_MAX, COUNT_MAX, 5]


def test_what_the_metrics_count_is_what_is_told() -> None:
    before = metrics.received_bytes("peer")
    metrics.RECEIVED_BYTES.labels("peer").inc(123)
    assert metrics.received_bytes("peer") - before == 123


def test_a_day_without_anything_leaves_nothing_to_tell() -> None:
    channel = FakeChannel()
    to_tell = reports(channel)
    to_tell.look(BytesBySource(peer=10), NOW)
    channel.process, channel.heard = b"second", []
    to_tell.look(BytesBySource(peer=10), NOW + 25 * HOUR_SECONDS)
    assert channel.heard == []
    assert HourlyBytes().total == BytesBySource()
