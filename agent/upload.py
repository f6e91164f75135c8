"""The piece server: what other nodes fetch from this one.

    GET /pieces/sha256:HEX/NUMBER      Authorization: Ticket EXPIRY.MAC

answers the piece's bytes, of blobs that are whole and of those that still arrive. It reads the store and nothing else: a
request can name a digest and a number, and neither makes this node fetch anything.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from agent import metrics, tickets
from agent.bandwidth import Pace, turns
from agent.blob import Blob
from agent.errors import RequestError
from agent.exchange import Exchange
from agent.store import Store

CONNECTIONS_MAX = 512
CONNECTIONS_PER_ADDRESS_MAX = 64
IDLE_SECONDS = 30.0

_TARGET = re.compile(r"/pieces/(sha256:[0-9a-f]{64})/(\d{1,6})")

SwarmKey = Callable[[], bytes | None]
"""The key that tickets are signed with; None when none is configured. Raises when one is configured and cannot be read."""


class PieceServer:
    def __init__(self, store: Store, swarm_key: SwarmKey, upload: Pace | None = None) -> None:
        self._store = store
        self._upload = upload
        self._swarm_key = swarm_key

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        match = _TARGET.fullmatch(request.target)
        if request.method != "GET":
            exchange.fail(RequestError(405, "UNSUPPORTED", "pieces are only read"), {"Allow": "GET"})
            return
        if not match:
            raise RequestError(404, "UNKNOWN", "not a piece")
        digest, number = match[1], int(match[2])
        self._check_ticket(digest, request.headers.get("authorization", ""))
        blob = self._blob(digest)
        if number >= blob.layout.count:
            raise RequestError(416, "UNKNOWN", f"{digest} has no piece {number}")
        if not blob.checked >> number & 1:
            raise RequestError(404, "UNKNOWN", f"piece {number} of {digest} is not here yet")
        start, end = blob.layout.span(number)
        exchange.start(200, {"Content-Type": "application/octet-stream", "Content-Length": str(end - start)})
        for turn in turns(self._upload, start, end):
            exchange.send_file(blob.fd, *turn)
        exchange.finish()
        metrics.UPLOADED_BYTES.inc(end - start)

    def _check_ticket(self, digest: str, authorization: str) -> None:
        key = self._swarm_key()
        scheme, _, ticket = authorization.partition(" ")
        if key is not None and not (scheme == "Ticket" and tickets.valid(key, digest, ticket, time.time())):
            raise RequestError(401, "UNAUTHORIZED", "no valid ticket for this blob")

    def _blob(self, digest: str) -> Blob:
        blob = self._store.arriving(digest) or self._store.blob(digest)
        if blob is None:
            raise RequestError(404, "UNKNOWN", f"{digest} is not here")
        return blob
