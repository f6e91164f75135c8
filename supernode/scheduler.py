"""Who takes which piece from whom: the supernode's decisions, as a machine of events and commands.

`handle(event, now) -> commands` is the whole of it. Nodes and swarms (tasks) are numbers that the tracker gives; number 0 is the
supernode itself, a source like the others. Nothing here reads a clock, a socket or a file: time is an argument, chance is passed
in, and the same seed and events give the same commands. Events that make no sense (late, replayed, about somebody unknown) change
nothing. The ideas are in docs/scheduling.md; super-seeding and rarest-first are BitTorrent's (BEP 16; Cohen 2003), the choice of
the less loaded of a few random sources is Mitzenmacher's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from random import Random
from typing import Any

import msgspec

from agent.pieces import lowest
from agent.wire import CORRUPT, DELIVERED, MISSING, SEED
from supernode.swarm import Flight, Member, Node, Swarm


@dataclass(frozen=True)
class Limits:
    """What the scheduler keeps to. The figures behind the defaults are in docs/scheduling.md."""

    upload_slots_min: int = 2
    """Pieces that a source sends at once while a piece takes long: short queues win."""
    upload_slots_max: int = 8
    """The same where pieces are fast, unless the node itself says less."""
    turnaround_seconds: float = 0.02
    """From the end of one piece to the beginning of the next that is granted for it; what a source's queue has to cover."""
    want_max: int = 16
    """Further grants that one report may ask for."""
    in_flight_max: int = 32
    """Grants to one node in one swarm that were not reported yet."""
    reader_span: int = 2
    """Pieces, from where a reader is, that go before all others."""
    grant_seconds_min: float = 2.0
    grant_seconds_max: float = 30.0
    """After this a grant is lost: its slot is free, and its piece can be granted again."""
    grant_patience: float = 8.0
    """A grant is also lost when it takes this many times as long as the swarm's pieces do, but not before `grant_seconds_min`."""
    retry_seconds: float = 10.0
    """How long a source that failed a node is not given to it again in that swarm."""
    patience_seconds: float = 1.0
    """A node that got nothing for so long takes from wherever there is a slot, repeats and other zones included."""
    waiting_seconds: float = 1.0
    """How often a parked node is told that waiting is right."""
    probes_max: int = 16
    """Sources, or takers, that are looked at for one decision."""
    choices: int = 3
    """Of those looked at, how many that would do are compared."""
    rarest_of: int = 4
    """Pieces compared for the rarest."""
    rescues_max: int = 256
    """Parked nodes of a swarm that one tick looks at."""
    zones_max: int = 64
    """Zones told apart; nodes of any further zone count as being in none."""
    pieces_max: int = 1 << 16


class Joined(msgspec.Struct, frozen=True):
    """A node is connected. `upload_slots` is the most that it will send at once, 0 for no opinion."""

    node: int
    zone: str
    upload_slots: int


class Left(msgspec.Struct, frozen=True):
    """A node is gone for good: if it comes back it has a new number."""

    node: int


class Made(msgspec.Struct, frozen=True):
    """A blob of `count` pieces is to be distributed; the supernode has `seeded` of them."""

    task: int
    count: int
    seeded: int


class Seeded(msgspec.Struct, frozen=True):
    """The supernode has this piece now."""

    task: int
    piece: int


class Ended(msgspec.Struct, frozen=True):
    """The swarm is over: its seed failed, or nobody needs it."""

    task: int


class Opened(msgspec.Struct, frozen=True):
    """A node joins a swarm, or says again what it has. `readers` are pieces that somebody waits for."""

    node: int
    task: int
    have: int
    readers: tuple[int, ...]
    want: int


class Reported(msgspec.Struct, frozen=True):
    """`done` are (piece, source, seconds, verdict); `want` is how many grants the node takes beyond those not reported yet.

    A node that turned to the alternative reports the source's failure and what came of the alternative together.
    """

    node: int
    task: int
    done: tuple[tuple[int, int, float, int], ...]
    want: int
    readers: tuple[int, ...]


class Closed(msgspec.Struct, frozen=True):
    """A node wants no more of a blob. It stays a source when it holds all of it."""

    node: int
    task: int


class HoldsAll(msgspec.Struct, frozen=True):
    """A node holds the whole blob since an earlier time."""

    node: int
    task: int


