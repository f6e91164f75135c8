"""The origin of a trial: one registry, which counts what it is asked for, and has moods."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.origin.client import BLOB_SECONDS_MAX
from agent.origin.redirects import BODY_STALL_SECONDS_MAX
from agent.values.errors import DarnerError, OriginError
from hack.simulate.network import Flow, Host
from hack.simulate.trial.content import Content, wrong
from hack.simulate.trial.ways import Purpose, Way

if TYPE_CHECKING:
    from hack.simulate.trial.party import Party
    from hack.simulate.trial.world import World

ORIGIN = "origin"
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

    def __str__(self) -> str:
        said = {key: value for key, value in vars(self).items() if value and key != "askers"}
        return f"origin {said} to {'all' if self.askers is None else ' '.join(sorted(self.askers))}"


class Origin:
    def __init__(self, rate: float) -> None:
        self.host = Host(rate, rate)
        self.moods: list[Mood] = []
        self.requests: Counter[str] = Counter()
        """By asker."""
        self.pieces: Counter[str] = Counter()
        """By asker, the pieces that were begun: one that is broken off counts whole."""

    def mood(self, asker: str) -> Mood:
        for mood in self.moods:
            if mood.askers is None or asker in mood.askers:
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
    """One request for a blob from a piece on, as `agent.origin.client` makes it."""

    def __init__(self, world: World, asker: Party, content: Content, first: int, taker: Taker) -> None:
        self._world = world
        self._asker = asker
        self._content = content
        self._piece = first
        self._first = first
        self._taker = taker
        self._flow: Flow | None = None
        self._stalled_at: float | None = None
        self._is_over = False
        self.number = next(_numbers)
        self.began_at = world.now
        world.asking.add(self)
        way = world.ways.of(asker.name, ORIGIN, Purpose.ORIGIN)
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

    def look(self) -> None:
        """Ways, or the registry's mood, have changed."""
        way = self._world.ways.of(self._asker.name, ORIGIN, Purpose.ORIGIN)
        if way is Way.REFUSED and self._flow:
            self._fail(OriginError(502, "the registry broke off in the middle of a blob"))
        elif (way is not Way.OPEN or self._world.origin.mood(self._asker.name).is_silent) and self._flow:
            self._freeze()

    def _after(self, seconds: float, do: object, *arguments: object) -> None:
        def unless_over() -> None:
            if not self._is_over:
                do(*arguments)  # type: ignore[operator]

        self._world.after(seconds, unless_over)

    def _asked(self) -> None:
        world = self._world
        world.origin.requests[self._asker.name] += 1
        world.say(ORIGIN, f"is asked by {self._asker.name} for {self._content.name} from piece {self._first} on")
        mood = world.origin.mood(self._asker.name)
        if mood.is_silent or mood.head_seconds > BLOB_SECONDS_MAX:
            self._after(BLOB_SECONDS_MAX, self._fail, OriginError(504, "the registry did not answer in time"))
        elif mood.status:
            self._fail(OriginError(mood.status, f"the registry answers {mood.status}"))
        else:
            self._after(mood.head_seconds, self._head)

    def _head(self) -> None:
        self._taker.head()
        self._next()

    def _next(self) -> None:
        if self._is_over:
            return
        world, piece, mood = self._world, self._piece, self._world.origin.mood(self._asker.name)
        if piece == self._content.layout.count or not self._taker.begins(piece):
            self._end(None)
        elif mood.pieces_max and piece - self._first >= mood.pieces_max:
            self._fail(OriginError(502, "the registry broke off in the middle of a blob"))
        else:
            world.origin.pieces[self._asker.name] += 1
            start, end = self._content.layout.span(piece)
            self._flow = world.network.send(world.origin.host, self._asker.host, end - start, self._came)
            self.look()

    def _came(self) -> None:
        self._flow = None
        piece, mark = self._piece, self._content.marks[self._piece]
        if self._world.origin.mood(self._asker.name).lies and piece == self._first:
            mark = wrong(mark)
            self._world.origin_lied.add(self._content.digest)
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
