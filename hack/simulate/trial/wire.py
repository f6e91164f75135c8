"""A channel's TCP connection: bytes in order, later while its way is closed, lost when it ends.

The agent's end looks like a socket to `agent.swarm.channel`, the supernode's like a transport to `supernode.tracker.server`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from hack.simulate.trial.ways import Purpose, Way
from supernode.tracker.server import AgentConnection

if TYPE_CHECKING:
    from hack.simulate.trial.world import World

RETRANSMIT_SECONDS_MAX = 2.0
"""How long after a way opens again TCP tries what it has kept."""


class Direction:
    """What one end says to the other."""

    def __init__(self, world: World, source: str, target: str, deliver: Callable[[bytes], None]) -> None:
        self._world = world
        self._source, self._target = source, target
        self._deliver = deliver
        self._chance = Random(f"{world.seed} {source} {target}")
        """Of its own: in which order a supernode speaks to its agents must not matter, for that is the order of a set."""
        self._kept: deque[bytes] = deque()
        self._arrives_at = 0.0
        """When the last that was sent arrives: what is sent later does not overtake it."""
        self._is_waiting = False
        """For TCP to try again."""

    @property
    def is_open(self) -> bool:
        return self._world.ways.of(self._source, self._target, Purpose.CHANNEL) is Way.OPEN

    def say(self, data: bytes) -> None:
        """An empty message is the end."""
        self._kept.append(data)
        self.go_on()

    def look(self) -> None:
        if self._kept and self.is_open and not self._is_waiting:
            self._is_waiting = True
            self._world.after(self._chance.random() * RETRANSMIT_SECONDS_MAX, self._retransmit)

    def _retransmit(self) -> None:
        self._is_waiting = False
        self.go_on()

    def go_on(self) -> None:
        while self._kept and self.is_open and not self._is_waiting:
            self._arrives_at = max(self._arrives_at, self._world.now + self._world.latency(self._chance))
            self._world.at(self._arrives_at, self._deliver, self._kept.popleft())


class AgentEnd:
    """What the agent's channel holds in place of a socket."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def sendall(self, data: bytes) -> None:
        if self._wire.is_closed_here:
            raise OSError("the connection is closed")
        self._wire.up.say(data)

    def shutdown(self, _how: int) -> None:
        self._wire.lose()


class SupernodeEnd(asyncio.Transport):
    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire
        self._is_closing = False

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: Any) -> None:
        if not self._is_closing:
            self._wire.down.say(bytes(data))

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._wire.down.say(b"")
            self._wire.world.after(0.0, self._wire.end_there)

    abort = close


class Wire:
    """One connection from an agent to a supernode, from its acceptance to its end."""

    def __init__(
        self,
        world: World,
        names: tuple[str, str],
        connection: AgentConnection,
        received: Callable[[bytes], None],
        lost: Callable[[], None],
    ) -> None:
        """`received` and `lost` are the agent's."""
        agent, supernode = names
        self.world = world
        self.names = names
        self.up = Direction(world, agent, supernode, self._arrive_up)
        self.down = Direction(world, supernode, agent, self._arrive_down)
        self.end = AgentEnd(self)
        self.is_closed_here = False
        self._is_over_there = False
        self._received, self._lost = received, lost
        self._connection = connection
        self._transport = SupernodeEnd(self)
        world.ways.on_change.append(self._look)
        connection.connection_made(self._transport)

    def lose(self) -> None:
        """The agent closes it, or finds it closed."""
        if not self.is_closed_here:
            self.is_closed_here = True
            self.up.say(b"")
            self._forget()
            self.world.after(0.0, self._lost)

    def end_there(self, error: Exception | None = None) -> None:
        if not self._is_over_there:
            self._is_over_there = self._transport._is_closing = True
            self._forget()
            self._connection.connection_lost(error)

    def break_off(self) -> None:
        """A reset reaches both ends."""
        self.end_there(ConnectionResetError("reset"))
        if not self.is_closed_here:
            self.is_closed_here = True
            self._forget()
            self.world.after(0.0, self._lost)

    def supernode_dies(self, *, silently: bool) -> None:
        self._is_over_there = self._transport._is_closing = True
        self._forget()
        if not silently:
            self.down.say(b"")

    def agent_dies(self, *, silently: bool) -> None:
        self.is_closed_here = True
        self._forget()
        if not silently:
            self.up.say(b"")

    def _forget(self) -> None:
        if self.is_closed_here and self._is_over_there and self._look in self.world.ways.on_change:
            self.world.ways.on_change.remove(self._look)

    def _look(self) -> None:
        self.up.look()
        self.down.look()

    def _arrive_up(self, data: bytes) -> None:
        if self._is_over_there or self._transport.is_closing():
            return
        if not data:
            self.end_there()
            return
        self._connection.get_buffer(-1)[: len(data)] = data
        self._connection.buffer_updated(len(data))

    def _arrive_down(self, data: bytes) -> None:
        if self.is_closed_here:
            return
        if data:
            self._received(data)
        else:
            self.lose()
