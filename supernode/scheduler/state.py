"""The state of swarms: nodes, what each of them has of a blob, what is on its way, and how many copies of a piece there are.

Plain data with the few operations that keep it consistent; the scheduler decides, and is the only one that changes it. Sets of
pieces are integers (see `agent.values.pieces`). Nothing here knows a clock, a socket or chance, and nothing here looks at all
nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Final

from agent.values.pieces import members
from supernode.scheduler.bag import RANKS, Bag, Parkable, Parked
from supernode.scheduler.copies import Copies

BELIEVED_MAX: Final = 4
"""Nodes that say they hold a whole blob and are taken at their word in its swarm. Are there more, none is: each that lies costs
somebody a stall."""


@dataclass(slots=True, eq=False)
class Node:
    """A node, as a source of all its swarms and as a taker in them."""

    number: int
    zone: str
    slots: int
    """Pieces that it may be sending now; the scheduler moves it between the next two."""
    slots_min: int
    slots_max: int
    full: float
    """How much of its link may be in use, see `is_full`; the scheduler moves it too."""
    window: int = 1
    """Pieces that may be on their way to it in one swarm; the scheduler moves it as it moves `slots`."""
    together: int = 1
    """Pieces that it sends to one taker in answer to one request; the scheduler moves it as it moves `slots`."""
    busy: int = 0
    """Pieces that it is sending."""
    taking: int = 0
    """Pieces that are on their way to it, in all swarms."""
    service_seconds: float = 0.0
    """How long its link is taken by one piece, smoothed; 0 while unknown."""
    spare: float = 0.0
    """Of the supernode: by how many nodes' links its own seems to be faster than one (see supernode.scheduler.uplink)."""
    failures: int = 0
    """Of the supernode: its pieces that failed since one of them last came."""
    turnaround_seconds: float = 0.0
    """How long messages take from the end of one of its pieces to the beginning of the next, smoothed."""
    delivered_at: float = -inf
    """When a piece from it last arrived somewhere."""
    quarantined: bool = False
    located: bool = True
    """Others may be sent to its address."""
    suspected_until: float = -inf
    """It failed somebody, and had delivered nothing for a while."""
    barred: bool = False
    """No source, for one of these reasons: what it has and gets is no copy for the others."""
    fetching: int = 0
    """Runs of pieces that it was granted at origins."""
    origin_rate: float = 0.0
    """Bytes a second that come to it from an origin, smoothed; 0 while unknown."""
    members: dict[int, Member] = field(default_factory=dict)
    """By the number of the swarm."""
    sending: list[Node] = field(default_factory=list)
    """To whom, once for each piece."""
    heads: int = 0
    """Of these pieces, those that are heads of their takers."""

    @property
    def is_free(self) -> bool:
        """Whether it has slots for what it gives together."""
        return self.busy + self.together <= self.slots

    @property
    def in_use(self) -> float:
        """Of its link, what its pieces use, each taker taking as much of it as it has left for one of its pieces."""
        share = 0.0
        for taker in self.sending:
            share += 1.0 / taker.taking
        return share

    @property
    def is_full(self) -> bool:
        """Whether its link has enough to do.

        A head has the link to itself: two that are sent at once are both there, and can be passed on, when the second of two is
        that are sent one after the other.
        """
        return self.in_use >= (1.0 + self.spare if self.heads else self.full)


class OriginRun:
    """Pieces that a node was granted at its origin, one after the other."""

    __slots__ = ("end", "first", "left", "member", "moved", "origin", "since", "stalled")

    def __init__(self, member: Member, origin: int, first: int, end: int, since: float) -> None:
        self.member = member
        self.origin = origin
        """The number of the registry."""
        self.first = first
        self.end = end
        """The piece after the last."""
        self.left = (1 << end) - (1 << first)
        """What of it did not come yet: a set."""
        self.since = since
        """When it was granted, or the last of its pieces came."""
        self.moved = False
        """A piece of it has come."""
        self.stalled = False
        """So long ago that what is left of it may be granted to others."""


class Flight:
    """A granted piece that was not reported yet."""

    __slots__ = ("alternative", "counted", "head", "holder", "on_trial", "since", "slot", "source", "taker", "turned")

    def __init__(self, source: Node, holder: Member | None, alternative: int, since: float, taker: Node) -> None:
        self.source = source
        self.holder = holder
        """The source in the piece's swarm; None for the supernode."""
        self.alternative = alternative
        """Whom the taker asks when the source fails; that takes no slot."""
        self.since = since
        """When it was granted, or the alternative's turn came."""
        self.taker = taker
        """To which it is on its way."""
        self.slot = True
        """It takes one of the source's slots."""
        self.counted = False
        """It counts as a copy: others may hope to get the piece from the taker."""
        self.turned = False
        """The source has failed, and the alternative is asked."""
        self.on_trial = False
        """Its source was on trial when it was granted."""
        self.head = False
        """It is its taker's head, and takes a slot."""


