"""What the scheduler alone takes of the processor: a second one, in a process of its own, that is told the same.

Timed event by event between the events of a simulation, a scheduler would pay for the clock, for finding its state pushed out of
the caches, and for memory that it shares with thousands of simulated nodes; in a supernode it does not. So events go over in
batches, and the simulation waits. The same seed and the same events give the same commands; that the second one granted as many
pieces is checked.
"""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from random import Random

from supernode.scheduler import machine
from supernode.scheduler.events import Event, GrantPieces
from supernode.scheduler.limits import Limits
from supernode.scheduler.machine import Scheduler

TREE = Path(__file__).resolve().parent.parent.parent
EVENTS_AT_ONCE = 100_000
COMPILED = not machine.__file__.endswith(".py")
"""Whether it is machine code that is measured, as in the image, or the sources: see docs/decisions/0015."""


class Shadow:
    """To be closed at the end."""

    def __init__(self, seed: int, limits: Limits) -> None:
        argv = [sys.executable, "-m", "hack.simulate.shadow"]
        self._process = subprocess.Popen(argv, cwd=TREE, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin
        assert self._process.stdout
        self._to, self._from = self._process.stdin, self._process.stdout
        self._say((seed, asdict(limits)))
        self._events: list[tuple[Event, float]] = []
        self.cpu_seconds = 0.0
        self.grants = 0

    def tell(self, event: Event, now: float) -> None:
        self._events.append((event, now))
        if len(self._events) == EVENTS_AT_ONCE:
            self.catch_up()

    def catch_up(self) -> None:
        """Have done what was told so far."""
        self._say(self._events)
        self._events.clear()
        cpu_seconds, grants = pickle.load(self._from)
        self.cpu_seconds += cpu_seconds
        self.grants += grants

    def close(self) -> None:
        self._to.close()
        self._from.close()
        self._process.wait()

    def _say(self, something: object) -> None:
        pickle.dump(something, self._to, pickle.HIGHEST_PROTOCOL)
        self._to.flush()


def main() -> None:
    """The other process: reads batches of events, and writes what each took, in CPU-seconds and grants."""
    seed, limits = pickle.load(sys.stdin.buffer)
    handle = Scheduler(Random(seed), Limits(**limits)).handle
    gc.disable()  # as in the simulation: nothing of a rollout is garbage before its end
    while True:
        try:
            events: list[tuple[Event, float]] = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        grants, began = 0, time.process_time()
        for event, now in events:
            for command in handle(event, now):
                if type(command) is GrantPieces:
                    grants += len(command.pieces)
        pickle.dump((time.process_time() - began, grants), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
