"""The origin's stream of a download: a thread that fills one piece after the other from one answer of the registry.

What it fills is believed only with the whole blob. When to begin and when to end is decided by `agent.download.planner`.
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from agent import metrics
from agent.download import events
from agent.origin.blobstream import BlobStream
from agent.storage.blob import Blob
from agent.swarm.piece_client import fill, pour
from agent.values.errors import DarnerError, OriginError, SourceError, StoreError

log = logging.getLogger(__name__)


class Taker(Protocol):
    """Whom the pieces are for. Called from the stream's thread."""

    @property
    def shares(self) -> bool:
        """Whether other nodes may be given pieces of a blob that is not whole yet: then each piece needs a digest of its own."""

    def open_origin(self, start: int) -> BlobStream:
        """Ask the registry for the bytes from `start` on."""

    def receive_size(self, size: int) -> Blob | None:
        """The blob to write to, now that its size is known; None when there is none any more."""

    def happened(self, event: events.Event) -> None:
        """Hear of each piece, and of the end."""

    def fail(self, error: DarnerError) -> None:
        """Hear of a disk that cannot be written."""


class OriginStream:
    """One at a time."""

    def __init__(self) -> None:
        self._stream: BlobStream | None = None
        self._leaving = threading.Event()

    def begin(self, taker: Taker, first: int, end: int | None, start: int, name: str) -> None:
        """Pieces `first` to `end` (not included), of which the first begins at byte `start`. It comes to OriginEnded."""
        self._leaving = threading.Event()
        threading.Thread(target=self._run, args=(taker, first, end, start, self._leaving), name=name, daemon=True).start()

    def leave(self) -> None:
        """End it with the piece that it is writing."""
        self._leaving.set()

    def abort(self) -> None:
        """End it at once."""
        self._leaving.set()
        stream = self._stream
        if stream:
            stream.abort()

    def _run(self, taker: Taker, first: int, end: int | None, start: int, leaving: threading.Event) -> None:
        ended: DarnerError | None = None
        try:
            self._fill(taker, first, end, start, leaving)
        except SourceError as error:
            ended = OriginError(502, f"the registry sent less than it announced: {error}")
        except DarnerError as error:
            ended = error
        except OSError as error:
            taker.fail(StoreError(f"the store cannot be written: {error.strerror}"))
        except ValueError as error:
            ended = OriginError(502, f"the registry names a size that cannot be: {error}")
        except Exception as error:
            log.exception("the origin's stream failed inside")
            ended = OriginError(502, f"the origin's stream failed inside: {type(error).__name__}")
        # Without its traceback, whose frames would keep the taker's file open as long as the event.
        taker.happened(events.OriginEnded(ended.with_traceback(None) if ended else None))

    def _fill(self, taker: Taker, first: int, end: int | None, start: int, leaving: threading.Event) -> None:
        stream = taker.open_origin(start)
        self._stream = stream
        try:
            blob = taker.receive_size(stream.size)
            count = blob.layout.count if blob else 0
            for piece in range(first, min(end, count) if end else count):
                # What an earlier try left is known only with the size: the planner goes on behind it, with another request.
                if leaving.is_set() or blob is None or blob.held >> piece & 1:
                    return
                if taker.shares or not blob.follows(piece):
                    digest = fill(blob, piece, stream.read_into)
                else:
                    digest = None  # nobody would ask for it: the blob's own digest is what counts
                    for _ in pour(blob, piece, stream.read_into):
                        pass
                blob.add(piece, digest, checked=False)
                begun, ended = blob.layout.span(piece)
                metrics.RECEIVED_BYTES.labels("origin").inc(ended - begun)
                taker.happened(events.OriginPiece(piece))
        finally:
            self._stream = None
            stream.close()
