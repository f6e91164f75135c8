"""What one node does next to get one blob: the ladder of sources, the window of pieces, what is reported and when. Pure.

    OPENING ── Task ──> SWARM ── everything arrived ──> ENDED
       │                  │
       └── no answer, ────┴── failure ──> next supernode, or ORIGIN ──> ENDED
           no supernode

The supernode grants pieces with their sources; the planner fetches them at once, tries the alternative where a source fails, and
tells what became of them. Whatever the swarm cannot do, the origin is asked for, from the piece that a reader waits for onwards.
`handle(event, now)` takes what happened and returns what to do; the clock, sockets and threads are `agent.download`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from agent.errors import DarnerError, OriginError
from agent.pieces import Layout, lowest
from agent.wire import DELIVERED, READERS_MAX

WINDOW = 4
"""Pieces in flight where a piece takes much longer than a round trip of the channel (see docs/scheduling.md)."""
WINDOW_FAST = 16
"""Pieces in flight where it does not, so that the channel's round trip is hidden."""
FAST_PIECE_SECONDS = 0.05
REPORT_EVERY = 4
REPORT_SECONDS_MAX = 0.05
OPEN_SECONDS_MAX = 15.0
"""The supernode answers an Open when the origin has told it the size, for which it has 13 s."""
PROGRESS_SECONDS_MAX = 10.0
"""Without a piece, a grant or a sign that the blob still arrives at the supernode, the swarm is given up."""
REOPEN_SECONDS = 3.0
"""After a supernode was lost: how long one that comes back is waited for, before the origin is asked."""
ORIGIN_TRIES_MAX = 3
"""In a row, without a piece between them."""


class Mode(Enum):
    WAITING = "waiting"
    OPENING = "opening"
    SWARM = "swarm"
    ORIGIN = "origin"
    ENDED = "ended"


# What happened.


@dataclass(frozen=True)
class SwarmAvailable:
    """A supernode that this download has not failed with can be asked."""


@dataclass(frozen=True)
class SwarmLost:
    """The channel broke, or there is none."""


@dataclass(frozen=True)
class SwarmFailed:
    """The supernode says that it cannot get the blob."""


@dataclass(frozen=True)
class SizeKnown:
    layout: Layout
    held: int
    """Pieces that an earlier try left."""


@dataclass(frozen=True)
class TaskOpened:
    task: int


@dataclass(frozen=True)
class GrantedPiece:
    piece: int
    digest: bytes
    source: int
    alternative: int


@dataclass(frozen=True)
class Granted:
    pieces: tuple[GrantedPiece, ...]


@dataclass(frozen=True)
class StillSeeding:
    pass


@dataclass(frozen=True)
class Fetched:
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
    error: DarnerError | None


@dataclass(frozen=True)
class ReadersMoved:
    pieces: tuple[int, ...]
    """The pieces that readers wait for, the furthest behind first."""


@dataclass(frozen=True)
class Tick:
    pass


Event = (
    SwarmAvailable | SwarmLost | SwarmFailed | SizeKnown | TaskOpened | Granted | StillSeeding
    | Fetched | NotFetched | OriginPiece | OriginEnded | ReadersMoved | Tick
)  # fmt: skip


# What to do.


@dataclass(frozen=True)
class OpenSwarm:
    pass


@dataclass(frozen=True)
class LeaveSwarm:
    pass


@dataclass(frozen=True)
class Fetch:
    piece: int
    digest: bytes
    source: int


@dataclass(frozen=True)
class Outcome:
    piece: int
    source: int
    seconds: float
    verdict: int


@dataclass(frozen=True)
class Tell:
    """Report to the supernode what became of pieces, and how many may be in flight from now on."""

    done: tuple[Outcome, ...]
    window: int


@dataclass(frozen=True)
class FetchOrigin:
    """Stream from the origin, from the first byte of piece `first` up to piece `end` (not included; None: to the end)."""

    first: int
    end: int | None


@dataclass(frozen=True)
class LeaveOrigin:
    pass


