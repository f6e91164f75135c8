"""The origin of a trial: one registry, which counts what it is asked for, and has moods."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Protocol

from agent.origin.client import BLOB_SECONDS_MAX
from agent.origin.redirects import BODY_STALL_SECONDS_MAX
from agent.origin.throttle import WAITED_SECONDS_MAX
from agent.values.errors import DarnerError, OriginError, RangesError
from hack.simulate.network import Flow, Host
from hack.simulate.trial.content import Content, wrong
from hack.simulate.trial.ways import Purpose, Way

if TYPE_CHECKING:
    from hack.simulate.trial.party import Party
    from hack.simulate.trial.world import World

ORIGIN = "origin"
REGISTRIES = "registry.example", "other.example"
"""Both have every blob, and one network leads to both."""
_numbers = itertools.count()


@dataclass(eq=False)
class Mood:
    """How it treats requests for a while; None for all askers."""

    askers: frozenset[str] | None = None
    head_seconds: float = 0.0
    """Before the first byte."""
    is_silent: bool = False
    """It takes requests and says nothing; what is under way stands still."""
    status: int = 0
    """It refuses with this status."""
    pieces_max: int = 0
    """It breaks each answer off after so many pieces; 0 for never."""
    lies: bool = False
    """The first piece of each answer is wrong."""
    sends_all: bool = False
    """It knows no ranges."""
    retry_after: int = 0
    """Seconds that it names with its refusal."""
    registry: str = ""
    """The one that does so; "" for both."""

    def __str__(self) -> str:
        said = {key: value for key, value in vars(self).items() if value and key != "askers"}
        return f"origin {said} to {'all' if self.askers is None else ' '.join(sorted(self.askers))}"


class Origin:
    def __init__(self, rate: float) -> None:
        self.hosts = {registry: Host(rate, rate) for registry in REGISTRIES}
        self.moods: list[Mood] = []
        self.requests: Counter[str] = Counter()
        """By asker."""
        self.skipped = 0
        """Pieces that came because there are no ranges."""
        self.pieces: Counter[str] = Counter()
        """By asker, the pieces that were begun: one that is broken off counts whole."""

    def mood(self, asker: str, registry: str) -> Mood:
        for mood in self.moods:
            if (mood.askers is None or asker in mood.askers) and mood.registry in ("", registry):
                return mood
        return Mood()


class Taker(Protocol):
    """Whoever has asked. One `ended` follows a request in any case."""

    def head(self) -> None: ...
    def begins(self, piece: int) -> bool:
        """Whether this piece is wanted, which is about to come."""

    def came(self, piece: int, mark: bytes) -> bool:
        """Whether the answer is read on."""

    def ended(self, error: DarnerError | None) -> None: ...


class OriginRequest:
    """One request for pieces of a blob, as `agent.origin.client` makes it: from `first` up to `end`, or to the last."""

    def __init__(
        self, world: World, asker: Party, registry: str, content: Content, first: int, end: int | None, taker: Taker
    ) -> None:
        self._world = world
        self._asker = asker
        self._content = content
        self._registry = registry
        self._piece = first
        self._first = first
        self._end_piece = end
        self._taker = taker
        self._flow: Flow | None = None
        self._stalled_at: float | None = None
        self._is_over = False
        self.number = next(_numbers)
        self.began_at = world.now
        world.asking.add(self)
        pause = asker.pause_seconds(registry)
        if pause > WAITED_SECONDS_MAX:
            refused = OriginError(429, "the registry wants to be left alone", retry_after=ceil(pause))
            self._after(0.0, self._fail, refused)
        else:
            self._after(pause, self._connect)

    def _connect(self) -> None:
        world, way = self._world, self._world.ways.of(self._asker.name, ORIGIN, Purpose.ORIGIN)
        if way is Way.REFUSED:
            self._after(world.latency(), self._fail, OriginError(502, "the registry cannot be reached"))
        elif way is Way.DROPPED:
            self._after(BLOB_SECONDS_MAX, self._fail, OriginError(504, "the registry did not answer in time"))
        else:
            self._after(2 * world.latency(), self._asked)

    @property
    def is_moving(self) -> bool:
        return self._flow is not None and self._flow.moving

    @property
    def piece(self) -> int:
        """The one that is coming."""
        return self._piece

    def abort(self) -> None:
        self._fail(OriginError(502, "the request was given up", certain=False))

    def forget(self) -> None:
        """The asker has died."""
        self._is_over = True
        self._world.asking.discard(self)
        if self._flow and self._flow.moving:
            self._world.network.stop(self._flow)

    @property
    def _mood(self) -> Mood:
        return self._world.origin.mood(self._asker.name, self._registry)

    def look(self) -> None:
        """Ways, or the registry's mood, have changed."""
        way = self._world.ways.of(self._asker.name, ORIGIN, Purpose.ORIGIN)
        if way is Way.REFUSED and self._flow:
            self._fail(OriginError(502, "the registry broke off in the middle of a blob"))
        elif (way is not Way.OPEN or self._mood.is_silent) and self._flow:
            self._freeze()

    def _after(self, seconds: float, do: object, *arguments: object) -> None:
        def unless_over() -> None:
            if not self._is_over:
                do(*arguments)  # type: ignore[operator]

        self._world.after(seconds, unless_over)

    def _asked(self) -> None:
        world = self._world
        world.origin.requests[self._asker.name] += 1
        until = "on" if self._end_piece is None else f"to {self._end_piece}"
        world.say(ORIGIN, f"is asked by {self._asker.name} for {self._content.name} from piece {self._first} {until}")
        mood = self._mood
        if mood.is_silent or mood.head_seconds > BLOB_SECONDS_MAX:
            self._after(BLOB_SECONDS_MAX, self._fail, OriginError(504, "the registry did not answer in time"))
        elif mood.status:
            if mood.retry_after:
                self._asker.leave_alone(self._registry, mood.retry_after)
            self._fail(OriginError(mood.status, f"the registry answers {mood.status}", retry_after=mood.retry_after))
        elif mood.sends_all and self._end_piece is not None:
            self._fail(RangesError(502, "the registry sends no part of a blob"))
        elif mood.sends_all and self._first:
            self._after(mood.head_seconds, self._skip)
        else:
            self._after(mood.head_seconds, self._head)

    def _skip(self) -> None:
        """All of it comes, and what is here already is not looked at."""
        start = self._content.layout.span(self._first)[0]
        self._world.origin.skipped += self._first
        self._flow = self._world.network.send(self._world.origin.hosts[self._registry], self._asker.host, start, self._skipped)
        self.look()

    def _skipped(self) -> None:
        self._flow = None
        self._head()

    def _head(self) -> None:
        self._taker.head()
        self._next()

    def _next(self) -> None:
        if self._is_over:
            return
        world, piece, mood = self._world, self._piece, self._mood
        if piece == self._content.layout.count or not self._taker.begins(piece):
            self._end(None)
        elif mood.pieces_max and piece - self._first >= mood.pieces_max:
            self._fail(OriginError(502, "the registry broke off in the middle of a blob"))
        else:
            world.origin.pieces[self._asker.name] += 1
            start, end = self._content.layout.span(piece)
            self._flow = world.network.send(world.origin.hosts[self._registry], self._asker.host, end - start, self._came)
            self.look()

    def _came(self) -> None:
        self._flow = None
        piece, mark = self._piece, self._content.marks[self._piece]
        if self._mood.lies and piece == self._first:
            mark = wrong(mark)
            self._world.doubtful.add(self._content.digest)
        self._piece += 1
        if self._taker.came(piece, mark):
            self._next()
        else:
            self._end(None)

    def _freeze(self) -> None:
        if self._flow and self._flow.moving:
            self._world.network.stop(self._flow)
            self._after(BODY_STALL_SECONDS_MAX, self._fail, OriginError(504, "the registry stopped in the middle of a blob"))

    def _fail(self, error: DarnerError) -> None:
        self._end(error)

    def _end(self, error: DarnerError | None) -> None:
        if not self._is_over:
            self.forget()
            self._taker.ended(error)
