"""Seeding: how a blob comes to the supernode, once, and how its pieces are announced while it comes.

In this order: the supernode's own store, the peers that hold the blob whole, the origin. Piece digests are computed here on the
way, so what is announced is what the agents will check against. Pieces from peers are announced only when the whole blob is
right; the last piece from the origin too. It knows nothing of scheduling and runs in threads of its own.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from agent.blob import Blob
from agent.errors import DarnerError, OriginError, SourceError, StoreError
from agent.fetch import PieceFetcher, fill
from agent.origin import Origin
from agent.pieces import Layout, lowest, members
from agent.settings import Address
from agent.store import Store
from supernode import metrics

log = logging.getLogger(__name__)

ORIGIN_TRIES_MAX = 3
"""In a row, without a piece between them."""
HOLDERS_MAX = 8
HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Wanted:
    """A blob, where it can be had, and whom to tell. The callbacks are called from the seeding thread."""

    digest: str
    registry: str
    repository: str
    size: int | None
    """As its holders say; None when there are none."""
    holders: list[Address]
    """Piece servers of nodes that hold the blob whole."""
    on_size: Callable[[Blob], None]
    on_piece: Callable[[int, bytes], None]
    on_end: Callable[[DarnerError | None], None]


class Seeder:
    def __init__(self, store: Store, origin: Origin, fetcher: PieceFetcher) -> None:
        self._store = store
        self._origin = origin
        self._fetcher = fetcher

    def seed(self, wanted: Wanted) -> None:
        """Get the blob, announcing pieces as they are ready. Never raises: `on_end` hears how it went."""
        ended: DarnerError | None = None
        try:
            self._seed(wanted)
        except DarnerError as error:
            ended = error
        except OSError as error:
            ended = StoreError(f"the cache cannot be written: {error.strerror}")
        except Exception as error:
            log.exception("seeding %s failed inside", wanted.digest)
            ended = DarnerError(f"seeding failed inside: {type(error).__name__}")
        metrics.SEEDS.labels("failed" if ended else "whole").inc()
        wanted.on_end(ended)

    def _seed(self, wanted: Wanted) -> None:
        stored = self._store.blob(wanted.digest)
        if stored:
            wanted.on_size(stored)
            _announce(wanted, stored, 0)
            return
        blob = self._from_holders(wanted)
        if blob is None or not blob.whole:
            blob = self._from_origin(wanted, blob)
        if blob.error:
            raise blob.error

    def _from_holders(self, wanted: Wanted) -> Blob | None:
        """What the peers have of it. Nothing is announced before the whole is verified: a peer may lie."""
        if wanted.size is None or not wanted.holders:
            return None
        blob = self._store.receive(wanted.digest, Layout.of(wanted.size))
        holders = wanted.holders[:HOLDERS_MAX]
        for piece in members(blob.missing):
            while holders and not blob.held >> piece & 1:
                try:
                    self._fetcher.fetch(blob, piece, None, holders[0])
                except SourceError as error:
                    log.info("%s is not taken back from %s: %s", wanted.digest, holders.pop(0), error)
        if blob.error:  # all there, and wrong: begin anew, at the origin
            log.warning("%s cannot be taken back from its holders: %s", wanted.digest, blob.error)
            return None
        if blob.whole:
            metrics.RECOVERED_BYTES.inc(blob.size)
            wanted.on_size(blob)
            _announce(wanted, blob, 0)
        return blob

    def _from_origin(self, wanted: Wanted, blob: Blob | None) -> Blob:
        """Every missing piece from the origin, each announced when it is here. Goes on where a broken stream ended."""
        tries = 0
        announced = 0
        if blob:
            wanted.on_size(blob)
        while blob is None or (blob.missing and not blob.error):
            before = blob.held if blob else 0
            try:
                blob, announced = self._stream(wanted, blob, announced)
            except (OriginError, SourceError) as error:
                tries = 1 if blob and blob.held != before else tries + 1
                refused = isinstance(error, OriginError) and error.answered
                if tries >= ORIGIN_TRIES_MAX or refused or blob is None:
                    if blob:
                        blob.fail(error)
                    raise
                log.info("the origin's stream of %s broke off and is resumed: %s", wanted.digest, error)
        if blob.whole:
            _announce(wanted, blob, announced)
        return blob

    def _stream(self, wanted: Wanted, blob: Blob | None, announced: int) -> tuple[Blob, int]:
        """One answer of the origin, from the first missing piece to the next one that is here already."""
        first = lowest(blob.missing) if blob else 0
        start = blob.layout.span(first)[0] if blob else 0
        stream = self._origin.open_blob(wanted.registry, wanted.repository, wanted.digest, None, start)
        try:
            if blob is None:
                try:
                    blob = self._store.receive(wanted.digest, Layout.of(stream.size))
                except ValueError as error:
                    raise OriginError(502, f"the registry {wanted.registry} names a size that cannot be: {error}") from None
                wanted.on_size(blob)
                for piece in members(blob.checked):  # left by an earlier try
                    wanted.on_piece(piece, blob.digests[piece])
                announced = blob.checked
                blob.finish_if_empty()
                if blob.held & 1:
                    return blob, announced
            while first < blob.layout.count and not blob.held >> first & 1:
                digest = fill(blob, first, stream.read_into)
                blob.add(first, digest, checked=True)
                begin, end = blob.layout.span(first)
                metrics.ORIGIN_RECEIVED_BYTES.inc(end - begin)
                if blob.error:
                    break
                wanted.on_piece(first, digest)
                announced |= 1 << first
                first += 1
            return blob, announced
        finally:
            stream.close()


def _announce(wanted: Wanted, blob: Blob, announced: int) -> None:
    """Announce every piece of a whole blob that was not announced yet, hashing those whose digest is not known."""
    for piece in members(blob.layout.everything & ~announced):
        wanted.on_piece(piece, blob.digests.get(piece) or _digest(blob, piece))


def _digest(blob: Blob, piece: int) -> bytes:
    hasher = hashlib.sha256()
    start, end = blob.layout.span(piece)
    for offset in range(start, end, HASH_CHUNK_BYTES):
        hasher.update(os.pread(blob.fd, min(HASH_CHUNK_BYTES, end - offset), offset))
    return hasher.digest()
