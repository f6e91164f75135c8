"""The scrubber looks into containerd's content store now and then, and checks the blobs that are new there, in the background.

Blobs that the own store holds anyway are left out, until nobody has used them for so long that containerd's copy is enough. The
pace is slow, because a node may have tens of gigabytes of images, and nobody waits. The own store's blobs were verified as they
came, and are verified once more when they are first used after a restart: reading all of them at every start would cost the disk
more than it finds (docs/decisions/0018).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

from agent import metrics
from agent.http.ratelimit import Pace
from agent.storage.containerd import ContainerdContent
from agent.storage.store import Store

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
"""For so long others may be told of a blob that containerd has removed: a node that asks for it gets 404."""
CHECKED_BYTES_PER_SECOND = 64 << 20
"""Less than a tenth of one core and of a slow SSD. 50 GiB take a quarter of an hour, once."""
STOP_SECONDS_MAX = 2.0


class Scrubber:
    """One thread of its own; `start` and `stop` are called by another one."""

    def __init__(self, store: Store, content: ContainerdContent, bytes_per_second: int = CHECKED_BYTES_PER_SECOND) -> None:
        self._store = store
        self._content = content
        self._pace = Pace(bytes_per_second)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrubber", daemon=True)
        self._unknown: list[str] = []

    def start(self) -> None:
        """Begin. The blobs that were checked before the last restart are offered from here on."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident:
            self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        while not self._stopping.is_set():
            is_time_to_look = self._check_some()
            self._content.remember()
            if not is_time_to_look and self._stopping.wait(LOOK_SECONDS):
                return
            self._look()

    def _look(self) -> None:
        held = self._store.holdings().keys() - self._store.second_copies()
        self._unknown = [digest for digest in self._content.look() if digest not in held]
        metrics.CONTENT_BYTES.set(self._content.offered_bytes)

    def _check_some(self) -> bool:
        """Check new blobs until it is time to look again. Whether it is."""
        look_at = time.monotonic() + LOOK_SECONDS
        for digest in self._unknown:
            if self._stopping.is_set() or time.monotonic() >= look_at:
                return True
            try:
                self._content.check(digest, self._turns)
                metrics.CONTENT_BYTES.set(self._content.offered_bytes)
            except InterruptedError:
                return True
            except OSError as error:
                log.info("a blob of containerd's cannot be read: %s", error)
        return False

    def _turns(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        for turn in self._pace.turns(start, end):
            if self._stopping.is_set():
                raise InterruptedError("this process is stopping")
            yield turn