@dataclass(slots=True, eq=False)
class Member(Parkable):
    """A node in one swarm: what it has, and what it still wants while it is open."""

    node: Node
    swarm: Swarm
    zone: Zone
    """The part of the swarm that is in the node's zone."""
    rotation: int
    """The piece at which its download begins."""
    lacking: int
    """What may be granted to it: the pieces that are neither there nor on their way."""
    have: int = 0
    held: int = 0
    """How many pieces it has: the size of `have`."""
    offered: int = 0
    """What others may take from it: `have` without the pieces that somebody found missing."""
    whole: bool = False
    """Counted among the holders of the whole blob, not piece by piece."""
    on_trial: bool = False
    """It only says that it holds the whole blob, as too many do from whose nodes nothing has come yet."""
    open: bool = False
    want: int = 0
    """How many more grants it takes now."""
    urgent: int = 0
    """The pieces next to its readers."""
    head: int = 0
    """The pieces with which its readers begin, until one of them is there: a client gets nothing before. Of small blobs none."""
    flights: dict[int, Flight] = field(default_factory=dict)
    lost: int = 0
    """Pieces whose flight was given up before it was reported."""
    shunned: dict[int, float] | None = None
    """Sources that failed it, and until when they are not given to it again; None as long as there was none."""
    seed_failures: int = 0
    """Of the supernode as its source, since that last gave it a piece."""
    origin: int = 0
    """The number of the registry that it may ask for this blob; 0 when there is none."""
    denied: int = 0
    """Pieces that it is not granted there, for what it said of them before is in doubt."""
    run_failures: int = 0
    """Of its runs, since a piece of one last came."""
    runs: list[OriginRun] = field(default_factory=list)
    """What it was granted there, in that order."""
    trials: int = 0
    """Pieces on their way to it from nodes on trial."""
    granted: list[tuple[int, int, int]] | None = None
    """Of the event that is being handled: (piece, source, alternative)."""
    since: float = 0.0
    """When its want was parked, or it last got something."""
    told: float = 0.0
    """When it was last told to keep waiting."""

    @property
    def coming(self) -> int:
        """Pieces on their way to it that are waited for."""
        coming = 0
        for flight in self.flights.values():
            coming += flight.slot
        return coming

    @property
    def asks(self) -> bool:
        """Whether it waits for more: for as much as sources give together, while so much is on its way to it and missing."""
        if not (self.want and self.lacking):
            return False
        enough = self.node.together
        return self.want >= enough or self.coming < enough or self.lacking.bit_count() < enough

    @property
    def wait_rank(self) -> int:
        """Where it is parked: whoever does not ask, behind all that do."""
        return self.node.taking if self.asks else RANKS


class Zone:
    """The part of a swarm that is in one zone."""

    __slots__ = ("copies", "holders")

    def __init__(self, pieces: int) -> None:
        self.copies = Copies(pieces)
        self.holders: Bag[Member] = Bag()


