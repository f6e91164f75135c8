"""What the scheduler alone takes of the processor: a second one that is told the same, many events at a time.

Timed event by event between the events of a simulation, a scheduler would pay for the clock, and for finding its state pushed out
of the caches. The same seed and the same events give the same commands, so the second one does the work of the first; that it
granted as many pieces is checked.
"""

from __future__ import annotations

import time
from random import Random

from supernode import scheduler
from supernode.scheduler import Event, Grant, Limits, Scheduler

EVENTS_AT_ONCE = 100_000
COMPILED = not scheduler.__file__.endswith(".py")
"""Whether it is machine code that is measured, as in the image, or the sources: see docs/decisions/0015."""


class Shadow:
    def __init__(self, seed: int, limits: Limits) -> None:
        self._scheduler = Scheduler(Random(seed), limits)
        self._events: list[tuple[Event, float]] = []
        self.cpu_seconds = 0.0
        self.grants = 0

    def tell(self, event: Event, now: float) -> None:
        self._events.append((event, now))
        if len(self._events) == EVENTS_AT_ONCE:
            self.catch_up()

    def catch_up(self) -> None:
        """Do what was told so far."""
        events, self._events = self._events, []
        handle, grants = self._scheduler.handle, 0
        began = time.process_time()
        for event, now in events:
            for command in handle(event, now):
                if type(command) is Grant:
                    grants += len(command.pieces)
        self.cpu_seconds += time.process_time() - began
        self.grants += grants
