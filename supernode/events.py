"""What the scheduler is told and what it answers, the limits that it keeps to, and how its state looks from outside.

Values only. `supernode.scheduler` passes all of them on, so that its users need not know this module.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec


@dataclass(frozen=True)
class Limits:
    """What the scheduler keeps to. The figures behind the defaults are in docs/scheduling.md."""

    upload_slots_min: int = 3
    """Pieces that a source sends at once while a piece takes long: short queues win."""
    upload_slots_max: int = 16
    """The same where pieces are fast, unless the node itself says less."""
    seed_slots_min: int = 4
    """The supernode's own: as many as a taker's window, so that its uplink is full whoever shares the takers' links."""
    seed_slots_max: int = 16
    slots_per_turnaround: float = 3.0
    """For every piece that a source could send while messages go to and fro, so many more slots."""
    link_share: float = 1.4
    """Of a source's link, what its pieces may use in all while messages are quick, if each taker divides its own link evenly."""
    want_max: int = 16
    """Further grants that one report may ask for."""
    window_min: int = 5
    """Grants to one node in one swarm that were not reported yet, where messages are quick against pieces."""
    in_flight_max: int = 32
    """The same where they are not."""
    reader_span: int = 2
    """Pieces, from where a reader is, that go before all others."""
    grant_seconds_max: float = 30.0
    """After this a grant that was not reported is lost, and its piece can be granted to the node again."""
    slot_patience: float = 8.0
    """When a grant takes this many times as long as the swarm's pieces do, its source's slot is given to others."""
    slot_seconds_min: float = 1.0
    """But not before this."""
    retry_seconds: float = 10.0
    """How long a source that failed a node is not given to it again in that swarm, or to anybody when it seems to be dead."""
    patience_seconds: float = 1.0
    """A node that got nothing for so long takes from wherever there is a slot, repeats and other zones included."""
    patience_pieces: float = 16.0
    """But not before it has waited as long as so many of the swarm's pieces take: where they take long, waiting is usual."""
    patience_seconds_max: float = 8.0
    """Nor later than this: its agent waits 10 s for a word, and some runtimes a minute for a byte."""
    waiting_seconds: float = 1.0
    """How often a parked node is told that waiting is right."""
    moving_seconds: float = 5.0
    """Waiting is right while the blob is still arriving at the supernode, or a piece arrived anywhere within this time."""
    probes_max: int = 8
    """Sources, or takers, that are looked at for one decision."""
    choices: int = 3
    """Of the sources looked at, how many that would do are compared."""
    rarest_of: int = 4
    """Pieces compared for the rarest."""
    swarms_max: int = 8
    """Swarms that are tried for one free slot."""
    rescues_max: int = 256
    """Parked nodes of a swarm that one tick looks at."""
    zones_max: int = 64
    """Zones told apart; nodes of any further zone count as being in none."""
    pieces_max: int = 1 << 16

    def for_seed(self, upload_slots: int) -> Limits:
        """The same for a supernode that sends at most so many pieces at once; 0 for no opinion."""
        most = min(upload_slots or self.seed_slots_max, self.seed_slots_max)
        return replace(self, seed_slots_min=min(self.seed_slots_min, most), seed_slots_max=most)


class Joined(msgspec.Struct, frozen=True):
    """A node is connected. `upload_slots` is the most that it will send at once, 0 for no opinion.

    The supernode itself (`SEED`) is there from the beginning; this event may give it a zone and another limit.
    """

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

    A node whose source failed turns to the alternative by itself: the piece is on its way until that was reported too.
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
    """A node holds the whole blob, from an earlier time or as the end of its download."""

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
    """Nodes that have opened it and not closed it."""
    holders: int
    """Nodes from which at least one piece can be had."""
    parked: int
    in_flight: int


class NodeView(msgspec.Struct, frozen=True):
    node: int
    zone: str
    upload_slots: int
    """What it may send at once now."""
    busy: int
    """What it is sending."""
    quarantined: bool
    barred: bool
    """No source now: quarantined, or suspected of being dead."""
    tasks: int
