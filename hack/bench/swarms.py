"""The scenarios in which an image goes to many nodes, and the figures that come of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from hack.bench.direct import Beside, pull_directly
from hack.bench.figures import BY_NAME, Measured
from hack.bench.rollout import Outcome, roll_out
from hack.bench.scenario import Options, Tell
from hack.bench.site import Plan, Site, site
from hack.bench.zones import ZoneCounters

try:
    from hack.bench.torrent import swarm
except ImportError:  # no wheels for this Python: measured without
    swarm = None  # type: ignore[assignment]

IDLE_SHARE_MIN = 0.05
"""A rollout that left less than this of the processors is the machine's figure as much as Darner's."""


def rollout(name: str, plan: Plan, first_byte: str, beside: bool, options: Options, tell: Tell) -> list[Measured]:
    """`first_byte` names the figure that the first bytes are for, if any; `beside`: direct pulls and libtorrent, too."""
    outcomes: list[Outcome] = []
    others: dict[str, list[Beside]] = {}
    systems = _beside() if beside and options.beside else {}
    with site(plan) as place:
        for number in range(options.rounds):
            outcomes.append(roll_out(place))
            _tell_of(outcomes[-1], name, number, options, tell)
            for system, roll_out_by in systems.items():
                others.setdefault(system, []).append(roll_out_by(place))
                tell(f"{name}, round {number + 1}: {system} {others[system][-1].ratio:.3f}")
    ratios = {system: [one.ratio for one in rounds] for system, rounds in others.items()}
    egress = {system: [one.origin_images for one in rounds] for system, rounds in others.items()}
    measured = [
        Measured(BY_NAME["origin-egress"], [outcome.origin_images for outcome in outcomes], egress, name),
        Measured(BY_NAME["supernode-egress"], [outcome.supernode_images for outcome in outcomes], {}, name),
    ]
    if name.startswith("rollout"):
        measured.append(Measured(BY_NAME[name], [outcome.ratio for outcome in outcomes], ratios, _idle(outcomes)))
    if first_byte:
        measured.append(Measured(BY_NAME[first_byte], [outcome.first_byte_pieces for outcome in outcomes]))
    return measured


def fault(name: str, roll_out_once: Callable[[], Outcome], options: Options, tell: Tell) -> list[Measured]:
    outcomes = []
    for number in range(options.rounds):
        outcomes.append(roll_out_once())
        _tell_of(outcomes[-1], name, number, options, tell)
    return [Measured(BY_NAME[name], [outcome.ratio for outcome in outcomes], note=_idle(outcomes))]


def zones(name: str, plan: Plan, options: Options, tell: Tell) -> list[Measured]:
    outcomes, crossed = [], []
    with site(plan) as place:
        counters = ZoneCounters(place)
        for number in range(options.rounds):
            before = counters.crossed_bytes()
            outcomes.append(roll_out(place))
            crossed.append((counters.crossed_bytes() - before) / outcomes[-1].image_bytes)
            _tell_of(outcomes[-1], name, number, options, tell)
            tell(f"{name}, round {number + 1}: {crossed[-1]:.3f} images crossed")
    makespan = median(outcome.ratio for outcome in outcomes)
    return [Measured(BY_NAME[name], crossed, note=f"makespan / bound {makespan:.3f}; {_idle(outcomes)}")]


def _beside() -> dict[str, Callable[[Site], Beside]]:
    """By its name in the table: what a user would take instead."""
    systems: dict[str, Callable[[Site], Beside]] = {"direct": pull_directly}
    if swarm is not None:
        systems["libtorrent"] = swarm
    return systems


def _tell_of(outcome: Outcome, name: str, number: int, options: Options, tell: Tell) -> None:
    tell(f"{name}, round {number + 1}: {outcome.described() if options.details else f'{outcome.ratio:.3f}'}")


def _idle(outcomes: Sequence[Outcome]) -> str:
    idle = min(outcome.idle_share for outcome in outcomes)
    return f"cores idle {idle:.0%}" + ("" if idle > IDLE_SHARE_MIN else ": limited by this machine")
