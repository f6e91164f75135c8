"""What is measured, what it must be, and what it is aimed at: the whole of it as one table, in data.

A figure is a ratio or has a unit; where there is a must, less is better. `others` are figures of other systems that were measured
before, in such a lab; what is measured beside Darner in the same run is in the `Measured`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import median


@dataclass(frozen=True)
class Figure:
    name: str
    """For `--only`, and in the JSON."""
    what: str
    must: float | None = None
    """None: it is shown, and nothing depends on it."""
    aim: float | None = None
    unit: str = ""
    others: str = ""


_ROLLOUT = "makespan / bound, "
_LADDER = "one node / direct, "
_ORIGIN = "clients keep the bytes, "
_PRIVATE = _ORIGIN + "8 nodes, all links alike, private image, "
_FAST = "links without a rate, 1 GiB in 4 layers, skopeo: "
_CONTAINER = "containerd, until a container runs, links without a rate, one node: "
FIGURES = (
    Figure(
        "rollout-8-1x",
        _ROLLOUT + "8 nodes, supernode 1x",
        1.30,
        1.15,
        others="direct 8.4, Spegel 8.4, Kraken 4.5 to 6.4, Dragonfly 2 3.9, libtorrent 2.5",
    ),
    Figure(
        "rollout-16-1x",
        _ROLLOUT + "16 nodes, supernode 1x",
        1.30,
        1.15,
        others="direct 16.8, Spegel 16.9, Kraken 6.3 to 8.1, Dragonfly 2 6.5, libtorrent 3.1",
    ),
    Figure("rollout-8-1x-4layers", _ROLLOUT + "8 nodes, supernode 1x, 4 layers", 1.30, 1.15),
    Figure("rollout-16-1x-4layers", _ROLLOUT + "16 nodes, supernode 1x, 4 layers", 1.30, 1.15),
    Figure(
        "rollout-8-10x",
        _ROLLOUT + "8 nodes, supernode 10x",
        1.15,
        1.10,
        others="Dragonfly 2 2.8, Kraken 2.5 (1.46 with the image already in it)",
    ),
    Figure(
        "rollout-16-10x",
        _ROLLOUT + "16 nodes, supernode 10x",
        1.15,
        1.10,
        others="Dragonfly 2 2.8, Kraken 2.5 (1.46 with the image already in it)",
    ),
    Figure("rollout-8-10x-4layers", _ROLLOUT + "8 nodes, supernode 10x, 4 layers", 1.15, 1.10),
    Figure("rollout-16-10x-4layers", _ROLLOUT + "16 nodes, supernode 10x, 4 layers", 1.15, 1.10),
    Figure("origin-egress", "origin egress / image", 1.02, 1.00, others="direct N, libtorrent 2.2"),
    Figure("supernode-egress", "supernode egress / image, headers included"),
    Figure("cold", "single cold node / direct", 1.10, 1.00, others="Spegel 1.00, Kraken 2.1, Dragonfly 2 1.5"),
    Figure(
        "first-byte-1",
        "time to first byte of a layer, cold, 1 node",
        2.0,
        1.0,
        "piece times",
        "Kraken: the whole blob; Dragonfly 2: 2.5 to 5 s",
    ),
    Figure("first-byte-8", "time to first byte of a layer, cold, slowest of 8 nodes", 5.0, 4.0, "piece times"),
    Figure(
        "killed",
        "a peer is killed in mid-rollout, 8 nodes: slowest other node / bound",
        1.8,
        1.3,
        others="Dragonfly 2 2.1 to 3.6, Kraken 4.2 to 5.5, Spegel 4 to 7",
    ),
    Figure(
        "silent",
        "a peer's link goes silent in mid-rollout, 8 nodes: slowest other node / bound",
        1.8,
        1.3,
        others="Dragonfly 2 1.1 to 3.8, Kraken 4.5 to 5.6, Spegel 36 and unfinished",
    ),
    Figure("reset-one", "the supernode alone has pieces, and one connection to it is reset, 1 node / bound", 1.4, 1.2),
    Figure("reset-all", "all of the supernode's piece connections are reset, 4 nodes: slowest / bound", 1.5, 1.3),
    Figure("away-supernode", "the supernode is without its link for a second, 4 nodes: slowest / bound", 1.8, 1.5),
    Figure("away-node", "a node is without its link for a second, 4 nodes: slowest, that one included / bound", 1.8, 1.5),
    Figure("ladder-clock", _LADDER + "its clock 400 s off", 1.5, 1.1),
    Figure("ladder-supernode-clock", _LADDER + "the supernode's clock 400 s off", 1.5, 1.1),
    Figure("ladder-key", _LADDER + "with another swarm key", 1.5, 1.1),
    Figure("ladder-refused", _LADDER + "the supernode's pieces refused", 1.5, 1.1),
    Figure("ladder-dropped", _LADDER + "the supernode's pieces dropped", 1.5, 1.4),
    Figure("ladder-swallowed", _LADDER + "large packets of the supernode's pieces swallowed", 1.5, 1.4),
    Figure("ladder-nodes", _LADDER + "pieces of other nodes dropped", 1.5, 1.4),
    Figure("zones", "cross-zone copies of the image, two zones of 4 nodes", 2.0, 1.0, others="zone-blind about N/2"),
    Figure("origin-10x", _ORIGIN + "8 nodes, origin 10x, supernode 1x: slowest / direct", 1.10, 1.03),
    Figure("origin-10x-weak", _ORIGIN + "8 nodes, origin 10x, supernode a quarter: slowest / direct", 1.15, 1.05),
    Figure("origin-slowing", _ORIGIN + "4 nodes, supernode slows to 5 Mbit/s in mid-rollout: slowest / bound", 1.7, 1.3),
    Figure("origin-public", _ORIGIN + "8 nodes, all links alike, public image: slowest / bound", 1.20, 1.12),
    Figure("origin-private", _PRIVATE + "htpasswd: slowest / bound", 1.25, 1.15),
    Figure("origin-private-tokens", _PRIVATE + "token server: slowest / bound", 1.25, 1.15),
    Figure("origin-private-killed", _PRIVATE + "the node that fetches most is killed half-way: slowest other / bound", 1.7, 1.3),
    Figure("origin-alone", _ORIGIN + "single cold node, origin 10x: slowest / direct", 1.05, 1.01),
    Figure("origin-connection", _ORIGIN + "8 nodes, origin gives a connection a tenth of its link: slowest / bound", 1.4, 1.15),
    Figure("origin-limit", _ORIGIN + "8 nodes, origin refuses a fifth connection: slowest / bound"),
    Figure("origin-refused", "the same: requests that it refused", 0, 0),
    Figure("origin-sent", "public image: origin sent / image", 1.02, 1.00),
    Figure("origin-sent-private", "private image: origin sent / image", 1.05, 1.01),
    Figure("origin-sent-killed", "private image, a node is killed: origin sent / image", 1.3, 1.1),
    Figure("origin-requests", "requests at the origin for an image's bytes, at most"),
    Figure("curl-8", _ORIGIN + "8 nodes, supernode 1x: slowest / bound", 1.18, 1.12),
    Figure("curl-8-cpu", "the same, 8 nodes: agents", 4.5, 3.5, "CPU-s/GB", "Dragonfly 2 8, Spegel 2.2"),
    Figure("curl-16", _ORIGIN + "16 nodes, supernode 1x: slowest / bound", 1.22, 1.15),
    Figure("curl-16-cpu", "the same, 16 nodes: agents", unit="CPU-s/GB"),
    Figure("rollout-4-1g", _ORIGIN + "4 nodes at 1 Gbit/s, 256 MiB: slowest / bound", 1.8, 1.4),
    Figure("rollout-4-1g-cpu", "the same, 1 Gbit/s: agents", unit="CPU-s/GB"),
    Figure("get-8", "darner get, a file of a web server, 8 nodes, all links alike: slowest / bound", 1.25, 1.15),
    Figure("fast-alone", _FAST + "agent alone / direct", 1.25, 1.1),
    Figure("fast-cold", _FAST + "agent and supernode, cold", 5.5, 4.0, "CPU-seconds"),
    Figure("fast-warm", _FAST + "supernode warm, agent empty / direct", 1.3, 1.1),
    Figure("container-cold", _CONTAINER + "through Darner cold / directly", 1.15, 1.0),
    Figure("container-warm", _CONTAINER + "through Darner, supernode warm / directly"),
    Figure("daemonset", "three nodes of a cluster on this machine, 192 MiB: DaemonSet out, through Darner / directly", 1.25, 1.1),
    Figure("cpu-serving", "serving a stored blob, CPU / nginx, neither paced", 1.3, 1.0),
    Figure("cpu-pieces", "sending a blob to another node in pieces, CPU / nginx, neither paced"),
    Figure("cpu-pieces-sealed", "sending the same pieces inside TLS, CPU / in clear"),
    Figure("cpu-pull-sealed", "whole pull in a swarm with all pieces inside TLS, CPU / in clear"),
    Figure(
        "cpu-pull",
        "whole pull from the origin, CPU / nginx serving it",
        4.0,
        3.0,
        others="agents: Kraken 12 to 15, Dragonfly 2 8 CPU-s/GB",
    ),
    Figure("cpu-pull-swarm", "whole pull in a swarm, CPU / nginx serving it", 4.0, 3.0),
    Figure("cpu-pull-swarm-seconds", "whole pull in a swarm, loopback: agent", 1.2, 1.0, "CPU-s/GB"),
    Figure("cpu-pull-unpaced", "whole pull from the origin, CPU / nginx serving it, not paced"),
    Figure("cpu-pull-swarm-unpaced", "whole pull in a swarm, CPU / nginx serving it, not paced"),
    Figure("memory-idle", "agent idle, resident", 64, 45, "MiB", "Kraken 32, Spegel 37, Dragonfly 2 78"),
    Figure("memory-pulls", "agent in 8 pulls of 64 MiB at once, resident at most", unit="MiB"),
    Figure("memory-supernode", "supernode with 10,000 connected nodes, resident", unit="MiB"),
    Figure("supernode-cpu", "the same, all of them getting 1 GiB: supernode", unit="CPU-seconds"),
    Figure(
        "simulate",
        "simulated: 10,000 nodes, 1 GiB, no faults: slowest / bound",
        1.08,
        1.05,
        others="Kraken p99 1.8, Dragonfly 1 about 1.5",
    ),
    Figure("simulate-faults", "the same, arrivals over 30 s, 1 % die, 1 % lie: p99 / bound", 1.5, 1.25),
    Figure("scheduling", "scheduling 2.56 million pieces, one core", 30, 15, "CPU-seconds", "JSON over FastAPI 850"),
    Figure("webhook", "webhook, p99 at 200 reviews a second", 10, 5, "ms"),
    Figure("webhook-rate", "webhook on one core, reviews a second"),
)
BY_NAME = {figure.name: figure for figure in FIGURES}


class Verdict(Enum):
    AIM = "reaches its aim"
    MUST = "reaches its must"
    SHORT = "falls short"
    SHOWN = "shown"


@dataclass(frozen=True)
class Measured:
    """A figure in this run: Darner's value in each round, and the values of what was measured beside it."""

    figure: Figure
    values: Sequence[float]
    beside: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By system."""
    note: str = ""

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def verdict(self) -> Verdict:
        if self.figure.must is None:
            return Verdict.SHOWN
        if self.value > self.figure.must:
            return Verdict.SHORT
        return Verdict.AIM if self.figure.aim is not None and self.value <= self.figure.aim else Verdict.MUST


def worst_of_each(measured: Iterable[Measured]) -> list[Measured]:
    """One for each figure, in the order of FIGURES: of a figure that several scenarios give, the worst has to do."""
    worst: dict[str, Measured] = {}
    for one in measured:
        known = worst.get(one.figure.name)
        if known is None or one.value > known.value:
            worst[one.figure.name] = one
    return [worst[figure.name] for figure in FIGURES if figure.name in worst]
