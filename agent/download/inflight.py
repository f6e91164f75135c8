"""The pieces of one blob: which are here, which are on their way and from whom, which outcomes are to be reported. Pure.

The blob's file lets only the last that claimed a piece write it (`agent.storage.blob`). So a piece whose fetch stalls, or was
begun for a swarm that is over, is asked for anew at once, and the origin's stream takes what it comes to. A piece that is granted
while the stream is writing it is put off until the stream has gone on, ended or fallen silent: what both bring is taken once.
Whom to ask, and when to stop asking, is decided by `agent.download.planner`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from agent.download.events import Command, Confirm, Fetch, FetchOrigin
from agent.swarm.messages import COMING, DELIVERED, RUN_FAILED, RUN_WHOLE, Done, Granted, Report, Run, RunEnded
from agent.values.pieces import Layout, lowest

WINDOW = 16
"""Pieces in flight at most. How many there really are is the supernode's affair (see docs/scheduling.md); more are not taken."""
FAST_PIECE_SECONDS = 0.05
"""Pieces that take less are reported several at once."""
REPORT_EVERY = 4
REPORT_SECONDS_MAX = 0.005
"""A slot stands empty for as long as an outcome is not reported."""
PUT_OFF_SECONDS_MAX = 5.0
"""How long a granted piece is left to the origin's stream of which still something comes."""


