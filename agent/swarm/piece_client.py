"""Bytes on their way into a blob: a piece from a node, or a stream from the origin. The hot path of a pull.

A chunk is received into a buffer that its thread uses again and again, hashed, and written to the blob's file; nothing is ever
held whole in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from agent.http.client import Answer, Connection, ConnectionPool, Place, StalledError, TimeLimits, TransferError
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
"""A connection that breaks is made anew at once, if anything came since the last time: what passes costs no more than a part of a
piece."""


SEALED_ONLY = 426
"""Upgrade Required (RFC 9110, section 15.5.22): what is asked for is private, and the connection is not."""


PIECES_HEADER = "Darner-Pieces"
"""How many pieces are asked for in one request, from the one that it names on. A node gives those that it has, or knows no such
header and gives one: the answer's length tells."""
TOGETHER_BYTES_MAX = 4 << 20
"""Of the pieces of one request. A longer one costs little for its length, and a node that is slow holds up no more than that."""


class SealedOnlyError(DarnerError):
    """A node sends this blob inside TLS alone."""


class TicketRefusedError(SourceError):
    """A node does not accept this node's tickets, and said why."""


@dataclass(frozen=True)
class _Asking:
    """Whom pieces are asked of, and how."""

    where: Address
    unix_seconds: float | None
    fingerprint: bytes
    sealed: bool


