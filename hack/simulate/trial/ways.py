"""The ways between the parts of a trial: which of them are closed now, and how.

A way has a direction and a purpose, so a piece server can be out of reach of a node whose channel is open. What a channel says is
TCP's: nothing is lost, doubled or reordered while it lives. What a closed way holds back comes late and in order, or is lost with
the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Way(Enum):
    OPEN = "open"
    REFUSED = "refused"
    """Connections are reset."""
    DROPPED = "dropped"
    """Packets vanish."""
    HOLE = "a black hole for large packets"
    """Connections and small answers come through, bodies do not."""


class Purpose(Enum):
    CHANNEL = "channel"
    PIECES = "pieces"
    ORIGIN = "origin"


@dataclass(frozen=True)
class Block:
    """Closes ways from some parts to some others, by their names; None stands for all."""

    purpose: Purpose
    how: Way
    sources: frozenset[str] | None = None
    targets: frozenset[str] | None = None

    def closes(self, source: str, target: str, purpose: Purpose) -> bool:
        return (
            purpose is self.purpose
            and (self.sources is None or source in self.sources)
            and (self.targets is None or target in self.targets)
        )

    def __str__(self) -> str:
        return f"{self.purpose.value} {self.how.value} from {_names(self.sources)} to {_names(self.targets)}"


def _names(parts: frozenset[str] | None) -> str:
    return "all" if parts is None else " ".join(sorted(parts))


class Ways:
    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self.on_change: list[Callable[[], None]] = []
        """Whoever has something under way looks at its way again."""

    def of(self, source: str, target: str, purpose: Purpose) -> Way:
        for block in self._blocks:
            if block.closes(source, target, purpose):
                return block.how
        return Way.OPEN

    def close(self, block: Block) -> None:
        self._blocks.append(block)
        self._changed()

    def open(self, block: Block) -> None:
        if block in self._blocks:
            self._blocks.remove(block)
            self._changed()

    def open_all(self) -> None:
        self._blocks.clear()
        self._changed()

    def _changed(self) -> None:
        for look in list(self.on_change):
            look()
