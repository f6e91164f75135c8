"""The supernode's end of the channels: connections of agents, from Hello to their end, and the few of webhooks.

Bytes become messages here, and bytes that are no message end the connection; the tracker knows what messages mean. All of it runs
in the tracker's event loop, by callbacks: a task or a buffer for each of ten thousand connections would cost more than they say.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from ipaddress import ip_address
from typing import cast

from agent.swarm import messages
from agent.swarm.channel import FRAME_BYTES_MAX, Frames, WireError, agent_message, frame, webhook_message
from agent.swarm.tickets import SwarmKeyError
from agent.swarm.tls import WEBHOOK, ProofError
from supernode import metrics
from supernode.node_tokens import NodeTokens, TokenError
from supernode.session import AgentSession
from supernode.tracker.addresses import Addresses, is_own
from supernode.tracker.handshake import Certified, SealedTransport
from supernode.tracker.tracker import Tracker

log = logging.getLogger(__name__)

HELLO_SECONDS_MAX = 20.0
"""Also of a busy supernode, which has ten thousand agents to greet after it has started."""
CONNECTIONS_MAX = 20_000
GREETINGS_MAX = 20_000
"""Connections that have not said Hello yet: after a restart all agents come at once."""
GREETINGS_PER_ADDRESS_MAX = 256
GREETING_BYTES_MAX = 64 << 20
"""Of unfinished Hellos in all, each of which may fill a frame."""
WEBHOOKS_MAX = 64
"""Connections of webhooks, of which each replica has a few."""
WEBHOOK_SECONDS_MAX = 120.0
"""One that says nothing for so long has left."""
REFUSAL_SECONDS = 10.0
"""Between two warnings about connections that are refused."""
RECEIVE_BYTES = 256 << 10
NAME_CHARACTERS_MAX = 253
"""Of a node, a zone or a host: as many as a DNS name has, which the names of Kubernetes' nodes are."""


class ChannelServer:
    """Makes the protocol of each connection.

    Without an identity, which takes a swarm key, channels are in clear; without tokens, agents are believed which node they are,
    and without `addresses` where they are.
    """

    def __init__(
        self,
        tracker: Tracker,
        identity: Certified | None = None,
        tokens: NodeTokens | None = None,
        addresses: Addresses | None = None,
    ) -> None:
        self.tracker = tracker
        self.addresses = addresses
        self.tokens = tokens
        self.identity = identity
        self.loop = asyncio.get_running_loop()
        self.received = memoryview(bytearray(RECEIVE_BYTES))
        """One for all connections: what is in it has been understood, or copied, before another one is read."""
        self.greeting: set[AgentConnection] = set()
        self.greeting_bytes = 0
        self.greetings_from: Counter[str] = Counter()
        self.greeting_bytes_from: Counter[str] = Counter()
        """By address."""
        self.webhooks: set[AgentConnection] = set()
        self._warned_at = -REFUSAL_SECONDS

    def level_of_refusal(self) -> int:
        """A warning now and then: who is refused comes back, and may be a thousand."""
        now = self.loop.time()
        if now < self._warned_at + REFUSAL_SECONDS:
            return logging.DEBUG
        self._warned_at = now
        return logging.WARNING

    def connected(self) -> asyncio.BufferedProtocol:
        return AgentConnection(self)

    def stop(self) -> None:
        """End the connections of which the tracker does not know."""
        for connection in [*self.greeting, *self.webhooks]:
            connection.abort()
        if self.addresses:
            self.addresses.stop()


