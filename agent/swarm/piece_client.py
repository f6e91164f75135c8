"""Bytes on their way into a blob: a piece from a node, or a stream from the origin. The hot path of a pull.

A chunk is received into a buffer that its thread uses again and again, hashed, and written to the blob's file; nothing is ever
held whole in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from agent.http.client import ConnectionPool, Place, StalledError, TimeLimits, TransferError
from agent.http.ratelimit import Pace, slowed
from agent.http.wire import ReadInto, chunks
from agent.storage.blob import Blob, Claim
from agent.storage.disk import piece_hasher
from agent.swarm import messages
from agent.swarm.tickets import Encryption, SwarmKey, SwarmKeyError, issue, mark
from agent.values.address import Address
from agent.values.errors import DarnerError, SourceError
from agent.values.pieces import DIGEST_BYTES

PIECE_STALL_SECONDS_MAX = 3.0
"""A node that sends nothing for so long has failed; another one is asked for the piece."""
CONNECT_SECONDS_MAX = 1.5
"""Long enough for one lost packet, which is sent again after a second; a network that drops all of them is noticed soon."""
PIECE_SECONDS_MAX = 10.0
PIECE_BYTES_PER_SECOND_MIN = 1 << 20
"""A piece takes at most that time and, for its length, this rate: 26 s for one of 16 MiB, less than its grant is good for."""

RECEIVE_WINDOW_BYTES = 64 << 10
"""What may be under way on one connection, unless more comes (`agent.http.client.window_for`). Pieces come over several at
once, and what exceeds the link's capacity waits in its queue, where reports and grants wait as well (docs/decisions/0008)."""
IDLE_CONNECTIONS_MAX = 8
"""Kept open to each node while pieces are fetched. In a small swarm several come from one node at a time, and a connection that
is made anew costs a thread there, too."""


RESETS_MAX = 1
"""A connection that breaks is made anew at once: what passes costs no more than a part of a piece."""


SEALED_ONLY = 426
"""Upgrade Required (RFC 9110, section 15.5.22): what is asked for is private, and the connection is not."""


class SealedOnlyError(DarnerError):
    """A node sends this blob inside TLS alone."""


class TicketRefusedError(SourceError):
    """A node does not accept this node's tickets, and said why."""