class HoldsNone(msgspec.Struct, frozen=True):
    """A node holds the blob no longer."""

    node: int
    task: int


class Quarantined(msgspec.Struct, frozen=True):
    """A node is no source until it is released. It may download."""

    node: int


class Released(msgspec.Struct, frozen=True):
    node: int


class Tick(msgspec.Struct, frozen=True):
    """Time passed; expected about once a second."""


Event = Joined | Left | Made | Seeded | Ended | Opened | Reported | Closed | HoldsAll | HoldsNone | Quarantined | Released | Tick


class Grant(msgspec.Struct, frozen=True):
    """`pieces` are (piece, source, alternative); the alternative is the source itself where there is nobody else."""

    node: int
    task: int
    pieces: tuple[tuple[int, int, int], ...]


class KeepWaiting(msgspec.Struct, frozen=True):
    """The node's want is parked because the blob is still arriving at the supernode."""

    node: int
    task: int


Command = Grant | KeepWaiting


class TaskView(msgspec.Struct, frozen=True):
    """A swarm in numbers."""

    task: int
    pieces: int
    seeded: int
    takers: int
    holders: int
    """Nodes from which at least one piece can be had."""
    parked: int
    in_flight: int


class NodeView(msgspec.Struct, frozen=True):
    node: int
    zone: str
    upload_slots: int
    busy: int
    quarantined: bool
    tasks: int


