"""The way out: one GET or HEAD to a URL outside, with redirects followed hop by hop.

Every hop's name is looked up and checked anew (`agent.origin.destinations`), and the address that was checked is the one
connected to; whoever answers over TLS proves that it bears the hop's name. What proves who asks stays with the server that it is
for. What is asked, and what an answer means, is the business of `agent.origin.client` and `agent.origin.auth`.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urljoin

from agent.http.client import Limits, TransferError
from agent.http.pool import ConnectionPool
from agent.origin.blobstream import BlobReply
from agent.origin.destinations import DestinationError, Destinations, Hop
from agent.origin.questions import Questions
from agent.origin.reply import Reply

REDIRECTS_MAX = 5
BODY_STALL_SECONDS_MAX = 15.0

PROXY_REFUSES = 407
"""From a proxy in plain HTTP: it is no word of the registry's on what may be pulled (RFC 9110 section 15.5.8)."""

_REDIRECTS = (301, 302, 303, 307, 308)

AnyReply = TypeVar("AnyReply", bound=Reply)
AskOne = Callable[[Hop, str, dict[str, str], float], AnyReply]
"""One server is asked: where, by which method, with which headers, until when."""


class Redirects:
    """Raises TransferError for a server that does not answer, and DestinationError for one that is not asked."""

    def __init__(self, destinations: Destinations, tls: ssl.SSLContext) -> None:
        self._destinations = destinations
        self._pool = ConnectionPool(tls)
        self._questions = Questions(self._pool)

    def close(self) -> None:
        """End all that is under way."""
        self._pool.close()

    def head(self, url: str, headers: dict[str, str], authorization: str | None, until: float) -> Reply:
        """Whether it is there, how long it is, and what else the head of an answer says."""
        return self._follow(self._questions.ask, "HEAD", url, headers, authorization, until)

    def get(self, url: str, headers: dict[str, str], authorization: str | None, until: float) -> Reply:
        """An answer with a small body, which has to be here by `until` as well."""
        return self._follow(self._questions.ask, "GET", url, headers, authorization, until)

    def open(self, url: str, headers: dict[str, str], authorization: str | None, until: float) -> BlobReply:
        """An answer with a big body, over a socket of its own (docs/decisions/0001)."""
        return self._follow(self._open, "GET", url, headers, authorization, until)

    def _open(self, hop: Hop, method: str, headers: dict[str, str], until: float) -> BlobReply:
        limits = Limits(head=until - time.monotonic(), stall=BODY_STALL_SECONDS_MAX)
        return BlobReply(self._pool, *self._pool.ask(hop.place, method, hop.target, headers, limits))

    def _follow(
        self, ask: AskOne[AnyReply], method: str, url: str, headers: dict[str, str], authorization: str | None, until: float
    ) -> AnyReply:
        """The last hop's answer, whatever its status, if its head is here by `until` (monotonic)."""
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
            reply = ask(hop, method, lines, until)
            if reply.status == PROXY_REFUSES:
                reply.close()
                raise TransferError(f"the proxy {reply.where} wants to know who asks")
            reply.foreign = hop.server != first
            location = reply.headers.get("location")
            if reply.status not in _REDIRECTS or not location:
                return reply
            reply.close()
            try:
                url = urljoin(url, location)
            except ValueError:
                raise DestinationError(502, "it redirects to a URL that is none") from None
        raise DestinationError(502, f"it redirects more than {REDIRECTS_MAX} times, the last time to {hop.host}")
