"""One blob goes out to many nodes in virtual time, by the production scheduler, health and planner.

What is simulated: the links (`network`), the processors at their ends (`processor`), the channel, on which each message is late
by `latency_seconds`, and a tracker that passes events and commands on as the real one does. The same plan gives the same result,
to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, floor, inf, log2
from random import Random

from agent.http.client import window_for
from agent.swarm.messages import CORRUPT, DELIVERED, SEED
from agent.swarm.piece_client import CONNECT_SECONDS_MAX, RECEIVE_WINDOW_BYTES
from agent.values.pieces import Layout
from hack.simulate.network import Clock, Host, Network
from hack.simulate.node import TASK, Node, Outcomes
from hack.simulate.processor import NOTHING, Work
from hack.simulate.shadow import Shadow
from hack.simulate.transfers import Transfer, Transfers
from supernode.scheduler import events
from supernode.scheduler.limits import Limits
from supernode.scheduler.machine import Scheduler
from supernode.tracker.health import Health, HealthSettings
from supernode.tracker.seeds import LEAVE_SECONDS, LEAVES_MAX


@dataclass(frozen=True)
class Plan:
    """A rollout. Rates are in bytes a second; links are as fast in both directions."""

    nodes: int = 8
    pieces: int = 256
    piece_bytes: int = 256 << 10
    node_rate: float = 12.5e6
    seed_rate: float = 12.5e6
    origin_rate: float = 12.5e6
    """Of the origin's link, from which nodes get what they are granted there; 0 when the supernode has the blob at the start."""
    connection_rate: float = inf
    """What the origin gives one connection at most."""
    slow: float = 0.0
    """This share of the nodes has a link a quarter as fast."""
    zones: int = 1
    arrival_seconds: float = 0.0
    """Nodes come at random moments of this span."""
    readers: bool = True
    """Every node has a client that reads the blob from its beginning."""
    failing: float = 0.0
    """This share of the nodes dies while the blob spreads: every second one resets its connections, the others fall silent."""
    lying: float = 0.0
    """This share of the nodes sends wrong bytes."""
    mute: int = 0
    """So many further nodes say that they hold the blob, and send nothing."""
    lacking: int = 0
    """So many further nodes say so, and have none of it."""
    honest: int = 0
    """So many further nodes say so, and do hold it."""
    slanders: int = 0
    """So many of the nodes say of every piece from another node that it was wrong."""
    latency_seconds: float = 0.0005
    """Of a message on the channel, and of a request between nodes."""
    blocked: str = ""
    """The supernode's pieces reach nobody: connections are `refused`, or packets `dropped`. The channel is open."""
    stall_seconds: float = 2.0
    """How long a taker waits for a byte."""
    lease_seconds: float = 30.0
    seed: int = 1
    limits: Limits = field(default_factory=Limits)
    round_trip_seconds: float = 0.0
    """Of a packet between nodes: a connection for pieces carries one receive window in that time. 0: what there is room for."""
    window_bytes_max: int = 212_992
    """Of a receive window, however fast pieces come; net.core.rmem_max is so much unless somebody says otherwise (socket(7))."""
    cores: int = 4
    """Of each node, and of the supernode."""
    taking: Work = NOTHING
    """What a piece costs a node that takes it, on which a client reads it too."""
    sending: Work = NOTHING
    """What it costs a node that sends it, or the supernode."""

    @property
    def size(self) -> int:
        return self.pieces * self.piece_bytes

    @property
    def bound(self) -> float:
        """Seconds that no schedule beats: what the links take, or the processors if that is more."""
        return max(self.links_bound, self.processors_bound)

    @property
    def links_bound(self) -> float:
        """The blob once through the slowest part, and its last piece on to everybody."""
        slowest = min(self.node_rate, self.origin_rate or self.seed_rate)
        return self.size / slowest * (1 + floor(log2(self.nodes)) / self.pieces)

    @property
    def processors_bound(self) -> float:
        """What nodes have to do together, divided among all of them, where the origin sends each piece once.

        Each node takes every piece, and all but the origin's one come from nodes; where the supernode has the blob it sends too.
        All cores of a node do the work, but what is the interpreter's is done by one at a time.
        """
        senders = self.nodes if self.origin_rate else self.nodes + 1
        sent = self.nodes - 1 if self.origin_rate else self.nodes

        def shared(taking_seconds: float, sending_seconds: float) -> float:
            return self.pieces * (self.nodes * taking_seconds + sent * sending_seconds) / senders

        whole = shared(self.taking.seconds(self.piece_bytes), self.sending.seconds(self.piece_bytes)) / self.cores
        return max(whole, shared(self.taking.piece_seconds, self.sending.piece_seconds))


