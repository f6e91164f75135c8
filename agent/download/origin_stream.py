"""The origin's stream of a download: one answer of the registry, from which a thread fills one piece after the other.

These bytes are believed only with the whole blob; each piece of them has a digest that other nodes check it against. When a
stream begins and ends is decided by `agent.download.planner`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from agent.download import events
from agent.origin.blobstream import BlobStream
from agent.storage.blob import Blob
from agent.swarm.piece_client import fill, pour
from agent.values.errors import DarnerError, OriginError, SourceError, StoreError, SupersededError

log = logging.getLogger(__name__)


class OriginStream:
    """The handle of one stream, for the thread that began it: `leave` and `abort` bring about its end, OriginEnded tells it."""

    def __init__(
        self,
        ask: Callable[[], BlobStream],
        receive: Callable[[int], Blob | None],
        happened: Callable[[events.Event], None],
        *,
        came: Callable[[int], None],
        first: int,
        end: int | None,
        shares: bool,
    ) -> None:
        """Pieces `first` to `end` (not included; None: the blob's last), from the bytes that `ask` gets from the registry.

        `receive` gives the file to write to, now that the blob's size is known, or None when the download is over. `happened` is
        told of each piece and, at last, of the end, `came` of how many bytes each piece has. The stream's thread calls them all.
        With `shares`, other nodes may be given pieces of the blob before it is whole, so that each needs a digest of its own.
        """
        self._ask = ask
        self._receive = receive
        self._happened = happened
        self._came = came
        self._first = first
        self._end = end
        self._shares = shares
        self._leaving = threading.Event()
        self._answer: BlobStream | None = None

    def begin(self, name: str) -> None:
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        except RuntimeError:
            self._happened(events.OriginEnded(OriginError(503, "no thread is left to ask the registry with", certain=False)))

    def leave(self) -> None:
        """End the stream with the piece that it is writing."""
        self._leaving.set()

    def abort(self) -> None:
        """End the stream at once."""
        self._leaving.set()
        answer = self._answer
        if answer:
            answer.abort()

    def _run(self) -> None:
        error: DarnerError | None = None
        try:
            self._fill()
        except SupersededError:
            log.debug("the origin's stream ends, for a node brings the next piece")
        except SourceError as failed:
            error = OriginError(502, f"the registry sent less than it announced: {failed}")
        except DarnerError as failed:
            error = failed
        except OSError as failed:
            self._happened(events.Broken(StoreError(f"the store cannot be written: {failed.strerror}")))
        except ValueError as failed:
            error = OriginError(502, f"the registry names a size that cannot be: {failed}")
        except Exception as failed:
            log.exception("the origin's stream failed inside")
            error = OriginError(502, f"the origin's stream failed inside: {type(failed).__name__}", certain=False)
        # Without its traceback, whose frames would keep the blob's file open as long as the event.
        self._happened(events.OriginEnded(error.with_traceback(None) if error else None))

    def _fill(self) -> None:
        self._answer = answer = self._ask()
        try:
            blob = self._receive(answer.size)
            if blob is None:
                return
            count = blob.layout.count
            for piece in range(self._first, min(self._end or count, count)):
                # The pieces that an earlier try left are known only with the size: the planner goes on behind them, with another
                # request.
                if self._leaving.is_set() or blob.held >> piece & 1:
                    return
                claim = blob.claim(piece)
                if self._shares or not blob.follows(piece):
                    digest = fill(blob, piece, claim, answer.read_into)
                else:
                    digest = None  # the digest of the whole blob covers this piece
                    for _ in pour(blob, piece, claim, answer.read_into):
                        pass
                blob.add(piece, digest, checked=digest is not None, claim=claim)
                start, end = blob.layout.span(piece)
                self._came(end - start)
                self._happened(events.OriginPiece(piece, digest))
            answer.deny(blob.error)
        finally:
            self._answer = None
            answer.close()
