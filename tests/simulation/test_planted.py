"""The simulation finds mistakes that are put in on purpose, each by the promise that it breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from agent.download import planner
from agent.storage.blob import Blob
from agent.swarm.messages import RUN_FAILED, RUN_REFUSED, AskLeave
from hack.simulate.trial import trial
from supernode.scheduler.accounting import Accounting
from supernode.scheduler.events import RunOver
from supernode.scheduler.machine import Scheduler
from supernode.scheduler.state import Swarm
from supernode.tracker.doubts import BlobId, Doubts
from supernode.tracker.seeds import Seeds
from supernode.tracker.task import Named

_run_ended, _add = Scheduler._run_ended, Doubts.add
SEEDS = 100
"""That are tried for a mistake, from the one on that is given with it: some need trouble that few clusters have."""


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


def keeps_its_run(self: Scheduler, members: list[Any]) -> None:
    """The rest of what a node was granted at its origin is not free when the node is gone."""
    for member in members:
        member.swarm.fetchers.discard(member)


def hears_no_refusal(self: Scheduler, event: RunOver) -> None:
    """A registry that refuses a node has only failed it, and may be asked again."""
    outcome = RUN_FAILED if event.outcome == RUN_REFUSED else event.outcome
    _run_ended(self, replace(event, outcome=outcome))


def forgets_who_named(self: Doubts, blob: BlobId, named: dict[int, Named], accuser: str) -> None:
    """A blob is in doubt, and nobody in particular."""
    _add(self, blob, {}, accuser)


PLANTED: list[tuple[type, str, Callable[..., Any], str, int]] = [
    (planner.Planner, "_go_beside", never_beside, "has no byte 5 s after the swarm was useless to it", 1),
    (planner.Planner, "_leave_answered", without_leave, "asks the origin for blob 0 without a reason", 1370),
    (Accounting, "close", keeps_slots, "the books of s0 are wrong", 1),
    (Scheduler, "_free_runs", keeps_its_run, "a node that takes nothing has a run", 1),
    (Swarm, "claimed", property(lambda self: 0), "what nodes are to get is not what they were granted", 1),  # type: ignore[list-item]
    (Seeds, "disputed", lambda self, session, number: None, "though there is no more trouble than misnamers", 100),
    (Seeds, "_look_at_describers", lambda self, task, now: None, "with no more trouble than silent_holders", 1),
    (Seeds, "_rescue", lambda self, task, now: None, "with no more trouble than origin_refuses_nodes", 180),
    (Scheduler, "_run_ended", hears_no_refusal, "which its registry has refused it", 200),
    (Doubts, "add", forgets_who_named, "named pieces wrongly of a blob that turned out wrong, and was not found", 475),
    (Seeds, "left", lambda self, session: None, "left over: task", 1),
    (Blob, "_readable", property(lambda self: self.held), "ends an answer cleanly that had wrong bytes", 1),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("owner", "name", "mistake", "broken", "first"), PLANTED, ids=[broken for *_, broken, _ in PLANTED])
def test_a_mistake_is_found_by_the_promise_that_it_breaks(
    owner: type, name: str, mistake: Callable[..., Any], broken: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, mistake)
    found = (trial.run(seed).violations for seed in range(first, first + SEEDS))
    assert any(broken in violation for violations in found for violation in violations)
