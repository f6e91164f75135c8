"""The next step of one node on its way to one blob: the ladder of sources, and how long each of them is given. Pure.

`STEPS` is the ladder, and docs/architecture.md draws it. The supernode grants pieces with their sources; the node fetches them at
once and reports the outcomes. The origin is the last resort, and beside the swarm rather than after it: it streams, from the
piece that a reader waits for onwards, as soon as there is evidence from this very node that the swarm brings nothing, and until
the swarm carries again. As long as the supernode speaks, it is asked for leave first: ten thousand nodes that see the same
evidence must not fall on the origin together. `handle(event, now)` takes one event and returns commands; the clock, sockets and
threads are `agent.download.download`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from agent.download.events import (
    Broken,
    Command,
    Event,
    GiveUp,
    Idle,
    News,
    Order,
    OriginEnded,
    OriginPiece,
    ReadersMoved,
    SizeKnown,
    Superseded,
)
from agent.download.inflight import Inflight
from agent.swarm import messages
from agent.swarm.messages import BATCH_MAX, READERS_MAX, AskLeave, Brought, Done, Granted, Report
from agent.values.errors import DarnerError, DigestError, OriginError, RangesError
from agent.values.pieces import Layout

OPEN_SECONDS_MAX = 15.0
"""The supernode answers an Open when the origin has told it the size, for which it has 13 s."""
EVIDENCE_SECONDS = 3.0
"""The swarm is no help when pieces were granted and failed, or the supernode said nothing, and no piece came for so long: the
first bytes then reach the client within 5 s of its request."""
IDLE_SECONDS_MAX = 2.0
"""Nor when it was silent altogether for so long: not a byte came of all the pieces that are being fetched. A black hole for large
packets and a firewall that drops them are noticed by that, before the limits of the fetches are over."""
REFUSALS_MAX = 4
"""Sources that failed in a row, without a piece between them: then it is no help at once."""
TURN_SECONDS_MAX = 15.0
"""A node that waits for its turn, as the supernode tells it every second, asks for leave then. One that was refused leave, though
its own pieces fail, goes to the origin without it: the runtime waits 30 s for a byte."""
JOINED_SECONDS_MIN = 5.0
"""Of these, what is left of them to a node that was let in late."""
LEAVE_SECONDS = 1.0
"""How long the answer of the supernode is waited for, and how often leave is asked for again."""
CARRIED_MIN = 4
"""The swarm carries when so many pieces come from it while the origin brings none."""
PIECE_SECONDS_MAX = 45.0
"""Without a piece from anywhere, the swarm is left whatever the supernode says: some runtimes cancel a pull that stands for a
minute."""
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
    BESIDE = "beside"
    """The swarm brings little or nothing, and the origin streams beside it."""
    ORIGIN = "origin"
    """The origin alone streams. A supernode may have been asked meanwhile."""
    ENDED = "ended"


class Trouble(Enum):
    """Why the origin is wanted beside the swarm."""

    FAILING = "pieces that it was granted do not come"
    SILENT = "the supernode says nothing"
    TURN = "its turn does not come"
    SLOW = "the supernode does not get blobs of this registry"


STEPS: dict[tuple[Mode, Mode], str] = {
    (Mode.WAITING, Mode.OPENING): "a supernode is connected",
    (Mode.WAITING, Mode.ORIGIN): (
        f"none is connected at the start, or comes back within {REOPEN_SECONDS:.0f} s, or it said nothing to this node lately"
    ),
    (Mode.WAITING, Mode.ENDED): "the origin has refused already, or everything came after all",
    (Mode.OPENING, Mode.SWARM): "the supernode lets this node take part",
    (Mode.OPENING, Mode.OPENING): "the supernode is lost, and the next one is asked",
    (Mode.OPENING, Mode.WAITING): "no supernode is connected",
    (Mode.OPENING, Mode.ORIGIN): (
        f"the supernode cannot get the blob, says nothing for {EVIDENCE_SECONDS:.0f} s, does not let it in for"
        f" {OPEN_SECONDS_MAX:.0f} s, or {EVIDENCE_SECONDS:.0f} s where it was so with that registry lately, or is the last of"
        f" {SWARM_TRIES_MAX} lost in a row"
    ),
    (Mode.OPENING, Mode.ENDED): "the origin has refused already, or everything came after all",
    (Mode.SWARM, Mode.OPENING): "the supernode is lost, and the next one is asked",
    (Mode.SWARM, Mode.BESIDE): (
        f"{REFUSALS_MAX} sources fail in a row, some fail and no piece comes for {EVIDENCE_SECONDS:.0f} s, or the supernode says"
        f" nothing for so long, or no byte comes for {IDLE_SECONDS_MAX:.0f} s of what is fetched, or its turn does not come for"
        f" {TURN_SECONDS_MAX:.0f} s: with leave, if the supernode speaks"
    ),
    (Mode.SWARM, Mode.ORIGIN): (
        f"the supernode cannot get the blob, is the last of {SWARM_TRIES_MAX} lost in a row, or no piece comes for"
        f" {PIECE_SECONDS_MAX:.0f} s"
    ),
    (Mode.SWARM, Mode.ENDED): "everything is here, or the swarm cannot go on and the origin has refused already",
    (Mode.BESIDE, Mode.SWARM): (
        f"{CARRIED_MIN} pieces in a row come from the swarm, or the origin refuses, or the supernode was silent, speaks again"
        " and gives no leave"
    ),
    (Mode.BESIDE, Mode.ORIGIN): (
        f"the supernode cannot get the blob, or is lost, or no piece comes from anywhere for {PIECE_SECONDS_MAX:.0f} s"
    ),
    (Mode.BESIDE, Mode.ENDED): "everything is here",
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
    trouble: Trouble | None = None
    """Why the origin streams, or is to stream, beside the swarm."""
    deadline: float | None = None
    """When TIME_PASSED is due, if nothing happens before. None while only the origin's stream or fetches are waited for, which
    end by their own limits."""
    _inflight: Inflight = field(default_factory=Inflight)
    _mode_at: float = 0.0
    """When the mode was entered."""
    _is_slow: bool = False
    """The supernode did not get a blob of this registry lately, so that its answer is not waited for as long as else."""
    _asked_at: float | None = None
    """When a supernode was asked that has not answered yet."""
    _task: int = 0
    """The number of the swarm that this node was in last. What comes late from another one means nothing."""
    _quiet_at: float = 0.0
    """When the supernode last gave hope, or was last told something that it should answer."""
    _piece_at: float = 0.0
    """When the last piece came."""
    _hungry_at: float = 0.0
    """The same, but the beginning of the download, or somewhat later, as long as none came."""
    _granted_at: float | None = None
    """Since when pieces are granted and none of them comes."""
    _idle_since: float | None = None
    """Since when no byte comes of the pieces that are being fetched."""
    _refusals: int = 0
    """Sources that failed since the swarm last brought a piece."""
    _doubted: bool = False
    """The swarm is believed to bring nothing until it brings something: it was so lately."""
    _leave_asked_at: float | None = None
    """When leave was asked for that is not used yet."""
    _has_leave_refused: bool = False
    _owes_question: bool = False
    """The supernode was not asked for leave, because it was silent: it is when it speaks again."""
    _carried: int = 0
    """Pieces of the swarm since the origin's last one."""
    _swarm_tries: int = 0
    _origin_tries: int = 0
    _origin_error: DarnerError | None = None
    """Why the origin is not asked again, unless a piece comes meanwhile."""

    @property
    def layout(self) -> Layout | None:
        return self._inflight.layout

    @property
    def task(self) -> int:
        """The number of the swarm that this node was in last."""
        return self._task

    @property
    def held(self) -> int:
        """The set of pieces that are here."""
        return self._inflight.held

    def start(self, swarm: bool, now: float, *, is_silent: bool = False, is_slow: bool = False) -> list[Command]:
        """Begin: with the swarm if a supernode can be reached, at the origin otherwise; with both if it was silent lately.

        `is_slow` says that it did not get a blob of this registry lately.
        """
        self._is_slow = is_slow
        self._hungry_at = now
        commands = self._go_to_origin(now) if is_silent or not swarm else []
        return self._settle(commands + (self._open(now) if swarm else []), now)

    def handle(self, event: Event, now: float) -> list[Command]:
        return self.handle_together((event,), now)

    def handle_together(self, events: Iterable[Event], now: float) -> list[Command]:
        """What was told at once: one report is made of it."""
        if self.mode is Mode.ENDED:
            return []
        commands = [command for event in events for command in self._handle(event, now)]
        if self._wanting:
            commands += self._look_at_the_clock(now)
        return self._settle(commands, now)

    def _handle(self, event: Event, now: float) -> list[Command]:  # noqa: C901 (a table of transitions)
        match event:
            case News.SWARM_AVAILABLE:
                return self._open(now) if self.mode in (Mode.WAITING, Mode.ORIGIN) and self._asked_at is None else []
            case News.SWARM_DOUBTED:
                self._doubted = True
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
            case messages.Run(task) if task == self._task:
                return self._run_granted(event, now)
            case messages.Seeding(task) if task == self._task:
                self._quiet_at = now
                return self._ask_leave_late(now)
            case messages.Leave(task, given) if task == self._task:
                return self._leave_answered(given, now)
            case Done(verdict=messages.DELIVERED):
                return self._fetched(event, now)
            case Done():
                return self._not_fetched(event, now)
            case Superseded(piece, source):
                return self._inflight.superseded(piece, source, now)
            case Idle(since):
                self._idle_since = since
                return [] if since is None else self._inflight.ask_anew()
            case OriginPiece(piece, digest):
                return self._origin_piece(piece, digest, now)
            case OriginEnded(error):
                commands = self._inflight.stream_ended(now)
                self._inflight.is_whole |= isinstance(error, RangesError)
                if self._inflight.run:
                    return [*commands, *self._run_ended(error)]
                return [*commands, *self._origin_ended(error, now)]
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
        self._asked_at = self._quiet_at = now
        self._task = 0
        if self.mode is Mode.BESIDE:
            self._enter(Mode.ORIGIN, now)
        elif self.mode is not Mode.ORIGIN:  # while the origin streams it goes on, until the swarm has answered
            self._enter(Mode.OPENING, now)
        return [Order.OPEN_SWARM]

    def _join(self, task: int, now: float) -> list[Command]:
        if self._asked_at is None:  # an answer to a question that was given up
            return []
        self._asked_at = None
        self._task = task
        self._enter(Mode.SWARM, now)
        self._piece_at = now
        self._hungry_at = max(self._hungry_at, now - TURN_SECONDS_MAX + JOINED_SECONDS_MIN)
        self._origin_tries = 0
        self._swarm_is_well(now)
        commands: list[Command] = [] if self._inflight.stream_at is None else [Order.LEAVE_ORIGIN]
        streamed = list(self._inflight.streamed.items())
        for first in range(0, len(streamed), BATCH_MAX):
            commands.append(Brought(task, dict(streamed[first : first + BATCH_MAX])))
        return [*commands, self._report(now)]

    def _lost(self, now: float) -> list[Command]:
        """Pieces under way go on; the next supernode is asked, if there is one."""
        self._asked_at = None
        return self._open(now) if self.mode in (Mode.OPENING, Mode.SWARM, Mode.BESIDE) else []

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
        if self.mode not in (Mode.ORIGIN, Mode.BESIDE):
            return []
        tried_enough = self._origin_tries >= ORIGIN_TRIES_MAX
        if error is None and tried_enough:
            error = OriginError(502, "the registry's stream ended again and again before a piece was complete")
        refused = self.layout is None or (isinstance(error, OriginError) and error.answered)
        if error and (refused or tried_enough):
            self._origin_error = error
            if self.mode is Mode.BESIDE:
                self._enter(Mode.SWARM, now)  # which is all that is left
                return []
            if self._asked_at is None:
                return self._go_to_origin(now)
            self._enter(Mode.OPENING, now)  # a supernode that has been asked may know better
        return []

    # The origin beside the swarm.

    def _evidence(self) -> tuple[float, Trouble]:
        """From when on the swarm is no help, and why."""
        found = [(self._hungry_at + TURN_SECONDS_MAX, Trouble.TURN)]
        if self._doubted or self._refusals >= REFUSALS_MAX:
            found.append((0.0, Trouble.FAILING))
        elif self._refusals and self._granted_at is not None:
            found.append((self._granted_at + EVIDENCE_SECONDS, Trouble.FAILING))
        if self._idle_since is not None and self._inflight.flights:
            found.append((max(self._idle_since, self._piece_at) + IDLE_SECONDS_MAX, Trouble.FAILING))
        is_idle = not self._inflight.flights and not self._inflight.put_off and self._inflight.stream_at is None
        if is_idle and self._inflight.report_due_at() is None:
            found.append((self._quiet_at + EVIDENCE_SECONDS, Trouble.SILENT))
        return min(found, key=lambda item: item[0])

    def _wants_origin_at(self) -> float:
        """When something has to be done about the evidence."""
        at, _ = self._evidence()
        return at if self._leave_asked_at is None else max(at, self._leave_asked_at + LEAVE_SECONDS)

    def _want_origin(self, now: float) -> list[Command]:
        """Go to the origin beside the swarm: with leave, unless the supernode is silent, or refuses it for too long."""
        _, trouble = self._evidence()
        self.trouble = trouble
        has_waited = trouble is Trouble.FAILING and now >= self._hungry_at + TURN_SECONDS_MAX
        is_asked = self._leave_asked_at is not None
        if trouble is Trouble.SILENT or (is_asked and (has_waited or not self._has_leave_refused)):
            self._owes_question = trouble is Trouble.SILENT
            return self._go_beside(now)
        self._leave_asked_at, self._has_leave_refused = now, False
        return [AskLeave(self._task)]

    def _leave_answered(self, given: bool, now: float) -> list[Command]:
        self._quiet_at = now
        if self._leave_asked_at is None or self._origin_error:
            return []
        if self.mode is Mode.BESIDE:
            self._leave_asked_at = None
            return [] if given else self._go_back(now)
        self._has_leave_refused = not given
        return self._go_beside(now) if given and self.mode is Mode.SWARM else []

    def _ask_leave_late(self, now: float) -> list[Command]:
        """A supernode that has more to do than it can is silent to thousands at once: most of them are to go back."""
        if self.mode is not Mode.BESIDE or not self._owes_question:
            return []
        self._owes_question = False
        self._leave_asked_at = now
        return [AskLeave(self._task)]

    def _go_beside(self, now: float) -> list[Command]:
        """`_settle` begins the stream."""
        self._leave_asked_at = None
        self._carried = 0
        self._enter(Mode.BESIDE, now)
        return []

    def _go_back(self, now: float) -> list[Command]:
        self._enter(Mode.SWARM, now)
        self._swarm_is_well(now)
        return [] if self._inflight.stream_at is None else [Order.LEAVE_ORIGIN]

    def _swarm_is_well(self, now: float) -> None:
        """Evidence that there was is none any more."""
        self._refusals = self._carried = 0
        self._granted_at = now if self._inflight.flights else None
        self._leave_asked_at = self.trouble = None
        self._owes_question = False

    # Pieces.

    def _granted(self, granted: list[Granted], now: float) -> list[Command]:
        if self.mode not in (Mode.SWARM, Mode.BESIDE):
            return []
        self._quiet_at = now
        return [command for grant in granted for command in self._inflight.begin(grant, now)]

    def _fetched(self, done: Done, now: float) -> list[Command]:
        is_asked = self._inflight.asked(done.piece, done.source) is not None
        self._piece_came(now)
        commands = self._inflight.fetched(done, now)
        if is_asked:
            self._swarm_tries = 0
            self._doubted = False
            self._carried += 1
            if self.mode is not Mode.BESIDE:
                self._swarm_is_well(now)
            elif self._carried >= CARRIED_MIN:
                commands += self._go_back(now)
        return commands

    def _not_fetched(self, done: Done, now: float) -> list[Command]:
        granted = self._inflight.asked(done.piece, done.source)
        # A piece that did not come to the supernode in time is the origin's fault, and of two fetches the other goes on.
        is_origins_fault = granted and done.verdict == messages.MISSING and granted.digest == messages.COMING
        if granted and not is_origins_fault and done.piece not in self._inflight.asked_anew:
            self._refusals += self._inflight.fails(done.source, done.piece)
        return self._inflight.not_fetched(done, now)

    def _origin_piece(self, piece: int, digest: bytes | None, now: float) -> list[Command]:
        hungry_at = self._hungry_at
        self._piece_came(now)
        self._carried = 0
        is_run = self._inflight.run is not None
        commands = self._inflight.stream_came(piece, digest, now)
        if is_run:
            self._swarm_tries = 0
            if self.readers and not any(self.held >> reader & 1 for reader in self.readers):
                self._hungry_at = hungry_at  # what comes for the others is no help to a reader that waits for another piece
        if self.mode in (Mode.SWARM, Mode.BESIDE) and digest is not None:
            commands.append(Brought(self._task, {piece: digest}))
        return commands

    def _run_granted(self, run: messages.Run, now: float) -> list[Command]:
        """`_settle` asks the origin, when nothing else is asked for there."""
        self._quiet_at = now
        if self.mode is Mode.SWARM:
            self._inflight.runs.append(run)
            return []
        return [messages.RunEnded(run.task, run.first, messages.RUN_FAILED)]

    def _run_ended(self, error: DarnerError | None) -> list[Command]:
        outcome, pause = messages.RUN_WHOLE if error is None else messages.RUN_FAILED, 0
        if isinstance(error, RangesError):
            outcome = messages.RUN_NO_RANGES
        elif isinstance(error, OriginError) and error.status == 429:
            outcome, pause = messages.RUN_TOO_MANY, int(error.retry_after)
        elif isinstance(error, OriginError) and error.answered:
            outcome = messages.RUN_REFUSED
        return self._inflight.run_ended(outcome, pause)

    def _report(self, now: float) -> Report:
        self._quiet_at = now
        return self._inflight.report(self._task, self.readers)

    def _piece_came(self, now: float) -> None:
        self._piece_at = self._hungry_at = now
        self._origin_tries = 0
        self._origin_error = None

    # Time.

    @property
    def _wanting(self) -> bool:
        return self.mode is not Mode.ENDED and bool(self._inflight.missing)

    def _time_is_up_at(self) -> float | None:
        """When the source that is asked now has had time enough."""
        if self._asked_at is not None:
            answer_at = self._asked_at + OPEN_SECONDS_MAX
            waits_for_it = self.mode is not Mode.OPENING or self._origin_error
            return answer_at if waits_for_it else min(answer_at, EVIDENCE_SECONDS + min(self._quiet_at, self._slow_since))
        if self.mode is Mode.WAITING:
            return self._mode_at + REOPEN_SECONDS
        if self.mode is Mode.SWARM and not self._origin_error:
            return min(self._piece_at + PIECE_SECONDS_MAX, self._wants_origin_at())
        if self.mode in (Mode.SWARM, Mode.BESIDE):
            return self._piece_at + PIECE_SECONDS_MAX
        return None

    @property
    def _slow_since(self) -> float:
        return self._asked_at if self._is_slow and self._asked_at is not None else inf

    def _look_at_the_clock(self, now: float) -> list[Command]:
        ends = self._time_is_up_at()
        if ends is None or now < ends:
            return []
        if self.mode is Mode.SWARM and not self._origin_error and now < self._piece_at + PIECE_SECONDS_MAX:
            return self._want_origin(now)
        if self._asked_at is not None and now < self._asked_at + OPEN_SECONDS_MAX:
            self.trouble = Trouble.SILENT if now >= self._quiet_at + EVIDENCE_SECONDS else Trouble.SLOW
            return self._go_to_origin(now)  # and the answer is still waited for
        return self._go_to_origin(now) if self.mode is Mode.WAITING else self._leave_swarm(now)

    def _settle(self, commands: list[Command], now: float) -> list[Command]:
        """Report outcomes that are due, begin the origin's stream, end when all pieces are here; and say when to look again."""
        if self.mode in (Mode.SWARM, Mode.BESIDE) and self._inflight.report_is_due(now):
            commands.append(self._report(now))
        if self.mode is Mode.SWARM and self._wanting:
            commands += self._inflight.take_late(now) + self._inflight.begin_run()
        if self.mode in (Mode.SWARM, Mode.BESIDE) and self._granted_at is None and self._inflight.flights:
            self._granted_at = now
        if self.mode in (Mode.ORIGIN, Mode.BESIDE) and self._wanting and self._inflight.stream_at is None:
            begun = self._inflight.stream(self.readers)
            self._origin_tries += len(begun)
            commands += begun
        if not self._wanting:
            if self.mode is not Mode.ENDED:
                self._enter(Mode.ENDED, now)
            self.deadline = None
            return commands
        late_at = self._inflight.late_at() if self.mode is Mode.SWARM else None
        due = (self._time_is_up_at(), self._inflight.report_due_at(), late_at)
        self.deadline = min((at for at in due if at is not None), default=None)
        return commands
