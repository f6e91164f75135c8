"""Trouble that passes: connections that are reset, and a second without a link, in the middle of a rollout.

Each round is on a site of its own, as with nodes that are lost (`hack.bench.faults`). All nodes count.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hack.bench.faults import LOST_AFTER_BOUNDS
from hack.bench.rollout import Disturbance, Outcome, roll_out
from hack.bench.site import Plan, Site, bound_seconds, site
from hack.lab.darner import PIECE_PORT
from hack.lab.trouble import away, reset

AWAY_SECONDS = 1.0

Passing = Callable[[Site], None]


def one_reset(place: Site) -> None:
    reset(place.supernode.host, PIECE_PORT, 1)


def all_reset(place: Site) -> None:
    reset(place.supernode.host, PIECE_PORT)


def supernode_away(place: Site) -> None:
    away(place.supernode.host, AWAY_SECONDS)


def node_away(place: Site) -> None:
    away(place.agents[-1].host, AWAY_SECONDS)


def roll_out_through(plan: Plan, passing: Passing) -> Outcome:
    with site(plan) as place:
        after = LOST_AFTER_BOUNDS * bound_seconds(plan.image_bytes, plan.nodes, plan.rate, plan.rate)
        return roll_out(place, Disturbance(None, after, partial(passing, place)))