class AgentConnection(asyncio.BufferedProtocol):
    """One agent's connection, or a webhook's. However it ends, no other connection ends with it."""

    __slots__ = ("_bytes", "_frames", "_sealed", "_server", "_session", "_timer", "_transport")

    def __init__(self, server: ChannelServer) -> None:
        self._server = server
        self._frames = Frames()
        self._session: AgentSession | None = None
        self._bytes = 0
        """Received before Hello was whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        server = self._server
        self._sealed = SealedTransport(self._transport, server.identity) if server.identity else None
        self._timer = server.loop.call_later(HELLO_SECONDS_MAX, self.abort)
        if len(server.greeting) >= GREETINGS_MAX or server.greetings_from[self._host] >= GREETINGS_PER_ADDRESS_MAX:
            self._refuse(f"{GREETINGS_MAX} agents are saying Hello already, or {GREETINGS_PER_ADDRESS_MAX} at this address")
        else:
            server.greeting.add(self)
            server.greetings_from[self._host] += 1

    def get_buffer(self, _: int) -> memoryview:
        return self._server.received

    def buffer_updated(self, count: int) -> None:
        if self._transport.is_closing():
            return
        try:
            self._receive(self._server.received[:count])
        except (WireError, ProofError, SwarmKeyError, TokenError) as error:
            self._refuse(str(error))
        except ssl.SSLError as error:
            self._refuse(f"it speaks no TLS as this supernode does, so it has no swarm key: {error.reason}")
        except Exception:
            log.exception("a message of %s failed inside", self._name)
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if error:
            log.debug("the channel of %s broke off: %s", self._name, error)
        self._end_greeting()
        self._server.webhooks.discard(self)
        if self._session:
            self._server.tracker.leave(self._session)

    def abort(self) -> None:
        self._transport.abort()

    @property
    def _host(self) -> str:
        """The address that the agent connects from."""
        return str((self._transport.get_extra_info("peername") or ("",))[0])

    @property
    def _name(self) -> str:
        return self._session.name if self._session else str(self._transport.get_extra_info("peername"))

    def _receive(self, data: memoryview) -> None:
        tracker, session = self._server.tracker, self._session
        for body in self._frames.feed(self._sealed.opened(data) if self._sealed else data):
            if self._sealed and self._sealed.role == WEBHOOK:
                self._hear_webhook(webhook_message(body))
                continue
            message = agent_message(body)
            if session:
                tracker.receive(session, message)
            else:
                session = self._session = self._join(message)
        if session:
            tracker.heard(session)
        elif self not in self._server.webhooks:
            self._count_greeting(len(data))

    def _hear_webhook(self, message: messages.FromWebhook) -> None:
        """Raises WireError where there are too many of them."""
        server = self._server
        if self not in server.webhooks and len(server.webhooks) >= WEBHOOKS_MAX:
            raise WireError(f"{WEBHOOKS_MAX} webhooks are connected already")
        self._end_greeting()
        server.webhooks.add(self)
        self._timer = server.loop.call_later(WEBHOOK_SECONDS_MAX, self.abort)
        if isinstance(message, messages.WarmBlob):
            server.tracker.warm_blobs.want(message)
        else:
            server.tracker.warm_names.ask(message, self._answer)

    def _answer(self, said: messages.Warmed) -> None:
        if self._sealed and not self._transport.is_closing():
            self._sealed.write(frame(said))
            if self._sealed.get_write_buffer_size() > FRAME_BYTES_MAX:  # it does not read what it asked for
                self._transport.abort()

    def _join(self, hello: messages.FromAgent) -> AgentSession:
        """Raises WireError for one that is refused."""
        if not isinstance(hello, messages.Hello):
            raise WireError("the first message has to be Hello")
        if hello.version != messages.VERSION:
            raise WireError(f"version {hello.version} of the channel is not spoken here, version {messages.VERSION} is")
        if len(self._server.tracker.sessions) >= CONNECTIONS_MAX:
            raise WireError(f"{CONNECTIONS_MAX} agents are connected already")
        _check_name("node name", hello.node)
        if hello.zone:
            _check_name("zone", hello.zone)
        _check_address(hello.host)
        proven = self._server.tokens.check(hello.token, hello.node) if self._server.tokens else None
        self._end_greeting()
        addresses = self._server.addresses
        is_located = addresses is None or is_own(hello.host, self._host)
        session = self._server.tracker.join_agent(hello, self._sealed or self._transport, proven, located=is_located)
        if addresses and not is_located:
            addresses.ask(session, self._host)
        return session

    def _count_greeting(self, count: int) -> None:
        server = self._server
        self._bytes += count
        server.greeting_bytes += count
        server.greeting_bytes_from[self._host] += count
        if server.greeting_bytes > GREETING_BYTES_MAX or server.greeting_bytes_from[self._host] > FRAME_BYTES_MAX:
            raise WireError(
                f"agents that are saying Hello have sent {GREETING_BYTES_MAX >> 20} MiB already, or those at this address "
                f"{FRAME_BYTES_MAX >> 20} MiB"
            )

    def _end_greeting(self) -> None:
        self._timer.cancel()
        server = self._server
        if self in server.greeting:
            server.greeting.remove(self)
            _take(server.greetings_from, self._host, 1)
        server.greeting_bytes -= self._bytes
        _take(server.greeting_bytes_from, self._host, self._bytes)
        self._bytes = 0

    def _refuse(self, why: str) -> None:
        metrics.REFUSED_CHANNELS.inc()
        log.log(self._server.level_of_refusal(), "the channel of %s is refused: %s", self._name, why)
        self._end_greeting()
        if self._session:
            self._session.flush()
        refused = frame(messages.Refused(why[: messages.MESSAGE_TEXT_MAX]))
        if not self._sealed:
            self._transport.write(refused)
        elif self._sealed.proven:  # nobody else is told anything
            self._sealed.write(refused)
        self._transport.close()


def _take(counts: Counter[str], host: str, count: int) -> None:
    """Nothing is kept for an address from which nothing comes."""
    counts[host] -= count
    if counts[host] <= 0:
        del counts[host]


def _check_name(what: str, name: str) -> None:
    """Names go into the log, the API and to other agents. Raises WireError, without the name, for one that no node has."""
    if not (0 < len(name) <= NAME_CHARACTERS_MAX and name.isascii() and name.isprintable() and " " not in name):
        raise WireError(f"the {what} in Hello has to be 1 to {NAME_CHARACTERS_MAX} printable ASCII characters without spaces")


def _check_address(host: str) -> None:
    """Others connect to it: a name could mean another host to each of them. Raises WireError."""
    try:
        address = ip_address(host)
    except ValueError:
        raise WireError("the host in Hello has to be an IP address") from None
    if address.is_unspecified or address.is_multicast:
        raise WireError(f"the host in Hello, {address}, is nobody's address")
