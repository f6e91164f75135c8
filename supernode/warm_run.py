"""A few neighbouring pieces of a blob, from its origin into the cache, by one request for exactly these bytes.

A warmed blob comes in such runs and not in one stream, so that it can stop for nodes between two of them without a byte that the
origin has sent for nothing. It is asked for as nobody: what is not everybody's is not warmed. Whether a run is begun is decided
by `supernode.tracker.warm_blobs`; `fetch` is called in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.origin.blobstream import BlobStream
from agent.origin.client import Origin
from agent.storage.blob import Blob
from agent.swarm.piece_client import fill
from agent.values.errors import DarnerError, OriginError, StoreError
from supernode import metrics

HEAD_SECONDS_MAX = 10.0
"""For the origin to begin to answer. Nodes wait longer, for somebody waits for them."""


@dataclass
class WarmRun:
    origin: Origin
    registry: str
    repository: str
    blob: Blob
    first: int
    end: int
    """The piece after the last."""
    on_piece: Callable[[int, bytes], None]
    is_aborted: bool = False
    _stream: BlobStream | None = None

    @property
    def pieces(self) -> int:
        """As a set."""
        return (1 << self.end) - (1 << self.first)

    def abort(self) -> None:
        """End it at once, from another thread: what has come of a piece that is not complete is lost."""
        self.is_aborted = True
        if stream := self._stream:
            stream.abort()

    def fetch(self) -> None:
        """Raises DarnerError: the origin's or the disk's, and DigestError when the blob is complete and wrong."""
        blob, (start, _), (_, end) = self.blob, self.blob.layout.span(self.first), self.blob.layout.span(self.end - 1)
        stream = self.origin.open_blob(self.registry, self.repository, blob.digest, None, start, HEAD_SECONDS_MAX, end)
        try:
            self._stream = stream
            if stream.size != blob.size:
                raise OriginError(502, f"the registry {self.registry} has another size of {blob.digest} than its manifest")
            blob.provenance.keep(blob.provenance.wanted)
            for piece in range(self.first, self.end):
                if self.is_aborted:
                    return
                self._bring(piece, stream)
            stream.deny(blob.error)
        except OSError as error:
            raise StoreError(f"the cache cannot be written: {error.strerror}") from None
        finally:
            self._stream = None
            stream.close()
        if blob.error:
            raise blob.error.again()

    def _bring(self, piece: int, stream: BlobStream) -> None:
        blob = self.blob
        is_last = blob.missing == 1 << piece  # then it waits for the digest of the whole
        claim = blob.claim(piece)
        digest = fill(blob, piece, claim, stream.read_into)
        if not is_last:
            self.on_piece(piece, digest)
        blob.add(piece, digest, checked=True, claim=claim)
        start, end = blob.layout.span(piece)
        metrics.ORIGIN_RECEIVED_BYTES.inc(end - start)
        metrics.WARMED_BYTES.inc(end - start)
        if blob.error:
            raise blob.error.again()
        if is_last:
            self.on_piece(piece, digest)


def was_refused(error: DarnerError) -> bool:
    """Whether the origin keeps this from those who have no credential: no fault of anybody."""
    return isinstance(error, OriginError) and error.status in (401, 403)
