"""Places for questions to registries, shared so that those that do not answer cost the others nothing.

A place is what a question takes as long as it lasts: a thread, mostly. One registry has a part of the places at the most, and so
has one node. Registries whose last question ended soon may have all of them; the others, which are new or were silent, share one
half, and there the names of one domain are one registry. So however many names hang, there are places for registries that answer.
Whoever waits for a place gets it in turn, of those first that have fewest.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Self

PROMPT_SECONDS = 5.0
"""A registry that took longer counts as silent until it is quicker."""
PROMPT_MAX = 4096
"""Registries of which that is remembered."""

_Part = tuple[str, ...]


class Prompt:
    """The registries that ended their last question soon; what shares know of that can be one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._registries: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, registry: str) -> bool:
        return registry in self._registries

    def judge(self, registry: str, seconds: float) -> None:
        with self._lock:
            self._registries.pop(registry, None)
            if seconds < PROMPT_SECONDS:
                self._registries[registry] = None
            if len(self._registries) > PROMPT_MAX:
                self._registries.popitem(last=False)


class Seat:
    """One that is held until it is given back; a context manager does that."""

    def __init__(self, shares: Shares, registry: str, node: str) -> None:
        self.registry = registry
        self.node = node
        self.began = time.monotonic()
        self.parts: dict[_Part, int] = {}
        """What the place counts towards, and how many of those there may be."""
        self.is_answered = False
        self._shares = shares

    def answered(self) -> None:
        """The registry has begun to answer. What takes long from here on is no silence."""
        self._shares.judge(self)

    def give_back(self) -> None:
        self._shares.give_back(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()


class Shares:
    """Any thread may call."""

    def __init__(self, most: int, most_of_one: int = 0, prompt: Prompt | None = None) -> None:
        """`most_of_one` registry or node that answers, if that is not half of them."""
        self.most = most
        self._most_of_one = most_of_one or max(1, most // 2)
        self._lock = threading.Lock()
        self._held: Counter[_Part] = Counter()
        self._prompt = prompt or Prompt()
        self._waiting: dict[Seat, Callable[[Seat], None]] = {}
        """In the order in which they came."""
        self._closed = False

    def take(self, registry: str, node: str = "", seconds: float = 0.0) -> Seat | None:
        """A place, after waiting for one so long; None without one."""
        got: Future[Seat] = Future()
        place = self.ask(registry, node, got.set_result)
        try:
            return got.result(seconds)
        except TimeoutError:
            return None if self.withdraw(place) else got.result()

    def ask(self, registry: str, node: str, begin: Callable[[Seat], None]) -> Seat:
        """`begin` is called with a place as soon as there is one, perhaps by a thread that gives one back. It must not wait."""
        place = Seat(self, registry, node)
        with self._lock:
            if not self._closed:
                self._waiting[place] = begin
        self._hand_out()
        return place

    def withdraw(self, place: Seat) -> bool:
        """Whether a place is still waited for; it is not any more."""
        with self._lock:
            return self._waiting.pop(place, None) is not None

    def close(self) -> None:
        """Nobody who waits, or asks from now on, gets a place."""
        with self._lock:
            self._closed = True
            self._waiting.clear()

    def has_its_part(self, registry: str) -> bool:
        """Whether it is the registry's own questions that leave it no further place, and not those of others."""
        with self._lock:
            own = {part: most for part, most in self._parts(registry, "").items() if "registry" in part}
            return any(self._held[part] >= most for part, most in own.items())

    def judge(self, place: Seat) -> None:
        """Was the registry quick? Then what it has, and gets next, is no longer among the few for those that were not."""
        with self._lock:
            if place.is_answered or not place.parts:
                return
            place.is_answered = True
            self._prompt.judge(place.registry, time.monotonic() - place.began)
            self._leave(place)
            self._enter(place)
        self._hand_out()

    def give_back(self, place: Seat) -> None:
        self.judge(place)
        with self._lock:
            self._leave(place)
        self._hand_out()

    def _parts(self, registry: str, node: str) -> dict[_Part, int]:
        """What a place counts towards, each with its most."""
        half, quarter = max(1, self.most // 2), max(1, self.most // 4)
        if registry in self._prompt:
            parts: dict[_Part, int] = {(): self.most, ("registry", registry): self._most_of_one}
            return parts | ({("node", node): self._most_of_one} if node else {})
        parts = {(): self.most, ("silent",): half, ("silent", "registry", _domain(registry)): quarter}
        return parts | ({("silent", "node", node): quarter} if node else {})

    def _hand_out(self) -> None:
        while True:
            with self._lock:
                place = self._next()
                if place is None:
                    return
                begin = self._waiting.pop(place)
                place.began = time.monotonic()
                self._enter(place)
            begin(place)

    def _next(self) -> Seat | None:
        """Of those that may have a place, the one whose registry and node have fewest. Prompt ones go first."""
        best, best_rank = None, (2, 0)
        if self._held[()] >= self.most:
            return None
        for place in self._waiting:
            parts = self._parts(place.registry, place.node)
            held = [self._held[part] for part in parts]
            rank = (("silent",) in parts, sum(held[1:]))
            if rank < best_rank and all(count < most for count, most in zip(held, parts.values(), strict=True)):
                best, best_rank = place, rank
        return best

    def _enter(self, place: Seat) -> None:
        place.parts = self._parts(place.registry, place.node)
        self._held.update(place.parts.keys())

    def _leave(self, place: Seat) -> None:
        for part in place.parts:
            self._held[part] -= 1
            if not self._held[part]:
                del self._held[part]
        place.parts = {}


class SharedThreads:
    """Threads for what is asked of registries: each question has one of its own, as soon as there is a place."""

    def __init__(self, most: int, name: str, most_of_one: int = 0, prompt: Prompt | None = None) -> None:
        self._name = name
        self._shares = Shares(most, most_of_one, prompt)
        self._changed = threading.Condition()
        self._running = 0
        self._left: list[tuple[Seat, Callable[[Seat], None]]] = []
        """What no thread could be started for: it waits for one that ends."""

    def submit(self, registry: str, node: str, do: Callable[[Seat], None]) -> None:
        """Have it done in a thread, with the place that it takes. Raises RuntimeError when the system has no thread left."""
        failed: list[RuntimeError] = []

        def begin(place: Seat) -> None:
            with self._changed:
                try:
                    threading.Thread(target=self._run, args=(place, do), name=self._name, daemon=True).start()
                    self._running += 1
                except RuntimeError as error:
                    if self._running:
                        self._left.append((place, do))
                    else:
                        failed.append(error)
            if failed:
                place.give_back()

        self._shares.ask(registry, node, begin)
        if failed:
            raise failed[0]

    def stop(self) -> None:
        """Begin nothing more."""
        self._shares.close()
        with self._changed:
            self._left.clear()

    def join(self) -> None:
        """Wait for what is under way."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running)

    def _run(self, place: Seat, do: Callable[[Seat], None]) -> None:
        while True:
            with place:
                do(place)
            with self._changed:
                if not self._left:
                    self._running -= 1
                    self._changed.notify_all()
                    return
                place, do = self._left.pop()


def _domain(registry: str) -> str:
    """The name's last two labels: whoever has a domain has as many names in it as it likes. An address has none, but ports."""
    host = registry.rpartition(":")[0] if registry.rpartition(":")[2].isdigit() else registry
    if ":" in host or host.rpartition(".")[2][:1].isdigit():
        return host
    return ".".join(host.split(".")[-2:])
