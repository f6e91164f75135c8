"""How many copies of each piece there are, kept up to date as pieces are granted, arrive and are lost."""

from __future__ import annotations


class Copies:
    """How many nodes have each piece or are getting it. Those that hold the whole blob from earlier are one number."""

    __slots__ = ("_everything", "_some", "_wholes", "counts", "present")

    def __init__(self, pieces: int) -> None:
        self.counts = [0] * pieces
        self.present = 0
        """The pieces of which there is at least one copy, or one on its way."""
        self._some = 0
        self._wholes = 0
        self._everything = (1 << pieces) - 1

    def add(self, piece: int) -> None:
        counts = self.counts
        counts[piece] += 1
        if counts[piece] == 1:
            bit = 1 << piece
            self._some |= bit
            self.present |= bit

    def remove(self, piece: int) -> None:
        counts = self.counts
        counts[piece] -= 1
        if not counts[piece]:
            self._some &= ~(1 << piece)
            self.present = self._everything if self._wholes else self._some

    def add_wholes(self, wholes: int) -> None:
        self._wholes += wholes
        self.present = self._everything if self._wholes else self._some
