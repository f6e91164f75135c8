"""How fast pieces arrive: over the last ten seconds, and unknown before there are two looks."""

from __future__ import annotations

from supernode.tracker.arrivals import LOOKS, Arrivals


def test_a_rate_takes_two_looks() -> None:
    arrivals = Arrivals()
    assert arrivals.per_second is None
    arrivals.look(5.0)
    assert arrivals.per_second is None
    arrivals.pieces += 8
    arrivals.look(7.0)
    assert arrivals.per_second == 4.0


def test_two_looks_at_one_moment_tell_no_rate() -> None:
    arrivals = Arrivals()
    arrivals.look(5.0)
    arrivals.look(5.0)
    assert arrivals.per_second is None


def test_what_came_long_ago_is_no_rate_any_more() -> None:
    arrivals = Arrivals()
    arrivals.look(0.0)
    arrivals.pieces += 100
    for second in range(1, LOOKS + 2):
        arrivals.look(float(second))
    assert arrivals.per_second == 0.0
