"""What bytes cost: CPU-seconds per GB of the agent's process, beside nginx that serves the same blob in the same run.

All on the loopback of this machine, with real processes; origins, peers and the supernode pay for themselves. Whoever is measured
has one core to itself and all others have the rest, agent and nginx alike: what waking another core costs is charged to who wakes
it. Agent and nginx serve in turns, many times a round, each to the same client, which drops what it gets; a serving's cost is the
median of its turns. Sending is compared with nginx that is not paced, as an agent is not (docs/decisions/0013), a whole pull with
nginx as the system paces it, and with the other one as well. Each round has its own reference; the median of the rounds is told.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from agent.swarm.tickets import issue
from agent.values.address import Address
from agent.values.pieces import Layout
from hack.bench.client import Client, SealedClient
from hack.bench.fresh import fresh
from hack.bench.machine import GB, MEMORY_TIMES, find_memory, keep_to, process_seconds
from hack.bench.nginx import REPOSITORY, Nginx
from hack.lab import Host, Lab
from hack.lab.darner import PIECE_PORT, REGISTRY_PORT, Agent, Supernode
from hack.lab.process import Process
from hack.origin import Image

BLOB_BYTES = 1 << 30
ROUNDS = 3
SERVINGS = 8
"""How often each serves the blob in a round, in turns."""


@dataclass(frozen=True)
class Cost:
    """CPU-seconds of the agent's process for each GB; medians of the rounds."""

    seconds_per_gb: float
    beside_seconds_per_gb: float
    """Of what it is compared with, in the same rounds."""
    ratio: float
    ratios: tuple[float, ...]
    """Of each round."""
    rounds_seconds_per_gb: tuple[float, ...]


@dataclass(frozen=True)
class Costs:
    serving: Cost
    """The agent, of a blob in its store, to a client of its registry endpoint; beside nginx that is not paced either."""
    pieces: Cost
    """The agent, of the same blob, piece by piece to another node; beside the same."""
    pull_alone: Cost
    """The agent, for a whole pull from the origin: fetch, verify, store, and stream onward while it arrives.

    Beside nginx as the system has it."""
    pull_swarm: Cost
    """The same in a swarm: pieces from a supernode and from a peer."""
    pieces_sealed: Cost
    """The pieces inside TLS, beside the same in clear."""
    pull_sealed: Cost
    """The pull in a swarm with all pieces inside TLS, beside the same in clear."""
    pull_alone_unpaced: Cost
    pull_swarm_unpaced: Cost
    """The same pulls beside nginx that is not paced."""


def measure(rounds: int = ROUNDS, blob_bytes: int = BLOB_BYTES) -> Costs:
    """Takes some twenty seconds a round, and four times the blob on the disk of the temporary directory."""
    with Lab() as lab:
        blob = lab.directory / "blob"
        _fill(blob, blob_bytes)
        found: dict[str, list[tuple[float, float]]] = {}
        with contextlib.closing(_Bench(lab, Image.of([blob]))) as bench:
            for _ in range(rounds):
                for name, seconds, beside in bench.round():
                    found.setdefault(name, []).append((seconds, beside))
        return Costs(**{name: _median(values) for name, values in found.items()})


def _median(values: list[tuple[float, float]]) -> Cost:
    return Cost(
        median(seconds for seconds, _ in values),
        median(beside for _, beside in values),
        median(seconds / beside for seconds, beside in values),
        tuple(seconds / beside for seconds, beside in values),
        tuple(seconds for seconds, _ in values),
    )


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))


