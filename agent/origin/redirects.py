"""The way out: one GET or HEAD to a URL outside, with redirects followed hop by hop.

Every hop's name is looked up and checked anew (`agent.origin.destinations`), and the address that was checked is the one
connected to; whoever answers over TLS proves that it bears the hop's name. What proves who asks stays with the server that it is
for. All of that holds for small questions (`agent.origin.questions`) and for blobs alike. What is asked, and what an answer
means, is the business of `agent.origin.client` and `agent.origin.auth`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urljoin

from agent.http.client import ConnectionPool, TimeLimits, TransferError
from agent.origin import questions
from agent.origin.destinations import DestinationError, Destinations, Hop
from agent.origin.reply import Reply
from agent.origin.throttle import WAITED_SECONDS_MAX, retry_after
from agent.origin.tls import RegistryTls

REDIRECTS_MAX = 5
BODY_STALL_SECONDS_MAX = 15.0

PROXY_REFUSES = 407
"""From a proxy in plain HTTP: it is no word of the registry's on what may be pulled (RFC 9110 section 15.5.8)."""

_REDIRECTS = (301, 302, 303, 307, 308)


class Redirects:
    """Raises TransferError for a server that does not answer, and DestinationError for one that is not asked."""

    def __init__(self, destinations: Destinations, tls: RegistryTls) -> None:
        self._destinations = destinations
        self._tls = tls
        self._pool = ConnectionPool()
        self._closed = threading.Event()

    def close(self) -> None:
        """End all that is under way."""
        self._closed.set()
        self._pool.close()

    def ask(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        authorization: str | None,
        until: float,
        *,
        big: bool = False,
        own: Mapping[str, str] | None = None,
    ) -> Reply:
        """The last hop's answer, whatever its status, if its head is here by `until` (monotonic), and a small body as well.

        A server that fails, and does not ask for a long pause, is asked once more, as runtimes do: many may share its name.

        The body of a `big` answer may take longer, and is received from the reply's connection. Header fields that are the first
        server's `own` are sent to no other, as the authorization.
        """
        first, failed, own = None, False, own or {}
        for _ in range(REDIRECTS_MAX + 1):
            hop = self._destinations.hop(url, until)
            if hop.scheme == "https":
                hop = replace(hop, place=hop.place._replace(tls=self._tls.context(hop.host, hop.port)))
            first = first or hop.server
            lines = {"Host": hop.authority, **headers}
            if hop.proxy_authorization:
                lines["Proxy-Authorization"] = hop.proxy_authorization
            if hop.server != first:
                authorization, own = None, {}  # also when a later hop leads back
            lines |= own
            if authorization:
                lines["Authorization"] = authorization
            reply = (self._open if big else self._question)(hop, method, lines, until)
            if reply.status == PROXY_REFUSES:
                reply.close()
                raise TransferError(f"the proxy {reply.connection.where} wants to know who asks")
            pause = retry_after(reply.headers.get("retry-after", ""))
            if reply.status >= 500 and pause <= min(WAITED_SECONDS_MAX, until - time.monotonic()) and not failed:
                failed = True
                reply.close()
                self._closed.wait(pause)
                continue
            reply.foreign = hop.server != first
            reply.url = url
            reply.sent = (authorization or "", *own.values())
            location = reply.headers.get("location")
            if reply.status not in _REDIRECTS or not location:
                return reply
            reply.close()
            try:
                url = urljoin(url, location)
            except ValueError:
                raise DestinationError(502, "it redirects to a URL that is none") from None
        raise DestinationError(502, f"it redirects more than {REDIRECTS_MAX} times, the last time to {hop.host}")

    def _question(self, hop: Hop, method: str, headers: dict[str, str], until: float) -> Reply:
        connection = self._pool.connect(hop.place, until)
        try:
            return Reply(self._pool, connection, *questions.ask(connection, hop, method, headers))
        except BaseException:
            self._pool.give_back(connection)
            raise

    def _open(self, hop: Hop, method: str, headers: dict[str, str], until: float) -> Reply:
        """Over a socket alone, without a library in the bytes' way (docs/decisions/0001)."""
        limits = TimeLimits(head=until - time.monotonic(), stall=BODY_STALL_SECONDS_MAX)
        connection, answer = self._pool.ask(hop.place, method, hop.target, headers, limits)
        return Reply(self._pool, connection, answer, connection.read_all)