class Scheduler:
    """One owner calls `handle`, event by event; it never blocks and keeps no reference to what it is given."""

    def __init__(self, rng: Random, limits: Limits) -> None:
        self._random = rng.random
        self._limits = limits
        self._now = 0.0
        self._zones = {""}
        self._seed = Node(SEED, "", limits.upload_slots_max, limits.upload_slots_min)
        self._nodes: dict[int, Node] = {SEED: self._seed}
        self._swarms: dict[int, Swarm] = {}
        self._grants: dict[Member, list[tuple[int, int, int]]] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            Joined: self._joined,
            Left: self._left,
            Made: self._made,
            Seeded: self._seeded,
            Ended: self._ended,
            Opened: self._opened,
            Reported: self._reported,
            Closed: self._closed,
            HoldsAll: self._holds_all,
            HoldsNone: self._holds_none,
            Quarantined: self._quarantined,
            Released: self._released,
        }

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take note of what happened, and say whom to tell what. `now` is monotonic, in seconds."""
        self._now = now
        commands: list[Command] = []
        if type(event) is Tick:
            self._tick(commands)
        else:
            self._handlers[type(event)](event)
        if self._grants:
            for member, pieces in self._grants.items():
                commands.append(Grant(member.node.number, member.swarm.number, tuple(pieces)))
            self._grants.clear()
        return commands

    # What others may see.

    @property
    def tasks(self) -> list[TaskView]:
        return [self._view(swarm) for swarm in self._swarms.values()]

    @property
    def nodes(self) -> list[NodeView]:
        return [
            NodeView(node.number, node.zone, node.slots, node.busy, node.quarantined, len(node.members))
            for node in self._nodes.values()
        ]

    def task(self, number: int) -> TaskView | None:
        swarm = self._swarms.get(number)
        return None if swarm is None else self._view(swarm)

    @staticmethod
    def _view(swarm: Swarm) -> TaskView:
        return TaskView(
            task=swarm.number,
            pieces=swarm.count,
            seeded=swarm.seeded.bit_count(),
            takers=len(swarm.takers),
            holders=len(swarm.holders),
            parked=len(swarm.parked),
            in_flight=sum(len(member.flights) for member in swarm.takers.values()),
        )

    # Events.

    def _joined(self, event: Joined) -> None:
        zone = event.zone
        if zone not in self._zones:
            if len(self._zones) < self._limits.zones_max:
                self._zones.add(zone)
            else:
                zone = ""
        willing = event.upload_slots or self._limits.upload_slots_max
        slots = min(willing, self._limits.upload_slots_min)
        node = self._nodes.get(event.node)
        if node is None:
            self._nodes[event.node] = Node(event.node, zone, willing, slots)
        elif event.node == SEED:
            node.zone, node.willing, node.slots = zone, willing, slots

    def _left(self, event: Left) -> None:
        node = self._nodes.get(event.node)
        if node is None or node is self._seed:
            return
        del self._nodes[event.node]
        swarms = [member.swarm for member in node.members.values()]
        for member in list(node.members.values()):
            self._drop(member)
        for swarm in swarms:
            self._feed(swarm)

    def _made(self, event: Made) -> None:
        if event.task not in self._swarms and 0 <= event.count <= self._limits.pieces_max:
            self._swarms[event.task] = Swarm(event.task, event.count, event.seeded)

    def _seeded(self, event: Seeded) -> None:
        swarm = self._swarms.get(event.task)
        if swarm is None or not 0 <= event.piece < swarm.count:
            return
        swarm.seeded |= 1 << event.piece
        self._offer(self._seed, swarm)

    def _ended(self, event: Ended) -> None:
        swarm = self._swarms.pop(event.task, None)
        if swarm is not None:
            for member in list(swarm.members.values()):
                self._drop(member)

    def _opened(self, event: Opened) -> None:
        member = self._member(event.node, event.task, make=True)
        if member is None:
            return
        swarm = member.swarm
        swarm.gain(member, event.have & swarm.everything)
        member.open = True
        swarm.takers[event.node] = member
        self._wants(member, event.want, event.readers)
        self._serve(member)
        self._offer(member.node, swarm)

    def _reported(self, event: Reported) -> None:
        member = self._member(event.node, event.task)
        if member is None or not member.open:
            return
        freed: list[Node] = []
        news = not event.done
        for piece, source, seconds, verdict in event.done:
            if 0 <= piece < member.swarm.count:
                news |= self._outcome(member, piece, source, seconds, verdict, freed)
        if not news:
            return  # a replay: what it says of `want` is as old as the rest
        self._wants(member, event.want, event.readers)
        for node in freed:
            self._offer(node, member.swarm)
        self._offer(member.node, member.swarm)
        self._serve(member)

    def _closed(self, event: Closed) -> None:
        member = self._member(event.node, event.task)
        if member is None or not member.open:
            return
        swarm = member.swarm
        if member.offered == swarm.everything:
            self._retire(member)
        else:
            self._drop(member)
        self._feed(swarm)

    def _holds_all(self, event: HoldsAll) -> None:
        member = self._member(event.node, event.task, make=True)
        if member is None:
            return
        if member.open:
            self._retire(member)
        member.swarm.hold_all(member)
        self._offer(member.node, member.swarm)
        self._feed(member.swarm)

    def _holds_none(self, event: HoldsNone) -> None:
        member = self._member(event.node, event.task)
        if member is not None and not member.open:
            swarm = member.swarm
            self._drop(member)
            self._feed(swarm)

    def _quarantined(self, event: Quarantined) -> None:
        node = self._nodes.get(event.node)
        if node is None or node.quarantined or node is self._seed:
            return
        for member in node.members.values():
            member.swarm.withdraw(member)
        node.quarantined = True
        for member in node.members.values():
            self._feed(member.swarm)

    def _released(self, event: Released) -> None:
        node = self._nodes.get(event.node)
        if node is None or not node.quarantined:
            return
        node.quarantined = False
        for member in node.members.values():
            member.swarm.restore(member)
        for member in node.members.values():
            self._offer(node, member.swarm)

    def _tick(self, commands: list[Command]) -> None:
        limits, now = self._limits, self._now
        for swarm in self._swarms.values():
            patience = limits.grant_seconds_max
            if swarm.piece_seconds:
                patience = min(patience, max(limits.grant_seconds_min, limits.grant_patience * swarm.piece_seconds))
            for member in swarm.takers.values():
                for piece in [piece for piece, flight in member.flights.items() if now - flight.since >= patience]:
                    flight = swarm.touch_down(member, piece, arrived=False)
                    member.shunned[flight.source.number] = now + limits.retry_seconds
                    self._park(member)
            self._feed(swarm)
            for member in swarm.parked.some(self._random(), limits.rescues_max):
                if now - member.since >= limits.patience_seconds and not member.flights:
                    self._serve(member, starving=True)
            if swarm.seeded != swarm.everything:
                for member in swarm.parked.some(0.0, len(swarm.parked)):
                    if now - max(member.told, member.since) >= limits.waiting_seconds:
                        member.told = now
                        commands.append(KeepWaiting(member.node.number, swarm.number))

    # State.

    def _member(self, number: int, task: int, make: bool = False) -> Member | None:
        node = self._nodes.get(number)
        swarm = self._swarms.get(task)
        if node is None or swarm is None or node is self._seed:
            return None
        member = node.members.get(task)
        if member is None and make:
            member = Member(node, swarm, int(self._random() * swarm.count))
            node.members[task] = swarm.members[number] = member
        return member

    def _outcome(self, member: Member, piece: int, source: int, seconds: float, verdict: int, freed: list[Node]) -> bool:
        """Book one line of a report. False when it says nothing new."""
        swarm, flight = member.swarm, member.flights.get(piece)
        if verdict == DELIVERED:
            if flight is None:
                if member.have >> piece & 1:
                    return False
                swarm.gain(member, 1 << piece)  # from its alternative, or later than we waited
                return True
            if source == flight.source.number:
                self._timed(swarm, flight.source, min(max(seconds, 1e-4), self._limits.grant_seconds_max))
            freed.append(flight.source)
            swarm.touch_down(member, piece, arrived=True)
            return True
        if flight is None or source not in (flight.source.number, flight.alternative):
            return False
        lasting = verdict == CORRUPT and source != SEED
        member.shunned[source] = inf if lasting else self._now + self._limits.retry_seconds
        if verdict == MISSING and source in swarm.members:
            swarm.lose(swarm.members[source], 1 << piece)
        if source == flight.source.number:
            freed.append(flight.source)
            swarm.touch_down(member, piece, arrived=False)
        return True

    def _timed(self, swarm: Swarm, source: Node, seconds: float) -> None:
        """Learn from a delivery how many pieces a source has to have in hand so that its link never waits for us."""
        service = seconds / max(1, source.busy)
        source.service_seconds += (service - source.service_seconds) * (0.2 if source.service_seconds else 1.0)
        swarm.piece_seconds += (seconds - swarm.piece_seconds) * (0.02 if swarm.piece_seconds else 1.0)
        slots = 1 + ceil(self._limits.turnaround_seconds / source.service_seconds)
        source.slots = min(source.willing, max(self._limits.upload_slots_min, min(slots, self._limits.upload_slots_max)))

    def _wants(self, member: Member, want: int, readers: tuple[int, ...]) -> None:
        swarm, limits = member.swarm, self._limits
        member.want = max(0, min(want, limits.want_max, limits.in_flight_max - len(member.flights)))
        span = (1 << limits.reader_span) - 1
        member.urgent = 0
        for reader in readers:
            if 0 <= reader < swarm.count:
                member.urgent |= span << reader
        self._park(member)

    def _park(self, member: Member) -> None:
        if member.open and member.want and member.missing:
            if member not in member.swarm.parked:
                member.since = self._now
                member.swarm.parked.add(member)
        else:
            member.swarm.parked.discard(member)

    def _retire(self, member: Member) -> None:
        """`member` takes no more."""
        swarm = member.swarm
        for piece in list(member.flights):
            swarm.touch_down(member, piece, arrived=False)
        member.open, member.want, member.urgent = False, 0, 0
        swarm.parked.discard(member)
        swarm.takers.pop(member.node.number, None)
        member.shunned.clear()

    def _drop(self, member: Member) -> None:
        self._retire(member)
        member.swarm.lose(member, member.swarm.everything)
        member.node.members.pop(member.swarm.number, None)
        member.swarm.members.pop(member.node.number, None)

    # Decisions.

    def _feed(self, swarm: Swarm) -> None:
        """Something changed that may help anybody: look at some of those who wait."""
        self._offer(self._seed, swarm)
        for member in swarm.parked.some(self._random(), self._limits.rescues_max):
            self._serve(member)

    def _offer(self, source: Node, swarm: Swarm) -> None:
        """Fill the free slots of `source` with takers who wait for what it has."""
        while source.busy < source.slots and len(swarm.parked):
            if not self._offer_one(source, swarm):
                return

    def _offer_one(self, source: Node, swarm: Swarm) -> bool:
        if source is self._seed:
            offered = swarm.fresh
            zone_blind = True
        else:
            member = swarm.members.get(source.number)
            if member is None or source.quarantined:
                return False
            offered = member.offered
            zone_blind = False
        best: Member | None = None
        best_key = (True, inf)
        for taker in swarm.parked.some(self._random(), self._limits.probes_max):
            if taker.node is source or self._shuns(taker, source.number):
                continue
            useful = offered & taker.missing
            foreign = taker.node.zone != source.zone
            if foreign and not zone_blind:
                useful &= ~swarm.zone(taker.node.zone).copies.present
            if useful and (foreign, taker.held + len(taker.flights)) < best_key:
                best, best_key, best_useful = taker, (foreign, taker.held + len(taker.flights)), useful
        if best is None:
            return False
        self._grant(best, self._choose(best, best_useful), source)
        return True

    def _serve(self, member: Member, starving: bool = False) -> None:
        while member.want and member.missing:
            if not self._serve_one(member, starving):
                return

    def _serve_one(self, member: Member, starving: bool) -> bool:
        swarm, seed, limits = member.swarm, self._seed, self._limits
        missing = member.missing
        seed_free = seed.busy < seed.slots and not self._shuns(member, SEED)
        fresh = swarm.fresh & missing if seed_free else 0
        if fresh:
            self._grant(member, self._choose(member, fresh), seed)
            return True
        home = swarm.zone(member.node.zone)
        source, useful = self._best_source(member, home.holders.some(self._random(), limits.probes_max), missing)
        if source is None and len(swarm.holders) > len(home.holders):
            abroad = missing if starving else missing & ~home.copies.present
            if abroad:
                source, useful = self._best_source(member, swarm.holders.some(self._random(), limits.probes_max), abroad)
        if source is None and seed_free and not swarm.fresh:
            repeats = swarm.seeded & missing
            idle = swarm.seeded == swarm.everything and seed.busy * 2 <= seed.slots
            if repeats and (starving or idle):
                source, useful = seed, repeats
        if source is None:
            return False
        self._grant(member, self._choose(member, useful), source)
        return True

    def _best_source(self, member: Member, holders: list[Member], wanted: int) -> tuple[Node | None, int]:
        best: Node | None = None
        best_load, best_useful, seen = inf, 0, 0
        for holder in holders:
            node = holder.node
            if node.busy >= node.slots or holder is member or self._shuns(member, node.number):
                continue
            useful = holder.offered & wanted
            if not useful:
                continue
            load = node.busy / node.slots - bool(useful & member.urgent)
            if load < best_load:
                best, best_load, best_useful = node, load, useful
            seen += 1
            if seen == self._limits.choices:
                break
        return best, best_useful

    def _shuns(self, member: Member, source: int) -> bool:
        return bool(member.shunned) and member.shunned.get(source, 0.0) > self._now

    def _choose(self, member: Member, candidates: int) -> int:
        """What a reader waits for; else the rarest of a few."""
        urgent = candidates & member.urgent
        if urgent:
            return lowest(urgent)
        swarm = member.swarm
        counts = swarm.copies.counts
        ahead = candidates >> member.rotation
        best = member.rotation + lowest(ahead) if ahead else lowest(candidates)
        for _ in range(self._limits.rarest_of - 1):
            start = int(self._random() * swarm.count)
            ahead = candidates >> start
            piece = start + lowest(ahead) if ahead else lowest(candidates)
            if counts[piece] < counts[best]:
                best = piece
        return best

    def _alternative(self, member: Member, piece: int, source: Node) -> int:
        swarm = member.swarm
        for holder in swarm.holders.some(self._random(), self._limits.choices):
            number = holder.node.number
            fits = holder.offered >> piece & 1 and holder.node is not source and holder is not member
            if fits and not self._shuns(member, number):
                return number
        if source is not self._seed and swarm.seeded >> piece & 1 and not self._shuns(member, SEED):
            return SEED
        return source.number

    def _grant(self, member: Member, piece: int, source: Node) -> None:
        alternative = self._alternative(member, piece, source)
        member.swarm.take_off(member, piece, Flight(source, alternative, self._now))
        member.want -= 1
        member.since = self._now
        if not member.want or not member.missing:
            member.swarm.parked.discard(member)
        self._grants.setdefault(member, []).append((piece, source.number, alternative))


__all__ = [
    "Closed",
    "Command",
    "Ended",
    "Event",
    "Grant",
    "HoldsAll",
    "HoldsNone",
    "Joined",
    "KeepWaiting",
    "Left",
    "Limits",
    "Made",
    "NodeView",
    "Opened",
    "Quarantined",
    "Released",
    "Reported",
    "Scheduler",
    "Seeded",
    "TaskView",
    "Tick",
]