@dataclass
class Inflight:
    layout: Layout | None = None
    held: int = 0
    flights: dict[int, Granted] = field(default_factory=dict)
    """By piece, the grants of the swarm that this node is in; `source` is the one that is asked now."""
    asked_anew: set[int] = field(default_factory=set)
    """Pieces that are fetched twice: the first of the two that fails is nobody's failure."""
    _were_asked_anew: set[int] = field(default_factory=set)
    """Those that are or were, since they were granted: that is done once."""
    _doubtful: set[int] = field(default_factory=set)
    """Pieces whose source has failed with another one since they were asked for: if they fail too, that is no news."""
    put_off: dict[int, Granted] = field(default_factory=dict)
    """Granted pieces that the origin's stream is writing."""
    _put_off_at: float = 0.0
    _taken: set[int] = field(default_factory=set)
    """Pieces that were taken from a run since they were granted: that is done once."""
    stream_at: int | None = None
    """The piece that the origin's stream is writing; None when there is no stream."""
    streamed: dict[int, bytes] = field(default_factory=dict)
    """The digests of what the origin's stream brought, by piece."""
    is_whole: bool = False
    """The registry sends whole blobs only: it is asked for no end, and the stream stops there by itself."""
    runs: list[Run] = field(default_factory=list)
    """What the supernode wants this node to get from the origin, in that order."""
    run: Run | None = None
    """The one that the origin's stream is for."""
    _run_moved: bool = False
    """The stream has brought a piece of it."""
    _unreported: list[Done] = field(default_factory=list)
    _report_at: float = 0.0
    _piece_seconds: float = 1.0

    @property
    def missing(self) -> int:
        """The pieces that are not here; until their number is known, there is at least one."""
        return self.layout.everything & ~self.held if self.layout else 1

    # From the swarm.

    def begin(self, granted: Granted, now: float) -> list[Command]:
        piece = granted.piece
        if self.layout is None or not self.layout.everything >> piece & 1 or piece in self.flights or piece in self.put_off:
            return []
        if self.held >> piece & 1:
            self._note(Done(piece, granted.source, 0, DELIVERED), now)
            return [Confirm(piece, granted.digest)]
        if len(self.flights) + len(self.put_off) >= WINDOW:
            return []
        if piece == self.stream_at:
            self.put_off[piece] = granted
            self._put_off_at = now
            return []
        self._taken.discard(piece)
        return [self._take_off(granted)]

    def _take_off(self, granted: Granted) -> Command:
        self.flights[granted.piece] = granted
        self._were_asked_anew.discard(granted.piece)
        self._doubtful.discard(granted.piece)
        return _fetch(granted)

    def asked(self, piece: int, source: int) -> Granted | None:
        """The grant that a fetch of `piece` from `source` is for; None when it is for a swarm that is over, or was taken over."""
        granted = self.flights.get(piece)
        return granted if granted and granted.source == source else None

    def ask_anew(self) -> list[Command]:
        """Nothing comes: ask for each piece once more, beside a connection that may be dead, which TCP would find out late.

        What was put off is asked for, and taken from the run that brings nothing either. What the supernode is itself still
        getting comes no sooner.
        """
        silent = [granted for granted in self.flights.values() if granted.digest != COMING and granted.piece != self.stream_at]
        anew = [granted for granted in silent if granted.piece not in self._were_asked_anew]
        self.asked_anew.update(granted.piece for granted in anew)
        self._were_asked_anew.update(granted.piece for granted in anew)
        return [_fetch(granted) for granted in anew] + self._take_from_run()

    @property
    def _takeable(self) -> list[Granted]:
        """Of what was put off: a stream beside the swarm is there because that brings nothing, and is left alone."""
        if self.run is None:
            return []
        return [granted for granted in self.put_off.values() if granted.digest != COMING and granted.piece not in self._taken]

    def _take_from_run(self) -> list[Command]:
        """Whoever was granted is asked for what was put off: the run's stream ends with the first bytes that come from there."""
        late = self._takeable
        for granted in late:
            del self.put_off[granted.piece]
            self._taken.add(granted.piece)
        return [self._take_off(granted) for granted in late]

    def take_late(self, now: float) -> list[Command]:
        """What was put off for too long: a registry that sends a byte now and then is not silent."""
        late_at = self.late_at()
        return self._take_from_run() if late_at is not None and now >= late_at else []

    def late_at(self) -> float | None:
        """When that is; None when nothing is put off that may be taken."""
        return self._put_off_at + PUT_OFF_SECONDS_MAX if self._takeable else None

    def fetched(self, done: Done, now: float) -> list[Command]:
        """A piece came. If it was asked for anew meanwhile, that fetch finds it here."""
        self.held |= 1 << done.piece
        self.asked_anew.discard(done.piece)
        granted = self.flights.pop(done.piece, None)
        if granted:
            self._piece_seconds += (done.milliseconds / 1000 - self._piece_seconds) / 4
            self._note(done if granted.source == done.source else Done(done.piece, granted.source, 0, DELIVERED), now)
        return self._take_up(done.piece, now)

    def fails(self, source: int, piece: int) -> bool:
        """A piece did not come from there. Whether that is news: one node is often asked for several pieces at a time."""
        is_news = piece not in self._doubtful
        self._doubtful.update(granted.piece for granted in self.flights.values() if granted.source == source)
        return is_news

    def not_fetched(self, done: Done, now: float) -> list[Command]:
        """Turn to the alternative, once."""
        granted = self.asked(done.piece, done.source)
        if granted is None or self._is_one_of_two(done.piece):
            return []
        self._note(done, now)
        del self.flights[done.piece]
        self._taken.discard(done.piece)
        return self.begin(replace(granted, source=granted.alternative), now) if done.source != granted.alternative else []

    def superseded(self, piece: int, source: int, now: float) -> list[Command]:
        """The origin's stream has taken over: unless it has failed already, it will bring the piece."""
        granted = self.asked(piece, source)
        if granted is None or self._is_one_of_two(piece):
            return []
        del self.flights[piece]
        return self.begin(granted, now)

    def _is_one_of_two(self, piece: int) -> bool:
        """Whether the fetch that has ended without the piece leaves another one. From now on there is one."""
        is_one = piece in self.asked_anew
        self.asked_anew.discard(piece)
        return is_one

    def let_go(self) -> None:
        """The swarm is over, and its grants and numbers of sources mean nothing any more. Pieces on their way may still come."""
        self.flights.clear()
        self.asked_anew.clear()
        self.put_off.clear()
        self._taken.clear()
        self._unreported.clear()
        self.runs.clear()
        self.run = None

    def _take_up(self, piece: int, now: float) -> list[Command]:
        """The origin's stream does not write this piece any more: what was put off because of it is fetched, or confirmed."""
        granted = self.put_off.pop(piece, None) or (self.flights.pop(piece, None) if self.held >> piece & 1 else None)
        return self.begin(granted, now) if granted else []

    # From the origin.

    def stream(self, readers: Iterable[int]) -> list[Command]:
        """Ask for the pieces that are not here, beginning with the piece that a reader comes to first."""
        free = self._not_coming() or self.missing
        ahead = (reader + lowest(free >> reader) for reader in readers if free >> reader)
        first = self.stream_at = next(ahead, lowest(free))
        after = self.layout.everything & ~free if self.layout else 0
        return [FetchOrigin(first, first + lowest(after >> first) if after >> first and not self.is_whole else None)]

    def _not_coming(self) -> int:
        """The pieces that are not here, without those that were taken from a run, and come from elsewhere."""
        return self.missing & ~sum(1 << piece for piece in self._taken if piece in self.flights)

    def begin_run(self) -> list[Command]:
        """Ask for the first of the pieces that the supernode wants from the origin, if nothing else is asked for there."""
        commands: list[Command] = []
        while self.runs and self.stream_at is None:
            run = self.runs.pop(0)
            free = self._not_coming() & _pieces_of(run)
            if free:
                first = self.stream_at = lowest(free)
                self.run, self._run_moved = run, False
                end = first + lowest(~free >> first)
                is_last = self.layout is not None and run.end == self.layout.count  # all of it, for registries without ranges
                commands.append(FetchOrigin(first, None if is_last else end))
            else:
                commands.append(RunEnded(run.task, run.first, RUN_FAILED if self.missing & _pieces_of(run) else RUN_WHOLE))
        return commands

    def run_ended(self, outcome: int, retry_after: int) -> list[Command]:
        """The stream has ended. What broke off in the middle of a run is asked for anew, from there on."""
        run, self.run = self.run, None
        if run is None:
            return []
        if self._run_moved and outcome in (RUN_WHOLE, RUN_FAILED):
            self.runs.insert(0, run)
            return []
        if outcome == RUN_WHOLE and self.missing & _pieces_of(run):  # its first piece was taken from it
            outcome = RUN_FAILED
        return [RunEnded(run.task, run.first, outcome, retry_after)]

    def stream_came(self, piece: int, digest: bytes | None, now: float) -> list[Command]:
        self.held |= 1 << piece
        if digest is not None:
            self.streamed[piece] = digest
        self.stream_at = piece + 1
        self._run_moved = True
        return self._take_up(piece, now)

    def stream_ended(self, now: float) -> list[Command]:
        piece, self.stream_at = self.stream_at, None
        return self._take_up(piece, now) if piece is not None else []

    # Reports.

    def _note(self, done: Done, now: float) -> None:
        if not self._unreported:
            self._report_at = now + REPORT_SECONDS_MAX
        self._unreported.append(done)

    def report_is_due(self, now: float) -> bool:
        """Soon when a round trip costs little against a piece; several outcomes at once when it does not."""
        enough = self._piece_seconds >= FAST_PIECE_SECONDS or len(self._unreported) >= REPORT_EVERY or not self.flights
        return bool(self._unreported) and (enough or now >= self._report_at)

    def report(self, task: int, readers: Iterable[int]) -> Report:
        done, self._unreported = self._unreported, []
        return Report(task, done, min(WINDOW, self.missing.bit_count()), list(readers))

    def report_due_at(self) -> float | None:
        """When the next report is due at the latest; None when there is nothing to report."""
        return self._report_at if self._unreported else None


def _fetch(granted: Granted) -> Fetch:
    return Fetch(granted.piece, granted.digest, granted.source)


def _pieces_of(run: Run) -> int:
    return (1 << run.end) - (1 << run.first)