@dataclass(frozen=True)
class GiveUp:
    error: DarnerError


Command = OpenSwarm | LeaveSwarm | Fetch | Tell | FetchOrigin | LeaveOrigin | GiveUp


@dataclass
class Planner:
    mode: Mode = Mode.WAITING
    layout: Layout | None = None
    held: int = 0
    readers: tuple[int, ...] = ()
    deadline: float | None = None
    """When a Tick is due, if nothing happens before."""
    _in_flight: dict[int, GrantedPiece] = field(default_factory=dict)
    _unreported: list[Outcome] = field(default_factory=list)
    _report_at: float | None = None
    _piece_seconds: float = 1.0
    _progress_at: float = 0.0
    _origin_busy: bool = False
    _origin_tries: int = 0

    def start(self, swarm: bool, now: float) -> list[Command]:
        """Begin: with the swarm if a supernode can be reached, at the origin otherwise."""
        return self._settle(self._open(now) if swarm else self._go_to_origin(now))

    def handle(self, event: Event, now: float) -> list[Command]:
        if self.mode is Mode.ENDED:
            return []
        return self._settle(self._handle(event, now))

    def _handle(self, event: Event, now: float) -> list[Command]:  # noqa: C901 (a table of transitions)
        match event:
            case SizeKnown(layout, held):
                self.layout = layout
                self.held |= held  # what was fetched meanwhile may be news to whoever says this
                self._progress_at = now
            case TaskOpened():
                return self._join(now)
            case Granted(pieces):
                return self._granted(pieces, now)
            case StillSeeding():
                self._progress_at = now
            case Fetched(piece, source, seconds):
                return self._fetched(Outcome(piece, source, seconds, DELIVERED), now)
            case NotFetched(piece, source, seconds, verdict):
                return self._not_fetched(Outcome(piece, source, seconds, verdict), now)
            case OriginPiece(piece):
                self.held |= 1 << piece
                self._progress_at = now
                self._origin_tries = 0
            case OriginEnded(error):
                return self._origin_ended(error, now)
            case SwarmLost():
                return self._lost(now)
            case SwarmFailed():
                return self._leave_swarm(now)
            case SwarmAvailable():
                return self._open(now) if self.mode in (Mode.WAITING, Mode.ORIGIN) else []
            case ReadersMoved(pieces):
                self.readers = pieces[:READERS_MAX]
            case Tick():
                return self._tick(now)
        return []

    # The ladder.

    def _open(self, now: float) -> list[Command]:
        if self.mode is not Mode.ORIGIN:  # while the origin streams it goes on, until the swarm has answered
            self.mode = Mode.OPENING
        self._progress_at = now
        return [OpenSwarm()]

    def _join(self, now: float) -> list[Command]:
        leave: list[Command] = [LeaveOrigin()] if self._origin_busy else []
        self.mode = Mode.SWARM
        self._progress_at = now
        self._in_flight.clear()
        self._unreported.clear()
        return [*leave, self._tell()]

    def _lost(self, now: float) -> list[Command]:
        """The supernode is gone. Pieces under way go on; another supernode, or this one again, is waited for a little."""
        if self.mode in (Mode.OPENING, Mode.SWARM):
            self.mode = Mode.WAITING
            self._progress_at = now
        return []

    def _leave_swarm(self, now: float) -> list[Command]:
        if self.mode is Mode.ORIGIN:
            return []
        return [LeaveSwarm(), *self._go_to_origin(now)]

    def _go_to_origin(self, now: float) -> list[Command]:
        self.mode = Mode.ORIGIN
        self._progress_at = now
        if self._origin_busy:
            return []
        first = self._most_wanted()
        self._origin_busy = True
        return [FetchOrigin(first, self._first_held_after(first))]

    def _origin_ended(self, error: DarnerError | None, now: float) -> list[Command]:
        self._origin_busy = False
        if self.mode is not Mode.ORIGIN:
            return []
        if error is None:
            return self._go_to_origin(now) if self._missing() else []
        self._origin_tries += 1
        refused = self.layout is None or (isinstance(error, OriginError) and error.answered)
        if refused or self._origin_tries >= ORIGIN_TRIES_MAX:
            self.mode = Mode.ENDED
            return [GiveUp(error)]
        return self._go_to_origin(now)

    # Pieces.

    def _granted(self, pieces: tuple[GrantedPiece, ...], now: float) -> list[Command]:
        commands: list[Command] = []
        if self.mode is not Mode.SWARM:
            return commands
        self._progress_at = now
        for granted in pieces:
            if granted.piece not in self._in_flight:
                self._in_flight[granted.piece] = granted
                commands.append(Fetch(granted.piece, granted.digest, granted.source))
        return commands

    def _fetched(self, outcome: Outcome, now: float) -> list[Command]:
        self.held |= 1 << outcome.piece
        self._progress_at = now
        self._piece_seconds += (outcome.seconds - self._piece_seconds) / 4
        if self._in_flight.pop(outcome.piece, None) is None:
            return []
        self._note(outcome, now)
        slow = self._piece_seconds >= FAST_PIECE_SECONDS
        if self.mode is Mode.SWARM and (slow or len(self._unreported) >= REPORT_EVERY or not self._in_flight):
            return [self._tell()]
        return []

    def _not_fetched(self, outcome: Outcome, now: float) -> list[Command]:
        granted = self._in_flight.get(outcome.piece)
        if granted is None:
            return []
        self._note(outcome, now)
        if outcome.source != granted.alternative:
            return [Fetch(granted.piece, granted.digest, granted.alternative)]
        del self._in_flight[outcome.piece]
        return [self._tell()] if self.mode is Mode.SWARM else []

    def _note(self, outcome: Outcome, now: float) -> None:
        self._unreported.append(outcome)
        if self._report_at is None:
            self._report_at = now + REPORT_SECONDS_MAX

    def _tell(self) -> Tell:
        done = tuple(self._unreported)
        self._unreported.clear()
        self._report_at = None
        window = WINDOW if self._piece_seconds >= FAST_PIECE_SECONDS else WINDOW_FAST
        return Tell(done, min(window, self._missing().bit_count()))

    def _missing(self) -> int:
        return self.layout.everything & ~self.held if self.layout else 1

    def _most_wanted(self) -> int:
        """The missing piece that a reader comes to first."""
        missing = self._missing()
        for reader in self.readers:
            if missing >> reader:
                return reader + lowest(missing >> reader)
        return lowest(missing) if missing else 0

    def _first_held_after(self, piece: int) -> int | None:
        held = self.held >> piece
        return piece + lowest(held) if held else None

    # Time.

    def _tick(self, now: float) -> list[Command]:
        if self._report_at is not None and now >= self._report_at and self.mode is Mode.SWARM:
            return [self._tell()]
        quiet = now - self._progress_at
        if self.mode is Mode.WAITING and quiet >= REOPEN_SECONDS and not self._in_flight:
            return self._go_to_origin(now)
        if self.mode is Mode.OPENING and quiet >= OPEN_SECONDS_MAX:
            return self._leave_swarm(now)
        if self.mode is Mode.SWARM and quiet >= PROGRESS_SECONDS_MAX and not self._in_flight:
            return self._leave_swarm(now)
        return []

    def _settle(self, commands: list[Command]) -> list[Command]:
        """End when everything is here, and say when to look again."""
        if self.layout is not None and not self._missing():
            self.mode = Mode.ENDED
            self.deadline = None
            return [command for command in commands if not isinstance(command, Fetch | FetchOrigin)]
        limits = {Mode.WAITING: REOPEN_SECONDS, Mode.OPENING: OPEN_SECONDS_MAX, Mode.SWARM: PROGRESS_SECONDS_MAX}
        times = [self._report_at] if self.mode is Mode.SWARM else []
        if self.mode in limits and not self._in_flight:
            times.append(self._progress_at + limits[self.mode])
        self.deadline = min((time for time in times if time is not None), default=None)
        return commands
