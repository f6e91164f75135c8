"""What a node and a supernode have in common: a link, a store, a clock, a key, and a piece server that others ask."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING

from agent.origin.throttle import RETRY_AFTER_KEPT_SECONDS_MAX
from agent.storage.blob import Blob
from agent.swarm import tickets
from agent.values.address import Address
from agent.values.errors import OriginError
from hack.simulate.network import Host
from hack.simulate.trial.content import Shelf, wrong
from hack.simulate.trial.origin import ORIGIN
from hack.simulate.trial.virtual import UNIX_SECONDS
from hack.simulate.trial.ways import Purpose, Way

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
        self.misnamed: dict[str, set[int]] = {}
        """Pieces that it named wrongly, by blob: what it sends of them is what it named."""
        self.pretends = False
        """It claims to hold every blob, and has none of what it is asked for."""
        self._pauses: dict[str, float] = {}
        """By registry, until when it wants not to be asked, as far as this party was told."""
        self._awaiting: dict[tuple[str, int], list[Callable[[], None]]] = {}

    @property
    def unix_seconds(self) -> float:
        return UNIX_SECONDS + self.world.now + self.clock_ahead

    def clocks(self) -> list[float]:
        """A ticket is good if it is so on one of these."""
        return [self.unix_seconds]

    def refusal(self, digest: str, ticket: str) -> str:
        return tickets.refusal([self.key], digest, [self.where], ticket, self.clocks())

    def leave_alone(self, registry: str, seconds: float) -> None:
        """A registry has named the time for which it wants not to be asked."""
        kept_seconds = min(seconds, RETRY_AFTER_KEPT_SECONDS_MAX)
        self._pauses[registry] = self.world.now + kept_seconds
        self.world.look_at_the_origin()
        self.world.after(kept_seconds + 0.001, self.world.look_at_the_origin)

    def pause_seconds(self, registry: str) -> float:
        """What is left of that."""
        return max(0.0, self._pauses.get(registry, 0.0) - self.world.now)

    def blob_size(self, registry: str, _repository: str, digest: str) -> int:
        """As the registry says it, at once."""
        mood, way = self.world.origin.mood(self.name, registry), self.world.ways.of(self.name, ORIGIN, Purpose.ORIGIN)
        if self.pause_seconds(registry):
            raise OriginError(429, "the registry wants to be left alone", retry_after=ceil(self.pause_seconds(registry)))
        if way is not Way.OPEN or mood.is_silent:
            raise OriginError(504, "the registry did not answer in time")
        if mood.status:
            raise OriginError(mood.status, f"the registry answers {mood.status}", retry_after=mood.retry_after)
        return self.world.contents[digest].layout.size

    def sent(self, digest: str, piece: int, mark: bytes) -> bytes:
        """What others get of a piece that is here."""
        return wrong(mark) if self.lies or piece in self.misnamed.get(digest, ()) else mark

    def shares(self, blob: Blob | None, piece: int) -> bool:
        return blob is not None and not blob.error and bool(blob.checked >> piece & 1)

    def await_piece(self, digest: str, piece: int, do: Callable[[], None]) -> None:
        """Somebody asked for a piece that is coming."""
        self._awaiting.setdefault((digest, piece), []).append(do)

    def piece_is_here(self, digest: str, piece: int) -> None:
        for do in self._awaiting.pop((digest, piece), []):
            do()