class PieceFetcher:
    """Gets pieces from other nodes' piece servers (see agent.swarm.piece_server for the protocol)."""

    def __init__(
        self,
        swarm_key: SwarmKey,
        download: Pace | None = None,
        clock: Callable[[], float] = time.time,
        encryption: Encryption = Encryption.PRIVATE,
    ) -> None:
        """`clock` tells Unix time, where no supernode's is to be used."""
        self._clock = clock
        self._encryption = encryption
        self._swarm_key = swarm_key
        self._download = download
        self._pool = ConnectionPool(
            idle_max=IDLE_CONNECTIONS_MAX, window_bytes=RECEIVE_WINDOW_BYTES, connect_seconds_max=CONNECT_SECONDS_MAX
        )

    def rest(self) -> None:
        """Nothing will be fetched for a while: keep no connection open."""
        self._pool.rest()

    def close(self) -> None:
        """End what is under way."""
        self._pool.close()

    def fetch(
        self,
        blob: Blob,
        piece: int,
        digest: bytes | None,
        where: Address,
        unix_seconds: float | None = None,
        fingerprint: bytes = b"",
    ) -> None:
        """One piece from one node into the blob, checked, or believed only with the whole blob when its digest is not known.

        `messages.COMING` for a digest says that `where` is the supernode, which tells the digest when it has it. If it breaks
        off, its origin may be at fault: the piece is missing, and the supernode no worse a source than before. `unix_seconds` is
        the time on the supernode's clock, where that may not be this node's. `fingerprint` is that of the certificate of `where`,
        without which nothing private is fetched from there. Raises SourceError with the verdict, SupersededError when another
        source was given the piece meanwhile, and OSError when the disk fails.
        """
        coming = digest == messages.COMING
        sealed = self._encryption.seals(blob.private)
        for resets in range(RESETS_MAX + 1):
            try:
                claim, received, told = self._receive(blob, piece, where, coming, unix_seconds, fingerprint, sealed=sealed)
                break
            except SealedOnlyError as error:
                if sealed:
                    raise SourceError(messages.MISSING, str(error)) from None
                sealed = True
                blob.hide()  # from this node's own takers too, and so that it is asked for like that from now on
            except StalledError as error:
                raise SourceError(messages.STALLED, str(error)) from None
            except SwarmKeyError as error:
                raise SourceError(messages.UNREACHABLE, str(error)) from None
            except TransferError as error:
                if resets == RESETS_MAX:
                    raise SourceError(messages.UNREACHABLE, str(error)) from None
        digest = told or digest
        if digest is not None and received != digest:
            raise SourceError(messages.CORRUPT, f"{where} sent bytes that are not piece {piece}")
        blob.add(piece, received, checked=digest is not None, claim=claim)

    def _receive(
        self,
        blob: Blob,
        piece: int,
        where: Address,
        coming: bool,
        unix_seconds: float | None,
        fingerprint: bytes,
        *,
        sealed: bool,
    ) -> tuple[Claim, bytes, bytes]:
        """Write what the node sends into the piece's place: the claim to it, its digest, and of a `coming` one the right one."""
        if sealed and not fingerprint:
            raise SourceError(messages.UNREACHABLE, f"nobody says which certificate {where} has")
        headers = {"Host": str(where)}
        key = self._swarm_key()
        if key is not None:
            now = self._clock() if unix_seconds is None else unix_seconds
            headers["Authorization"] = f"Ticket {issue(key, blob.digest, where, now, sealed=sealed)}"
        marks = {mark(key, entry): entry for entry in blob.provenance.wanted}
        headers["Darner-From"] = ".".join(marks)
        start, end = blob.layout.span(piece)
        limits = TimeLimits(
            head=PIECE_STALL_SECONDS_MAX,
            stall=PIECE_STALL_SECONDS_MAX,
            body=PIECE_SECONDS_MAX + (end - start) / PIECE_BYTES_PER_SECOND_MIN,
        )
        target = f"/pieces/{blob.digest}/{piece}{'?digest' if coming else ''}"
        told = bytearray(DIGEST_BYTES if coming else 0)
        place = Place((where,), fingerprint=fingerprint if sealed else b"")
        connection, answer = self._pool.ask(place, "GET", target, headers, limits)
        try:
            if answer.status == 401:
                reason = answer.headers.get("darner-refused", "it says no more")
                raise TicketRefusedError(messages.UNREACHABLE, f"{where} refuses this node's tickets: {reason}")
            if answer.status == SEALED_ONLY:
                raise SealedOnlyError(f"{where} gives pieces of {blob.digest} inside TLS alone")
            if answer.status != 200:
                raise SourceError(messages.MISSING, f"{where} answered {answer.status} for piece {piece}")
            if answer.length != end - start + len(told):
                raise SourceError(messages.CORRUPT, f"{where} has a piece {piece} of {answer.length} bytes")
            shown = answer.headers.get("darner-from", "").split(".")
            blob.provenance.keep(entry for known, entry in marks.items() if known in shown)
            claim = blob.claim(piece)  # not before there is something to write: whoever brings it meanwhile is not disturbed
            read_into = slowed(connection.read_into, self._download) if self._download else connection.read_into
            try:
                received = fill(blob, piece, claim, read_into)
                connection.read_into(memoryview(told))
            except StalledError:
                raise
            except (TransferError, SourceError) as error:
                if not coming:
                    raise
                raise SourceError(messages.MISSING, str(error)) from None
            return claim, received, bytes(told)
        finally:
            self._pool.give_back(connection)


def fill(blob: Blob, piece: int, claim: Claim, read_into: ReadInto, came: Callable[[int], None] | None = None) -> bytes:
    """Write what `read_into` gives into the place of a claimed piece, and return its digest. Raises what `pour` raises.

    `came` is told after each chunk up to which byte of the blob the piece has come.
    """
    hasher = piece_hasher()
    for chunk, position in pour(blob, piece, claim, read_into):
        hasher.update(chunk)
        if came:
            came(position)
    return hasher.digest()


def pour(blob: Blob, piece: int, claim: Claim, read_into: ReadInto) -> Iterator[tuple[memoryview, int]]:
    """Write what `read_into` gives into the place of a claimed piece, up to its end: each chunk that was written, and the byte
    behind it.

    Raises whatever `read_into` raises, what `Blob.write` raises, and SourceError when the bytes end too early.
    """
    position, end = blob.layout.span(piece)
    for chunk in chunks(read_into, end - position):
        blob.write(position, chunk, claim)
        position += len(chunk)
        yield chunk, position
    if position < end:
        raise SourceError(messages.UNREACHABLE, f"piece {piece} ended {end - position} bytes early")
