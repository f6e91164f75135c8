"""A planner among sources that do what they like, in virtual time: it always ends, and keeps its promises on the way.

`World` plays the supernode, the nodes and the origin. What each of them does next is drawn by hypothesis: they answer late,
wrongly, or never. The promises are checked at every command.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from math import ceil
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.download import events, planner
from agent.download.events import News, Order
from agent.download.inflight import REPORT_SECONDS_MAX, WINDOW
from agent.download.planner import ORIGIN_TRIES_MAX, PIECE_SECONDS_MAX, SWARM_TRIES_MAX, Mode
from agent.swarm import messages
from agent.values.errors import OriginError
from agent.values.pieces import PIECE_BYTES_MIN, Layout, lowest, members

FETCH_SECONDS_MAX = 40.0
"""A fetch always ends: by its own limits, after it has waited for a thread."""
STEP_SECONDS_MAX = FETCH_SECONDS_MAX + PIECE_SECONDS_MAX
"""The longest that a download stands between two pieces, or between two sources that fail it."""
STEPS_MAX = SWARM_TRIES_MAX + ORIGIN_TRIES_MAX
EVENTS_MAX = 20_000

T = TypeVar("T")


@dataclass(frozen=True)
class Sources:
    """How often which answer is drawn. `never` is the one that does not come, `stalled` the one of a fetch's own limits."""

    pieces: int = 6
    open: Sequence[str] = ("task", "task", "failed", "lost", "nobody", "never")
    grant: Sequence[str] = ("right", "right", "run", "run", "any", "seeding", "lost", "failed", "never")
    fetch: Sequence[str] = ("fetched", "fetched", "failed", "stalled")
    leave: Sequence[str] = ("given", "refused", "never")
    origin: Sequence[str] = ("piece", "piece", "piece", "breaks", "refuses", "ends")
    seconds: Sequence[float] = (0.0, 0.001, 0.04, 0.5, 2.0, 9.0, 20.0)
    is_trickling: bool = False
    """Bytes come all the time of what is being fetched, so that it is never idle."""


@dataclass
class Flight:
    source: int
    began: float
    task: int
    twin: Flight | None = None
    """The other fetch of the same piece, since this one, or that one, was silent."""
    is_superseded: bool = False
    """Another fetch, or the origin's stream, writes the piece now."""


class Watched(planner.Planner):
    """Takes only steps that the ladder has."""

    def _enter(self, mode: Mode, now: float) -> None:
        assert (self.mode, mode) in planner.STEPS
        super()._enter(mode, now)


