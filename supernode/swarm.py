"""The state of swarms: nodes, what each of them has of a blob, what is on its way, and how many copies of a piece there are.

Plain data with the few operations that keep it consistent; the scheduler decides, and is the only one that changes it. Sets of
pieces are integers (see `agent.pieces`). Nothing here knows a clock, a socket or chance, and nothing here scans all nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from agent.pieces import members

T = TypeVar("T")


class Bag(Generic[T]):
    """A set from which a few neighbours of a random place are taken in constant time."""

    __slots__ = ("_items", "_places")

    def __init__(self) -> None:
        self._items: list[T] = []
        self._places: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: T) -> bool:
        return item in self._places

    def add(self, item: T) -> None:
        if item not in self._places:
            self._places[item] = len(self._items)
            self._items.append(item)

    def discard(self, item: T) -> None:
        place = self._places.pop(item, None)
        if place is None:
            return
        last = self._items.pop()
        if place < len(self._items):
            self._items[place] = last
            self._places[last] = place

    def some(self, where: float, most: int) -> list[T]:
        """At most `most` items, from the place `where` (0 to 1) onward, around the end: all of them when there are no more."""
        items = self._items
        start = int(where * len(items))
        taken = items[start : start + most]
        if len(taken) < most:
            taken += items[: min(start, most - len(taken))]
        return taken


class Copies:
    """How many nodes have a piece or are getting it. Holders of the whole blob from earlier are counted as one number."""

    __slots__ = ("_everything", "_some", "counts", "wholes")

    def __init__(self, pieces: int) -> None:
        self.counts = [0] * pieces
        self.wholes = 0
        self._some = 0
        self._everything = (1 << pieces) - 1

    @property
    def present(self) -> int:
        """The pieces of which there is at least one copy, or one on its way."""
        return self._everything if self.wholes else self._some

    def add(self, piece: int) -> None:
        self.counts[piece] += 1
        self._some |= 1 << piece

    def remove(self, piece: int) -> None:
        self.counts[piece] -= 1
        if not self.counts[piece]:
            self._some &= ~(1 << piece)


class Node:
    """A node, as a source of all its swarms: what it may send at once and what it is sending."""

    __slots__ = ("busy", "members", "number", "quarantined", "service_seconds", "slots", "willing", "zone")

    def __init__(self, number: int, zone: str, willing: int, slots: int) -> None:
        self.number = number
        self.zone = zone
        self.willing = willing
        """The most that it will send at once, by its own word or the default."""
        self.slots = slots
        self.busy = 0
        self.service_seconds = 0.0
        """How long its link is taken by one piece, smoothed; 0 while unknown."""
        self.quarantined = False
        self.members: dict[int, Member] = {}


@dataclass(slots=True)
class Flight:
    """A granted piece that was not reported yet."""

    source: Node
    alternative: int
    since: float


class Member:
    """A node in one swarm: what it has, and what it still wants while it is open."""

    __slots__ = (
        "flights",
        "flying",
        "have",
        "held",
        "node",
        "offered",
        "open",
        "rotation",
        "shunned",
        "since",
        "swarm",
        "told",
        "urgent",
        "want",
        "whole",
    )

    def __init__(self, node: Node, swarm: Swarm, rotation: int) -> None:
        self.node = node
        self.swarm = swarm
        self.have = 0
        self.held = 0
        """How many pieces it has: the size of `have`."""
        self.offered = 0
        """What others may take from it: `have` without the pieces that somebody found missing."""
        self.whole = False
        """Counted in `Copies.wholes`, not piece by piece."""
        self.open = False
        self.want = 0
        self.urgent = 0
        """The pieces next to its readers."""
        self.rotation = rotation
        self.flying = 0
        self.flights: dict[int, Flight] = {}
        self.shunned: dict[int, float] = {}
        """Sources that failed it, and until when they are not given to it again."""
        self.since = 0.0
        self.told = 0.0

    @property
    def missing(self) -> int:
        """What can be granted to it: neither there nor on its way."""
        return self.swarm.everything & ~(self.have | self.flying)


class Zone:
    """The part of a swarm that is in one zone."""

    __slots__ = ("copies", "holders")

    def __init__(self, pieces: int) -> None:
        self.copies = Copies(pieces)
        self.holders: Bag[Member] = Bag()


class Swarm:
    """All nodes that have or want one blob."""

    __slots__ = (
        "copies",
        "count",
        "everything",
        "holders",
        "members",
        "number",
        "parked",
        "piece_seconds",
        "seeded",
        "takers",
        "zones",
    )

    def __init__(self, number: int, count: int, seeded: int) -> None:
        self.number = number
        self.count = count
        self.everything = (1 << count) - 1
        self.seeded = seeded & self.everything
        self.members: dict[int, Member] = {}
        self.takers: dict[int, Member] = {}
        self.parked: Bag[Member] = Bag()
        self.holders: Bag[Member] = Bag()
        self.copies = Copies(count)
        self.zones: dict[str, Zone] = {}
        self.piece_seconds = 0.0
        """How long a piece takes from grant to arrival, smoothed; 0 while unknown."""

    @property
    def fresh(self) -> int:
        """What the supernode alone has: nobody holds a copy or is getting one."""
        return self.seeded & ~self.copies.present

    def zone(self, name: str) -> Zone:
        zone = self.zones.get(name)
        if zone is None:
            zone = self.zones[name] = Zone(self.count)
        return zone

    def gain(self, member: Member, pieces: int) -> None:
        """`member` has these pieces now and offers them."""
        member.held += (pieces & ~member.have).bit_count()
        member.have |= pieces
        new = pieces & ~member.offered
        if not member.node.quarantined and not member.whole:
            self._count(member.node.zone, new, 1)
        self._offer(member, member.offered | new)

    def lose(self, member: Member, pieces: int) -> None:
        """Others are not sent to `member` for these pieces any more; it is still not granted them."""
        gone = member.offered & pieces
        self._uncount_whole(member)
        if not member.node.quarantined:
            self._count(member.node.zone, gone, -1)
        self._offer(member, member.offered & ~gone)

    def hold_all(self, member: Member) -> None:
        """`member` has had the whole blob since an earlier time."""
        if member.whole:
            return
        self.lose(member, self.everything)
        member.have = self.everything
        member.held = self.count
        member.whole = True
        if not member.node.quarantined:
            self._count_whole(member.node.zone, 1)
        self._offer(member, self.everything)

    def withdraw(self, member: Member) -> None:
        """Do not count `member` as a source while it is quarantined. What is on its way to it stays counted."""
        if member.whole:
            self._count_whole(member.node.zone, -1)
        else:
            self._count(member.node.zone, member.offered, -1)
        self.holders.discard(member)
        self.zone(member.node.zone).holders.discard(member)

    def restore(self, member: Member) -> None:
        if member.whole:
            self._count_whole(member.node.zone, 1)
        else:
            self._count(member.node.zone, member.offered, 1)
        self._offer(member, member.offered)

    def take_off(self, member: Member, piece: int, flight: Flight) -> None:
        member.flights[piece] = flight
        member.flying |= 1 << piece
        flight.source.busy += 1
        self.copies.add(piece)
        self.zone(member.node.zone).copies.add(piece)

    def touch_down(self, member: Member, piece: int, arrived: bool) -> Flight:
        """End a flight and free its source's slot."""
        flight = member.flights.pop(piece)
        flight.source.busy -= 1
        bit = 1 << piece
        member.flying &= ~bit
        if arrived and not (member.have & bit or member.whole or member.node.quarantined):
            # The common case, and the one that has to be quick: the copy that was on its way is the copy that is held.
            member.have |= bit
            member.held += 1
            self._offer(member, member.offered | bit)
            return flight
        if arrived:
            self.gain(member, bit)
        self._count(member.node.zone, bit, -1)
        return flight

    def _offer(self, member: Member, pieces: int) -> None:
        member.offered = pieces
        zone = self.zone(member.node.zone)
        if pieces and not member.node.quarantined:
            self.holders.add(member)
            zone.holders.add(member)
        else:
            self.holders.discard(member)
            zone.holders.discard(member)

    def _uncount_whole(self, member: Member) -> None:
        if member.whole:
            member.whole = False
            if not member.node.quarantined:
                self._count_whole(member.node.zone, -1)
                self._count(member.node.zone, member.offered, 1)

    def _count(self, zone: str, pieces: int, by: int) -> None:
        here = self.zone(zone).copies
        for piece in members(pieces):
            if by > 0:
                self.copies.add(piece)
                here.add(piece)
            else:
                self.copies.remove(piece)
                here.remove(piece)

    def _count_whole(self, zone: str, by: int) -> None:
        self.copies.wholes += by
        self.zone(zone).copies.wholes += by
