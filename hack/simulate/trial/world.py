"""The world of one trial: a small cluster, made from a seed, and what all of its parts share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from random import Random

from hack.simulate.network import Clock, Network
from hack.simulate.trial.client import Client
from hack.simulate.trial.content import Content
from hack.simulate.trial.node import Node
from hack.simulate.trial.origin import ORIGIN, REGISTRIES, Origin, OriginRequest
from hack.simulate.trial.party import Party
from hack.simulate.trial.supernode import Supernode
from hack.simulate.trial.transfer import Transfer
from hack.simulate.trial.ways import Purpose, Way, Ways
from supernode.seeder import COMING_SECONDS_MAX

TRACE_LINES_MAX = 400
MEGABYTE = 1e6
OTHER_REGISTRY_SHARE = 0.25
"""Of clusters, in which some nodes have their images from another registry, which has the same blobs."""
UNKNOWN_SIZE_SHARE = 0.05
"""Of nodes that do not know how long a blob is."""
HOLDERS_SHARE = 0.25
"""Of clusters, in which some nodes hold blobs already."""
LATENCY_SECONDS_MIN, LATENCY_SECONDS_MAX = 0.0002, 0.003


class World:
    def __init__(self, seed: int, clock: Clock, *, trace_lines_max: int | None = TRACE_LINES_MAX) -> None:
        self.seed = seed
        self.clock = clock
        self.network = Network(self.clock)
        self.ways = Ways()
        self.chance = Random(f"{seed} chance")
        self.violations: list[str] = []
        self.doubtful: set[str] = set()
        """Digests of blobs of which the origin has sent a wrong piece, or a node has named one wrongly."""
        self.found_wrong_at: dict[str, float] = {}
        """By digest, when a node first told the supernode that a blob is wrong whose pieces had the digests that were named."""
        self.transfers: set[Transfer] = set()
        self.asking: set[OriginRequest] = set()
        self._trace: deque[tuple[float, str, object]] = deque(maxlen=trace_lines_max)
        random = Random(f"{seed} cluster")
        sizes = [random.randint(2, 9) * (512 << 10) - random.choice((0, 200_000)) for _ in range(random.choice((1, 1, 2)))]
        self.contents = {content.digest: content for content in (Content(f"blob {n}", size) for n, size in enumerate(sizes))}
        self.origin = Origin(random.choice((15, 30, 100)) * MEGABYTE)
        rate = random.choice((2, 4, 10, 30)) * MEGABYTE
        self.coming_seconds = min(COMING_SECONDS_MAX, (256 << 10) / self.origin.hosts[REGISTRIES[0]].up)
        """How long after its beginning a piece is said to be coming to a supernode."""
        self.supernodes = [
            Supernode(self, f"s{number}", f"10.0.1.{number}", rate * random.choice((1, 1, 4)))
            for number in range(random.choice((1, 1, 1, 2)))
        ]
        zones = random.choice((1, 1, 2))
        self.nodes = [
            Node(self, f"n{number:02}", f"10.0.0.{number}", rate, f"zone-{number % zones}")
            for number in range(random.choice((3, 3, 4, 5, 6, 8, 12)))
        ]
        parties: list[Party] = [*self.supernodes, *self.nodes]
        self._parties = {party.name: party for party in parties}
        self._by_address = {party.where.host: party for party in parties}
        spread = random.choice((0.0, 0.0, 2.0, 20.0))
        contents = list(self.contents.values())
        self.clients = [Client(node, contents, 1.0 + random.random() * spread) for node in self.nodes]
        self.held_before: set[str] = set()
        """Digests of blobs that a node held from the beginning."""
        if random.random() < OTHER_REGISTRY_SHARE:
            for node in random.sample(self.nodes, random.randint(1, len(self.nodes) - 1)):
                node.registry = REGISTRIES[1]
        for node in self.nodes:
            node.knows_sizes = random.random() >= UNKNOWN_SIZE_SHARE
        if random.random() < HOLDERS_SHARE:
            for node in random.sample(self.nodes, random.randint(1, max(1, len(self.nodes) // 2))):
                content = random.choice(contents)
                node.shelf.put(content)
                self.held_before.add(content.digest)
        self.waiting = len(self.clients)
        """Clients that have not got all yet, and are expected to."""
        self.origin_changed_at: dict[str, float] = {}
        """When the origin last began to be good for a node; infinity while it is not."""
        self.ways.on_change.append(self.look_at_transfers)
        for supernode in self.supernodes:
            supernode.start()
        for node in self.nodes:
            self.at(random.random() / 2, node.start)

    # Time.

    @property
    def now(self) -> float:
        return self.clock.now

    def at(self, time: float, do: Callable[..., None], *arguments: object) -> None:
        self.clock.at(time, do, *arguments)

    def after(self, seconds: float, do: Callable[..., None], *arguments: object) -> None:
        self.clock.after(seconds, do, *arguments)

    def latency(self, chance: Random | None = None) -> float:
        return LATENCY_SECONDS_MIN + (chance or self.chance).random() * (LATENCY_SECONDS_MAX - LATENCY_SECONDS_MIN)

    # Parts.

    def party(self, name: str) -> Party:
        return self._parties[name]

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def party_at(self, ip: str) -> Party:
        return self._by_address[ip]

    def client_ended(self, client: Client) -> None:
        self.waiting -= not client.is_excused

    def excuse(self, client: Client) -> None:
        """It need not get its blobs: without Darner it would not either, or its own node lies."""
        if not client.is_excused:
            client.is_excused = True
            self.waiting -= 1

    def look_at_transfers(self) -> None:
        """Something changed that transfers depend on."""
        for transfer in sorted(self.transfers, key=lambda item: item.number):
            transfer.look()
        for request in sorted(self.asking, key=lambda item: item.number):
            request.look()
        self.look_at_the_origin()

    def look_at_the_origin(self) -> None:
        for node in self.nodes:
            is_good = self.origin_is_good(node.name) and node.is_up
            if not is_good:
                self.origin_changed_at[node.name] = float("inf")
            elif self.origin_changed_at.get(node.name, float("inf")) == float("inf"):
                self.origin_changed_at[node.name] = self.now

    def origin_is_good(self, name: str) -> bool:
        """Whether the origin answers a node at once."""
        node = self.node(name)
        mood = self.origin.mood(name, node.registry)
        is_bad = mood.is_silent or mood.status or mood.lies or mood.head_seconds > 0.5 or node.pause_seconds(node.registry)
        return not is_bad and self.ways.of(name, ORIGIN, Purpose.ORIGIN) is Way.OPEN

    # What is told.

    def say(self, who: str, what: object) -> None:
        self._trace.append((self.clock.now, who, what))

    def broken(self, what: str) -> None:
        """A promise is."""
        self.say("!!", what)
        self.violations.append(f"{self.now:.3f} s: {what}")

    def trace(self) -> Iterable[str]:
        return (f"{now:9.4f} {who:6} {what}" for now, who, what in self._trace)
