"""The scenarios of one process: what bytes cost an agent, the webhook, a supernode with ten thousand nodes, its simulation.

The last two are programs of their own, which run as such and are read as JSON: they take memory that nobody else has to carry.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from hack.bench import cpu, webhook
from hack.bench.figures import BY_NAME, Measured
from hack.bench.scenario import Options, Tell

WEBHOOK_SECONDS = 10.0
PROGRAM_SECONDS_MAX = 1800
MIB = 1 << 20
GIBIBYTE_TO_ALL: tuple[str, ...] = ("--nodes", "10000", "--pieces", "256", "--piece-kib", "4096")
CONNECTIONS: tuple[str, ...] = ("--nodes", "10000", "--mib", "1024")


def reviews(options: Options, tell: Tell) -> list[Measured]:
    rounds = []
    for number in range(options.rounds):
        rounds.append(webhook.measure(WEBHOOK_SECONDS))
        tell(f"webhook, round {number + 1}: p99 {rounds[-1].p99_ms:.2f} ms, {rounds[-1].reviews_per_second:.0f} reviews a second")
    return [
        Measured(BY_NAME["webhook"], [one.p99_ms for one in rounds], note=f"half within {rounds[0].p50_ms:.1f} ms"),
        Measured(BY_NAME["webhook-rate"], [one.reviews_per_second for one in rounds], note="more is better"),
    ]


def bytes_cost(options: Options, tell: Tell) -> list[Measured]:
    costs = cpu.measure(options.rounds)
    by_figure = {
        "cpu-serving": costs.serving,
        "cpu-pieces": costs.pieces,
        "cpu-pieces-sealed": costs.pieces_sealed,
        "cpu-pull-sealed": costs.pull_sealed,
        "cpu-pull": costs.pull_alone,
        "cpu-pull-swarm": costs.pull_swarm,
        "cpu-pull-unpaced": costs.pull_alone_unpaced,
        "cpu-pull-swarm-unpaced": costs.pull_swarm_unpaced,
    }
    for name, cost in by_figure.items():
        tell(f"{name}: {cost.seconds_per_gb:.2f} CPU-seconds per GB, beside it {cost.beside_seconds_per_gb:.2f}")
    measured = [
        Measured(BY_NAME[name], cost.ratios, note=f"{cost.seconds_per_gb:.2f} and {cost.beside_seconds_per_gb:.2f} CPU-s/GB")
        for name, cost in by_figure.items()
    ]
    swarm = costs.pull_swarm
    beside = {"nginx serving it, CPU-s/GB": [swarm.beside_seconds_per_gb]}
    return [*measured, Measured(BY_NAME["cpu-pull-swarm-seconds"], swarm.rounds_seconds_per_gb, beside)]


def load(_options: Options, tell: Tell) -> list[Measured]:
    """One round: it takes a minute, and what it counts hardly differs from one to the next."""
    (figures,) = _program("hack.load", *CONNECTIONS)
    tell(f"load: {figures['resident_bytes'] / MIB:.0f} MiB, {figures['rollout_cpu_seconds']:.1f} CPU-seconds")
    return [
        Measured(
            BY_NAME["memory-supernode"],
            [figures["resident_bytes"] / MIB],
            note=f"{figures['nodes']} connections; {figures['resident_bytes_max'] / MIB:.0f} MiB at most in a rollout",
        ),
        Measured(
            BY_NAME["supernode-cpu"],
            [figures["rollout_cpu_seconds"]],
            note=f"{figures['pieces']} pieces to {figures['nodes']} connections; {_scheduler(figures)}",
        ),
    ]


def simulation(name: str, faults: Sequence[str], quantile: str, _options: Options, tell: Tell) -> list[Measured]:
    """A rollout of 1 GiB in virtual time. One round: the same seed gives the same figures."""
    (found,) = _program("hack.simulate", *GIBIBYTE_TO_ALL, *faults)
    if found["asked_the_origin"]:
        raise RuntimeError(f"{found['asked_the_origin']} nodes of the simulation gave the swarm up")
    spread = ", ".join(f"{which} {found[f'{which}_to_bound']:.3f}" for which in ("max", "p99", "p50"))
    tell(f"{name}: {spread} of the bound, scheduling took {found['scheduling_cpu_seconds']:.1f} CPU-seconds")
    note = f"{spread}; supernode sent {found['supernode_images']:.2f} images"
    measured = [Measured(BY_NAME[name], [found[f"{quantile}_to_bound"]], note=note)]
    if not faults:
        pieces = f"{found['pieces']} pieces, {found['messages'] / found['pieces']:.2f} messages each; {_scheduler(found)}"
        measured.append(Measured(BY_NAME["scheduling"], [found["scheduling_cpu_seconds"]], note=pieces))
    return measured


def _scheduler(figures: dict[str, Any]) -> str:
    return f"scheduler {'compiled' if figures['compiled'] else 'uncompiled'}"


def _program(module: str, *arguments: str) -> list[dict[str, Any]]:
    """The JSON documents that a program prints, one a line. Raises CalledProcessError, and shows what it complained about."""
    argv = [sys.executable, "-m", module, "--output", "json", *arguments]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=PROGRAM_SECONDS_MAX)
    return [json.loads(line) for line in done.stdout.splitlines()]
