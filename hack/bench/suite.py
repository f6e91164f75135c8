"""The scenarios, in the order in which they run: a name, and how it is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from hack.bench.cold import cold
from hack.bench.container import container
from hack.bench.daemonset import daemonset
from hack.bench.fast import fast
from hack.bench.faults import killed, roll_out_losing_one, silent
from hack.bench.files import files
from hack.bench.ladder import CASES, NODES, ladder
from hack.bench.memory import memory
from hack.bench.passing import all_reset, node_away, one_reset, roll_out_through, supernode_away
from hack.bench.processes import bytes_cost, load, reviews, simulation
from hack.bench.scenario import Options, Scenario
from hack.bench.site import Plan
from hack.bench.source import cases, from_origin, kept
from hack.bench.swarms import fault, rollout, zones

FAULTS = ("--arrival-seconds", "30", "--failing", "0.01", "--lying", "0.01")
"""Of the simulation."""


def scenarios(options: Options) -> dict[str, Scenario]:
    """By name."""
    found: dict[str, Scenario] = {}
    for nodes in (8, 16):
        for times in (1, 10):
            for layers in (1, 4):
                name = f"rollout-{nodes}-{times}x" + (f"-{layers}layers" if layers > 1 else "")
                plan = Plan(nodes, layers, times, options.mbit, options.image_bytes)
                beside = times == 1 and layers == 1  # direct pulls and libtorrent know neither supernode nor layers
                found[name] = partial(rollout, name, plan, f"first-byte-{nodes}" if beside and nodes == 8 else "", beside)
    alone = Plan(1, 1, 1, options.mbit, options.image_bytes)
    found["first-byte-1"] = partial(rollout, "first-byte-1", alone, "first-byte-1", False)
    found["cold"] = partial(cold, alone)
    eight = Plan(8, 1, 1, options.mbit, options.image_bytes)
    found["killed"] = partial(fault, "killed", partial(roll_out_losing_one, eight, killed))
    found["silent"] = partial(fault, "silent", partial(roll_out_losing_one, eight, silent))
    four = replace(eight, nodes=4)
    for name, plan, passing in (
        ("reset-one", alone, one_reset),
        ("reset-all", four, all_reset),
        ("away-supernode", four, supernode_away),
        ("away-node", four, node_away),
    ):
        found[name] = partial(fault, name, partial(roll_out_through, plan, passing))
    for case in CASES:
        plan = replace(alone, nodes=NODES if case.with_nodes else 1, origin_times=10)
        found[case.name] = partial(ladder, case, plan)
    found["zones"] = partial(zones, "zones", replace(eight, zones=2))
    found |= {case.name: partial(from_origin, case) for case in cases(eight)}
    found |= {case.name: partial(from_origin, case) for case in kept(eight)}
    found["get-8"] = partial(files, "get-8", replace(eight, files=True))
    found["fast"] = fast
    found["container"] = container
    found["daemonset"] = daemonset
    found["cpu"] = bytes_cost
    found["memory"] = partial(memory, replace(alone, mbit=10_000))
    found["load"] = load
    found["simulate"] = partial(simulation, "simulate", (), "max")
    found["simulate-faults"] = partial(simulation, "simulate-faults", FAULTS, "p99")
    found["webhook"] = reviews
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