class World:
    """The sources, the network and the clock of one download."""

    def __init__(self, data: st.DataObject, sources: Sources, swarm: bool) -> None:
        self.data, self.sources, self.swarm = data, sources, swarm
        self.layout = Layout(sources.pieces * PIECE_BYTES_MIN, PIECE_BYTES_MIN)
        self.planner = Watched()
        self.now = 0.0
        self.given_up: Exception | None = None
        self.story: list[str] = []
        self._is_idle = False
        self._moved_at = 0.0
        """When something was last begun or came, for what is idle since then."""
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._flights: dict[int, Flight] = {}
        """By piece, who may write it."""
        self._task = 0
        self._asked = False
        self._granted: set[int] = set()
        self._runs: list[tuple[int, int]] = []
        """What it is to get from the origin for the swarm that it is in, as first and end."""
        self._stream: tuple[int, int] | None = None
        self._stream_left = self._is_stream_superseded = False
        self._taken: set[int] = set()
        """Pieces that were taken from the stream."""
        self._stream_at: int | None = None
        """The piece that the planner takes the stream to be writing: it may have ended since."""
        self._unreported: dict[tuple[int, int], float] = {}

    def run(self) -> None:
        self._do(self.planner.start(self.swarm, self.now))
        for _ in range(EVENTS_MAX):
            if self.planner.mode is Mode.ENDED:
                return
            deadline = self.planner.deadline
            if deadline is not None and (not self._due or deadline <= self._due[0][0]):
                self.now = max(self.now, deadline)
                self._happened(News.TIME_PASSED)
                assert self.planner.deadline is None or self.planner.deadline > self.now, "a tick is never due twice"
            else:
                assert self._due, "something is awaited that nobody will bring"
                self.now, _, do = heapq.heappop(self._due)
                do()
        raise AssertionError("it never ends")

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._order), do))

    def _after_a_while(self, do: Callable[[], None]) -> None:
        self.after(self._one_of(self.sources.seconds), do)

    def _one_of(self, choices: Sequence[T]) -> T:
        return self.data.draw(st.sampled_from(choices))

    def _some(self, end: int, most: int) -> list[int]:
        """Some of the numbers below `end`."""
        return self.data.draw(st.lists(st.integers(0, end - 1), max_size=most))

    def _happened(self, event: events.Event) -> None:
        self.story.append(f"{self.now:7.3f} {event}")
        trickles = self.sources.is_trickling or self._stream
        if self._flights and self._asked and not trickles and self.now - self._moved_at >= 1.0:
            self._is_idle = True
            self._do(self.planner.handle(events.Idle(self._moved_at), self.now))
            self._is_idle = False
        elif self.planner.mode is not Mode.ENDED:
            self._do(self.planner.handle(events.Idle(None), self.now))
        if event is not News.TIME_PASSED and not isinstance(event, events.ReadersMoved):
            readers = tuple(sorted(self._some(self.sources.pieces + 1, 2)))
            self._do(self.planner.handle(events.ReadersMoved(readers), self.now))
        if isinstance(event, events.OriginPiece | events.OriginEnded):
            self._stream_at = event.piece + 1 if isinstance(event, events.OriginPiece) else None
        self._do(self.planner.handle(event, self.now))
        for noted in self._unreported.values():
            assert self.planner.mode is Mode.ENDED or self.now <= noted + REPORT_SECONDS_MAX, "a report is late"
        if self.planner.mode is Mode.SWARM and self._stream is None:
            assert not self._runs, "a run is neither under way nor ended"
        if self.planner.mode is not Mode.ENDED and self.planner.deadline is None:
            assert self._stream or self._flights, "nothing is awaited, and nothing is due"

    def _do(self, commands: list[events.Command]) -> None:  # noqa: C901 (a table of commands)
        for command in commands:
            self.story.append(f"{self.now:7.3f}   -> {command}")
            match command:
                case Order.OPEN_SWARM:
                    self._open()
                case Order.LEAVE_SWARM:
                    self._leave()
                case messages.Report():
                    self._told(command)
                case messages.Brought(task, pieces):
                    self._brought(task, pieces)
                case messages.RunEnded(task, first):
                    self._run_ended(task, first)
                case messages.AskLeave(task):
                    self._asked_leave(task)
                case events.Fetch():
                    self._fetch(command)
                case events.Confirm(piece, _):
                    assert self.planner.held >> piece & 1
                    self._unreported[piece, self._task] = self.now
                case events.FetchOrigin(first, end):
                    self._begin_stream(first, self._stops_before(first) if end is None else end)
                case Order.LEAVE_ORIGIN:
                    assert self._stream
                    self._stream_left = True
                case events.GiveUp(error):
                    self.given_up = error

    # The supernode.

    def _open(self) -> None:
        self._leave()
        self._asked = True
        task = self._task
        answer = self._one_of(self.sources.open)
        if answer == "nobody":
            self.after(0.0, lambda: self._of(task, News.NO_SWARM))
            self._comes_back()
        elif answer == "lost":
            self._after_a_while(lambda: self._lose(task))
        elif answer == "failed":
            self._after_a_while(lambda: self._of(task, messages.TaskFailed(0, task, 502, "it cannot", corrupt=False)))
        elif answer == "task":
            self._after_a_while(lambda: self._answer(task))

    def _answer(self, task: int) -> None:
        if task == self._task:
            self._happened(events.SizeKnown(self.layout, 0))
            self._of(task, messages.Task(0, task, self.layout.size, self.layout.length, {}))

    def _of(self, task: int, event: events.Event) -> None:
        """Messages of a swarm that was left are not listened to."""
        if task == self._task:
            self._happened(event)

    def _leave(self) -> None:
        self._task += 1
        self._asked = False
        self._granted.clear()
        self._runs.clear()
        self._unreported.clear()

    def _lose(self, task: int) -> None:
        if task == self._task:
            self._leave()
            self._comes_back()
            self._happened(News.SWARM_LOST)

    def _comes_back(self) -> None:
        if self._one_of((True, False)):
            self._after_a_while(lambda: self._happened(News.SWARM_AVAILABLE))

    def _told(self, tell: messages.Report) -> None:
        assert self._asked, "reports go to a supernode that was asked"
        assert tell.task == self._task
        assert 0 <= tell.window <= WINDOW
        for outcome in tell.done:
            self._unreported.pop((outcome.piece, self._task), None)
            self._granted.discard(outcome.piece)
        task, what = self._task, self._one_of(self.sources.grant)
        if what == "lost":
            self._after_a_while(lambda: self._lose(task))
        elif what == "failed":
            self._after_a_while(lambda: self._of(task, messages.TaskFailed(0, task, 502, "it cannot", corrupt=False)))
        elif what == "seeding":
            self._after_a_while(lambda: self._seed(task, tell.window))
        elif what == "run":
            self._after_a_while(lambda: self._grant_run(task))
        elif what in ("right", "any"):
            self._after_a_while(lambda: self._grant(task, tell.window, what == "any"))

    def _seed(self, task: int, window: int) -> None:
        self._of(task, messages.Seeding(task))
        self.after(1.0, lambda: self._seed(task, window) if self._one_of((True, False)) else self._grant(task, window, False))

    def _grant(self, task: int, window: int, anything: bool) -> None:
        if task != self._task or self.planner.mode is Mode.ENDED:
            return
        if anything:  # held, on its way, beyond the end, more than was asked for
            pieces = self._some(self.sources.pieces + 2, 2 * WINDOW)
        else:
            lacking = self.layout.everything & ~self.planner.held
            pieces = [piece for piece in members(lacking) if piece not in self._granted][: window - len(self._granted)]
        self._granted.update(pieces)
        sources = range(4)
        granted = [messages.Granted(piece, b"", self._one_of(sources), self._one_of(sources)) for piece in pieces]
        self._of(task, messages.Grant(task, granted))

    def _asked_leave(self, task: int) -> None:
        assert self._asked
        assert task == self._task
        answer = self._one_of(self.sources.leave)
        if answer != "never":
            self._after_a_while(lambda: self._of(task, messages.Leave(task, answer == "given")))

    def _grant_run(self, task: int) -> None:
        """Of anything: what is here, on its way, or granted already included."""
        if task != self._task or self.planner.mode is Mode.ENDED:
            return
        first = self.data.draw(st.integers(0, self.layout.count - 1))
        end = self.data.draw(st.integers(first + 1, self.layout.count))
        if first in (run for run, _ in self._runs):
            return  # a run is named by its first piece
        self._runs.append((first, end))
        self._of(task, messages.Run(task, first, end))

    def _run_ended(self, task: int, first: int) -> None:
        assert self._asked
        assert task == self._task
        assert first in [run for run, _ in self._runs], "a run ends once"
        self._runs = [run for run in self._runs if run[0] != first]
        if self._one_of((True, False)):
            self._after_a_while(lambda: self._grant_run(task))

    def _brought(self, task: int, brought: dict[int, bytes]) -> None:
        assert self._asked
        assert task == self._task
        for piece, digest in brought.items():
            assert self.planner.held >> piece & 1, "what is named is here"
            assert digest == _digest(piece)

    # The nodes.

    def _fetch(self, fetch: events.Fetch) -> None:
        piece = fetch.piece
        assert self.layout.everything >> piece & 1, "it is a piece of the blob"
        assert not self.planner.held >> piece & 1, "what is held is not fetched"
        earlier = self._flights.get(piece)
        flight = Flight(fetch.source, self.now, self._task)
        if earlier and earlier.task == self._task and self._is_idle:
            assert not earlier.twin, "nothing is fetched three times at once"
            flight.twin, earlier.twin = earlier, flight
            earlier.is_superseded |= self._one_of((True, False))
        elif earlier:
            assert earlier.is_superseded or earlier.task != self._task, "nothing is fetched twice at once unless it is silent"
            earlier.is_superseded = True
        if piece == self._stream_at:
            assert piece not in self._taken, "the origin's stream is written over once"
            self._taken.add(piece)
            self._is_stream_superseded = self._stream is not None and piece == self._stream[0]
        elif not flight.twin:
            self._taken.discard(piece)
        self._moved_at = self.now
        self._flights[piece] = flight
        answer, task = self._one_of(self.sources.fetch), self._task
        if answer == "fetched":
            self._after_a_while(lambda: self._end_fetch(piece, flight, task, messages.DELIVERED))
        elif answer == "failed":
            verdict = self._one_of((messages.UNREACHABLE, messages.STALLED, messages.CORRUPT, messages.MISSING))
            self._after_a_while(lambda: self._end_fetch(piece, flight, task, verdict))
        else:
            self.after(FETCH_SECONDS_MAX, lambda: self._end_fetch(piece, flight, task, messages.STALLED))

    def _end_fetch(self, piece: int, flight: Flight, task: int, verdict: int) -> None:
        if self._flights.get(piece) is flight:
            del self._flights[piece]
            if flight.twin:
                self._flights[piece] = flight.twin
        if verdict:
            self._taken.discard(piece)
        is_one_of_two = flight.twin and (flight.is_superseded or verdict)
        if flight.twin:
            flight.twin.twin = None
        if flight.is_superseded or (task != self._task and verdict):
            self._of(task, events.Superseded(piece, flight.source))
            return
        if task == self._task and not is_one_of_two and not self.planner.held >> piece & 1:
            self._unreported[piece, task] = self.now
        self._moved_at = self.now
        milliseconds = ceil((self.now - flight.began) * 1000)
        self._happened(messages.Done(piece, flight.source, milliseconds, verdict))

    # The origin.

    def _stops_before(self, first: int) -> int:
        """A stream without an end goes on to what is here, or to the blob's last piece."""
        here = self.planner.held >> first
        return first + lowest(here) if here else self.layout.count

    def _begin_stream(self, first: int, end: int) -> None:
        assert self._stream is None, "one stream at a time"
        assert 0 <= first < end <= self.layout.count
        for piece in range(first, end):
            assert not self.planner.held >> piece & 1, "what is held is not streamed"
        if self.planner.mode is Mode.SWARM:
            assert any(run <= first and end <= run_end for run, run_end in self._runs), "it asks for what it was granted"
        elif self.planner.layout:
            free = self.layout.everything & ~self.planner.held
            taken = sum(1 << piece for piece in self._taken & self._flights.keys())
            free = free & ~taken or free
            wanted = next((free >> reader << reader for reader in self.planner.readers if free >> reader), free)
            assert first == lowest(wanted), "the stream begins where a reader comes first"
        self._stream, self._stream_at, self._stream_left, self._is_stream_superseded = (first, end), first, False, False
        self._overtake(first)
        self._after_a_while(self._go_on)

    def _overtake(self, piece: int) -> None:
        if piece in self._flights:
            self._flights[piece].is_superseded = True

    def _go_on(self) -> None:
        if self.planner.mode is Mode.ENDED:
            return
        assert self._stream
        piece, end = self._stream
        if self.planner.layout is None:
            self._happened(events.SizeKnown(self.layout, 0))
        what = "superseded" if self._is_stream_superseded else self._one_of(self.sources.origin)
        if what == "piece" and piece < end:
            self._stream = piece + 1, end
            self._happened(events.OriginPiece(piece, _digest(piece)))
            if piece + 1 < end:
                self._overtake(piece + 1)
            if not self._stream_left:
                self._after_a_while(self._go_on)
                return
        self._stream = None
        errors = {"breaks": OriginError(502, "broken"), "refuses": OriginError(404, "unknown")}
        self._happened(events.OriginEnded(None if self._stream_left else errors.get(what)))


