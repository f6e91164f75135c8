"""Bytes that nodes say they received: each speaks for itself, for 24 hours, and within bounds."""

from __future__ import annotations

import pytest

from agent.values.received import HOUR_SECONDS, NODE_BYTES_PER_HOUR_MAX, BytesBySource
from supernode.tracker import received
from supernode.tracker.received import ReceivedBytes

NOW = 1000 * HOUR_SECONDS + 60.0
SOME = BytesBySource(peer=10, supernode=20, origin=30)


def test_all_nodes_together_and_each_of_them_are_told() -> None:
    counted = ReceivedBytes()
    counted.told("a", SOME, 0.0, NOW)
    counted.told("b", BytesBySource(peer=5), 0.0, NOW)
    counted.told("a", BytesBySource(origin=1), 7200.0, NOW)
    assert counted.of("a") == BytesBySource(10, 20, 31)
    assert counted.of("b") == BytesBySource(peer=5)
    assert counted.of("stranger") == BytesBySource()
    assert counted.total == BytesBySource(15, 20, 31)


def test_after_a_day_nothing_is_left_of_it_and_the_node_is_forgotten() -> None:
    counted = ReceivedBytes()
    counted.told("a", SOME, 0.0, NOW)
    counted.look(NOW + 23 * HOUR_SECONDS)
    assert (counted.of("a"), counted.total) == (SOME, SOME)
    counted.look(NOW + 24 * HOUR_SECONDS)
    assert (counted.of("a"), counted.total) == (BytesBySource(), BytesBySource())
    assert not counted._nodes


def test_what_is_said_to_be_older_than_a_day_does_not_count() -> None:
    counted = ReceivedBytes()
    counted.told("a", SOME, 25 * HOUR_SECONDS, NOW)
    assert counted.total == BytesBySource()


def test_a_node_that_tells_too_much_is_believed_up_to_what_a_link_carries_and_spoils_nobody_elses_count() -> None:
    counted = ReceivedBytes()
    for _ in range(300):
        counted.told("liar", BytesBySource(peer=1 << 40), 0.0, NOW)
    counted.told("a", SOME, 0.0, NOW)
    assert counted.of("liar").peer == NODE_BYTES_PER_HOUR_MAX
    assert counted.of("a") == SOME
    assert counted.total.peer == NODE_BYTES_PER_HOUR_MAX + SOME.peer


def test_names_are_bounded_and_come_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received, "NODES_MAX", 2)
    counted = ReceivedBytes()
    for name in ("a", "b", "c"):
        counted.told(name, SOME, 0.0, NOW)
    assert counted.of("c") == BytesBySource()
    counted.told("c", SOME, 0.0, NOW + 30 * HOUR_SECONDS)
    assert counted.of("c") == SOME
