"""What a node says of a blob that it holds whole, when a supernode wants others to have it from there: the digests of its pieces.

So that a supernode need not have a byte of a blob to let nodes share it. Works beside the channels, in threads of its own, and
says nothing of what is not here whole and found right: the supernode then looks elsewhere.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from agent.storage.disk import piece_digest
from agent.storage.store import Store
from agent.swarm import messages
from agent.swarm.messages import Brought, Describe
from agent.values.pieces import Layout

log = logging.getLogger(__name__)

THREADS_MAX = 2
WAITING_MAX = 64
"""Blobs that may wait for their turn; more are not described."""
BATCH = 8
"""Pieces that are said at once: they can be granted while the next ones are hashed."""


class Describer:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="describe")
        self._places = threading.BoundedSemaphore(WAITING_MAX)
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()
        self._threads.shutdown(cancel_futures=True)

    def describe(self, wanted: Describe, tell: Callable[[messages.Message], None]) -> None:
        """Called by a channel's thread, which is not kept: `tell` is called by another."""
        if self._stopping.is_set() or not self._places.acquire(blocking=False):
            return
        try:
            self._threads.submit(self._describe, wanted, tell)
        except RuntimeError:
            self._places.release()

    def _describe(self, wanted: Describe, tell: Callable[[messages.Message], None]) -> None:
        try:
            blob = self._store.blob(f"sha256:{wanted.digest.hex()}")
            if blob is None or not blob.whole:
                return
            layout = Layout(wanted.size, wanted.piece_length)
            if blob.size != layout.size:
                return
            said: dict[int, bytes] = {}
            for piece in range(layout.count):
                if self._stopping.is_set():
                    return
                said[piece] = piece_digest(blob.fd, layout, piece)
                if len(said) == BATCH or piece == layout.count - 1:
                    tell(Brought(wanted.task, said))
                    said = {}
        except (OSError, ValueError) as error:
            log.info("a blob cannot be described: %s", error)
        except Exception:
            log.exception("describing a blob failed inside")
        finally:
            self._places.release()
