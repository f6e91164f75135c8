"""How many copies of each piece there are, kept up to date as pieces are granted, arrive and are lost."""

from __future__ import annotations

from typing import Final

FEW: Final = 4
"""As many as nodes of a swarm have leave to ask the origin at once: what they bring is nowhere else yet."""


class Copies:
    """How many nodes have each piece or are getting it. Those that hold the whole blob from earlier are one number."""

    __slots__ = ("_everything", "_some", "_wholes", "counts", "few", "present", "single")

    def __init__(self, pieces: int) -> None:
        self.counts = [0] * pieces
        self.present = 0
        """The pieces of which there is at least one copy, or one on its way."""
        self.few = (1 << pieces) - 1
        """Those of which there are at most `FEW`, not counting the nodes that hold all."""
        self.single = 0
        """Those of which there is one, not counting those nodes either."""
        self._some = 0
        self._wholes = 0
        self._everything = (1 << pieces) - 1

    def add(self, piece: int) -> None:
        counts = self.counts
        counts[piece] += 1
        if counts[piece] == 1:
            bit = 1 << piece
            self._some |= bit
            self.single |= bit
            self.present |= bit
        elif counts[piece] == 2:
            self.single &= ~(1 << piece)
        elif counts[piece] == FEW + 1:
            self.few &= ~(1 << piece)

    def remove(self, piece: int) -> None:
        counts = self.counts
        counts[piece] -= 1
        if counts[piece] == FEW:
            self.few |= 1 << piece
        elif counts[piece] == 1:
            self.single |= 1 << piece
        elif not counts[piece]:
            self._some &= ~(1 << piece)
            self.single &= ~(1 << piece)
            self.present = self._everything if self._wholes else self._some

    def add_wholes(self, wholes: int) -> None:
        self._wholes += wholes
        self.present = self._everything if self._wholes else self._some
