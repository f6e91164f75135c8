"""What a node and a supernode have in common: a link, a store, a clock, a key, and a piece server that others ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.storage.blob import Blob
from agent.swarm import tickets
from agent.values.address import Address
from hack.simulate.network import Host
from hack.simulate.trial.content import Shelf
from hack.simulate.trial.virtual import UNIX_SECONDS

if TYPE_CHECKING:
    from hack.simulate.trial.world import World

PIECE_PORT = 65002


class Party:
    def __init__(self, world: World, name: str, ip: str, rate: float) -> None:
        self.world = world
        self.name = name
        self.where = Address(ip, PIECE_PORT)
        self.host = Host(rate, rate)
        self.shelf = Shelf()
        self.key = b"k" * 32
        self.clock_ahead = 0.0
        """Seconds that its clock is wrong."""
        self.is_up = False
        self.is_dark = False
        """It does not even refuse connections."""
        self.is_stuck = False
        """Its piece server takes requests, and sends nothing."""
        self.lies = False
        """Every piece that it sends is wrong."""
        self.pretends = False
        """It claims to hold every blob, and has none of what it is asked for."""
        self._awaiting: dict[tuple[str, int], list[Callable[[], None]]] = {}

    @property
    def unix_seconds(self) -> float:
        return UNIX_SECONDS + self.world.now + self.clock_ahead

    def clocks(self) -> list[float]:
        """A ticket is good if it is so on one of these."""
        return [self.unix_seconds]

    def refusal(self, digest: str, ticket: str) -> str:
        return tickets.refusal([self.key], digest, [self.where], ticket, self.clocks())

    def shares(self, blob: Blob | None, piece: int) -> bool:
        return blob is not None and not blob.error and bool(blob.checked >> piece & 1)

    def await_piece(self, digest: str, piece: int, do: Callable[[], None]) -> None:
        """Somebody asked for a piece that is coming."""
        self._awaiting.setdefault((digest, piece), []).append(do)

    def piece_is_here(self, digest: str, piece: int) -> None:
        for do in self._awaiting.pop((digest, piece), []):
            do()
