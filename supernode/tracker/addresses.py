"""Whose address is it? A node that names another address than the one it connects from has to answer there itself.

Where a node's packets leave from is often not where it is reached: through the tunnel of a pod network, or from another of its
addresses. So the supernode asks once at the address that the node names, for the proof that only this node's piece server gives
(`agent.swarm.piece_server`). As long as that has not come the node is no source, and nobody is sent to the address; it downloads
as the others do. What is asked there is the same for every address, and what is answered counts for nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

from agent.http.wire import HEAD_BYTES_MAX, request_head
from agent.swarm.tickets import SwarmKey, SwarmKeyError, node_proof
from supernode.session import AgentSession

log = logging.getLogger(__name__)

ASKED_AT_ONCE_MAX = 256
ANSWER_SECONDS_MAX = 3.0
AGAIN_SECONDS = 5.0
"""After the first question without an answer; each further wait is twice as long."""
AGAIN_SECONDS_MAX = 300.0
NONCE_BYTES = 32


class Addresses:
    """One owner calls it, in its event loop; what it asks takes no time of that loop's but a packet or two."""

    def __init__(
        self, swarm_key: SwarmKey, is_there: Callable[[AgentSession], bool], located: Callable[[AgentSession], None]
    ) -> None:
        """`is_there` says whether a session lasts; `located` is told of those that have been found where they said."""
        self._swarm_key = swarm_key
        self._is_there = is_there
        self._located = located
        self._places = asyncio.Semaphore(ASKED_AT_ONCE_MAX)
        self._asking: set[asyncio.Task[None]] = set()

    def ask(self, session: AgentSession, connected: str) -> None:
        """Find out whether the node is where it says, now and later, until it is found or gone. `connected` is where it connects
        from."""
        if not is_askable(session.where.host, connected):
            self._warn(session)
            return
        task = asyncio.get_running_loop().create_task(self._ask(session))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def stop(self) -> None:
        for task in self._asking:
            task.cancel()

    async def _ask(self, session: AgentSession) -> None:
        again = AGAIN_SECONDS
        while self._is_there(session):
            async with self._places:
                is_found = await self._answers(session)
            if not self._is_there(session):
                return
            if is_found:
                self._located(session)
                return
            if again == AGAIN_SECONDS:
                self._warn(session)
            await asyncio.sleep(again)
            again = min(2 * again, AGAIN_SECONDS_MAX)

    @staticmethod
    def _warn(session: AgentSession) -> None:
        log.warning(
            "%s is no source: at %s, where it says that others reach it, it does not answer this supernode. Does a firewall or a "
            "network policy close that port, or is --piece-address of another host?",
            session.name,
            session.where,
        )

    async def _answers(self, session: AgentSession) -> bool:
        """Whether the piece server at the address that the node names is that node's."""
        nonce = os.urandom(NONCE_BYTES).hex()
        where, name = session.where, session.name
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                reader, writer = await asyncio.open_connection(*where, limit=HEAD_BYTES_MAX)
                try:
                    writer.write(request_head("GET", f"/node/{nonce}", {"Host": str(where), "Connection": "close"}))
                    head = await reader.readuntil(b"\r\n\r\n")
                finally:
                    writer.transport.abort()
            # Nobody else can write the proof, so the rest of the head need not be understood.
            return any(node_proof(key, name, nonce).encode() in head for key in self._swarm_key.all() or (None,))
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError, SwarmKeyError) as error:
            log.debug("nobody answers as %s at %s: %s", name, where, error)
            return False


def is_own(named: str, connected: str) -> bool:
    """Whether the address that a node names is the one that it connects from."""
    return bool(connected) and _plain(named) == _plain(connected)


def is_askable(named: str, connected: str) -> bool:
    """Whether it can be another node's at all: a loopback or link-local address is each host's own."""
    address = _plain(named)
    is_here = bool(connected) and _plain(connected).is_loopback
    return not (address.is_link_local or (address.is_loopback and not is_here))


def _plain(host: str) -> IPv4Address | IPv6Address:
    """A socket for both versions of IP shows those of version 4 as mapped ones (RFC 4291, section 2.5.5.2)."""
    address = ip_address(host)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
