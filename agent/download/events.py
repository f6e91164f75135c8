"""The events that a download's planner is told, and the commands that it answers.

Values only. `agent.download.planner` passes all of them on, so that its users need not know this module.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.values.errors import DarnerError
from agent.values.pieces import Layout

# Events: news from the swarm, the origin and the readers.


@dataclass(frozen=True)
class SwarmAvailable:
    """A channel to a supernode opened."""


@dataclass(frozen=True)
class NoSwarm:
    """There is no supernode that could be asked now."""


@dataclass(frozen=True)
class SwarmLost:
    """The channel to the supernode broke. Another one may be connected."""


@dataclass(frozen=True)
class SwarmFailed:
    """The supernode says that it cannot get the blob."""


@dataclass(frozen=True)
class SizeKnown:
    layout: Layout
    held: int
    """Pieces that are here: an earlier try may have left some."""


@dataclass(frozen=True)
class TaskOpened:
    """The supernode's answer: this node takes part."""

    task: int


@dataclass(frozen=True)
class GrantedPiece:
    piece: int
    digest: bytes
    source: int
    alternative: int
    """Whom to ask when the source fails; equal to `source` when there is nobody else."""


@dataclass(frozen=True)
class PiecesGranted:
    pieces: tuple[GrantedPiece, ...]


@dataclass(frozen=True)
class StillSeeding:
    """The supernode says that waiting is right."""


@dataclass(frozen=True)
class Fetched:
    """A piece came, with the bytes that it should have."""

    piece: int
    source: int
    seconds: float


@dataclass(frozen=True)
class NotFetched:
    piece: int
    source: int
    seconds: float
    verdict: int


@dataclass(frozen=True)
class OriginPiece:
    """The origin's stream filled a piece."""

    piece: int


@dataclass(frozen=True)
class OriginEnded:
    """The origin's stream is over: every FetchOrigin comes to this, by its own limits if by nothing else."""

    error: DarnerError | None


@dataclass(frozen=True)
class Broken:
    """This node cannot go on, or the blob does not have its digest: no other source would help."""

    error: DarnerError


@dataclass(frozen=True)
class ReadersMoved:
    pieces: tuple[int, ...]
    """The pieces that readers wait for, the furthest behind first."""


@dataclass(frozen=True)
class TimePassed:
    """Time passed."""


Event = (
    SwarmAvailable | NoSwarm | SwarmLost | SwarmFailed | SizeKnown | TaskOpened | PiecesGranted | StillSeeding
    | Fetched | NotFetched | OriginPiece | OriginEnded | Broken | ReadersMoved | TimePassed
)  # fmt: skip


# Commands.


@dataclass(frozen=True)
class OpenSwarm:
    """Ask the supernode that the blob belongs to, or the next one that is connected."""


@dataclass(frozen=True)
class LeaveSwarm:
    pass


@dataclass(frozen=True)
class Fetch:
    """Get a piece from a node. It comes to Fetched or NotFetched."""

    piece: int
    digest: bytes
    source: int


@dataclass(frozen=True)
class Confirm:
    """A piece that is here was granted: if its digest is this one, other nodes may have it."""

    piece: int
    digest: bytes


@dataclass(frozen=True)
class Outcome:
    piece: int
    source: int
    seconds: float
    """0 for a piece that came another way."""
    verdict: int


@dataclass(frozen=True)
class Tell:
    """Report to the supernode the outcomes of pieces, and how many may be in flight from now on."""

    done: tuple[Outcome, ...]
    window: int


@dataclass(frozen=True)
class FetchOrigin:
    """Stream from the origin, from the first byte of piece `first` up to piece `end` (not included; None: to the end)."""

    first: int
    end: int | None


@dataclass(frozen=True)
class LeaveOrigin:
    """End the stream, at the latest when the piece that it is writing is complete."""


@dataclass(frozen=True)
class GiveUp:
    error: DarnerError


Command = OpenSwarm | LeaveSwarm | Fetch | Confirm | Tell | FetchOrigin | LeaveOrigin | GiveUp