def _digest(piece: int) -> bytes:
    return bytes([piece]) * 32


def run(data: st.DataObject, sources: Sources, swarm: bool = True) -> World:
    world = World(data, sources, swarm)
    try:
        world.run()
    except AssertionError as error:
        raise AssertionError(f"{error}\n" + "\n".join(world.story[-60:])) from error
    assert world.now < STEP_SECONDS_MAX * (sources.pieces + STEPS_MAX), "it takes too long\n" + "\n".join(world.story)
    complete = not world.layout.everything & ~world.planner.held
    assert complete != bool(world.given_up), "it ends with everything, or says why not"
    return world


@settings(max_examples=200, deadline=None)
@given(st.data(), st.booleans(), st.integers(1, 40))
def test_whatever_the_sources_do_it_ends_and_keeps_its_promises(data: st.DataObject, swarm: bool, pieces: int) -> None:
    run(data, Sources(pieces), swarm)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.booleans(), st.integers(1, 40))
def test_a_pull_that_the_origin_could_serve_never_fails_whatever_the_swarm_does(
    data: st.DataObject, swarm: bool, pieces: int
) -> None:
    world = run(data, Sources(pieces, origin=("piece",)), swarm)
    assert world.given_up is None


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 40))
def test_a_swarm_that_gives_what_it_is_asked_for_is_all_that_a_blob_needs(data: st.DataObject, pieces: int) -> None:
    world = run(data, Sources(pieces, ("task",), ("right",), ("fetched",), seconds=(0.0, 0.01, 1.0, 2.9), is_trickling=True))
    assert not any("FetchOrigin" in line for line in world.story)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans())
def test_when_nobody_gives_anything_it_says_so_in_bounded_time(data: st.DataObject, swarm: bool) -> None:
    world = run(data, Sources(fetch=("failed", "stalled"), origin=("breaks", "refuses", "ends")), swarm)
    assert world.given_up
