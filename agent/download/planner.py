"""The next step of one node on its way to one blob: the ladder of sources, and how long each of them is given. Pure.

`STEPS` is the ladder, and docs/architecture.md draws it. The supernode grants pieces with their sources; the node fetches them at
once and reports the outcomes. The origin is asked for the pieces that the swarm cannot give, from the piece that a reader
waits for onwards, and streams until a supernode has answered. `handle(event, now)` takes one event and returns commands;
the clock, sockets and threads are `agent.download.download`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from agent.download.events import (
    Broken,
    Command,
    Event,
    GiveUp,
    News,
    Order,
    OriginEnded,
    OriginPiece,
    ReadersMoved,
    SizeKnown,
)
from agent.download.inflight import Inflight
from agent.swarm import messages
from agent.swarm.messages import READERS_MAX, Done, Granted, Report
from agent.values.errors import DarnerError, DigestError, OriginError
from agent.values.pieces import Layout

OPEN_SECONDS_MAX = 15.0
"""The supernode answers an Open when the origin has told it the size, for which it has 13 s."""
QUIET_SECONDS_MAX = 10.0
"""With no piece on its way and no word from the supernode, the swarm is given up."""
PIECE_SECONDS_MAX = 45.0
"""Without a piece, the swarm is given up whatever the supernode says: some runtimes cancel a pull that stands for 60 s."""
FAILURES_MAX = 64
"""Sources that failed in a row, without a piece between them: twice as many as can be asked at once."""
REOPEN_SECONDS = 3.0
"""When there is no supernode: how long one that comes back is waited for, before the origin is asked."""
SWARM_TRIES_MAX = 3
"""Supernodes asked in a row, without a piece from a swarm between them."""
ORIGIN_TRIES_MAX = 3
"""Streams in a row, without a piece between them."""


class Mode(Enum):
    """The rung of the ladder that a download stands on."""

    WAITING = "waiting"
    """There is no supernode to ask; one may come back."""
    OPENING = "opening"
    """A supernode was asked to let this node take part."""
    SWARM = "swarm"
    """Pieces come from other nodes."""
    ORIGIN = "origin"
    """The origin streams. A supernode may have been asked meanwhile."""
    ENDED = "ended"


STEPS: dict[tuple[Mode, Mode], str] = {
    (Mode.WAITING, Mode.OPENING): "a supernode is connected",
    (Mode.WAITING, Mode.ORIGIN): f"none is connected at the start, or comes back within {REOPEN_SECONDS:.0f} s",
    (Mode.WAITING, Mode.ENDED): "the origin has refused already, or everything came after all",
    (Mode.OPENING, Mode.SWARM): "the supernode lets this node take part",
    (Mode.OPENING, Mode.OPENING): "the supernode is lost, and the next one is asked",
    (Mode.OPENING, Mode.WAITING): "no supernode is connected",
    (Mode.OPENING, Mode.ORIGIN): (
        f"the supernode cannot get the blob, says nothing for {OPEN_SECONDS_MAX:.0f} s,"
        f" or is the last of {SWARM_TRIES_MAX} lost in a row"
    ),
    (Mode.OPENING, Mode.ENDED): "the origin has refused already, or everything came after all",
    (Mode.SWARM, Mode.OPENING): "the supernode is lost, and the next one is asked",
    (Mode.SWARM, Mode.ORIGIN): (
        f"the supernode cannot get the blob, is the last of {SWARM_TRIES_MAX} lost in a row, says nothing for"
        f" {QUIET_SECONDS_MAX:.0f} s, brings no piece for {PIECE_SECONDS_MAX:.0f} s,"
        f" or names {FAILURES_MAX} sources in a row that fail"
    ),
    (Mode.SWARM, Mode.ENDED): "everything is here, or the swarm cannot go on and the origin has refused already",
    (Mode.ORIGIN, Mode.SWARM): "a supernode that was asked meanwhile lets this node take part",
    (Mode.ORIGIN, Mode.OPENING): "the origin refuses, and a supernode that was asked meanwhile may know better",
    (Mode.ORIGIN, Mode.ORIGIN): "a supernode that was asked meanwhile cannot help",
    (Mode.ORIGIN, Mode.ENDED): f"everything is here, or it refuses, or {ORIGIN_TRIES_MAX} streams in a row bring no piece",
}
"""When a download goes from one mode to another. It ends from any mode, too, when this node or the blob itself is broken."""


@dataclass
class Planner:
    mode: Mode = Mode.WAITING
    readers: tuple[int, ...] = ()
    deadline: float | None = None
    """When TIME_PASSED is due, if nothing happens before. None while only the origin's stream or fetches are waited for, which
    end by their own limits."""
    _inflight: Inflight = field(default_factory=Inflight)
    _mode_at: float = 0.0
    """When the mode was entered."""
    _asked_at: float | None = None
    """When a supernode was asked that has not answered yet."""
    _task: int = 0
    """The number of the swarm that this node was in last. What comes late from another one means nothing."""
    _quiet_at: float = 0.0
    """When the supernode last gave hope, or was last told something that it should answer."""
    _piece_at: float = 0.0
    """When the last piece came."""
    _failures: int = 0
    _swarm_tries: int = 0
    _origin_tries: int = 0
    _origin_error: DarnerError | None = None
    """Why the origin is not asked again, unless a piece comes meanwhile."""

    @property
    def layout(self) -> Layout | None:
        return self._inflight.layout

    @property
    def held(self) -> int:
        """The set of pieces that are here."""
        return self._inflight.held

    def start(self, swarm: bool, now: float) -> list[Command]:
        """Begin: with the swarm if a supernode can be reached, at the origin otherwise."""
        return self._settle(self._open(now) if swarm else self._go_to_origin(now), now)

    def handle(self, event: Event, now: float) -> list[Command]:
        if self.mode is Mode.ENDED:
            return []
        commands = self._handle(event, now)
        if self._wanting:
            commands += self._look_at_the_clock(now)
        return self._settle(commands, now)

    def _handle(self, event: Event, now: float) -> list[Command]:  # noqa: C901 (a table of transitions)
        match event:
            case News.SWARM_AVAILABLE:
                return self._open(now) if self.mode in (Mode.WAITING, Mode.ORIGIN) and self._asked_at is None else []
            case messages.Task(task=task):
                return self._join(task, now)
            case News.SWARM_LOST:
                return self._lost(now)
            case News.NO_SWARM:
                self._nobody_to_ask(now)
            case messages.TaskFailed():
                return self._give_up(DigestError(event.reason), now) if event.corrupt else self._leave_swarm(now)
            case SizeKnown(layout, held):
                self._inflight.layout = layout
                self._inflight.held |= held  # pieces fetched meanwhile may be news to the source of this event
            case messages.Grant(task, pieces) if task == self._task:
                return self._granted(pieces, now)
            case messages.Seeding(task) if task == self._task:
                self._quiet_at = now
            case Done(verdict=messages.DELIVERED):
                return self._fetched(event, now)
            case Done(piece):
                self._failures += piece in self._inflight.flights
                return self._inflight.not_fetched(event, now)
            case OriginPiece(piece):
                self._piece_came(now)
                return self._inflight.streamed(piece, now)
            case OriginEnded(error):
                return [*self._inflight.stream_ended(now), *self._origin_ended(error, now)]
            case Broken(error):
                return self._give_up(error, now)
            case ReadersMoved(pieces):
                self.readers = pieces[:READERS_MAX]
        return []

    # The ladder.

    def _enter(self, mode: Mode, now: float) -> None:
        """One step of `STEPS`; tests hold that each step taken is one of these."""
        self.mode = mode
        self._mode_at = now

    def _open(self, now: float) -> list[Command]:
        self._inflight.let_go()
        if self._swarm_tries == SWARM_TRIES_MAX:
            return self._go_to_origin(now)
        self._swarm_tries += 1
        self._asked_at = now
        if self.mode is not Mode.ORIGIN:  # while the origin streams it goes on, until the swarm has answered
            self._enter(Mode.OPENING, now)
        return [Order.OPEN_SWARM]

    def _join(self, task: int, now: float) -> list[Command]:
        if self._asked_at is None:  # an answer to a question that was given up
            return []
        self._asked_at = None
        self._task = task
        self._enter(Mode.SWARM, now)
        self._piece_at = now
        self._failures = self._origin_tries = 0
        leave: list[Command] = [] if self._inflight.stream_at is None else [Order.LEAVE_ORIGIN]
        return [*leave, self._report(now)]

    def _lost(self, now: float) -> list[Command]:
        """Pieces under way go on; the next supernode is asked, if there is one."""
        self._asked_at = None
        return self._open(now) if self.mode in (Mode.OPENING, Mode.SWARM) else []

    def _nobody_to_ask(self, now: float) -> None:
        if self._asked_at is not None:
            self._asked_at = None
            self._swarm_tries -= 1
        if self.mode is Mode.OPENING:
            self._enter(Mode.WAITING, now)

    def _leave_swarm(self, now: float) -> list[Command]:
        self._asked_at = None
        self._inflight.let_go()
        return [Order.LEAVE_SWARM, *self._go_to_origin(now)]

    def _go_to_origin(self, now: float) -> list[Command]:
        """`_settle` begins the stream."""
        if self._origin_error:
            return self._give_up(self._origin_error, now)
        self._enter(Mode.ORIGIN, now)
        return []

    def _give_up(self, error: DarnerError, now: float) -> list[Command]:
        self._enter(Mode.ENDED, now)
        return [GiveUp(error)]

    def _origin_ended(self, error: DarnerError | None, now: float) -> list[Command]:
        if self.mode is not Mode.ORIGIN:
            return []
        tried_enough = self._origin_tries >= ORIGIN_TRIES_MAX
        if error is None and tried_enough:
            error = OriginError(502, "the registry's stream ended again and again before a piece was complete")
        refused = self.layout is None or (isinstance(error, OriginError) and error.answered)
        if error and (refused or tried_enough):
            self._origin_error = error
            if self._asked_at is None:
                return self._go_to_origin(now)
            self._enter(Mode.OPENING, now)  # a supernode that has been asked may know better
        return []

    # Pieces.

    def _granted(self, pieces: list[Granted], now: float) -> list[Command]:
        if self.mode is not Mode.SWARM:
            return []
        self._quiet_at = now
        return [command for granted in pieces for command in self._inflight.begin(granted, now)]

    def _fetched(self, done: Done, now: float) -> list[Command]:
        self._piece_came(now)
        if done.piece in self._inflight.flights:
            self._failures = self._swarm_tries = 0
        return self._inflight.fetched(done, now)

    def _report(self, now: float) -> Report:
        self._quiet_at = now
        return self._inflight.report(self._task, self.readers)

    def _piece_came(self, now: float) -> None:
        self._piece_at = now
        self._origin_tries = 0
        self._origin_error = None

    # Time.

    @property
    def _wanting(self) -> bool:
        return self.mode is not Mode.ENDED and bool(self._inflight.missing)

    def _time_is_up_at(self) -> float | None:
        """When the source that is asked now has had time enough."""
        if self._asked_at is not None:
            return self._asked_at + OPEN_SECONDS_MAX
        if self.mode is Mode.WAITING:
            return self._mode_at + REOPEN_SECONDS
        if self.mode is Mode.SWARM:
            without_a_piece = self._piece_at + PIECE_SECONDS_MAX
            expected = self._inflight.flights or self._inflight.put_off
            return without_a_piece if expected else min(without_a_piece, self._quiet_at + QUIET_SECONDS_MAX)
        return None

    def _look_at_the_clock(self, now: float) -> list[Command]:
        ends = self._time_is_up_at()
        if (ends is None or now < ends) and self._failures < FAILURES_MAX:
            return []
        self._failures = 0
        return self._go_to_origin(now) if self.mode is Mode.WAITING else self._leave_swarm(now)

    def _settle(self, commands: list[Command], now: float) -> list[Command]:
        """Report outcomes that are due, begin the origin's stream, end when all pieces are here; and say when to look again."""
        if self.mode is Mode.SWARM and self._inflight.report_is_due(now):
            commands.append(self._report(now))
        if self.mode is Mode.ORIGIN and self._wanting and self._inflight.stream_at is None:
            begun = self._inflight.stream(self.readers)
            self._origin_tries += len(begun)
            commands += begun
        if not self._wanting:
            if self.mode is not Mode.ENDED:
                self._enter(Mode.ENDED, now)
            self.deadline = None
            return commands
        due = (self._time_is_up_at(), self._inflight.report_due_at())
        self.deadline = min((at for at in due if at is not None), default=None)
        return commands
