"""The scheduler's books, counted again from the beginning: what each member has and is getting makes up every other number."""

from __future__ import annotations

from agent.values.pieces import members
from supernode.scheduler.bag import RANKS
from supernode.scheduler.machine import Scheduler
from supernode.scheduler.state import Swarm


def check_the_books(scheduler: Scheduler) -> None:
    """Raises AssertionError when a number is not what it should be."""
    busy: dict[int, int] = {}
    asking: dict[int, int] = {}
    for swarm in scheduler.swarms.values():
        counts = [0] * swarm.count
        wholes = 0
        for member in swarm.members.values():
            node = member.node
            assert member.lacking == swarm.everything & ~member.have & ~sum(1 << piece for piece in member.flights)
            assert member.held == member.have.bit_count()
            assert member.offered & ~member.have == 0
            assert (member in swarm.holders) == (member in member.zone.holders)
            assert (member in swarm.holders) == (member.offered != 0 and not node.barred and not member.on_trial)
            assert (member in swarm.on_trial) == (member.offered != 0 and not node.barred and member.on_trial)
            assert member.trials == sum(flight.on_trial for flight in member.flights.values())
            assert member.want >= 0
            assert (member in swarm.parked) == (member.want > 0 and member.lacking != 0)
            assert member.open or not (member.flights or member.want)
            wholes += member.whole and not node.barred and not member.on_trial
            for piece in members(0 if member.whole or node.barred else member.offered):
                counts[piece] += 1
            for piece, flight in member.flights.items():
                counts[piece] += flight.counted
                busy[flight.source.number] = busy.get(flight.source.number, 0) + flight.slot
            assert member.open or not member.runs, "a node that takes nothing has a run"
            for origin in {run.origin for run in member.runs}:
                asking[origin] = asking.get(origin, 0) + 1
        _check_the_runs(swarm)
        parked = [member for member in swarm.members.values() if member in swarm.parked]
        found = swarm.parked.first(0.3, len(parked) + 1)
        assert set(found) == set(parked)
        assert len(found) == len(parked) == swarm.parked.count
        assert [member.rank for member in found] == sorted(member.rank for member in parked)
        assert all(0 <= member.rank < RANKS for member in parked)
        assert found[:2] == swarm.parked.first(0.3, 2)
        assert swarm.copies.counts == counts
        assert swarm.copies.present == (swarm.everything if wholes else sum(1 << piece for piece, n in enumerate(counts) if n))
    for number, node in scheduler.nodes.items():
        assert node.busy == busy.get(number, 0) == len(node.sending)
        assert all(taker.taking for taker in node.sending)
        assert node.taking == sum(len(member.flights) + bool(member.runs) for member in node.members.values())
        assert node.fetching == sum(len(member.runs) for member in node.members.values())
    for number, link in scheduler.origins.items():
        assert link.busy == asking.get(number, 0)
        assert 1 <= link.slots <= link.slots_max


def _check_the_runs(swarm: Swarm) -> None:
    assert all(member.open and swarm.members.get(member.node.number) is member for member in swarm.fetchers.some(0.0, 1 << 20))
    runs = [run for member in swarm.members.values() for run in member.runs]
    assert len(runs) == len(swarm.runs)
    assert set(runs) == set(swarm.runs)
    assert all(run.left & ~((1 << run.end) - (1 << run.first)) == 0 for run in runs)
    waited_for = [run.left for run in runs if not run.stalled]
    claimed = 0
    for left in waited_for:
        claimed |= left
    assert swarm.claimed == claimed, "what nodes are to get is not what they were granted"
    assert claimed.bit_count() == sum(left.bit_count() for left in waited_for), "no piece is to come from an origin twice"
    assert swarm.unclaimed == swarm.everything & ~(swarm.seeded | swarm.copies.present | claimed)