@dataclass(frozen=True)
class Result:
    plan: Plan
    seconds: tuple[float, ...]
    """How long each node took that lived, slandered nobody and got the blob through the swarm, shortest first."""
    first_seconds: tuple[float, ...]
    """How long each of them waited for the first piece, shortest first."""
    fell_back: int
    """Nodes that asked the origin."""
    origin_blobs: float
    """What the origin sent, in blobs, the one for the supernode included."""
    origin_requests: int
    seed_images: float
    """What the supernode sent, in blobs."""
    cross_zone_images: float
    """What went from one zone to another between nodes, in blobs."""
    grants: int
    messages: int
    wrong_pieces: int
    liars: frozenset[int]
    quarantined: frozenset[int]
    """Nodes that were in quarantine at any time."""
    out_max: int
    """The most that were in quarantine at once."""
    scheduling_seconds: float | None = field(default=None, compare=False)
    """Of this machine's processor, for all decisions; None when that was not measured."""

    @property
    def ratio(self) -> float:
        """Of the slowest node's time to the bound."""
        return self.seconds[-1] / self.plan.bound

    def quantile(self, share: float) -> float:
        """Of the nodes' times to the bound."""
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))] / self.plan.bound


def run(plan: Plan, measured: bool = False, seconds_max: float = 3600.0) -> Result:
    """Simulate a plan, and measure what scheduling it costs if that is wanted. Raises TimeoutError when it does not end."""
    rollout = Rollout(plan, measured)
    try:
        return rollout.run(seconds_max)
    finally:
        rollout.close()


