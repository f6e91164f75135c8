"""The pieces of one blob: which are here, which are on their way and from whom, which outcomes are to be reported. Pure.

No piece is ever written by two at once. A piece that is granted while the origin's stream, or a fetch for an earlier swarm, is
writing it is put off until that writer has ended; a fetch counts as under way until its end is told, which its own limits bring
about (`agent.swarm.piece_client`). Whom to ask, and when to stop asking, is decided by `agent.download.planner`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from agent.download.events import Command, Confirm, Fetch, FetchOrigin
from agent.swarm.messages import DELIVERED, Done, Granted, Report
from agent.values.pieces import Layout, lowest

WINDOW = 16
"""Pieces in flight at most. How many there really are is the supernode's affair (see docs/scheduling.md); more are not taken."""
FAST_PIECE_SECONDS = 0.05
"""Pieces that take less are reported several at once."""
REPORT_EVERY = 4
REPORT_SECONDS_MAX = 0.005
"""A slot stands empty for as long as an outcome is not reported."""


@dataclass
class Inflight:
    layout: Layout | None = None
    held: int = 0
    flights: dict[int, Granted] = field(default_factory=dict)
    """By piece, the grants of the swarm that this node is in."""
    put_off: dict[int, Granted] = field(default_factory=dict)
    """Granted pieces that a stray, or the origin's stream, is writing."""
    stream_at: int | None = None
    """The piece that the origin's stream is writing; None when there is no stream."""
    _strays: set[int] = field(default_factory=set)
    """Pieces still on their way from a swarm that is over, whose numbers mean nothing any more."""
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
        if piece in self._strays or piece == self.stream_at:
            self.put_off[piece] = granted
            return []
        return [self._fetch(granted, granted.source)]

    def fetched(self, done: Done, now: float) -> list[Command]:
        self.held |= 1 << done.piece
        if self.flights.pop(done.piece, None) is None:
            self._strays.discard(done.piece)
            return self._take_up(done.piece, now)
        self._piece_seconds += (done.milliseconds / 1000 - self._piece_seconds) / 4
        self._note(done, now)
        return []

    def not_fetched(self, done: Done, now: float) -> list[Command]:
        """Turn to the alternative, once."""
        granted = self.flights.get(done.piece)
        if granted is None:
            self._strays.discard(done.piece)
            return self._take_up(done.piece, now)
        self._note(done, now)
        if done.source != granted.alternative:
            return [self._fetch(granted, granted.alternative)]
        del self.flights[done.piece]
        return []

    def let_go(self) -> None:
        """The swarm is over, and its grants and numbers of sources mean nothing any more. Pieces on their way may still come."""
        self._strays |= self.flights.keys()
        self.flights.clear()
        self.put_off.clear()
        self._unreported.clear()

    def _fetch(self, granted: Granted, source: int) -> Fetch:
        self.flights[granted.piece] = granted
        return Fetch(granted.piece, granted.digest, source)

    def _take_up(self, piece: int, now: float) -> list[Command]:
        """Nobody writes this piece any more: begin the fetch that was put off because of it."""
        granted = self.put_off.pop(piece, None)
        return self.begin(granted, now) if granted else []

    # From the origin.

    def stream(self, readers: Iterable[int]) -> list[Command]:
        """Ask for the pieces that nobody is writing, beginning with the piece that a reader comes to first."""
        free = self.missing & ~sum(1 << piece for piece in self._strays)
        if not free:
            return []
        ahead = (reader + lowest(free >> reader) for reader in readers if free >> reader)
        first = self.stream_at = next(ahead, lowest(free))
        after = self.layout.everything & ~free if self.layout else 0
        return [FetchOrigin(first, first + lowest(after >> first) if after >> first else None)]

    def streamed(self, piece: int, now: float) -> list[Command]:
        self.held |= 1 << piece
        self.stream_at = piece + 1
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
