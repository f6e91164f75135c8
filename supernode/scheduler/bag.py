"""A set of which a few members are looked at, from a random place on, at a cost that does not grow with the set."""

from __future__ import annotations

from typing import Generic, TypeVar

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
