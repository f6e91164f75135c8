"""Who takes which piece from whom: the supernode's decisions, as a machine of events and commands.

`handle(event, now) -> commands` is the whole of it. Nodes and swarms (tasks) are numbers that the tracker gives; number 0 is the
supernode itself, a source like the others. Nothing here reads a clock, a socket or a file: time is an argument, chance is passed
in, and the same seed and events give the same commands. Events that make no sense (late, replayed, about somebody unknown) change
nothing. The ideas are in docs/scheduling.md; super-seeding and rarest-first are BitTorrent's (BEP 16; Cohen 2003), the choice of
the less loaded of a few random sources is Mitzenmacher's.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, inf
from random import Random
from typing import Any

from agent.wire import CORRUPT, DELIVERED, MISSING, SEED, STALLED, UNREACHABLE
from supernode.events import (
    Closed,
    Command,
    Ended,
    Event,
    Grant,
    HoldsAll,
    HoldsNone,
    Joined,
    KeepWaiting,
    Left,
    Limits,
    Made,
    NodeView,
    Opened,
    Quarantined,
    Released,
    Reported,
    Seeded,
    TaskView,
    Tick,
)
from supernode.matching import Match, Matcher
from supernode.swarm import Bag, Flight, Member, Node, Swarm

PIECE_SECONDS_MIN = 1e-4
"""A report that claims less is taken for this."""
SERVICE_WEIGHT, PIECE_WEIGHT = 0.2, 0.02
"""Of the newest piece in what is known of a source's and of a swarm's pace."""


class Scheduler:
    """One owner calls `handle`, event by event; it never blocks."""

    def __init__(self, rng: Random, limits: Limits) -> None:
        self._random = rng.random
        self._limits = limits
        self._now = 0.0
        self._zones = {""}
        self._seed = Node(SEED, "", limits.seed_slots_min, limits.seed_slots_min, limits.seed_slots_max)
        self._nodes: dict[int, Node] = {SEED: self._seed}
        self._swarms: dict[int, Swarm] = {}
        self._hungry: Bag[Swarm] = Bag()
        """Swarms in which somebody is parked, and perhaps some in which nobody is any more."""
        self._matcher = Matcher(rng, limits, self._seed)
        self._grants: dict[Member, list[tuple[int, int, int]]] = {}
        self._waiting: list[Command] = []
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
            Tick: self._tick,
        }

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take note of what happened, and say whom to tell what. `now` is monotonic, in seconds."""
        self._now = now
        self._handlers[type(event)](event)
        commands, self._waiting = self._waiting, []
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
        """All nodes, the supernode first."""
        return [
            NodeView(node.number, node.zone, node.slots, node.busy, node.quarantined, node.barred, len(node.members))
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

    # Nodes.

    def _joined(self, event: Joined) -> None:
        limits = self._limits
        zone = event.zone
        if zone not in self._zones:
            if len(self._zones) < limits.zones_max:
                self._zones.add(zone)
            else:
                zone = ""
        if event.node == SEED:
            self._seed.zone = zone
            self._seed.slots_max = event.upload_slots or limits.seed_slots_max
            self._seed.slots = self._seed.slots_min = min(limits.seed_slots_min, self._seed.slots_max)
        elif event.node not in self._nodes:
            most = min(event.upload_slots or limits.upload_slots_max, limits.upload_slots_max)
            least = min(limits.upload_slots_min, most)
            self._nodes[event.node] = Node(event.node, zone, least, least, most)

    def _left(self, event: Left) -> None:
        node = self._peer(event.node)
        if node is None:
            return
        del self._nodes[event.node]
        for member in list(node.members.values()):
            self._drop(member)

    def _quarantined(self, event: Quarantined) -> None:
        node = self._peer(event.node)
        if node is not None:
            node.quarantined = True
            self._bar(node)
            self._refill(self._seed)

    def _released(self, event: Released) -> None:
        node = self._peer(event.node)
        if node is not None:
            node.quarantined = False
            self._admit(node)
            self._refill(node)

    def _suspect(self, node: Node, patience: float) -> None:
        """A source failed somebody: is it dead? A source that delivers to others meanwhile is not, whatever one taker says."""
        if node is not self._seed and self._now - node.delivered_at >= patience:
            node.suspected_until = self._now + self._limits.retry_seconds
            self._bar(node)

    def _bar(self, node: Node) -> None:
        """What it has is no copy for others now; the supernode may be the only one who has some pieces."""
        if not node.barred:
            node.barred = True
            for member in node.members.values():
                member.swarm.bar(member)

    def _admit(self, node: Node) -> None:
        """A source again, unless there is another reason why it is none."""
        if node.barred and not node.quarantined and node.suspected_until <= self._now:
            node.barred = False
            for member in node.members.values():
                member.swarm.admit(member)

    # Swarms.

    def _made(self, event: Made) -> None:
        if event.task not in self._swarms and 0 <= event.count <= self._limits.pieces_max:
            self._swarms[event.task] = Swarm(event.task, event.count, event.seeded, self._now)

    def _seeded(self, event: Seeded) -> None:
        swarm = self._swarms.get(event.task)
        if swarm is None or not 0 <= event.piece < swarm.count:
            return
        swarm.seeded |= 1 << event.piece
        self._offer(self._seed, swarm)

    def _ended(self, event: Ended) -> None:
        swarm = self._swarms.pop(event.task, None)
        if swarm is None:
            return
        self._hungry.discard(swarm)
        freed: dict[Node, None] = {}
        for member in list(swarm.members.values()):
            freed.update(self._forget(member))
        for source in freed:
            self._refill(source)

    def _opened(self, event: Opened) -> None:
        member = self._member(event.node, event.task, make=True)
        if member is None:
            return
        member.swarm.gain(member, event.have & member.swarm.everything)
        member.open = True
        member.swarm.takers[event.node] = member
        self._wants(member, event.want, event.readers)
        self._offer(member.node, member.swarm)
        self._serve(member)
        if member.node.barred:
            self._offer(self._seed, member.swarm)

    def _closed(self, event: Closed) -> None:
        member = self._member(event.node, event.task)
        if member is None or not member.open:
            return
        if member.have == member.swarm.everything:
            self._retire(member)
        else:
            self._drop(member)

    def _holds_all(self, event: HoldsAll) -> None:
        member = self._member(event.node, event.task, make=True)
        if member is None:
            return
        self._retire(member)
        member.swarm.hold_all(member)
        self._offer(member.node, member.swarm)

    def _holds_none(self, event: HoldsNone) -> None:
        member = self._member(event.node, event.task)
        if member is not None and not member.open:
            self._drop(member)

    # Reports.

    def _reported(self, event: Reported) -> None:
        member = self._member(event.node, event.task)
        if member is None or not member.open:
            return
        swarm = member.swarm
        freed: dict[Node, None] = {}
        news = not event.done
        for piece, source, seconds, verdict in event.done:
            if not 0 <= piece < swarm.count:
                continue
            if verdict == DELIVERED:
                news |= self._arrived(member, piece, source, seconds, freed)
            else:
                news |= self._failed(member, piece, source, verdict, freed)
        if not news and (member.flights or member.want):
            return  # a replay: its want is as old as the rest of it
        self._wants(member, event.want, event.readers)
        for node in freed:
            self._refill(node, swarm)
        self._offer(member.node, swarm)
        self._serve(member)

    def _arrived(self, member: Member, piece: int, source: int, seconds: float, freed: dict[Node, None]) -> bool:
        """Book a piece that a node has now. False when that is not new."""
        swarm, flight = member.swarm, member.flights.get(piece)
        member.lost.discard(piece)
        if flight is None:
            if member.have >> piece & 1:
                return False
            swarm.gain(member, 1 << piece)  # later than we waited, or not from us
        else:
            freed[flight.source] = None
            if flight.source.number == source:
                self._alive(flight.source)
                self._learn(swarm, flight.source, min(max(seconds, PIECE_SECONDS_MIN), self._limits.grant_seconds_max))
            swarm.touch_down(member, piece, arrived=True)
        swarm.moved = self._now
        return True

    def _failed(self, member: Member, piece: int, source: int, verdict: int, freed: dict[Node, None]) -> bool:
        """Book a source that did not give a piece. False when that is not new.

        The piece is on its way from the alternative then, if there is one; if that has failed too, it may be granted again.
        """
        swarm, flight = member.swarm, member.flights.get(piece)
        if flight is None:
            news = piece in member.lost
            member.lost.discard(piece)
            return news
        if source not in (flight.source.number, flight.alternative) or (flight.turned and source != flight.alternative):
            return False
        lasting = verdict == CORRUPT and source != SEED
        member.shunned[source] = inf if lasting else self._now + self._limits.retry_seconds
        holder = swarm.members.get(source)
        if verdict == MISSING and holder is not None:
            swarm.lose(holder, 1 << piece)
        freed[flight.source] = None
        freed[self._seed] = None  # it may be the only one who has the piece now
        node = self._nodes.get(source)
        if node is not None and verdict in (STALLED, UNREACHABLE):
            self._suspect(node, self._patience(swarm))
        if source == flight.alternative:
            swarm.touch_down(member, piece, arrived=False)
        else:
            swarm.free_slot(flight)
            flight.turned, flight.since = True, self._now
        return True

    def _alive(self, source: Node) -> None:
        """A source delivered: whoever suspected it was wrong."""
        source.delivered_at = self._now
        if source.suspected_until > self._now:
            source.suspected_until = self._now
            self._admit(source)

    def _patience(self, swarm: Swarm) -> float:
        """How many seconds a piece may take before somebody else should have the slot that it takes."""
        limits = self._limits
        if not swarm.piece_seconds:
            return limits.grant_seconds_max
        return min(limits.grant_seconds_max, max(limits.slot_seconds_min, limits.slot_patience * swarm.piece_seconds))

    def _learn(self, swarm: Swarm, source: Node, seconds: float) -> None:
        """From a delivery: how many pieces a source has to have in hand so that its link never waits for us."""
        service = seconds / max(1, source.busy)
        if source.service_seconds:
            service = source.service_seconds + (service - source.service_seconds) * SERVICE_WEIGHT
        source.service_seconds = service
        swarm.piece_seconds += (seconds - swarm.piece_seconds) * (PIECE_WEIGHT if swarm.piece_seconds else 1.0)
        slots = 1 + ceil(self._limits.turnaround_seconds / service)
        source.slots = min(source.slots_max, max(source.slots_min, slots))

    # Time.

    def _tick(self, _: Tick) -> None:
        for node in self._nodes.values():
            if node.barred:
                self._admit(node)
        for swarm in list(self._swarms.values()):
            if swarm.takers:
                self._tick_swarm(swarm)

    def _tick_swarm(self, swarm: Swarm) -> None:
        limits, now = self._limits, self._now
        freed: dict[Node, None] = {self._seed: None}
        for member in swarm.takers.values():
            self._watch_flights(member, freed)
        for source in freed:
            self._refill(source, swarm)
        for member in swarm.parked.some(self._random(), limits.rescues_max):
            self._serve(member, starving=not member.flights and now - member.since >= limits.patience_seconds)
        if swarm.seeded == swarm.everything and now - swarm.moved >= limits.moving_seconds:
            return  # nothing moves: whoever knows another way should take it
        for member in swarm.parked.some(0.0, len(swarm.parked)):
            if now - max(member.told, member.since) >= limits.waiting_seconds:
                member.told = now
                self._waiting.append(KeepWaiting(member.node.number, swarm.number))

    def _watch_flights(self, member: Member, freed: dict[Node, None]) -> None:
        """Take the slots back of grants that take too long, and count those as lost that were not heard of for very long."""
        limits, swarm, now = self._limits, member.swarm, self._now
        patience = self._patience(swarm)
        for piece, flight in list(member.flights.items()):
            if now - flight.since < patience:
                continue
            if flight.slot or flight.counted:
                tried = flight.alternative if flight.turned else flight.source.number
                member.shunned[tried] = max(member.shunned.get(tried, 0.0), now + limits.retry_seconds)
                freed[flight.source] = None
                swarm.despair(member, piece)
                if not flight.turned:
                    self._suspect(flight.source, patience)
            if now - flight.since >= limits.grant_seconds_max:
                swarm.touch_down(member, piece, arrived=False)
                member.lost.add(piece)
                self._park(member)

    # State.

    def _peer(self, number: int) -> Node | None:
        return None if number == SEED else self._nodes.get(number)

    def _member(self, number: int, task: int, make: bool = False) -> Member | None:
        node, swarm = self._peer(number), self._swarms.get(task)
        if node is None or swarm is None:
            return None
        member = node.members.get(task)
        if member is None and make:
            member = Member(node, swarm, int(self._random() * swarm.count), lacking=swarm.everything)
            node.members[task] = swarm.members[number] = member
        return member

    def _wants(self, member: Member, want: int, readers: tuple[int, ...]) -> None:
        limits = self._limits
        member.want = max(0, min(want, limits.want_max, limits.in_flight_max - len(member.flights)))
        member.urgent = 0
        if readers:
            span = (1 << limits.reader_span) - 1
            for reader in readers:
                if 0 <= reader < member.swarm.count:
                    member.urgent |= span << reader
        self._park(member)

    def _park(self, member: Member) -> None:
        swarm = member.swarm
        if not (member.want and member.lacking):
            swarm.parked.discard(member)
        elif member not in swarm.parked:
            member.since = self._now
            swarm.parked.add(member)
            self._hungry.add(swarm)

    def _retire(self, member: Member) -> None:
        """`member` takes no more, and remains a source."""
        for source in self._close(member):
            self._refill(source, member.swarm)

    def _drop(self, member: Member) -> None:
        """`member` is neither taker nor source any more."""
        for source in self._forget(member):
            self._refill(source, member.swarm)

    def _forget(self, member: Member) -> dict[Node, None]:
        freed = self._close(member)
        member.swarm.lose(member, member.swarm.everything)
        member.node.members.pop(member.swarm.number, None)
        member.swarm.members.pop(member.node.number, None)
        freed[self._seed] = None  # it may be the only one who has some pieces now
        return freed

    def _close(self, member: Member) -> dict[Node, None]:
        """End its downloading. The sources whose slots that frees."""
        swarm = member.swarm
        freed: dict[Node, None] = {}
        for piece in list(member.flights):
            freed[member.flights[piece].source] = None
            swarm.touch_down(member, piece, arrived=False)
        member.open, member.want, member.urgent = False, 0, 0
        member.shunned.clear()
        member.lost.clear()
        swarm.parked.discard(member)
        swarm.takers.pop(member.node.number, None)
        return freed

    # Decisions.

    def _serve(self, member: Member, starving: bool = False) -> None:
        """Give a taker what it wants, as far as there is anybody to give it."""
        while member.want and member.lacking:
            match = self._matcher.for_taker(member, self._now, starving)
            if match is None:
                return
            self._grant(match)

    def _offer(self, source: Node, swarm: Swarm) -> None:
        """Give the free slots of a source to those who wait in one swarm."""
        while source.busy < source.slots and len(swarm.parked):
            match = self._matcher.for_source(source, swarm, self._now)
            if match is None:
                return
            self._grant(match)

    def _refill(self, source: Node, swarm: Swarm | None = None) -> None:
        """Give the free slots of a source to those who wait in any swarm, every swarm having the same chance."""
        hungry = self._hungry
        while source.busy < source.slots:
            if swarm is not None and len(hungry) == 1 and swarm in hungry:
                self._offer(source, swarm)
                return
            for other in hungry.some(self._random(), self._limits.swarms_max):
                match = self._matcher.for_source(source, other, self._now)
                if match is not None:
                    self._grant(match)
                    break
                if not len(other.parked):
                    hungry.discard(other)
            else:
                return

    def _grant(self, match: Match) -> None:
        member, piece, source = match
        alternative = self._matcher.alternative(match, self._now)
        member.swarm.take_off(member, piece, Flight(source, alternative, self._now))
        member.want -= 1
        member.since = self._now
        if not (member.want and member.lacking):
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
