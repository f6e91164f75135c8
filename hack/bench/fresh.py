"""Nodes that begin with an empty store and end with a block, and what a pull cost them.

A pull is over for its client before it is over for Darner: a supernode may still fetch what nobody waits for. All of that counts.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from hack.bench.machine import GB, process_seconds
from hack.lab.darner import Node

_LOOKED_AFTER_SECONDS = 0.5
_REST_SHARE_MAX = 0.04
"""Of a core, by all nodes together: nodes that take less are at rest. An idle agent and an idle supernode take a tenth of it."""
_REST_SECONDS_MAX = 60.0

AnyNode = TypeVar("AnyNode", bound=Node)


@contextlib.contextmanager
def fresh(node: AnyNode) -> Iterator[AnyNode]:
    """It ends with the block, and its store with it."""
    try:
        yield node
    finally:
        node.kill()
        shutil.rmtree(node.store)


@dataclass(frozen=True)
class Cost:
    seconds: float
    """That the client needed."""
    cpu_seconds: tuple[float, ...]
    """Of each node, until all were at rest: of the agent, and of the supernode if there is one."""


def costs_described(costs: Sequence[Cost], size: int) -> str:
    """What the client waited, and what the agent took for a GB, and the supernode if there was one; medians."""
    told = [
        f"{name} {median(taken) * GB / size:.2f}"
        for name, taken in zip(("agent", "supernode"), zip(*(one.cpu_seconds for one in costs), strict=True), strict=False)
    ]
    return f"{median(one.seconds for one in costs):.2f} s; CPU-s/GB: {', '.join(told)}"


def cost(pull: Callable[[], float], nodes: Sequence[Node]) -> Cost:
    """`pull` gives the seconds that it took. Raises TimeoutError if the nodes find no rest."""
    before = _taken(nodes)
    seconds = pull()
    after = _at_rest(nodes)
    return Cost(seconds, tuple(last - first for first, last in zip(before, after, strict=True)))


def _at_rest(nodes: Sequence[Node]) -> list[float]:
    """What they have taken so far, as soon as they take next to nothing any more."""
    deadline = time.monotonic() + _REST_SECONDS_MAX
    taken = _taken(nodes)
    while time.monotonic() < deadline:
        time.sleep(_LOOKED_AFTER_SECONDS)
        before, taken = taken, _taken(nodes)
        if sum(taken) - sum(before) < _REST_SHARE_MAX * _LOOKED_AFTER_SECONDS:
            return taken
    raise TimeoutError(f"{', '.join(node.host.name for node in nodes)} worked for {_REST_SECONDS_MAX:g} s after a pull")


def _taken(nodes: Sequence[Node]) -> list[float]:
    return [process_seconds(node.process.pid) for node in nodes]