class Swarm:
    """All nodes that have or want one blob."""

    def __init__(self, number: int, count: int, seeded: int, piece_bytes: int) -> None:
        self.number = number
        self.count = count
        self.piece_bytes = piece_bytes
        self.everything = (1 << count) - 1
        self.seeded = seeded & self.everything
        """What the supernode has."""
        self.known = self.seeded
        """The pieces whose digests are known, so that everybody can check them: nothing else is granted."""
        self.runs: list[OriginRun] = []
        """What nodes are to get from their origins."""
        self.fetchers: Bag[Member] = Bag()
        """Takers that may ask an origin."""
        self.headless: Bag[Member] = Bag()
        """Takers that wait for their heads."""
        self.head_times = 0
        """How many of the times are over that its first piece may take (`events.HeadTime`)."""
        self.members: dict[int, Member] = {}
        self.takers: dict[int, Member] = {}
        """Members that are open."""
        self.parked: Parked[Member] = Parked()
        """Takers that would take more at once."""
        self.holders: Bag[Member] = Bag()
        """Members that offer something."""
        self.on_trial: Bag[Member] = Bag()
        """Those that offer the whole blob and are on trial: what they have counts as no copy, and each is tried by one piece."""
        self.is_stopped = False
        """The supernode gets no more of it."""
        self.is_overdue = False
        """What the supernode alone has it sends too slowly: nodes may get that from their origins, too."""
        self.fruitless = 0
        """Runs in a row that have brought nothing since then."""
        self.claims = 0
        """How many said so without having shown it."""
        self.believed: list[Member] = []
        """Those of them that are taken at their word, as long as they are few."""
        self.copies = Copies(count)
        self.zones: dict[str, Zone] = {}
        self._starts: dict[int, int] = {}
        """By the pieces of a block, those with which blocks begin."""
        self.piece_seconds = 0.0
        """How long a piece takes from grant to arrival, smoothed; 0 while unknown."""
        self.node_pace = self.seed_pace = 0.0
        """How long a piece from a node takes, and one from the supernode, when its taker gets nothing else: smoothed, and 0 while
        unknown."""

    @property
    def fresh(self) -> int:
        """What the supernode alone has: nobody holds a copy or is getting one."""
        fresh = self.seeded & ~self.copies.present
        return fresh & ~self.claimed if self.is_overdue else fresh

    @property
    def claimed(self) -> int:
        """What nodes are to get from their origins, and are not too late with: a few runs at most."""
        claimed = 0
        for run in self.runs:
            if not run.stalled:
                claimed |= run.left
        return claimed

    @property
    def unclaimed(self) -> int:
        """What is nowhere, and nobody is getting: the origin alone has it."""
        return self.everything & ~(self.seeded | self.copies.present | self.claimed)

    @property
    def askable(self) -> int:
        """What nodes may be granted at their origins."""
        return self.unclaimed | self.fresh if self.is_overdue else self.unclaimed

    @property
    def is_spread(self) -> bool:
        """Whether all of the blob is at the supernode, and nothing of it there alone."""
        return self.seeded == self.everything and not self.fresh

    @property
    def is_orphan(self) -> bool:
        """Whether the supernode has nothing of the blob, or of its rest: the nodes' own few copies are all that there is."""
        return not self.seeded or (self.is_stopped and self.seeded != self.everything)

    def in_blocks(self, taker: Member, useful: int, has: int, together: int) -> int:
        """Of these pieces those of blocks of which the source `has` all that `taker` lacks, and its head.

        All of them, if nothing is on its way to it. A block is as many pieces as are given together: from a multiple of that on.
        Taken one by one as they come, each would be a request of its own.
        """
        if together == 1 or not useful or not taker.coming:
            return useful
        incomplete = lacking = taker.lacking & ~has
        for step in range(1, together):
            incomplete |= lacking >> step
        block = (1 << together) - 1
        starts = self._starts.get(together)
        if starts is None:
            starts = self._starts[together] = ((1 << -(-self.count // together) * together) - 1) // block
        return useful & (taker.head | ~((incomplete & starts) * block))

    def zone(self, name: str) -> Zone:
        zone = self.zones.get(name)
        if zone is None:
            zone = self.zones[name] = Zone(self.count)
        return zone

    def gain(self, member: Member, pieces: int) -> None:
        """`member` has these pieces now, and offers them."""
        member.held += (pieces & ~member.have).bit_count()
        member.have |= pieces
        member.lacking &= ~pieces
        if member.head & pieces:
            self.set_head(member, 0)
        new = pieces & ~member.offered
        if not member.node.barred and not member.whole:
            self._count(member.zone, new, 1)
        self._offer(member, member.offered | new)

    def set_head(self, member: Member, head: int) -> None:
        """What the readers of `member` wait for as their first; 0 when it is there, or there are none."""
        member.head = head
        if head:
            self.headless.add(member)
        else:
            self.headless.discard(member)

    def begin_anew(self, member: Member, have: int) -> None:
        """`member`, which took nothing, says what it has; whatever it had before is forgotten."""
        self.lose(member, self.everything)
        member.have, member.held, member.lacking = 0, 0, self.everything
        self.gain(member, have)

    def lose(self, member: Member, pieces: int) -> None:
        """Others are not sent to `member` for these pieces any more; it is still not granted them."""
        if member.on_trial:
            member.on_trial = member.whole = False
            pieces = self.everything  # it said that it held all of it
            self.on_trial.discard(member)
        elif member.whole:
            member.whole = False
            if not member.node.barred:
                self._count_whole(member.zone, -1)
                self._count(member.zone, member.offered & ~pieces, 1)
        elif not member.node.barred:
            self._count(member.zone, member.offered & pieces, -1)
        self._offer(member, member.offered & ~pieces)

    def hold_all(self, member: Member) -> None:
        """`member`, which takes nothing, has the whole blob."""
        self.lose(member, self.everything)
        member.have, member.held, member.lacking, member.whole = self.everything, self.count, 0, True
        if member.node.delivered_at == -inf:
            self.claims += 1
            if self.claims <= BELIEVED_MAX:
                self.believed.append(member)
            else:
                member.on_trial = True
                for other in self.believed[:]:
                    self.doubt(other)
        if not (member.node.barred or member.on_trial):
            self._count_whole(member.zone, 1)
        self._offer(member, self.everything)

    def prove(self, member: Member) -> None:
        """A piece has come from its node, for the first time."""
        if member.on_trial:
            member.on_trial = False
            self.on_trial.discard(member)
            if not member.node.barred:
                self._count_whole(member.zone, 1)
            self._offer(member, member.offered)
        if member.whole:
            self.claims -= 1
        if member in self.believed:
            self.believed.remove(member)

    def doubt(self, member: Member) -> None:
        """Its node failed somebody, or too many say what it says, and nothing has ever come from it."""
        if member in self.believed:
            self.believed.remove(member)
        if member.whole and not member.on_trial:
            if not member.node.barred:
                self._count_whole(member.zone, -1)
            member.on_trial = True
            self._offer(member, member.offered)

    def bar(self, member: Member) -> None:
        """Its node is barred now: what it has and gets is no copy for the others, until `admit`."""
        for piece, flight in member.flights.items():
            if flight.counted:
                flight.counted = False
                self._count(member.zone, 1 << piece, -1)
        self._count_held(member, -1)
        self._offer(member, member.offered)

    def admit(self, member: Member) -> None:
        self._count_held(member, 1)
        self._offer(member, member.offered)

    def take_off(self, member: Member, piece: int, flight: Flight) -> None:
        """A piece is granted."""
        member.flights[piece] = flight
        member.lacking &= ~(1 << piece)
        node = member.node
        node.taking += 1
        source = flight.source
        source.busy += 1
        source.sending.append(node)
        if member.head >> piece & 1:
            flight.head = True
            source.heads += 1
        if flight.holder is not None and flight.holder.on_trial:
            flight.on_trial = True
            member.trials += 1
        if not node.barred:
            flight.counted = True
            self.copies.add(piece)
            member.zone.copies.add(piece)

    def free_slot(self, flight: Flight) -> None:
        """The source sends this piece no more, or too slowly to be waited for."""
        if flight.slot:
            flight.slot = False
            flight.source.busy -= 1
            flight.source.sending.remove(flight.taker)
            if flight.head:
                flight.head = False
                flight.source.heads -= 1

    def despair(self, member: Member, piece: int) -> None:
        """The piece may still come, but nobody should wait for it."""
        flight = member.flights[piece]
        self.free_slot(flight)
        if flight.counted:
            flight.counted = False
            self._count(member.zone, 1 << piece, -1)

    def touch_down(self, member: Member, piece: int, arrived: bool) -> None:
        """The piece is not on its way any more: it is there, or may be granted again."""
        flight = member.flights.pop(piece)
        self.free_slot(flight)
        member.trials -= flight.on_trial
        flight.taker.taking -= 1
        bit = 1 << piece
        if arrived and flight.counted and not member.have & bit and not member.whole:
            # The common case, and the one that has to be quick: the copy that was on its way is the copy that is held.
            member.have |= bit
            member.held += 1
            if member.head & bit:
                self.set_head(member, 0)
            if member.offered:
                member.offered |= bit  # it is among the holders already, or barred
            else:
                self._offer(member, bit)
            return
        if arrived:
            self.gain(member, bit)
        else:
            member.lacking |= bit & ~member.have
        if flight.counted:
            self._count(member.zone, bit, -1)

    def _offer(self, member: Member, pieces: int) -> None:
        """Set what others may take from `member`, and keep it among the holders while that is anything."""
        member.offered = pieces
        offers = pieces != 0 and not member.node.barred
        if member.on_trial:
            self.holders.discard(member)
            member.zone.holders.discard(member)
            if offers:
                self.on_trial.add(member)
            else:
                self.on_trial.discard(member)
            return
        if offers == (member in self.holders):
            return
        for holders in (self.holders, member.zone.holders):
            if offers:
                holders.add(member)
            else:
                holders.discard(member)

    def _count_held(self, member: Member, by: int) -> None:
        if member.whole:
            if not member.on_trial:
                self._count_whole(member.zone, by)
        else:
            self._count(member.zone, member.offered, by)

    def _count(self, zone: Zone, pieces: int, by: int) -> None:
        here = zone.copies
        for piece in members(pieces):
            if by > 0:
                self.copies.add(piece)
                here.add(piece)
            else:
                self.copies.remove(piece)
                here.remove(piece)

    def _count_whole(self, zone: Zone, by: int) -> None:
        self.copies.add_wholes(by)
        zone.copies.add_wholes(by)
