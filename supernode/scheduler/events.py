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
    """Granted pieces have arrived at a node, or did not, and the node may take more.

    `done` are (piece, source, seconds, verdict); `want` is how many grants the node takes beyond those not reported yet. A node
    whose source failed turns to the alternative by itself: the piece is on its way until that was reported too.
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
    """A quarantined node may be a source again."""

    node: int


class Tick(msgspec.Struct, frozen=True):
    """Time passed; expected about once a second."""


Event = Joined | Left | Made | Seeded | Ended | Opened | Reported | Closed | HoldsAll | HoldsNone | Quarantined | Released | Tick


class GrantPieces(msgspec.Struct, frozen=True):
    """`pieces` are (piece, source, alternative); the alternative is the source itself where there is nobody else."""

    node: int
    task: int
    pieces: tuple[tuple[int, int, int], ...]


class KeepWaiting(msgspec.Struct, frozen=True):
    """The node's want is parked: its turn has not come."""

    node: int
    task: int


Command = GrantPieces | KeepWaiting

COMMANDS_AFTER: Final[dict[type[Event], tuple[type[Command], ...]]] = {
    **dict.fromkeys(get_args(Event), (GrantPieces,)),
    Joined: (),
    Made: (),
    Tick: (GrantPieces, KeepWaiting),
}
"""What may follow an event: grants wherever a piece, a source or a slot has become free for a taker that waits."""