class Rollout:
    """The world of one plan."""

    def __init__(self, plan: Plan, measured: bool = False) -> None:
        self.plan = plan
        self.layout = Layout(plan.size, plan.piece_bytes)
        self.latency_seconds = plan.latency_seconds
        self.stall_seconds = plan.stall_seconds
        self.blocked_seconds = {"": None, "refused": 0.0, "dropped": CONNECT_SECONDS_MAX}[plan.blocked]
        self.scheduler = Scheduler(Random(plan.seed + 1), plan.limits)
        self.health = Health(HealthSettings(lease_seconds=plan.lease_seconds))
        self._shadow = Shadow(plan.seed + 1, plan.limits) if measured else None
        self._random = Random(plan.seed)
        self._clock = Clock()
        self._network = Network(self._clock)
        self._transfers = Transfers(self._clock, self._network, plan.taking, plan.sending)
        self._nodes: dict[int, Node] = {SEED: Node(SEED, "", Host(plan.seed_rate, plan.seed_rate, plan.cores), self)}
        self._in_flight: dict[int, set[int]] = {}
        self._unfinished = 0
        self._grants = self._messages = self._wrong = 0
        self._seed_pieces = self._cross_zone_pieces = 0
        self._origin = Host(plan.origin_rate or inf, inf)
        self._origin_pieces = 0
        self._origin_requests = 0
        self._leaves: dict[int, float] = {}
        self._windows: dict[tuple[int, int], int] = {}
        """Bytes of the receive window, by taker and source; by the taker twice, what its last piece from any source needed."""
        self._quarantined: set[int] = set()
        self._out_max = 0

    def run(self, seconds_max: float) -> Result:
        plan = self.plan
        self._tell(events.Made(TASK, plan.pieces, 0 if plan.origin_rate else self.layout.everything, plan.piece_bytes))
        for seconds in plan.limits.head_times(plan.pieces):
            self._clock.at(seconds, self._tell, events.HeadTime(TASK))
        self._populate()
        self._clock.after(1.0, self._tick)
        self._clock.run(lambda: not self._unfinished, seconds_max)
        if self._shadow:
            self._shadow.catch_up()
            assert self._shadow.grants == self._grants, "the same events gave other grants"
        done = [
            node
            for node in self._nodes.values()
            if node.ended_at is not None and not (node.dead or node.is_holder or node.slanders)
        ]
        return Result(
            plan=plan,
            seconds=tuple(sorted(node.ended_at - node.began_at for node in done if node.ended_at is not None)),
            first_seconds=tuple(sorted(node.first_at - node.began_at for node in done if node.first_at is not None)),
            fell_back=sum(node.fell_back for node in self._nodes.values()),
            origin_blobs=self._origin_pieces / plan.pieces,
            origin_requests=self._origin_requests,
            seed_images=self._seed_pieces / plan.pieces,
            cross_zone_images=self._cross_zone_pieces / plan.pieces,
            grants=self._grants,
            messages=self._messages,
            wrong_pieces=self._wrong,
            liars=frozenset(node.number for node in self._nodes.values() if node.lies),
            quarantined=frozenset(self._quarantined),
            out_max=self._out_max,
            scheduling_seconds=self._shadow.cpu_seconds if self._shadow else None,
        )

    def close(self) -> None:
        if self._shadow:
            self._shadow.close()

    def _populate(self) -> None:
        plan, random = self.plan, self._random
        numbers = list(range(1, plan.nodes + 1))
        slow = set(random.sample(numbers, ceil(plan.slow * plan.nodes)))
        failing = ceil(plan.failing * plan.nodes)
        bad = random.sample(numbers, failing + ceil(plan.lying * plan.nodes))
        for number in numbers:
            rate = plan.node_rate / 4 if number in slow else plan.node_rate
            node = Node(number, f"zone-{number % plan.zones}" if plan.zones > 1 else "", Host(rate, rate, plan.cores), self)
            node.reads = plan.readers
            node.lies = number in bad[failing:]
            self._nodes[number] = node
            self._unfinished += 1
            self._clock.at(random.random() * plan.arrival_seconds, self._arrive, node)
        for number in numbers[: plan.slanders]:
            self._nodes[number].slanders = True
        kinds = ["mute"] * plan.mute + ["lacking"] * plan.lacking + ["honest"] * plan.honest
        random.shuffle(kinds)
        for number, kind in enumerate(kinds, plan.nodes + 1):
            node = self._nodes[number] = Node(number, "", Host(plan.node_rate, plan.node_rate, plan.cores), self)
            node.is_holder, node.ended_at = True, 0.0
            node.mute, node.lacks, node.host.silent = kind == "mute", kind == "lacking", kind != "honest"
            self.health.heard(str(number), 0.0)
            self._tell(events.Joined(number, "", 0))
            if not plan.origin_rate:
                self._tell(events.HoldsAll(number, TASK))
        for place, number in enumerate(bad[:failing]):
            self._nodes[number].resets = place % 2 == 1
            self._clock.at(plan.arrival_seconds + random.random() * plan.bound, self._die, self._nodes[number])

    def _arrive(self, node: Node) -> None:
        self.health.heard(str(node.number), self.now)
        self._tell(events.Joined(node.number, node.zone, 0))
        node.begin()

    def _die(self, node: Node) -> None:
        if node.ended_at is None:
            self._unfinished -= 1
        node.dead = True
        self._network.silence(node.host)
        if node.resets:
            self.health.left(str(node.number), self.now)
            self.after(self.latency_seconds, self._tell, events.Left(node.number))
        for taker in self._nodes.values():
            taker.source_died(node)

    def _tick(self) -> None:
        now = self.now
        for node in self._nodes.values():
            if node.number != SEED and not node.dead:
                self.health.heard(str(node.number), now)
        expired, released = self.health.tick(now)
        for name in expired:
            self._tell(events.Left(int(name)))
        for name in released:
            self._tell(events.Released(int(name)))
        self._tell(events.Tick())
        self._clock.after(1.0, self._tick)

    # What a node needs (see `node.World`).

    @property
    def now(self) -> float:
        return self._clock.now

    def after(self, seconds: float, do: Callable[..., None], *arguments: object) -> None:
        self._clock.after(seconds, do, *arguments)

    def peer(self, number: int) -> Node:
        return self._nodes[number]

    def send(self, sender: Node, receiver: Node, piece: int, done: Callable[[], None]) -> Transfer:
        start, end = self.layout.span(piece)
        size, asked_at = end - start, self.now
        windows, pair, seconds = self._windows, (receiver.number, sender.number), self.plan.round_trip_seconds

        def sent() -> None:
            if seconds:
                wanted = window_for(size / (self.now - asked_at + seconds), RECEIVE_WINDOW_BYTES)
                windows[pair] = windows[receiver.number, receiver.number] = min(wanted, self.plan.window_bytes_max)
            self._sent(sender, receiver, done)

        window = windows.get(pair) or windows.get((receiver.number, receiver.number), RECEIVE_WINDOW_BYTES)
        rate = window / seconds if seconds else inf
        return self._transfers.between_nodes(sender.host, receiver.host, size, sent, rate)

    def _sent(self, sender: Node, receiver: Node, done: Callable[[], None]) -> None:
        self._seed_pieces += sender.number == SEED
        self._cross_zone_pieces += sender.number != SEED and sender.zone != receiver.zone
        self._wrong += sender.lies
        done()

    def send_from_origin(self, receiver: Node, piece: int, done: Callable[[], None]) -> Transfer:
        self._origin_pieces += 1
        start, end = self.layout.span(piece)
        return self._transfers.from_origin(self._origin, receiver.host, end - start, done, self.plan.connection_rate)

    def origin_asked(self) -> None:
        self._origin_requests += 1

    def stop(self, transfer: Transfer) -> None:
        self._transfers.stop(transfer)

    def ended(self) -> None:
        self._unfinished -= 1

    # The tracker.

    def opened(self, node: Node) -> None:
        self._in_flight[node.number] = set()
        self.after(self.latency_seconds, node.task_opened)
        self._tell(events.Opened(node.number, TASK, 0, (), 0))
        if self.plan.origin_rate:
            self._tell(events.MayFetch(node.number, TASK, 1))

    def reported(self, node: Node, done: Outcomes, window: int, readers: tuple[int, ...]) -> None:
        self._messages += 1
        if node.slanders:
            done = tuple(
                (piece, source, seconds, verdict if source == SEED else CORRUPT) for piece, source, seconds, verdict in done
            )
        in_flight = self._in_flight[node.number]
        for piece, source, _seconds, verdict in done:
            in_flight.discard(piece)
            self._judge(node, source, verdict)
        self._tell(events.Reported(node.number, TASK, done, max(0, window - len(in_flight)), readers))

    def asked_leave(self, node: Node) -> None:
        """As `supernode.tracker.seeds` answers it."""
        self._messages += 1
        now = self.now
        self._leaves = {number: until for number, until in self._leaves.items() if now < until}
        given = node.number in self._leaves or len(self._leaves) < LEAVES_MAX
        if given:
            self._leaves[node.number] = now + LEAVE_SECONDS
        self.after(self.latency_seconds, node.leave_answered, given)

    def brought(self, node: Node, pieces: int) -> None:
        """As `supernode.tracker.seeds` has it."""
        self._messages += 1
        if node.number in self._leaves:
            self._leaves[node.number] = self.now + LEAVE_SECONDS
        self._tell(events.Fetched(node.number, TASK, pieces))

    def run_ended(self, node: Node, first: int, outcome: int) -> None:
        self._messages += 1
        self._tell(events.RunOver(node.number, TASK, first, outcome))

    def closed(self, node: Node) -> None:
        self._leaves.pop(node.number, None)
        if node.holds_all and self.scheduler.swarms[TASK].known == self.layout.everything:
            self._tell(events.HoldsAll(node.number, TASK))
        self._tell(events.Closed(node.number, TASK))

    def _judge(self, node: Node, source: int, verdict: int) -> None:
        if source == SEED:
            return
        if verdict == DELIVERED:
            self.health.delivered(str(source), self.now)
        elif self.health.failed(str(source), str(node.number), verdict, self.now):
            self._quarantined.add(source)
            self._out_max = max(self._out_max, len(self.health.quarantines))
            self._tell(events.Quarantined(source))

    def _tell(self, event: events.Event) -> None:
        now = self._clock.now
        if self._shadow:
            self._shadow.tell(event, now)
        for command in self.scheduler.handle(event, now):
            self._messages += 1
            node = self._nodes[command.node]
            if isinstance(command, events.GrantPieces):
                self._grants += len(command.pieces)
                self._in_flight[node.number].update(piece for piece, _, _ in command.pieces)
                self.after(self.latency_seconds, node.granted, command.pieces)
            elif isinstance(command, events.GrantRun):
                self.after(self.latency_seconds, node.run_granted, command.first, command.end)
            else:
                self.after(self.latency_seconds, node.still_seeding)
