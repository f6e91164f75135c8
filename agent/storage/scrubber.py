"""Looks into containerd's content store now and then, and checks what is new there, in the background and slowly.

Checked is what the own store does not hold anyway. Slowly, because a node may have tens of gigabytes of images, and nobody waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

from agent import metrics
from agent.http.ratelimit import Pace, turns
from agent.storage.containerd import ContainerdContent
from agent.storage.store import Store

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
"""For so long others may be told of a blob that containerd has removed; who asks for it then is told that it is not here."""
CHECKED_BYTES_PER_SECOND = 64 << 20
"""Less than a tenth of one core and of a slow SSD. 50 GiB take a quarter of an hour, once."""
STOP_SECONDS_MAX = 2.0


class Scrubber:
    def __init__(self, store: Store, content: ContainerdContent, bytes_per_second: int = CHECKED_BYTES_PER_SECOND) -> None:
        self._store = store
        self._content = content
        self._pace = Pace(bytes_per_second)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="containerd's content", daemon=True)
        self._unknown: list[str] = []

    def start(self) -> None:
        """What was checked before the last restart is offered from here on."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident:
            self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        while not self._stopping.is_set():
            look_now = self._check_some()
            self._content.remember()
            if not look_now and self._stopping.wait(LOOK_SECONDS):
                return
            self._look()

    def _look(self) -> None:
        held = self._store.holdings()
        self._unknown = [digest for digest in self._content.look() if digest not in held]
        self._count()

    def _count(self) -> None:
        metrics.CONTENT_BYTES.set(sum(self._content.holdings().values()))

    def _check_some(self) -> bool:
        """Check what is new until it is time to look again. Whether it is."""
        look_at = time.monotonic() + LOOK_SECONDS
        for digest in self._unknown:
            if self._stopping.is_set() or time.monotonic() >= look_at:
                return True
            try:
                self._content.check(digest, self._turns)
                self._count()
            except InterruptedError:
                return True
            except OSError as error:
                log.info("a blob of containerd's cannot be read: %s", error)
        return False

    def _turns(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        for turn in turns(self._pace, start, end):
            if self._stopping.is_set():
                raise InterruptedError("this process is stopping")
            yield turn
