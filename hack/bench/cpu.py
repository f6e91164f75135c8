"""What bytes cost: CPU-seconds per GB of the agent's process, beside nginx that serves the same blob in the same run.

All on the loopback of this machine, with real processes. Only the process that is measured counts: the client drops what it gets
in the kernel, and origins, peers and the supernode pay for themselves. The measurements of a round follow each other, and each
round's cost is divided by nginx's cost of that round; the median of the rounds is told.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.pieces import Layout
from agent.tickets import issue
from hack.bench.client import Client
from hack.bench.machine import cpu_seconds
from hack.bench.nginx import REPOSITORY, Nginx
from hack.lab import Host, Lab, Process
from hack.lab.darner import PIECE_PORT, REGISTRY_PORT, Agent, Supernode
from hack.origin import Image

GB = 1_000_000_000
BLOB_BYTES = 1 << 30
ROUNDS = 3
SERVINGS = 2
"""How often a stored blob is served for one measurement: processor time is counted in hundredths of a second."""


@dataclass(frozen=True)
class Cost:
    """CPU-seconds of one process for each GB."""

    seconds_per_gb: float
    nginx_seconds_per_gb: float
    """Of nginx, for serving the same blob in the same run."""
    ratio: float
    """The median of the rounds' ratios."""
    ratios: tuple[float, ...]


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


def measure(rounds: int = ROUNDS, blob_bytes: int = BLOB_BYTES) -> Costs:
    """Takes some twelve seconds a round, and four times the blob on the disk of the temporary directory."""
    with Lab() as lab:
        blob = lab.directory / "blob"
        _fill(blob, blob_bytes)
        bench = _Bench(lab, Image.of([blob]))
        found: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            nginx = bench.nginx_serving()
            for name, seconds in bench.round():
                found.setdefault(name, []).append((seconds, nginx))
        return Costs(**{name: _median(values) for name, values in found.items()})


def _median(values: list[tuple[float, float]]) -> Cost:
    middle = statistics.median
    return Cost(
        middle(seconds for seconds, _ in values),
        middle(nginx for _, nginx in values),
        middle(seconds / nginx for seconds, nginx in values),
        tuple(seconds / nginx for seconds, nginx in values),
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

    def nginx_serving(self) -> float:
        return self._cost(self._nginx.process, self._take_from_nginx, SERVINGS)

    def round(self) -> list[tuple[str, float]]:
        """Each measurement's name in `Costs`, and its CPU-seconds for a GB."""
        self._rounds += 1
        with _Passing(self._agent(f"alone-{self._rounds}", [])) as alone:
            pull_alone = self._cost(alone.process, lambda: self._pull(alone))
        with _Passing(self._agent(f"node-{self._rounds}", [self._supernode])) as node:
            pull_swarm = self._cost(node.process, lambda: self._pull(node))
            serving = self._cost(node.process, lambda: self._pull(node), SERVINGS)
            pieces = self._cost(node.process, lambda: self._take_pieces(node), SERVINGS)
        return [("serving", serving), ("pieces", pieces), ("pull_alone", pull_alone), ("pull_swarm", pull_swarm)]

    def _cost(self, process: Process, work: Callable[[], None], times: int = 1) -> float:
        before = cpu_seconds([process.pid])
        for _ in range(times):
            work()
        return (cpu_seconds([process.pid]) - before) * GB / (self._layout.size * times)

    def _take_from_nginx(self) -> None:
        with Client(self._nginx.address) as client:
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
