"""Sets of which a few members are looked at, from a random place on, at a cost that does not grow with the set.

A `Bag` is one such set; `Parked` are the takers whose wants cannot be met now, in the order in which they are to be served.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

RANKS: Final = 16
"""Takers to whom more pieces are on their way than this are not told apart."""

T = TypeVar("T")


class Bag(Generic[T]):
    """A set from which a few neighbours of a random place are taken in constant time."""

    __slots__ = ("_items", "_places")

    def __init__(self) -> None:
        self._items: list[T] = []
        self._places: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: T) -> bool:
        return item in self._places

    def add(self, item: T) -> None:
        if item not in self._places:
            self._places[item] = len(self._items)
            self._items.append(item)

    def discard(self, item: T) -> None:
        place = self._places.pop(item, None)
        if place is None:
            return
        last = self._items.pop()
        if place < len(self._items):
            self._items[place] = last
            self._places[last] = place

    def some(self, where: float, most: int) -> list[T]:
        """At most `most` items, from the place `where` (0 to 1) onward and around the end: all of them when there are no more."""
        return neighbours(self._items, where, most)


def neighbours(items: list[T], where: float, most: int) -> list[T]:
    """At most `most` of them, from the place `where` (0 to 1) onward and around the end."""
    count = len(items)
    start = int(where * count)
    taken = items[start : start + most]
    if start and start + most > count:
        taken += items[: min(start, start + most - count)]
    return taken


@dataclass(slots=True, eq=False)
class Parkable:
    """What a taker remembers of where it is parked. `Parked` alone changes it."""

    rank: int = field(default=-1, init=False)
    """Among which of those that are parked the taker is; -1 when it is not."""
    place: int = field(default=0, init=False)
    """And where among those."""


P = TypeVar("P", bound=Parkable)


class Parked(Generic[P]):
    """Takers that would take more at once, by how many pieces are on their way to their node (`taking`): the fewest first."""

    __slots__ = ("_ranks", "count")

    def __init__(self) -> None:
        self._ranks: list[list[P]] = [[] for _ in range(RANKS)]
        self.count = 0

    def __contains__(self, taker: P) -> bool:
        return taker.rank >= 0

    def add(self, taker: P, taking: int) -> None:
        """One that is not there yet."""
        self.count += 1
        self._enter(taker, taking)

    def discard(self, taker: P) -> None:
        if taker.rank >= 0:
            self.count -= 1
            self._leave(taker)
            taker.rank = -1

    def follow(self, taker: P, taking: int) -> None:
        """More, or fewer, pieces are on their way to its node now. In its other swarms it stays where it is for a while."""
        if taker.rank != taking:
            self._leave(taker)
            self._enter(taker, taking)

    def first(self, where: float, most: int) -> list[P]:
        """At most `most` of them, those with the fewest pieces on their way first, chance deciding between equals."""
        found: list[P] = []
        left = most
        for waiting in self._ranks:
            if waiting:
                some = neighbours(waiting, where, left)
                found = found + some if found else some
                left -= len(waiting)
                if left <= 0:
                    break
        return found

    def _enter(self, taker: P, taking: int) -> None:
        taker.rank = rank = taking if taking < RANKS else RANKS - 1
        takers = self._ranks[rank]
        taker.place = len(takers)
        takers.append(taker)

    def _leave(self, taker: P) -> None:
        takers = self._ranks[taker.rank]
        last = takers.pop()
        if last is not taker:
            takers[taker.place] = last
            last.place = taker.place
