"""python -m hack.simulate: rollouts in virtual time, as a table or as JSON.

Without options, the plans of docs/scheduling.md; with `--fast` those on fast links, where nodes' processors count; with `--large`
those with 10,000 nodes, which take some minutes each; with `--nodes` one plan of one's own. The same seed prints the same
figures, except for the last two columns, which are what scheduling took of this machine's processor. `make simulate` runs the
scheduler as the image has it, compiled.

With `--seeds` it is many small clusters under faults instead, each from its seed (`hack.simulate.trial`), and with
`--seed N --trace` one of those again.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import inf
from typing import Any

from agent.values.pieces import Layout
from hack.simulate.processor import NOTHING, SENDING, TAKING
from hack.simulate.rollout import Plan, Result, run
from hack.simulate.shadow import COMPILED
from hack.simulate.trial import command

MBIT = 125_000.0
HUNDRED = 100 * MBIT
GIGABIT = 1000 * MBIT

PLANS = {
    "origin 1x": Plan(),
    "origin 10x": Plan(origin_rate=10 * HUNDRED),
    "origin 100x": Plan(origin_rate=100 * HUNDRED),
    "origin 1x, a tenth of that for a connection": Plan(connection_rate=HUNDRED / 10),
    "origin 10x, supernode 0.25x": Plan(origin_rate=10 * HUNDRED, seed_rate=HUNDRED / 4),
    "blob in the supernode's cache, supernode 1x": Plan(origin_rate=0),
    "blob in the supernode's cache, supernode 10x": Plan(origin_rate=0, seed_rate=10 * HUNDRED),
    "two zones": Plan(zones=2),
    "every tenth link a quarter as fast": Plan(slow=0.1),
    "arrivals over 5 s": Plan(arrival_seconds=5),
    "one in 16 dies": Plan(failing=1 / 16),
    "one in 16 lies": Plan(lying=1 / 16),
    "1 Gbit/s, 2 ms pieces": Plan(node_rate=GIGABIT, seed_rate=GIGABIT, origin_rate=GIGABIT),
    "1 Gbit/s, 34 ms pieces": Plan(node_rate=GIGABIT, seed_rate=GIGABIT, origin_rate=GIGABIT, piece_bytes=4 << 20),
}
NODES = (8, 16, 64, 256)

FAST_CORES = 4


def fast_plan(gigabits: int, mebibytes: int) -> Plan:
    """A blob in the pieces that it really has, over links that are all alike, to nodes whose work takes what was measured."""
    rate, layout = gigabits * GIGABIT, Layout.of(mebibytes << 20)
    return Plan(
        pieces=layout.count,
        piece_bytes=layout.length,
        node_rate=rate,
        seed_rate=rate,
        origin_rate=rate,
        cores=FAST_CORES,
        taking=TAKING,
        sending=SENDING,
    )


FAST_PLANS = {
    f"{gigabits} Gbit/s, {mebibytes} MiB": fast_plan(gigabits, mebibytes)
    for gigabits in (1, 10, 25)
    for mebibytes in (64, 256, 1024)
}
FAST_NODES = (8, 16, 64)

GIBIBYTE = Plan(nodes=10_000, piece_bytes=4 << 20)
LARGE_PLANS = {
    "1 GiB": GIBIBYTE,
    "1 GiB, origin 100x": replace(GIBIBYTE, origin_rate=100 * HUNDRED),
    "1 GiB, origin 100x, supernode 0.25x": replace(GIBIBYTE, origin_rate=100 * HUNDRED, seed_rate=HUNDRED / 4),
    "1 GiB, the supernode's pieces refused to everybody": replace(GIBIBYTE, origin_rate=0, blocked="refused"),
    "1 GiB, the supernode's pieces dropped for everybody": replace(GIBIBYTE, origin_rate=0, blocked="dropped"),
    "1 GiB, two zones": replace(GIBIBYTE, zones=2),
    "1 GiB, over 30 s, 1 % die, 1 % lie": replace(GIBIBYTE, arrival_seconds=30, failing=0.01, lying=0.01),
    "1 GiB, the same, every tenth link a quarter as fast, two zones": replace(
        GIBIBYTE, arrival_seconds=30, failing=0.01, lying=0.01, slow=0.1, zones=2
    ),
}

COLUMNS = (
    "plan",
    "nodes",
    "bound",
    "slowest / bound",
    "99 % / bound",
    "half / bound",
    "origin sent",
    "origin's requests",
    "supernode sent",
    "crossed zones",
    "first piece, slowest",
    "messages a piece",
    "scheduler",
    "scheduling, CPU-s",
    "µs a piece",
)


def row(name: str, result: Result) -> str:
    plan = result.plan
    seconds = result.scheduling_seconds or 0.0
    cells = (
        name,
        str(plan.nodes),
        f"{plan.bound:.3f} s",
        f"{result.ratio:.2f}",
        f"{result.quantile(0.99):.2f}",
        f"{result.quantile(0.5):.2f}",
        f"{result.origin_blobs:.2f} blobs",
        str(result.origin_requests),
        f"{result.seed_images:.2f} blobs",
        f"{result.cross_zone_images:.2f} blobs" if plan.zones > 1 else "",
        f"{result.first_seconds[-1] / (plan.piece_bytes / plan.node_rate):.1f} piece times",
        f"{result.messages / result.grants:.2f}",
        "compiled" if COMPILED else "uncompiled",
        f"{seconds:.1f}",
        f"{seconds / result.grants * 1e6:.1f}",
    )
    return "| " + " | ".join(cells) + " |"


def document(name: str, result: Result) -> dict[str, Any]:
    """The figures of a plan, with the names under which others look them up."""
    return {
        "plan": name,
        "nodes": result.plan.nodes,
        "piece_bytes": result.plan.piece_bytes,
        "bound_seconds": result.plan.bound,
        "links_bound_seconds": result.plan.links_bound,
        "max_to_bound": result.ratio,
        "p99_to_bound": result.quantile(0.99),
        "p50_to_bound": result.quantile(0.5),
        "first_piece_times": result.first_seconds[-1] / (result.plan.piece_bytes / result.plan.node_rate),
        "origin_images": result.origin_blobs,
        "origin_requests": result.origin_requests,
        "supernode_images": result.seed_images,
        "cross_zone_images": result.cross_zone_images,
        "messages": result.messages,
        "pieces": result.grants,
        "compiled": COMPILED,
        "scheduling_cpu_seconds": result.scheduling_seconds,
        "finished": len(result.seconds),
        "asked_the_origin": result.fell_back,
    }


def simulate(plans: Iterable[tuple[str, Plan]]) -> Iterator[tuple[str, Result]]:
    """Each plan's result when it is known."""
    for name, plan in plans:
        # Nothing of a rollout is garbage before its end, and looking for it again and again would be charged to the scheduler.
        gc.collect()
        gc.disable()
        try:
            yield name, run(plan, measured=True)
        finally:
            gc.enable()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m hack.simulate", description="Rollouts of one blob in virtual time.")
    parser.add_argument("--nodes", type=int, help="one plan with so many nodes, instead of those of docs/scheduling.md")
    parser.add_argument("--large", action="store_true", help="the plans with 10,000 nodes only")
    parser.add_argument("--fast", action="store_true", help="the plans on fast links only")
    parser.add_argument("--only", default="", help="of the plans, those whose name holds this")
    parser.add_argument("--pieces", type=int, default=256, help="that the blob is cut into (%(default)s)")
    parser.add_argument("--piece-kib", type=int, default=256, help="length of a piece (%(default)s)")
    parser.add_argument("--rate-mbit", type=float, default=100.0, help="of a node's link, each way (%(default)s)")
    parser.add_argument("--supernode-times", type=float, default=1.0, help="the supernode's link, in nodes' links (%(default)s)")
    parser.add_argument(
        "--origin-times", type=float, default=1.0, help="the origin's; 0: the blob is cached already (%(default)s)"
    )
    parser.add_argument("--connection-times", type=float, help="the most that the origin gives one connection; else no limit")
    parser.add_argument("--zones", type=int, default=1, help="that the nodes are spread over (%(default)s)")
    parser.add_argument("--arrival-seconds", type=float, default=0.0, help="over which the nodes come (%(default)s)")
    parser.add_argument("--slow", type=float, default=0.0, help="share of nodes with a quarter of the rate (%(default)s)")
    parser.add_argument("--failing", type=float, default=0.0, help="share of nodes that die on the way (%(default)s)")
    parser.add_argument("--lying", type=float, default=0.0, help="share of nodes that send wrong bytes (%(default)s)")
    parser.add_argument("--blocked", choices=("refused", "dropped"), default="", help="the supernode's pieces, for everybody")
    parser.add_argument("--round-trip-ms", type=float, default=0.0, help="of a packet, for what a window allows; else no limit")
    parser.add_argument("--cores", type=int, default=0, help="of a node, whose work takes time as measured; else none")
    parser.add_argument("--seed", type=int, default=1, help="of all chance (%(default)s)")
    parser.add_argument("--seeds", type=int, metavar="COUNT", help="instead: so many small clusters under faults")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first of those seeds (%(default)s)")
    parser.add_argument("--trace", action="store_true", help="instead: the one of --seed, with all that happens in it")
    parser.add_argument("--output", choices=("table", "json"), default="table", help="json: a line for each plan")
    options = parser.parse_args(argv)
    if options.trace:
        return command.replay(options.seed)
    if options.seeds:
        return command.run_seeds(options.first, options.seeds)
    if options.output == "table":
        print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    all_did = True
    for name, result in simulate(_plans(options)):
        print(row(name, result) if options.output == "table" else json.dumps(document(name, result)), flush=True)
        if result.fell_back and not result.plan.blocked:
            print(f"{result.fell_back} nodes gave the swarm up and asked the origin", file=sys.stderr)
            all_did = False
    return 0 if all_did else 1


