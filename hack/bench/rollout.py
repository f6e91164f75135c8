"""One rollout: all nodes of a site pull the same new image at the same moment, and what is seen of it from outside.

Times come from the clients, bytes from the origin's log and the counters of the links, processor time from the kernel. Nothing
that Darner says about itself is used for a figure; where a node's bytes came from, by its own metrics, is a detail for people.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from agent.values.pieces import piece_length
from hack.bench.machine import GB, Processors, cpu_seconds
from hack.bench.puller import Puller, PullError
from hack.bench.site import Site, bound_seconds
from hack.lab.darner import Agent

SOURCES = ("peer", "supernode", "origin")


@dataclass
class Disturbance:
    """What happens on the way, and who is left out of the figures for it, if anybody is."""

    victim: Agent | None
    """Known once it has happened."""
    after_seconds: float
    happens: Callable[[], None]

    def spares(self, puller: Puller) -> bool:
        """Whether this client's pull counts, and is waited for."""
        return self.victim is None or puller.host is not self.victim.host


@dataclass(frozen=True)
class Outcome:
    image_bytes: int
    bound_seconds: float
    seconds: Sequence[float]
    """Of each node that was to finish, from the common start to its last byte."""
    first_byte_seconds: Sequence[float]
    """Of each of these nodes: from the request for a layer to its first byte, the layer that took longest."""
    piece_seconds: float
    """What one piece takes on a node's link."""
    origin_bytes: int
    origin_requests: int
    """For bytes of blobs."""
    supernode_bytes: int
    """Everything that left through the supernode's link, headers included."""
    idle_share: float
    """Of all cores, while clients pulled."""
    clients_cpu_seconds: float
    agents_cpu_seconds: float
    supernode_cpu_seconds: float
    received: dict[str, float]
    """What all agents say where it came from, in images."""

    @property
    def ratio(self) -> float:
        return max(self.seconds) / self.bound_seconds

    @property
    def origin_images(self) -> float:
        return self.origin_bytes / self.image_bytes

    @property
    def supernode_images(self) -> float:
        return self.supernode_bytes / self.image_bytes

    @property
    def agents_cpu_per_gb(self) -> float:
        """CPU-seconds for each GB that a node got."""
        return self.agents_cpu_seconds * GB / (self.image_bytes * len(self.seconds))

    @property
    def supernode_cpu_per_gb(self) -> float:
        """The same of the supernode, for each GB that a node got, from wherever."""
        return self.supernode_cpu_seconds * GB / (self.image_bytes * len(self.seconds))

    @property
    def first_byte_pieces(self) -> float:
        """Of the slowest node, in piece times."""
        return max(self.first_byte_seconds) / self.piece_seconds

    def described(self) -> str:
        """Three lines for people."""
        came = ", ".join(f"{images:.2f} from {source}" for source, images in self.received.items())
        firsts = [seconds / self.piece_seconds for seconds in self.first_byte_seconds]
        return (
            f"slowest / bound {self.ratio:.3f} of {self.bound_seconds:.2f} s; nodes: "
            f"{' '.join(f'{seconds:.2f}' for seconds in sorted(self.seconds))} s\n"
            f"first byte: median {median(firsts):.1f}, slowest {max(firsts):.1f} piece times; "
            f"origin sent {self.origin_images:.3f} images in {self.origin_requests} requests, "
            f"supernode {self.supernode_images:.3f}\n"
            f"images received: {came}; idle {self.idle_share:.0%} of the cores; "
            f"CPU-seconds: agents {self.agents_cpu_seconds:.1f}, supernode {self.supernode_cpu_seconds:.1f}, "
            f"clients {self.clients_cpu_seconds:.1f}"
        )


def roll_out(site: Site, disturbance: Disturbance | None = None, checked: bool = True, client: type[Puller] = Puller) -> Outcome:
    """Raises PullError when a node that was left in peace does not get the whole image, or gets other bytes."""
    image, tag = site.new_image()
    site.wait_until_connected()
    pullers = [client(agent.host, site.agents_door(tag)) for agent in site.agents]
    received, cpu = _received(site), _cpu(site)
    supernode_bytes = site.supernode.host.sent_bytes()
    processors = Processors.now()
    clients_cpu = _clients_cpu()
    pull_all(pullers, disturbance)
    clients_cpu = _clients_cpu() - clients_cpu
    idle_share = Processors.now().idle_share_since(processors)
    supernode_bytes = site.supernode.host.sent_bytes() - supernode_bytes
    in_peace = [puller for puller in pullers if disturbance is None or disturbance.spares(puller)]
    cpu_after, received_after = _cpu(site), _received(site)
    outcome = Outcome(
        image_bytes=image.size,
        bound_seconds=bound_seconds(image.size, site.plan.nodes, site.plan.rate, site.plan.rate),
        seconds=[seconds_of(puller) for puller in in_peace],
        first_byte_seconds=[max(puller.first_byte_seconds.values()) for puller in in_peace],
        piece_seconds=piece_length(site.plan.image_bytes // site.plan.layers) / site.plan.rate,
        origin_bytes=site.origin_sent(image),
        origin_requests=site.origin_requests(image),
        supernode_bytes=supernode_bytes,
        idle_share=idle_share,
        clients_cpu_seconds=clients_cpu,
        agents_cpu_seconds=cpu_after[0] - cpu[0],
        supernode_cpu_seconds=cpu_after[1] - cpu[1],
        received={source: (received_after[source] - received[source]) / image.size for source in SOURCES},
    )
    if checked:
        again = [Puller(puller.host, puller.door, checked=True) for puller in in_peace]
        pull_all(again)
        for puller in again:
            seconds_of(puller)
    return outcome


def pull_all(pullers: Sequence[Puller], disturbance: Disturbance | None = None) -> None:
    """Let all begin at once, and wait until each has an end, good or bad; the victim of a disturbance is not waited for."""
    began = time.monotonic()
    for puller in pullers:
        puller.start(began)
    if disturbance:
        time.sleep(max(0.0, began + disturbance.after_seconds - time.monotonic()))
        disturbance.happens()
    for puller in pullers:
        if disturbance is None or disturbance.spares(puller):
            puller.join()
    for puller in pullers:
        puller.abort()
        puller.join()


def seconds_of(puller: Puller) -> float:
    """How long its pull took. Raises PullError with the reason when it has not ended well."""
    if puller.seconds is None:
        raise PullError(f"{puller.host.name}: {puller.error}") from puller.error
    return puller.seconds


def _cpu(site: Site) -> tuple[float, float]:
    """Seconds that all agents have taken so far, and the supernode."""
    return cpu_seconds(agent.process.pid for agent in site.agents), cpu_seconds([site.supernode.process.pid])


def _clients_cpu() -> float:
    """Seconds of this process, whose threads are clients, and of programs that were clients and have ended."""
    taken = os.times()
    return taken.user + taken.system + taken.children_user + taken.children_system


def _received(site: Site) -> dict[str, int]:
    told = [agent.received_bytes() for agent in site.agents if agent.process.running]
    return {source: sum(received[source] for received in told) for source in SOURCES}
