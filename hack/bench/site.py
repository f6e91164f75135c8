"""A place to roll images out in: an origin, a supernode and nodes with their agents, each on a host with a link of its own.

It is made once for a scenario and used for all of its rounds and for whatever is measured beside Darner; every round brings an
image that nobody has seen. Files lie in memory: the nodes of a lab share one disk, those of a cluster do not.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hack.bench.image import push, random_image
from hack.bench.puller import Door
from hack.bench.standin import StandIn
from hack.lab import Host, Lab
from hack.lab.darner import REGISTRY_PORT, Agent, Supernode
from hack.lab.process import wait_until
from hack.lab.registry import Registry
from hack.origin.image import Image

MBIT = 125_000
REPOSITORY = "bench/image"
_MEMORY = Path("/dev/shm")
_STARTED_AT_ONCE = 4


@dataclass(frozen=True)
class Plan:
    """What a site is like."""

    nodes: int
    layers: int = 1
    supernode_times: float = 1
    """The supernode's rate, in nodes' rates."""
    mbit: int = 100
    """Rate of the link of a node and, unless `origin_times` says otherwise, of the origin, each way."""
    image_bytes: int = 64 << 20
    """Of all layers together."""
    zones: int = 1
    origin_times: int = 1
    """The origin's rate, in nodes' rates."""
    registry_connections: int = 8
    """Nodes that the supernode sends to the origin at once, at most."""
    files: bool = False
    """Whether the origin may be asked for files, at the agents' sockets."""

    @property
    def rate(self) -> int:
        """Bytes a second."""
        return self.mbit * MBIT

    def zone(self, number: int) -> str:
        """Of the node of that number; empty where there is only one."""
        return f"zone-{number % self.zones}" if self.zones > 1 else ""


MakeOrigin = Callable[[Host], Registry | StandIn]


class Site:
    def __init__(self, lab: Lab, plan: Plan, starters: Executor, registry: Registry | StandIn) -> None:
        """The threads of `starters` must outlive the lab: a program of a lab dies with the thread that started it."""
        self.plan, self.lab, self.registry = plan, lab, registry
        limit = ["--registry-connections", str(plan.registry_connections)]
        self._files = ["--files-allow", self.registry.name] if plan.files else []
        self.supernode = Supernode(lab.host("supernode"), [self.registry.name], [*limit, *self._files])
        hosts = [lab.host(f"node{number}") for number in range(plan.nodes)]
        self.agents = list(starters.map(self._agent, hosts, range(plan.nodes)))
        self.registry.host.shape(plan.rate * plan.origin_times)
        self.supernode.host.shape(int(plan.rate * plan.supernode_times))
        for host in hosts:
            host.shape(plan.rate)
        self.wait_until_connected()
        self._images = 0

    def _agent(self, host: Host, number: int) -> Agent:
        zone = self.plan.zone(number)
        files = ["--socket", str(self.socket_of(host)), *self._files] if self._files else []
        return Agent(host, [self.supernode], [self.registry.name], [*(["--zone", zone] if zone else []), *files])

    def socket_of(self, host: Host) -> Path:
        """Of the agent there."""
        return self.lab.directory / f"{host.name}.sock"

    def wait_until_connected(self) -> None:
        wait_until(lambda: self.supernode.connected_nodes() == self.plan.nodes)

    def new_image(self, size: int | None = None) -> tuple[Image, str]:
        """An image at the origin that nobody has asked for yet, as large as planned if nothing else is said, and its tag."""
        self._images += 1
        image, tag = random_image(size or self.plan.image_bytes, self.plan.layers), str(self._images)
        push(self.registry, REPOSITORY, tag, image)
        return image, tag

    def agents_door(self, tag: str) -> Door:
        """Of any node's own agent."""
        origin = self.registry.name.replace(":", "_")
        return Door("127.0.0.1", REGISTRY_PORT, f"/v2/{origin}/{REPOSITORY}", tag, self.registry.pull_secret)

    def origins_door(self, tag: str) -> Door:
        return Door(self.registry.host.address, self.registry.port, f"/v2/{REPOSITORY}", tag, self.registry.authorization)

    def origin_sent(self, image: Image) -> int:
        """Bytes of the image's blobs that left the origin, as its own log has it."""
        sent = self.registry.blob_bytes_sent(REPOSITORY)
        return sum(sent.get(digest, 0) for digest in image.blobs)

    def origin_requests(self, image: Image) -> int:
        """Requests for bytes of the image's blobs."""
        asked = [answer.path for answer in self.registry.answers() if answer.method == "GET" and answer.status < 300]
        return sum(path.endswith(digest) for path in asked for digest in image.blobs)


@contextlib.contextmanager
def lab_in_memory() -> Iterator[Lab]:
    """A lab whose files cost no disk, where there is room for them."""
    before = tempfile.tempdir
    if _MEMORY.is_dir():
        tempfile.tempdir = str(_MEMORY)  # where a lab puts its files
    try:
        with Lab() as lab:
            yield lab
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def site(plan: Plan, origin: MakeOrigin = Registry) -> Iterator[Site]:
    with ThreadPoolExecutor(_STARTED_AT_ONCE) as starters, lab_in_memory() as lab:
        registry = origin(lab.host("origin"))
        try:
            yield Site(lab, plan, starters, registry)
        finally:
            registry.stop()


Tell = Callable[[str], None]
"""Called with a line for whoever watches."""


def bound_seconds(size: int, nodes: int, origin_rate: float, node_rate: float) -> float:
    """No way of handing `size` bytes to all nodes ends before: the origin sends each byte once, each node receives all of them,
    and all copies together leave through the uplinks of the origin and the nodes. Rates in bytes a second."""
    return max(size / origin_rate, size / node_rate, nodes * size / (origin_rate + nodes * node_rate))
