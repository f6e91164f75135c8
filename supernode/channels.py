"""The supernode's end of the channels: connections of agents, from Hello to their end.

Bytes become messages here, and what is no message ends the connection; what messages mean is the tracker's affair. Runs in the
tracker's event loop.
"""

from __future__ import annotations

import asyncio
import logging

from agent import wire
from supernode import metrics
from supernode.link import Link
from supernode.tracker import Tracker

log = logging.getLogger(__name__)

HELLO_SECONDS_MAX = 5.0
CONNECTIONS_MAX = 20_000
GREETINGS_MAX = 1024
"""Connections that have not said Hello yet, each of which may fill a frame."""
RECEIVE_BYTES = 256 << 10


class Channels:
    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._greetings = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One agent. Its end, whatever it is, is nobody else's."""
        link: Link | None = None
        try:
            frames = wire.Frames()
            hello, more = await self._greet(reader, frames)
            link = self._tracker.join_agent(hello, writer)
            for message in more:
                self._tracker.receive(link, message)
            while self._tracker.knows(link) and (data := await reader.read(RECEIVE_BYTES)):
                for body in frames.feed(data):
                    self._tracker.receive(link, wire.agent_message(body))
                self._tracker.heard(link)
        except wire.WireError as error:
            metrics.REFUSED_CHANNELS.inc()
            log.warning("the channel of %s is refused: %s", link.name if link else writer.get_extra_info("peername"), error)
            writer.write(wire.frame(wire.Refused(str(error)[: wire.MESSAGE_TEXT_MAX])))
        except (OSError, TimeoutError) as error:
            log.debug("a channel broke off: %s", error)
        except asyncio.CancelledError:
            log.debug("a channel is closed: the supernode is stopping")
        except Exception:
            log.exception("a message of %s failed inside", link.name if link else "an agent")
        finally:
            if link:
                self._tracker.leave(link)
            writer.close()

    async def _greet(self, reader: asyncio.StreamReader, frames: wire.Frames) -> tuple[wire.Hello, list[wire.FromAgent]]:
        """Hello, and what an agent said in the same breath. Raises WireError for one that is refused."""
        if self._greetings >= GREETINGS_MAX:
            raise wire.WireError(f"{GREETINGS_MAX} agents are saying Hello already")
        self._greetings += 1
        try:
            async with asyncio.timeout(HELLO_SECONDS_MAX):
                messages: list[wire.FromAgent] = []
                while not messages:
                    data = await reader.read(RECEIVE_BYTES)
                    if not data:
                        raise OSError("closed before it said Hello")
                    messages += [wire.agent_message(body) for body in frames.feed(data)]
        finally:
            self._greetings -= 1
        hello = messages[0]
        if not isinstance(hello, wire.Hello):
            raise wire.WireError("the first message has to be Hello")
        if hello.version != wire.VERSION:
            raise wire.WireError(f"version {hello.version} of the channel is not spoken here, version {wire.VERSION} is")
        if len(self._tracker.links) >= CONNECTIONS_MAX:
            raise wire.WireError(f"{CONNECTIONS_MAX} agents are connected already")
        return hello, messages[1:]
