"""python -m hack.simulate: rollouts in virtual time, as a table.

Without options, the plans of docs/scheduling.md; with options, one plan. The same seed prints the same figures, except for the
last column, which is the time that the scheduler took on this machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from hack.simulate.rollout import Plan, Result, run
from supernode.scheduler import Command

MBIT = 125_000.0
HUNDRED = 100 * MBIT
GIGABIT = 1000 * MBIT

PLANS = {
    "supernode 1x": Plan(),
    "supernode 10x": Plan(seed_rate=10 * HUNDRED),
    "supernode 1x, blob in its cache": Plan(origin_rate=0),
    "two zones": Plan(zones=2),
    "every tenth link a quarter as fast": Plan(slow=0.1),
    "arrivals over 5 s": Plan(arrival_seconds=5),
    "one in 16 dies": Plan(failing=1 / 16),
    "one in 16 lies": Plan(lying=1 / 16),
    "1 Gbit/s, 2 ms pieces": Plan(node_rate=GIGABIT, seed_rate=GIGABIT, origin_rate=GIGABIT),
    "1 Gbit/s, 34 ms pieces": Plan(node_rate=GIGABIT, seed_rate=GIGABIT, origin_rate=GIGABIT, piece_bytes=4 << 20),
}
NODES = (8, 16, 64, 256)


class Stopwatch:
    """Calls the scheduler and counts the processor's time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, handle: Callable[[], list[Command]]) -> list[Command]:
        began = time.process_time()
        commands = handle()
        self.seconds += time.process_time() - began
        return commands


COLUMNS = (
    "plan",
    "nodes",
    "slowest / bound",
    "half / bound",
    "supernode sent",
    "crossed zones",
    "first piece, slowest",
    "messages a piece",
    "µs a piece",
)


def row(name: str, result: Result, stopwatch: Stopwatch) -> str:
    plan = result.plan
    piece_seconds = plan.piece_bytes / plan.node_rate
    cells = (
        name,
        str(plan.nodes),
        f"{result.ratio:.2f}",
        f"{result.quantile(0.5):.2f}",
        f"{result.seed_images:.2f} blobs",
        f"{result.cross_zone_images:.2f} blobs" if plan.zones > 1 else "",
        f"{result.first_seconds[-1] / piece_seconds:.1f} piece times",
        f"{result.messages / result.grants:.2f}",
        f"{stopwatch.seconds / result.grants * 1e6:.1f}",
    )
    return "| " + " | ".join(cells) + " |"


def simulate(name: str, plan: Plan) -> bool:
    """Print the row of a plan. False when a node asked the origin."""
    stopwatch = Stopwatch()
    result = run(plan, stopwatch)
    print(row(name, result, stopwatch), flush=True)
    if result.fell_back:
        print(f"{result.fell_back} nodes gave the swarm up and asked the origin", file=sys.stderr)
    return not result.fell_back


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m hack.simulate", description="Rollouts of one blob in virtual time.")
    parser.add_argument("--nodes", type=int, help="one plan with so many nodes, instead of those of docs/scheduling.md")
    parser.add_argument("--pieces", type=int, default=256, help="that the blob is cut into (%(default)s)")
    parser.add_argument("--piece-kib", type=int, default=256, help="length of a piece (%(default)s)")
    parser.add_argument("--rate-mbit", type=float, default=100.0, help="of a node's link, each way (%(default)s)")
    parser.add_argument("--supernode-times", type=float, default=1.0, help="the supernode's link, in nodes' links (%(default)s)")
    parser.add_argument(
        "--origin-times", type=float, default=1.0, help="the origin's; 0: the blob is cached already (%(default)s)"
    )
    parser.add_argument("--zones", type=int, default=1, help="that the nodes are spread over (%(default)s)")
    parser.add_argument("--arrival-seconds", type=float, default=0.0, help="over which the nodes come (%(default)s)")
    parser.add_argument("--slow", type=float, default=0.0, help="share of nodes with a quarter of the rate (%(default)s)")
    parser.add_argument("--failing", type=float, default=0.0, help="share of nodes that die on the way (%(default)s)")
    parser.add_argument("--lying", type=float, default=0.0, help="share of nodes that send wrong bytes (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of all chance (%(default)s)")
    options = parser.parse_args(argv)
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    if options.nodes is None:
        plans = [(name, replace(plan, nodes=nodes, seed=options.seed)) for name, plan in PLANS.items() for nodes in NODES]
        return 1 if [name for name, plan in plans if not simulate(name, plan)] else 0
    rate = options.rate_mbit * MBIT
    plan = Plan(
        nodes=options.nodes,
        pieces=options.pieces,
        piece_bytes=options.piece_kib << 10,
        node_rate=rate,
        seed_rate=rate * options.supernode_times,
        origin_rate=rate * options.origin_times,
        zones=options.zones,
        arrival_seconds=options.arrival_seconds,
        slow=options.slow,
        failing=options.failing,
        lying=options.lying,
        seed=options.seed,
    )
    return 0 if simulate("given", plan) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
