"""The events that the scheduler is told, and the commands that it answers. All of them are values."""

from __future__ import annotations

from typing import Final, get_args

import msgspec


class Joined(msgspec.Struct, frozen=True):
    """A node is connected. `upload_slots` is the most that it will send at once, 0 for no opinion.

    The supernode itself (`SEED`) is there from the beginning; this event may give it a zone and another limit.
    """

    node: int
    zone: str
    upload_slots: int
    located: bool = True
    """Whether others can be sent to its address. If not, it is no source until it is `Located`; it may download."""


class Moved(msgspec.Struct, frozen=True):
    """It has become known in which zone a node is. That counts in the swarms that it joins from now on."""

    node: int
    zone: str


class Left(msgspec.Struct, frozen=True):
    """A node is gone for good: if it comes back it has a new number."""

    node: int


class Made(msgspec.Struct, frozen=True):
    """A blob of `count` pieces of `piece_bytes` is to be distributed; the supernode has `seeded` of them."""

    task: int
    count: int
    seeded: int
    piece_bytes: int = 1


class Seeded(msgspec.Struct, frozen=True):
    """The supernode has this piece now."""

    task: int
    piece: int


class Stopped(msgspec.Struct, frozen=True):
    """The supernode gets no more of the blob, of which it has a part: nodes bring the rest from their origins."""

    task: int


class Overdue(msgspec.Struct, frozen=True):
    """What the supernode alone has comes from it too slowly: nodes may be granted that at their origins, as what nobody has."""

    task: int


class HeadTime(msgspec.Struct, frozen=True):
    """One of the two times is over that a blob's first piece may take (`Limits.head_times`): more nodes may ask its origin."""

    task: int


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


class MayFetch(msgspec.Struct, frozen=True):
    """A taker may be granted pieces at its origin, but not `denied` ones: `origin` is the number of that registry."""

    node: int
    task: int
    origin: int
    denied: int = 0


class Reported(msgspec.Struct, frozen=True):
    """Granted pieces have arrived at a node, or did not, and the node may take more.

    `done` are (piece, source, seconds, verdict); `want` is how many grants the node takes beyond those not reported yet. A node
    whose source failed turns to the alternative by itself: the piece is on its way until that was reported too.
    """

    node: int
    task: int
    done: tuple[tuple[int, int, float, int], ...]
    want: int
    readers: tuple[int, ...]


class Fetched(msgspec.Struct, frozen=True):
    """A node has these pieces from its origin: a set, whose digests everybody is told from now on."""

    node: int
    task: int
    pieces: int


class RunOver(msgspec.Struct, frozen=True):
    """A node asks its origin for no more of a run. What of it did not come can be granted again."""

    node: int
    task: int
    first: int
    """The run, by the piece that it was granted from."""
    outcome: int
    """`agent.swarm.messages`: RUN_WHOLE and the others."""
    pause_seconds: float = 0.0
    """For which the registry wants to be left alone."""


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
    """A quarantined node may be a source again."""

    node: int


class Located(msgspec.Struct, frozen=True):
    """A node has been found at the address that it names."""

    node: int


class Tick(msgspec.Struct, frozen=True):
    """Time passed; expected about once a second."""


Event = (
    Joined
    | Left
    | Made
    | Seeded
    | Stopped
    | Overdue
    | HeadTime
    | Ended
    | Opened
    | MayFetch
    | Reported
    | Fetched
    | RunOver
    | Closed
    | HoldsAll
    | HoldsNone
    | Quarantined
    | Released
    | Located
    | Moved
    | Tick
)


class GrantPieces(msgspec.Struct, frozen=True):
    """`pieces` are (piece, source, alternative); the alternative is the source itself where there is nobody else."""

    node: int
    task: int
    pieces: tuple[tuple[int, int, int], ...]


class GrantRun(msgspec.Struct, frozen=True):
    """The node is to get the pieces from `first` to `end` (not included) from its origin, for itself and for the others."""

    node: int
    task: int
    first: int
    end: int


class KeepWaiting(msgspec.Struct, frozen=True):
    """The node's want is parked: its turn has not come."""

    node: int
    task: int


Command = GrantPieces | GrantRun | KeepWaiting

COMMANDS_AFTER: Final[dict[type[Event], tuple[type[Command], ...]]] = {
    **dict.fromkeys(get_args(Event), (GrantPieces, GrantRun)),
    **dict.fromkeys((Joined, Made, Moved, Stopped), ()),
    **dict.fromkeys((Seeded, Opened, Quarantined, Released, Located), (GrantPieces,)),
    **dict.fromkeys((MayFetch, Overdue, HeadTime), (GrantRun,)),
    Tick: (GrantPieces, GrantRun, KeepWaiting),
}
"""What may follow an event: grants wherever a piece, a source or a slot has become free for a taker that waits."""
