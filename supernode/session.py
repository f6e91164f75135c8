"""One agent's session, as the supernode sees it: which node it is, what the agent was told, and what goes out to the agent.

Messages to an agent are gathered while messages of agents are understood, and go out after that: however many there are, they
cost one call of the system. The busier the supernode, the more there are.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from agent.swarm import messages
from agent.swarm.channel import frame
from agent.values.address import Address
from supernode.node_tokens import Proven

log = logging.getLogger(__name__)

UNSENT_BYTES_MAX = 16 << 20
"""An agent that reads so slowly is cut off: it comes back and says what it has."""
INTRODUCED_MAX = 128
"""Introducing a peer again costs less than remembering, of each of ten thousand agents, all peers that it ever met."""


@dataclass(eq=False, slots=True)
class AgentSession:
    """A connected agent. `number` is new with every connection, `name` is the node's for good."""

    number: int
    name: str
    zone: str
    where: Address
    """Its piece server."""
    writer: asyncio.WriteTransport
    introduction: bytes = b""
    """What others are told before they are first sent to its piece server: a frame."""
    fingerprint: bytes = b""
    """Of its piece server."""
    proven: Proven | None = None
    """Whose token has shown that it is this node's agent, if tokens are asked for."""
    located: bool = True
    """It is at `where`: it connects from there, or has answered there."""
    heard_at: float = 0.0
    introduced: set[int] = field(default_factory=set)
    """The peers that it knows by number; some of them."""
    in_flight: dict[int, dict[int, tuple[int, ...]]] = field(default_factory=dict)
    """By task: the granted pieces that the agent still counts as in flight, with their source and its alternative."""
    waiting: int = 0
    """Its Opens that were not answered yet."""
    holdings: dict[bytes, int] = field(default_factory=dict)
    """Whole blobs and their sizes."""
    unsent: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.introduction = frame(messages.Peer(self.number, self.where.host, self.where.port, self.fingerprint))

    def send(self, *said: messages.Message) -> None:
        self._put(*map(frame, said))

    def introduce(self, peer: AgentSession) -> None:
        """Tell this agent where a peer is, unless that was done lately."""
        if peer.number not in self.introduced:
            if len(self.introduced) >= INTRODUCED_MAX:
                self.introduced.clear()
            self.introduced.add(peer.number)
            self._put(peer.introduction)

    def _put(self, *frames: bytes) -> None:
        if not self.unsent:
            asyncio.get_running_loop().call_soon(self.flush)
        self.unsent += frames

    def flush(self) -> None:
        if not self.unsent:
            return
        data, self.unsent = b"".join(self.unsent), []
        writer = self.writer
        if writer.is_closing():
            return
        try:
            writer.write(data)
            unsent = writer.get_write_buffer_size()
        except Exception:  # of this agent's connection alone: what others are to be told must not be lost with it
            log.exception("%s cannot be sent what it is told and is cut off", self.name)
            writer.abort()
            return
        if unsent > UNSENT_BYTES_MAX:
            log.warning("%s does not read what it is sent and is cut off", self.name)
            writer.abort()

    def close(self) -> None:
        self.flush()
        self.writer.close()