class _Bench:
    """The processes of a run. An agent that pulls begins with an empty store, and ends with its round."""

    def __init__(self, lab: Lab, image: Image) -> None:
        self._lab = lab
        self._image = image
        self._layer = image.layers[0]
        self._layout = Layout.of((lab.directory / "blob").stat().st_size)
        self._nginx = Nginx(lab.loopback("nginx"), image)
        self._unpaced = Nginx(lab.loopback("nginx-unpaced"), image, paced=False)
        self._repository = f"/v2/{self._nginx.address.replace(':', '_')}/{REPOSITORY}"
        self._supernode = Supernode(lab.loopback("supernode"), [self._nginx.address])
        self._peer = self._agent("peer", [self._supernode])
        self._pull(self._peer)
        self._rounds = 0
        self._cores = sorted(os.sched_getaffinity(0))

    def close(self) -> None:
        """What runs after this has all cores again."""
        keep_to(os.getpid(), self._cores)

    def round(self) -> list[tuple[str, float, float]]:
        """Each measurement's name in `Costs`, its CPU-seconds for a GB, and those of what it is compared with."""
        self._rounds += 1
        with fresh(self._agent(f"alone-{self._rounds}", [])) as alone:
            pull_alone = self._pull_cost(alone)
        with fresh(self._agent(f"sealed-{self._rounds}", [self._supernode], "--encryption", "always")) as sealed_node:
            pull_sealed = self._pull_cost(sealed_node)
        with fresh(self._agent(f"node-{self._rounds}", [self._supernode])) as node:
            pull_swarm = self._pull_cost(node)
            serving, pieces, sealed, unpaced, nginx = self._in_turns(
                (node.process, lambda: self._pull(node)),
                (node.process, lambda: self._take_pieces(node)),
                (node.process, lambda: self._take_sealed_pieces(node)),
                (self._unpaced.process, lambda: self._take_from(self._unpaced)),
                (self._nginx.process, lambda: self._take_from(self._nginx)),
            )
        return [
            ("serving", serving, unpaced),
            ("pieces", pieces, unpaced),
            ("pieces_sealed", sealed, pieces),
            ("pull_sealed", pull_sealed, pull_swarm),
            ("pull_alone", pull_alone, nginx),
            ("pull_swarm", pull_swarm, nginx),
            ("pull_alone_unpaced", pull_alone, unpaced),
            ("pull_swarm_unpaced", pull_swarm, unpaced),
        ]

    def _in_turns(self, *works: tuple[Process, Callable[[], None]]) -> list[float]:
        """The median of what each work costs its process."""
        costs: list[list[float]] = [[] for _ in works]
        for _ in range(SERVINGS):
            for cost, (process, work) in zip(costs, works, strict=True):
                cost.append(self._cost(process, work))
        return [median(cost) for cost in costs]

    def _pull_cost(self, agent: Agent) -> float:
        find_memory(MEMORY_TIMES * self._layout.size)
        return self._cost(agent.process, lambda: self._pull(agent))

    def _cost(self, process: Process, work: Callable[[], None]) -> float:
        """With a core of its own for `process`, where there are several."""
        others = self._cores[1:] or self._cores
        for pid in (os.getpid(), *(node.process.pid for node in (self._nginx, self._unpaced, self._supernode, self._peer))):
            keep_to(pid, others)
        keep_to(process.pid, self._cores[:1])
        before = process_seconds(process.pid)
        work()
        return (process_seconds(process.pid) - before) * GB / self._layout.size

    def _take_from(self, nginx: Nginx) -> None:
        with Client(nginx.address) as client:
            client.take(f"/v2/{REPOSITORY}/blobs/{self._layer}")

    def _pull(self, agent: Agent) -> None:
        with Client(_address(agent.host, REGISTRY_PORT)) as client:
            client.take(f"{self._repository}/manifests/1")
            client.take(f"{self._repository}/blobs/{self._layer}")

    def _take_pieces(self, agent: Agent) -> None:
        server, ticket = self._ticket(agent, sealed=False)
        with Client(str(server)) as client:
            for piece in range(self._layout.count):
                client.take(f"/pieces/{self._layer}/{piece}", ticket)

    def _take_sealed_pieces(self, agent: Agent) -> None:
        server, ticket = self._ticket(agent, sealed=True)
        with SealedClient(str(server)) as client:
            for piece in range(self._layout.count):
                start, end = self._layout.span(piece)
                client.take(f"/pieces/{self._layer}/{piece}", ticket, end - start)

    def _ticket(self, agent: Agent, *, sealed: bool) -> tuple[Address, dict[str, str]]:
        key = (self._lab.directory / "swarm-key").read_bytes()
        server = Address("127.0.0.1", agent.host.port(PIECE_PORT))
        return server, {"Authorization": f"Ticket {issue(key, self._layer, server, time.time(), sealed=sealed)}"}

    def _agent(self, name: str, supernodes: list[Supernode], *arguments: str) -> Agent:
        return Agent(self._lab.loopback(name), supernodes, [self._nginx.address], arguments)


def _address(host: Host, port: int) -> str:
    return f"127.0.0.1:{host.port(port)}"


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU-seconds per GB of the agent, beside nginx")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--mebibytes", type=int, default=BLOB_BYTES >> 20)
    given = parser.parse_args()
    print(json.dumps(asdict(measure(given.rounds, given.mebibytes << 20)), indent=2))


if __name__ == "__main__":
    main()
