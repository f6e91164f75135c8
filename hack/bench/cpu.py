"""What bytes cost: CPU-seconds per GB of the agent's process, beside nginx that serves the same blob in the same run.

All on the loopback of this machine, with real processes; origins, peers and the supernode pay for themselves. What an agent sends
is compared with nginx sending it, to a client that drops it. A whole pull both receives and sends: it is compared with nginx
sending the blob and the least of clients receiving it, both together. (On a loopback the kernel charges one end's work to the
other's process whenever that is behind, so of the two neither alone says much.) The measurements of a round follow each other,
each round has a reference of its own, and the median of the rounds is told.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from agent.pieces import Layout
from agent.tickets import issue
from hack.bench.client import Client
from hack.bench.machine import cpu_seconds
from hack.bench.nginx import REPOSITORY, Nginx
from hack.lab import Host, Lab
from hack.lab.darner import PIECE_PORT, REGISTRY_PORT, Agent, Supernode
from hack.origin import Image

GB = 1_000_000_000
BLOB_BYTES = 1 << 30
ROUNDS = 3
SERVINGS = 4
"""How often a stored blob is served for one measurement: processor time is counted in hundredths of a second."""


@dataclass(frozen=True)
class Cost:
    """CPU-seconds of the agent's process for each GB; medians of the rounds."""

    seconds_per_gb: float
    beside_seconds_per_gb: float
    """Of what it is compared with, in the same rounds."""
    ratio: float
    ratios: tuple[float, ...]
    """Of each round."""


@dataclass(frozen=True)
class Costs:
    serving: Cost
    """The agent, of a blob in its store, to a client of its registry endpoint."""
    pieces: Cost
    """The agent, of the same blob, piece by piece to another node."""
    pull_alone: Cost
    """The agent, for a whole pull from the origin: fetch, verify, store, and stream onward while it arrives."""
    pull_swarm: Cost
    """The same in a swarm: pieces from a supernode and from a peer."""
    pull_alone_nginx: Cost
    pull_swarm_nginx: Cost
    """The same pulls beside nginx that sends to a client that drops it."""


def measure(rounds: int = ROUNDS, blob_bytes: int = BLOB_BYTES) -> Costs:
    """Takes some twelve seconds a round, and four times the blob on the disk of the temporary directory."""
    with Lab() as lab:
        blob = lab.directory / "blob"
        _fill(blob, blob_bytes)
        bench = _Bench(lab, Image.of([blob]))
        found: dict[str, list[tuple[float, float]]] = {}
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
        self._repository = f"/v2/{self._nginx.address.replace(':', '_')}/{REPOSITORY}"
        self._supernode = Supernode(lab.loopback("supernode"), [self._nginx.address])
        self._peer = self._agent("peer", [self._supernode])
        self._pull(self._peer)
        self._rounds = 0

    def round(self) -> list[tuple[str, float, float]]:
        """Each measurement's name in `Costs`, its CPU-seconds for a GB, and those of what it is compared with."""
        self._rounds += 1
        nginx = self._cost([self._nginx.process.pid], self._take_from_nginx, SERVINGS)[0]
        both_ends = sum(
            self._cost([self._nginx.process.pid, os.getpid()], lambda: self._take_from_nginx(receives=True), SERVINGS)
        )
        with _Passing(self._agent(f"alone-{self._rounds}", [])) as alone:
            pull_alone = self._cost([alone.process.pid], lambda: self._pull(alone))[0]
        with _Passing(self._agent(f"node-{self._rounds}", [self._supernode])) as node:
            pull_swarm = self._cost([node.process.pid], lambda: self._pull(node))[0]
            serving = self._cost([node.process.pid], lambda: self._pull(node), SERVINGS)[0]
            pieces = self._cost([node.process.pid], lambda: self._take_pieces(node), SERVINGS)[0]
        return [
            ("serving", serving, nginx),
            ("pieces", pieces, nginx),
            ("pull_alone", pull_alone, both_ends),
            ("pull_swarm", pull_swarm, both_ends),
            ("pull_alone_nginx", pull_alone, nginx),
            ("pull_swarm_nginx", pull_swarm, nginx),
        ]

    def _cost(self, pids: list[int], work: Callable[[], None], times: int = 1) -> list[float]:
        before = [cpu_seconds([pid]) for pid in pids]
        for _ in range(times):
            work()
        return [(cpu_seconds([pid]) - taken) * GB / (self._layout.size * times) for pid, taken in zip(pids, before, strict=True)]

    def _take_from_nginx(self, receives: bool = False) -> None:
        with Client(self._nginx.address, receives=receives) as client:
            client.take(f"/v2/{REPOSITORY}/blobs/{self._layer}")

    def _pull(self, agent: Agent) -> None:
        with Client(_address(agent.host, REGISTRY_PORT)) as client:
            client.take(f"{self._repository}/manifests/1")
            client.take(f"{self._repository}/blobs/{self._layer}")

    def _take_pieces(self, agent: Agent) -> None:
        key = (self._lab.directory / "swarm-key").read_bytes()
        ticket = {"Authorization": f"Ticket {issue(key, self._layer, time.time())}"}
        with Client(_address(agent.host, PIECE_PORT)) as client:
            for piece in range(self._layout.count):
                client.take(f"/pieces/{self._layer}/{piece}", ticket)

    def _agent(self, name: str, supernodes: list[Supernode]) -> Agent:
        return Agent(self._lab.loopback(name), supernodes, [self._nginx.address])


class _Passing:
    """An agent that ends with the block, and its store with it."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def __enter__(self) -> Agent:
        return self._agent

    def __exit__(self, *_: object) -> None:
        self._agent.kill()
        shutil.rmtree(self._agent.host.lab.directory / f"{self._agent.host.name}-store")


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