def _plans(options: argparse.Namespace) -> list[tuple[str, Plan]]:
    if options.nodes is not None:
        return [("given", _given(options))]
    if options.large:
        plans = list(LARGE_PLANS.items())
    elif options.fast:
        plans = _with_nodes(FAST_PLANS, FAST_NODES)
    else:
        plans = _with_nodes(PLANS, NODES)
    return [(name, replace(plan, seed=options.seed)) for name, plan in plans if options.only in name]


def _with_nodes(plans: Mapping[str, Plan], numbers: Iterable[int]) -> list[tuple[str, Plan]]:
    return [(name, replace(plan, nodes=nodes)) for name, plan in plans.items() for nodes in numbers]


def _given(options: argparse.Namespace) -> Plan:
    rate = options.rate_mbit * MBIT
    return Plan(
        nodes=options.nodes,
        pieces=options.pieces,
        piece_bytes=options.piece_kib << 10,
        node_rate=rate,
        seed_rate=rate * options.supernode_times,
        origin_rate=rate * options.origin_times,
        connection_rate=inf if options.connection_times is None else rate * options.connection_times,
        zones=options.zones,
        arrival_seconds=options.arrival_seconds,
        slow=options.slow,
        failing=options.failing,
        lying=options.lying,
        blocked=options.blocked,
        round_trip_seconds=options.round_trip_ms / 1000,
        cores=options.cores or 1,
        taking=TAKING if options.cores else NOTHING,
        sending=SENDING if options.cores else NOTHING,
        seed=options.seed,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
