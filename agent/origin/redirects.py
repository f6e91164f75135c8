"""The way out: one GET or HEAD to a URL outside, with redirects followed.

Every hop's name is looked up and checked anew (`agent.origin.destinations`), and the address that was checked is the one
connected to; whoever answers over TLS proves that it bears the hop's name. What proves who asks stays with the server that it is
for. What is asked, and what an answer means, is the business of `agent.origin.client` and `agent.origin.auth`.
"""

from __future__ import annotations

import ssl
import time
from urllib.parse import urljoin

from agent.http.client import Answer, Connection, Limits, TransferError
from agent.http.pool import ConnectionPool
from agent.origin.destinations import NOT_ASKED, DestinationError, Destinations
from agent.origin.documents import what_it_said
from agent.values.errors import OriginError

REDIRECTS_MAX = 5
SMALL_BYTES_MAX = 4 << 20
ERROR_BYTES_MAX = 64 << 10
BODY_STALL_SECONDS_MAX = 15.0

PROXY_REFUSES = 407
"""From a proxy in plain HTTP: it is no word of the registry's on what may be pulled (RFC 9110 section 15.5.8)."""

_REDIRECTS = (301, 302, 303, 307, 308)
_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}


class Reply:
    """An answer whose head is here and whose body is not read yet. Whoever got it closes it. Raises TransferError."""

    def __init__(self, pool: ConnectionPool, connection: Connection, answer: Answer, foreign: bool) -> None:
        self._pool = pool
        self._connection = connection
        self.status = answer.status
        self.headers = answer.headers
        self.length = answer.length
        self.foreign = foreign
        """Whether another server answers than the one that was asked: a redirect led to it."""

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.give_back(self._connection)

    def abort(self) -> None:
        """Make another thread, which reads this, see its end at once."""
        self._connection.abort()

    def read_into(self, buffer: memoryview) -> int:
        return self._connection.read_into(buffer)

    def read(self, bytes_max: int = SMALL_BYTES_MAX) -> bytes:
        """All of a small body."""
        return self._connection.read_all(bytes_max)

    def refusal(self, who: str, repository: str, anonymous: bool, unknown: str = "UNKNOWN") -> OriginError:
        """What an answer that is no success says, with the server's own words. `unknown` is the OCI code for a 404.

        To whoever sent no credential a 403 is said as 401: runtimes send theirs only when they are asked for it.
        """
        try:
            said = what_it_said(self.read(ERROR_BYTES_MAX))
        except TransferError:
            said = ""
        status = self.status if 400 <= self.status < 500 and self.status != NOT_ASKED else 502
        status = 401 if status == 403 and anonymous else status
        words = f"{who} answered {self.status} for {repository}"
        return OriginError(status, f"{words}: {said}" if said else words, {**_CODES, 404: unknown}.get(status, "UNAVAILABLE"))


class Outward:
    def __init__(self, destinations: Destinations, tls: ssl.SSLContext) -> None:
        self._destinations = destinations
        self._pool = ConnectionPool(tls)

    def close(self) -> None:
        """End all that is under way."""
        self._pool.close()

    def ask(self, method: str, url: str, headers: dict[str, str], authorization: str | None, until: float) -> Reply:
        """The last hop's answer, whatever its status, if its head is here by `until` (monotonic).

        Raises TransferError for a server that does not answer, and DestinationError for one that is not asked.
        """
        first = None
        for _ in range(REDIRECTS_MAX + 1):
            hop = self._destinations.hop(url, until)
            first = first or hop.server
            lines = {"Host": hop.authority, **headers}
            if hop.proxy_authorization:
                lines["Proxy-Authorization"] = hop.proxy_authorization
            if authorization and hop.server == first:
                lines["Authorization"] = authorization
            else:
                authorization = None  # also when a later hop leads back
            limits = Limits(head=until - time.monotonic(), stall=BODY_STALL_SECONDS_MAX)
            connection, answer = self._pool.ask(hop.place, method, hop.target, lines, limits)
            if answer.status == PROXY_REFUSES:
                self._pool.give_back(connection)
                raise TransferError(f"the proxy {connection.where} wants to know who asks")
            reply = Reply(self._pool, connection, answer, foreign=hop.server != first)
            location = reply.headers.get("location")
            if reply.status not in _REDIRECTS or not location:
                return reply
            reply.close()
            try:
                url = urljoin(url, location)
            except ValueError:
                raise DestinationError(502, "it redirects to a URL that is none") from None
        raise DestinationError(502, f"it redirects more than {REDIRECTS_MAX} times, the last time to {hop.host}")
