"""The simulation finds mistakes that are put in on purpose, each by the promise that it breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent.download import planner
from agent.storage.blob import Blob
from agent.swarm.messages import AskLeave
from hack.simulate.trial import trial
from supernode.scheduler.accounting import Accounting
from supernode.tracker.seeds import Seeds

SEEDS = 100


def never_beside(self: planner.Planner, now: float) -> list[AskLeave]:
    """The origin is never taken beside the swarm; leave is asked for again and again."""
    self._leave_asked_at = now
    return []


def without_leave(self: planner.Planner, given: bool, now: float) -> list[Any]:
    """Whatever the supernode says, a node that has asked for leave takes it."""
    self._quiet_at = now
    return self._go_beside(now) if self.mode is planner.Mode.SWARM and not self._origin_error else []


def keeps_slots(self: Accounting, member: Any) -> list[Any]:
    """A node that leaves while pieces are on their way to it keeps the slots of their sources."""
    member.open, member.want, member.urgent = False, 0, 0
    member.shunned, member.lost = None, 0
    member.swarm.parked.discard(member)
    member.swarm.takers.pop(member.node.number, None)
    return [self._seed]


PLANTED: list[tuple[type, str, Callable[..., Any], str]] = [
    (planner.Planner, "_go_beside", never_beside, "has no byte 5 s after the swarm was useless to it"),
    (planner.Planner, "_leave_answered", without_leave, "asks the origin for blob 0 without a reason"),
    (Accounting, "close", keeps_slots, "the books of s0 are wrong"),
    (Seeds, "left", lambda self, session: None, "left over: task"),
    (Blob, "_readable", property(lambda self: self.held), "ends an answer cleanly that had wrong bytes"),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("owner", "name", "mistake", "broken"), PLANTED, ids=[broken for *_, broken in PLANTED])
def test_a_mistake_is_found_by_the_promise_that_it_breaks(
    owner: type, name: str, mistake: Callable[..., Any], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, mistake)
    found = (trial.run(seed).violations for seed in range(1, SEEDS + 1))
    assert any(broken in violation for violations in found for violation in violations)
