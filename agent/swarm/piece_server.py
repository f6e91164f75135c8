"""The piece server: what other nodes fetch from this one.

    GET /pieces/sha256:HEX/NUMBER      Authorization: Ticket EXPIRY.MAC

answers the piece's bytes, of blobs that are whole and of those that still arrive; in clear and inside TLS, on one port. What is
private is given inside TLS alone, and 426 says so. It reads the store and nothing else: a
request can name a digest and a number, and neither makes this node fetch anything. In `Darner-From` the request has the marks of
the registry and repository that the taker wants the blob from, and the answer those from which this node has it too.

In `Darner-Pieces` a request says how many pieces it would take from that one on. Of these it gets, one after the other, those
that are here and checked, at least the first; the answer's length tells how many.

With `?digest` the piece's digest follows its bytes. So a supernode passes on, as it comes, what is arriving from an origin and
has no digest yet (docs/decisions/0017).

    GET /node/NONCE

answers, in `Darner-Node`, with a proof that this is the piece server of the node that the swarm knows by its name: a supernode
asks for it where a node names another address than it connects from.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator

from agent import metrics
from agent.http.certificate import Certificate
from agent.http.ratelimit import Pace
from agent.http.server import Exchange, Listener
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.swarm import tickets
from agent.swarm.piece_client import PIECES_HEADER, SEALED_ONLY, TOGETHER_BYTES_MAX
from agent.swarm.tickets import Encryption, SwarmKey
from agent.values.address import Address
from agent.values.errors import RequestError
from agent.values.pieces import DIGEST_BYTES, lowest

CONNECTIONS_MAX = 512
CONNECTIONS_PER_ADDRESS_MAX = 64
IDLE_SECONDS = 30.0
COMING_SECONDS_MAX = 2.0
"""How long more of a piece that is coming, or the check of a stored blob, is waited for: less than its taker waits
(`agent.swarm.piece_client`)."""

ORIGINS_CHARACTERS_MAX = 256

_TARGET = re.compile(r"/pieces/(sha256:[0-9a-f]{64})/(\d{1,6})(\?digest)?")
_COUNT = re.compile(r"[1-9]\d{0,3}")
_NODE = re.compile(r"/node/([0-9a-f]{64})")


class PieceServer:
    def __init__(
        self,
        store: Store,
        swarm_key: SwarmKey,
        upload: Pace | None = None,
        clocks: Callable[[], Iterable[float]] = lambda: (time.time(),),
        address: Address | None = None,
        certificate: Certificate | None = None,
        encryption: Encryption = Encryption.PRIVATE,
        node_name: str = "",
    ) -> None:
        """`clocks` tell Unix time: a ticket is good if it is so on one of them.

        `address` is the one that others were told, if it is not the one that they then reach. Without a certificate there is no
        TLS. Only an agent has to show its `node_name`.
        """
        self._node_name = node_name
        self._certificate = certificate
        self._encryption = encryption
        self._addresses = (address,) if address else ()
        self._store = store
        self._upload = upload
        self._swarm_key = swarm_key
        self._clocks = clocks

    def listener(self, where: Address) -> Listener:
        return Listener(
            where,
            self.handle,
            name="piece server",
            connections_max=CONNECTIONS_MAX,
            per_address_max=CONNECTIONS_PER_ADDRESS_MAX,
            idle_seconds=IDLE_SECONDS,
            tls=self._certificate.context if self._certificate else None,
        )

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        match = _TARGET.fullmatch(request.target)
        if request.method != "GET":
            exchange.fail(RequestError(405, "UNSUPPORTED", "pieces are only read"), {"Allow": "GET"})
            return
        if self._node_name and (asked := _NODE.fullmatch(request.target)):
            exchange.answer(200, {"Darner-Node": tickets.node_proof(self._swarm_key(), self._node_name, asked[1])})
            return
        if not match:
            raise RequestError(404, "UNKNOWN", "not a piece")
        digest, number = match[1], int(match[2])
        refusal = self._refusal(digest, exchange, request.headers.get("authorization", ""))
        if refusal:
            exchange.fail(RequestError(401, "UNAUTHORIZED", "no valid ticket for this blob"), {"Darner-Refused": refusal})
            return
        blob = self._blob(digest)
        if self._encryption.seals(blob.private) and not exchange.sealed:
            upgrade = {"Connection": "Upgrade", "Upgrade": "TLS/1.3"}
            exchange.fail(RequestError(SEALED_ONLY, "DENIED", f"{digest} is given inside TLS alone"), upgrade)
            return
        if number >= blob.layout.count:
            raise RequestError(416, "UNKNOWN", f"{digest} has no piece {number}")
        origins = self._origins(blob, request.headers.get("darner-from", ""))
        last = number if match[3] else _last(blob, number, request.headers.get(PIECES_HEADER.lower(), ""))
        self._send(exchange, blob, number, last, bool(match[3]), origins)

    def _send(self, exchange: Exchange, blob: Blob, number: int, last: int, with_digest: bool, origins: str) -> None:
        """The pieces from `number` to `last`, all behind the first of which are here and checked."""
        (start, first_end), end = blob.layout.span(number), blob.layout.span(last)[1]
        sent, length = start, end - start + (DIGEST_BYTES if with_digest else 0)
        for here in _shareable(blob, number):
            if here < first_end and not with_digest:
                continue  # whoever knows the digest is to get a checked piece, or none
            if here == first_end:
                here = end
            if sent == start:
                head = {"Content-Type": "application/octet-stream", "Content-Length": str(length), "Darner-From": origins}
                exchange.start(200, head)
            for turn in self._upload.turns(sent, here) if self._upload else [(sent, here)]:
                exchange.send_file(blob.fd, *turn)
            sent = here
        if sent < end and blob.stored:
            self._store.withhold(blob)
        if sent < end or (with_digest and number not in blob.digests):
            raise RequestError(404, "UNKNOWN", f"piece {number} of {blob.digest} is not here yet")
        if with_digest:
            exchange.send(blob.digests[number])
        exchange.finish()
        metrics.UPLOADED_BYTES.inc(end - start)

    def _refusal(self, digest: str, exchange: Exchange, authorization: str) -> str:
        """Why this node's pieces are not for whoever asks, or ""."""
        keys = self._swarm_key.all()
        scheme, _, ticket = authorization.partition(" ")
        if not keys:
            return ""
        shown, servers = ticket if scheme == "Ticket" else "", (exchange.reached, *self._addresses)
        return tickets.refusal(keys, digest, servers, shown, self._clocks(), sealed=exchange.sealed)

    def _origins(self, blob: Blob, asked: str) -> str:
        """Of the places that the taker has the blob from, by their marks, those that this node has it from, too."""
        known = asked[:ORIGINS_CHARACTERS_MAX].split(".")
        keys = self._swarm_key.all() or (None,)
        found = {tickets.mark(key, entry) for entry in blob.provenance.entries for key in keys}
        return ".".join(one for one in known if one in found)

    def _blob(self, digest: str) -> Blob:
        blob = self._store.arriving(digest) or self._store.blob(digest)
        if blob is None:
            raise RequestError(404, "UNKNOWN", f"{digest} is not here")
        return blob


def _last(blob: Blob, number: int, asked: str) -> int:
    """Of so many pieces as are asked for, the last that can be sent at once behind the first."""
    pieces = min(int(asked), max(1, TOGETHER_BYTES_MAX // blob.layout.length)) if _COUNT.fullmatch(asked) else 1
    behind = lowest(~(blob.checked >> number + 1))
    return number + max(0, min(pieces - 1, behind))


def _shareable(blob: Blob, number: int) -> Iterator[int]:
    """Up to which bytes a piece may be shared, each as soon as it is so; the last is its end, unless no more of it comes."""
    here, end = blob.layout.span(number)
    while here < end:
        before, here = here, blob.wait_to_share(number, here, COMING_SECONDS_MAX)
        if here == before:
            return
        yield here
