"""One agent's channel, as the supernode sees it: who is there, what it was told, and what goes out to it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from agent import wire
from agent.settings import Address

log = logging.getLogger(__name__)

UNSENT_BYTES_MAX = 16 << 20
"""An agent that reads so slowly is cut off: it comes back and says what it has."""


@dataclass(eq=False)
class Link:
    """A connected agent. `number` is new with every connection, `name` is the node's for good."""

    number: int
    name: str
    zone: str
    where: Address
    """Its piece server."""
    writer: asyncio.StreamWriter
    introduced: set[int] = field(default_factory=lambda: {wire.SEED})
    """The peers that it knows by number."""
    in_flight: dict[int, dict[int, tuple[int, int]]] = field(default_factory=dict)
    """By task: the granted pieces that the agent still counts as in flight, with their source and its alternative."""
    waiting: int = 0
    """Its Opens that were not answered yet."""
    holdings: dict[bytes, int] = field(default_factory=dict)
    """Whole blobs and their sizes."""

    def send(self, *messages: wire.Message) -> None:
        if self.writer.is_closing():
            return
        self.writer.write(b"".join(map(wire.frame, messages)))
        if self.writer.transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            log.warning("%s does not read what it is sent and is cut off", self.name)
            self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()
