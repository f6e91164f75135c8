"""python -m hack.load: thousands of agents on one supernode process, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import sys

from hack.load.measure import Figures, Load, measure

MIB = 1 << 20


def table(figures: Figures) -> str:
    rows = {
        "nodes connected": f"{figures.nodes}, {figures.threads} threads",
        "scheduler": "compiled" if figures.compiled else "uncompiled",
        "all connected after": f"{figures.connect_seconds:.1f} s, {figures.connect_cpu_seconds:.1f} CPU-seconds",
        "resident, all connected": f"{figures.resident_bytes / MIB:.0f} MiB",
        "resident, at most": f"{figures.resident_bytes_max / MIB:.0f} MiB",
        "heartbeats": f"{figures.beats_per_second:.0f} a second, {figures.beat_cpu_share:.1%} of a core",
        "pieces": f"{figures.pieces} in {figures.rollout_seconds:.1f} s, the links' bound is {figures.bound_seconds:.1f} s",
        "messages": f"{figures.messages}, {figures.messages / figures.rollout_seconds:.0f} a second",
        "supernode's CPU": (
            f"{figures.rollout_cpu_seconds:.1f} CPU-seconds, {figures.cpu_seconds_per_million:.1f} for a million pieces, "
            f"{figures.rollout_kernel_seconds / figures.rollout_cpu_seconds:.0%} of it in the kernel"
        ),
        "all back after a restart": f"{figures.reconnect_seconds:.1f} s, {figures.reconnect_cpu_seconds:.1f} CPU-seconds",
    }
    return "\n".join(["| figure | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def main(argv: list[str]) -> int:
    load = Load()
    parser = argparse.ArgumentParser(prog="python -m hack.load", description="Thousands of agents on one supernode.")
    parser.add_argument("--nodes", type=int, default=load.nodes, help="that connect (%(default)s)")
    parser.add_argument("--mib", type=int, default=load.blob_bytes // MIB, help="of the blob (%(default)s)")
    parser.add_argument("--mbit", type=float, default=load.node_mbit, help="of a node's link; 0: no limit (%(default)s)")
    parser.add_argument("--beat-seconds", type=float, default=load.beat_seconds, help="of heartbeats alone (%(default)s)")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    options = parser.parse_args(argv)
    figures = measure(Load(options.nodes, options.mib * MIB, options.mbit, options.beat_seconds))
    print(json.dumps(figures.document()) if options.output == "json" else table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
