"""Bytes on their way into a blob: a piece from a node, or a stream from the origin. The hot path of a pull.

A chunk is received into a buffer that its thread uses again and again, hashed, and written to the blob's file; nothing is ever
held whole in memory.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator

from agent import wire
from agent.blob import Blob
from agent.errors import SourceError
from agent.settings import Address
from agent.swarmkey import SwarmKey
from agent.tickets import issue
from agent.transfer import Connection, ConnectionPool, StalledError, TransferError

BUFFER_BYTES = 256 << 10
PIECE_STALL_SECONDS_MAX = 3.0
"""A node that sends nothing for so long has failed; the piece goes to another one."""
KEPT_CONNECTION_TRIES_MAX = 3

ReadInto = Callable[[memoryview], int]
"""Puts some bytes into a buffer and says how many; 0 at the end."""

_buffers = threading.local()


class PieceFetcher:
    """Gets pieces from other nodes' piece servers (see agent.upload for the protocol)."""

    def __init__(self, swarm_key: SwarmKey) -> None:
        self._swarm_key = swarm_key
        self._pool = ConnectionPool(PIECE_STALL_SECONDS_MAX)

    def close(self) -> None:
        self._pool.close()

    def fetch(self, blob: Blob, piece: int, digest: bytes | None, where: Address) -> None:
        """One piece from one node into the blob, checked, or believed only with the whole blob when its digest is not known.

        Raises SourceError with the verdict, and OSError when the disk fails.
        """
        try:
            connection = self._ask(blob, piece, where)
            try:
                received = fill(blob, piece, connection.read_into)
            except BaseException:
                connection.close()
                raise
        except StalledError as error:
            raise SourceError(wire.STALLED, str(error)) from None
        except TransferError as error:
            raise SourceError(wire.UNREACHABLE, str(error)) from None
        self._pool.give_back(connection)
        if digest is not None and received != digest:
            raise SourceError(wire.CORRUPT, f"{where} sent bytes that are not piece {piece}")
        blob.add(piece, received, checked=digest is not None)

    def _ask(self, blob: Blob, piece: int, where: Address) -> Connection:
        """A connection on which the bytes of the piece come next."""
        key = self._swarm_key()
        headers = {"Host": str(where)}
        if key is not None:
            headers["Authorization"] = f"Ticket {issue(key, blob.digest, time.time())}"
        start, end = blob.layout.span(piece)
        for last_try in (False,) * KEPT_CONNECTION_TRIES_MAX + (True,):
            connection, used = self._pool.take(where)
            try:
                answer = connection.get(f"/pieces/{blob.digest}/{piece}", headers)
            except TransferError as error:
                connection.close()
                if not used or last_try or isinstance(error, StalledError):
                    raise
                continue  # the node has closed a connection that was kept: nothing is wrong with it
            if answer.status == 200 and answer.length == end - start:
                return connection
            connection.close()
            if answer.status == 200:
                raise SourceError(wire.CORRUPT, f"{where} has a piece {piece} of {answer.length} bytes")
            raise SourceError(wire.MISSING, f"{where} answered {answer.status} for piece {piece}")
        raise AssertionError("the last try returns or raises")


def fill(blob: Blob, piece: int, read_into: ReadInto) -> bytes:
    """Write what `read_into` gives into the place of a piece, up to its end, and return its SHA-256.

    Raises whatever `read_into` raises, OSError when the disk fails, and SourceError when the bytes end too early.
    """
    position, end = blob.layout.span(piece)
    hasher = hashlib.sha256()
    for chunk in chunks(read_into, end - position):
        hasher.update(chunk)
        blob.write(position, chunk)
        position += len(chunk)
    if position < end:
        raise SourceError(wire.UNREACHABLE, f"piece {piece} ended {end - position} bytes early")
    return hasher.digest()


def chunks(read_into: ReadInto, bytes_max: int) -> Iterator[memoryview]:
    """What `read_into` gives, in this thread's one buffer: each chunk is gone when the next is taken."""
    if not hasattr(_buffers, "view"):
        _buffers.view = memoryview(bytearray(BUFFER_BYTES))
    view: memoryview = _buffers.view
    while bytes_max > 0 and (count := read_into(view[: min(bytes_max, len(view))])):
        bytes_max -= count
        yield view[:count]
