"""The events that a download's planner is told, and the commands that it answers. Values only.

What a node and its supernode say to each other goes in and out as it is on the wire: `Task`, `Grant`, `Run`, `Seeding`,
`Leave` and `TaskFailed` are events, `Report`, `Brought`, `RunEnded` and `AskLeave` are commands, and each piece that a fetch has
ended for is told as the `Done` that the report will hold.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from agent.swarm.messages import AskLeave, Brought, Done, Report, RunEnded, TaskMessage
from agent.values.errors import DarnerError
from agent.values.pieces import Layout


class News(Enum):
    """Events that tell no more than that they happened."""

    SWARM_AVAILABLE = "a channel to a supernode opened"
    NO_SWARM = "there is no supernode that could be asked now"
    SWARM_LOST = "the channel to the supernode broke; another one may be connected"
    SWARM_DOUBTED = "the pieces of the supernode's swarms did not come to this node lately"
    TIME_PASSED = "time passed"


class SizeKnown(msgspec.Struct, frozen=True):
    layout: Layout
    held: int
    """Pieces that are here: an earlier try may have left some."""


class Superseded(msgspec.Struct, frozen=True):
    """A fetch ended because another source brings the piece now. Nobody failed."""

    piece: int
    source: int


class Idle(msgspec.Struct, frozen=True):
    """Since when pieces were asked for and no byte of any has come; None when some have just come."""

    since: float | None


class OriginPiece(msgspec.Struct, frozen=True):
    """The origin's stream filled a piece. `digest` is of its bytes; None where no other node may ask for it."""

    piece: int
    digest: bytes | None


class OriginEnded(msgspec.Struct, frozen=True):
    """The origin's stream is over: every FetchOrigin comes to this, by its own limits if by nothing else."""

    error: DarnerError | None


class Broken(msgspec.Struct, frozen=True):
    """This node cannot go on, or the blob does not have its digest: no other source would help."""

    error: DarnerError


class ReadersMoved(msgspec.Struct, frozen=True):
    pieces: tuple[int, ...]
    """The pieces that readers wait for, the furthest behind first."""


Event = News | TaskMessage | Done | Superseded | SizeKnown | Idle | OriginPiece | OriginEnded | Broken | ReadersMoved


class Order(Enum):
    """Commands that need no more words."""

    OPEN_SWARM = "ask the supernode that the blob belongs to, or the next one that is connected"
    LEAVE_SWARM = "leave the supernode that was asked"
    LEAVE_ORIGIN = "end the stream, at the latest when the piece that it is writing is complete"


class Fetch(msgspec.Struct, frozen=True):
    """Get a piece from a node. It comes to a Done or is Superseded, or to nothing when its swarm was left before it failed."""

    piece: int
    digest: bytes
    source: int


class Confirm(msgspec.Struct, frozen=True):
    """A piece that is here was granted: if its digest is this one, other nodes may have it."""

    piece: int
    digest: bytes


class FetchOrigin(msgspec.Struct, frozen=True):
    """Stream from the origin, from the first byte of piece `first` up to piece `end` (not included; None: to the end)."""

    first: int
    end: int | None


class GiveUp(msgspec.Struct, frozen=True):
    error: DarnerError


Command = Order | Fetch | Confirm | Report | Brought | RunEnded | AskLeave | FetchOrigin | GiveUp
