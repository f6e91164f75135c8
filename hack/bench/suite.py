"""The scenarios, in the order in which they run: a name, and how it is measured.

A scenario makes what it needs, measures it `rounds` times with whatever is measured beside it in turns, and takes all of it away
again. One that cannot be measured raises; nothing is left out silently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from hack.bench.direct import Beside, pull_directly
from hack.bench.faults import killed, roll_out_losing_one, silent
from hack.bench.figures import BY_NAME, Measured
from hack.bench.rollout import Outcome, roll_out
from hack.bench.site import Plan, site
from hack.bench.zones import ZoneCounters
from hack.lab.darner import Agent

try:
    from hack.bench import torrent
except ImportError:  # no wheels for this Python: measured without
    torrent = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Options:
    rounds: int = 3
    beside: bool = True
    """Measure other systems in the same run."""
    mbit: int = 100
    image_bytes: int = 64 << 20
    details: bool = False
    """Tell everything that is seen of each round."""


Tell = Callable[[str], None]
"""Called with a line for whoever watches."""
Scenario = Callable[[Options, Tell], list[Measured]]


def _rollout(name: str, plan: Plan, first_byte: str, beside: bool, options: Options, tell: Tell) -> list[Measured]:
    """`first_byte` names the figure that the first bytes are for, if any; `beside`: direct pulls and libtorrent, too."""
    outcomes: list[Outcome] = []
    direct: list[Beside] = []
    swarms: list[Beside] = []
    with site(plan) as place:
        for number in range(options.rounds):
            outcome = roll_out(place)
            outcomes.append(outcome)
            _tell_of(outcome, name, number, options, tell)
            if beside and options.beside:
                direct.append(pull_directly(place))
                tell(f"{name}, round {number + 1}: direct pulls {direct[-1].ratio:.3f}")
                if torrent is None:
                    tell(f"{name}: libtorrent is not installed (requirements-bench.txt)")
                    continue
                swarms.append(torrent.swarm(place))
                tell(f"{name}, round {number + 1}: libtorrent {swarms[-1].ratio:.3f}")
    ratios = {"direct": [one.ratio for one in direct], "libtorrent": [one.ratio for one in swarms]} if direct else {}
    egress = (
        {"direct": [one.origin_images for one in direct], "libtorrent": [one.origin_images for one in swarms]} if direct else {}
    )
    measured = [
        Measured(BY_NAME["origin-egress"], [outcome.origin_images for outcome in outcomes], egress, name),
        Measured(BY_NAME["supernode-egress"], [outcome.supernode_images for outcome in outcomes], {}, name),
    ]
    if name in BY_NAME:
        measured.append(Measured(BY_NAME[name], [outcome.ratio for outcome in outcomes], ratios, _idle(outcomes)))
    if first_byte:
        measured.append(Measured(BY_NAME[first_byte], [outcome.first_byte_pieces for outcome in outcomes]))
    return measured


def _fault(name: str, plan: Plan, lose: Callable[[Agent], None], options: Options, tell: Tell) -> list[Measured]:
    outcomes = []
    for number in range(options.rounds):
        outcome = roll_out_losing_one(plan, lose)
        outcomes.append(outcome)
        _tell_of(outcome, name, number, options, tell)
    return [Measured(BY_NAME[name], [outcome.ratio for outcome in outcomes], note=_idle(outcomes))]


def _zones(name: str, plan: Plan, options: Options, tell: Tell) -> list[Measured]:
    outcomes, crossed = [], []
    with site(plan) as place:
        counters = ZoneCounters(place)
        for number in range(options.rounds):
            before = counters.crossed_bytes()
            outcome = roll_out(place, checked=False)
            crossed.append((counters.crossed_bytes() - before) / outcome.image_bytes)
            outcomes.append(outcome)
            _tell_of(outcome, name, number, options, tell)
            tell(f"{name}, round {number + 1}: {crossed[-1]:.3f} images crossed")
    makespan = median(outcome.ratio for outcome in outcomes)
    return [Measured(BY_NAME[name], crossed, note=f"makespan / bound {makespan:.3f}; {_idle(outcomes)}")]


def _tell_of(outcome: Outcome, name: str, number: int, options: Options, tell: Tell) -> None:
    tell(f"{name}, round {number + 1}: {outcome.described() if options.details else f'{outcome.ratio:.3f}'}")


def _idle(outcomes: Sequence[Outcome]) -> str:
    idle = min(outcome.idle_share for outcome in outcomes)
    return f"cores idle {idle:.0%}" + ("" if idle > IDLE_SHARE_MIN else ": limited by this machine")


IDLE_SHARE_MIN = 0.05
"""A rollout that left less than this of the processors is the machine's figure as much as Darner's."""


def scenarios(options: Options) -> dict[str, Scenario]:
    """By name."""
    found: dict[str, Scenario] = {}
    for nodes in (8, 16):
        for times in (1, 10):
            for layers in (1, 4):
                name = f"rollout-{nodes}-{times}x" + (f"-{layers}layers" if layers > 1 else "")
                plan = Plan(nodes, layers, times, options.mbit, options.image_bytes)
                beside = times == 1 and layers == 1  # direct pulls and libtorrent know neither supernode nor layers
                found[name] = partial(_rollout, name, plan, f"first-byte-{nodes}" if beside and nodes == 8 else "", beside)
    alone = Plan(1, 1, 1, options.mbit, options.image_bytes)
    found["first-byte-1"] = partial(_rollout, "first-byte-1", alone, "first-byte-1", False)
    eight = Plan(8, 1, 1, options.mbit, options.image_bytes)
    found["killed"] = partial(_fault, "killed", eight, killed)
    found["silent"] = partial(_fault, "silent", eight, silent)
    found["zones"] = partial(_zones, "zones", replace(eight, zones=2))
    return found


def chosen(names: Sequence[str], options: Options) -> dict[str, Scenario]:
    """All; or those that are named, where a name that is none chooses those that begin with it. ValueError if there are none."""
    everything = scenarios(options)
    wanted: set[str] = set()
    for name in names:
        found = [name] if name in everything else [scenario for scenario in everything if scenario.startswith(name)]
        if not found:
            raise ValueError(f"{name} is no scenario; there are {', '.join(everything)}")
        wanted.update(found)
    return {name: scenario for name, scenario in everything.items() if not names or name in wanted}
