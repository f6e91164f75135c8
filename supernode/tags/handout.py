"""Long answers to agents, a few at a time: a manifest of 4 MiB that all nodes ask for at once is not in memory once for each.

What was handed out and not read yet is bounded. An agent that reads nothing of it for long is cut off, since others wait behind
it; it comes back and asks the registry itself meanwhile. All of this runs in the tracker's loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from msgspec.structs import replace

from agent.swarm import messages
from supernode.session import AgentSession

log = logging.getLogger(__name__)

UNREAD_BYTES_MAX = 32 << 20
"""Of all agents together."""
READ_SECONDS_MAX = 20.0
"""An agent waits no longer for its answer."""
LOOK_SECONDS = 0.02


class HandOut:
    def __init__(self) -> None:
        self._waiting: deque[tuple[AgentSession, int, messages.Resolved]] = deque()
        """Agents, the numbers of their requests, and an answer that is shared by all who asked for the same."""
        self._reading: dict[AgentSession, float] = {}
        """Since when; those that have not read all that they were sent."""
        self._task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        if self._task:
            self._task.cancel()

    def send(self, agent: AgentSession, request: int, answer: messages.Resolved) -> None:
        self._waiting.append((agent, request, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._hand_out())

    async def _hand_out(self) -> None:
        now = asyncio.get_running_loop().time
        while self._waiting:
            agent, request, answer = self._waiting.popleft()
            while self._unread(now()) + len(answer.body) > UNREAD_BYTES_MAX:
                await asyncio.sleep(LOOK_SECONDS)
            agent.send(replace(answer, request=request))
            agent.flush()
            self._reading.setdefault(agent, now())
            await asyncio.sleep(0)

    def _unread(self, now: float) -> int:
        """Bytes that agents were sent and have not read."""
        total = 0
        for agent, since in list(self._reading.items()):
            unread = 0 if agent.writer.is_closing() else agent.writer.get_write_buffer_size()
            if unread and now - since > READ_SECONDS_MAX:
                log.warning("%s does not read the manifest that it asked for and is cut off", agent.name)
                agent.writer.abort()
                unread = 0
            if not unread:
                del self._reading[agent]
            total += unread
        return total