class _Arrived(NamedTuple):
    """A piece that is in the blob's file: the claim to it, its digest, and the one that the supernode told behind it, or b""."""

    piece: int
    claim: Claim
    digest: bytes
    told: bytes


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
        """One piece from one node into the blob: see `fetch_together`."""
        for _ in self.fetch_together(blob, {piece: digest}, where, unix_seconds, fingerprint):
            pass

    def fetch_together(
        self,
        blob: Blob,
        digests: Mapping[int, bytes | None],
        where: Address,
        unix_seconds: float | None = None,
        fingerprint: bytes = b"",
    ) -> Iterator[int]:
        """Pieces that follow each other, from one node into the blob, with one request; each is told when it is there.

        They are checked, or believed only with the whole blob where a digest is not known. The node may have fewer of them, and
        then these alone come: at least the first, or an error is raised, which is the next piece's.

        `messages.COMING` for a digest, of a single piece, says that `where` is the supernode, which tells the digest when it has
        it. If it breaks off, its origin may be at fault: the piece is missing, and the supernode no worse a source than before.
        `unix_seconds` is the time on the supernode's clock, where that may not be this node's. `fingerprint` is that of the
        certificate of `where`, without which nothing private is fetched from there. Raises SourceError with the verdict,
        SupersededError when another source was given the piece meanwhile, and OSError when the disk fails.
        """
        left, resets, sealed = dict(digests), 0, False
        while True:
            asking = _Asking(where, unix_seconds, fingerprint, sealed=sealed or self._encryption.seals(blob.private))
            try:
                for arrived in self._receive(blob, left, asking):
                    named, resets = left.pop(arrived.piece), 0
                    digest = arrived.told or named
                    if digest is not None and arrived.digest != digest:
                        raise SourceError(messages.CORRUPT, f"{where} sent bytes that are not piece {arrived.piece}")
                    blob.add(arrived.piece, arrived.digest, checked=digest is not None, claim=arrived.claim)
                    yield arrived.piece
                return
            except SealedOnlyError as error:
                if asking.sealed:
                    raise SourceError(messages.MISSING, str(error)) from None
                blob.hide()  # from this node's own takers too, and so that it is asked for like that from now on
                sealed = True
            except StalledError as error:
                raise SourceError(messages.STALLED, str(error)) from None
            except SwarmKeyError as error:
                raise SourceError(messages.UNREACHABLE, str(error)) from None
            except TransferError as error:
                if resets == RESETS_MAX:
                    raise SourceError(messages.UNREACHABLE, str(error)) from None
                resets += 1

    def _receive(self, blob: Blob, digests: Mapping[int, bytes | None], asking: _Asking) -> Iterator[_Arrived]:
        """Write what the node sends into the places of the pieces, one after the other."""
        coming = messages.COMING in digests.values()
        told, key = bytearray(DIGEST_BYTES if coming else 0), self._swarm_key()
        marks = {mark(key, entry): entry for entry in blob.provenance.wanted}
        connection, answer = self._ask(blob, digests, asking, key, ".".join(marks))
        try:
            sent = _pieces_in(answer, blob, sorted(digests), len(told), asking.where)
            shown = answer.headers.get("darner-from", "").split(".")
            blob.provenance.keep(entry for known, entry in marks.items() if known in shown)
            read_into = slowed(connection.read_into, self._download) if self._download else connection.read_into
            for piece in sent:
                claim = blob.claim(piece)  # not before there is something to write: whoever brings it meanwhile is not disturbed
                try:
                    digest = fill(blob, piece, claim, read_into)
                    connection.read_into(memoryview(told))
                except StalledError:
                    raise
                except (TransferError, SourceError) as error:
                    if not coming:
                        raise
                    raise SourceError(messages.MISSING, str(error)) from None
                told_at = time.monotonic()
                yield _Arrived(piece, claim, digest, bytes(told))
                connection.paused(time.monotonic() - told_at)
        finally:
            self._pool.give_back(connection)

    def _ask(
        self, blob: Blob, digests: Mapping[int, bytes | None], asking: _Asking, key: bytes | None, marks: str
    ) -> tuple[Connection, Answer]:
        where, first, last = asking.where, min(digests), max(digests)
        if asking.sealed and not asking.fingerprint:
            raise SourceError(messages.UNREACHABLE, f"nobody says which certificate {where} has")
        headers = {"Host": str(where), "Darner-From": marks}
        if key is not None:
            now = self._clock() if asking.unix_seconds is None else asking.unix_seconds
            headers["Authorization"] = f"Ticket {issue(key, blob.digest, where, now, sealed=asking.sealed)}"
        if last > first:
            headers[PIECES_HEADER] = str(last - first + 1)
        limits = TimeLimits(
            head=PIECE_STALL_SECONDS_MAX,
            stall=PIECE_STALL_SECONDS_MAX,
            body=PIECE_SECONDS_MAX + (blob.layout.span(last)[1] - blob.layout.span(first)[0]) / PIECE_BYTES_PER_SECOND_MIN,
        )
        target = f"/pieces/{blob.digest}/{first}{'?digest' if messages.COMING in digests.values() else ''}"
        place = Place((where,), fingerprint=asking.fingerprint if asking.sealed else b"")
        return self._pool.ask(place, "GET", target, headers, limits)


def _pieces_in(answer: Answer, blob: Blob, asked: list[int], told_bytes: int, where: Address) -> list[int]:
    """Those of the pieces that were asked for of which the body is made, behind which a digest is told or not.

    Raises SourceError and SealedOnlyError.
    """
    first, start = asked[0], blob.layout.span(asked[0])[0]
    if answer.status == 401:
        reason = answer.headers.get("darner-refused", "it says no more")
        raise TicketRefusedError(messages.UNREACHABLE, f"{where} refuses this node's tickets: {reason}")
    if answer.status == SEALED_ONLY:
        raise SealedOnlyError(f"{where} gives pieces of {blob.digest} inside TLS alone")
    if answer.status != 200:
        raise SourceError(messages.MISSING, f"{where} answered {answer.status} for piece {first}")
    end = start + (answer.length or 0) - told_bytes
    sent = [piece for piece in asked if blob.layout.span(piece)[1] <= end]
    if not sent or blob.layout.span(sent[-1])[1] != end:
        raise SourceError(messages.CORRUPT, f"{where} has a piece {first} of {answer.length} bytes")
    return sent


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
