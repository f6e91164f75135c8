"""A node is lost in the middle of a rollout: how long it takes the others.

Either its agent is killed, which resets its connections, or its link goes silent, which tells nobody anything. Each round is on a
site of its own, because those who remember the lost node as a bad source would do better the second time.
"""

from __future__ import annotations

from collections.abc import Callable

from hack.bench.rollout import Disturbance, Outcome, roll_out
from hack.bench.site import Plan, Site, bound_seconds, site
from hack.lab.darner import Agent

LOST_AFTER_BOUNDS = 0.5
"""When the node is lost, in bounds of the rollout: it has about half of the image then, and sends as much as any."""


def killed(agent: Agent) -> None:
    agent.kill()


def silent(agent: Agent) -> None:
    agent.host.cut()


def roll_out_losing_one(plan: Plan, lose: Callable[[Agent], None]) -> Outcome:
    """The outcome of the others."""
    with site(plan) as place:
        return roll_out(place, _disturbance(place, lose))


def _disturbance(place: Site, lose: Callable[[Agent], None]) -> Disturbance:
    plan, victim = place.plan, place.agents[-1]
    after = LOST_AFTER_BOUNDS * bound_seconds(plan.image_bytes, plan.nodes, plan.rate, plan.rate)
    return Disturbance(victim, after, lambda: lose(victim))
