"""The downloads of a node: one for each blob that somebody waits for, whoever and however many they are, and what they share.

A download goes on while anyone waits, and is abandoned within a second when nobody does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from agent.download import events
from agent.download.download import Download, Reader
from agent.http.ratelimit import Pace
from agent.origin.client import Origin
from agent.storage.store import Store
from agent.swarm.channel import Channel
from agent.swarm.piece_client import PieceFetcher
from agent.swarm.supernodes import Supernodes
from agent.swarm.swarm_key import SwarmKey
from agent.values.credential import Credential
from agent.values.errors import RequestError

DOWNLOADS_MAX = 64
FETCHERS_MAX = 32
LINGER_SECONDS = 0.5
"""How long a download goes on after its last reader left: parallel range readers come and go."""
STOP_SECONDS_MAX = 5.0


class DownloadManager:
    """The downloads of a node, and what they share."""

    def __init__(self, store: Store, swarm: Supernodes, origin: Origin, swarm_key: SwarmKey, pace: Pace | None = None) -> None:
        self.store = store
        self.swarm = swarm
        self.origin = origin
        self.fetcher = PieceFetcher(swarm_key, pace)
        self._pace = pace
        self.threads = ThreadPoolExecutor(FETCHERS_MAX, thread_name_prefix="fetch")
        self._lock = threading.Lock()
        self._active: dict[str, Download] = {}
        self._stopping = False

    @contextmanager
    def reading(
        self, registry: str, repository: str, digest: str, credential: Credential | None, offset: int
    ) -> Iterator[Reader]:
        """Take part in the download of a blob, beginning it if need be. Raises RequestError when there are too many."""
        with self._lock:
            if self._stopping:
                raise RequestError(503, "UNAVAILABLE", "this agent is stopping")
            download = self._active.get(digest)
            if download is None or download.failed:
                if len(self._active) >= DOWNLOADS_MAX:
                    raise RequestError(503, "TOOMANYREQUESTS", f"{DOWNLOADS_MAX} blobs are being downloaded already")
                download = self._active[digest] = Download(self, registry, repository, digest, credential)
            reader = Reader(download, offset)
            download.readers.append(reader)
        try:
            yield reader
        finally:
            with self._lock:
                download.readers.remove(reader)
                download.left_at = time.monotonic()

    def window(self, wanted: int, length: int, fetching: int) -> int:
        """Of `wanted` further pieces of `length` bytes, how many can come in time beside those that are being fetched."""
        if self._pace is None:
            return wanted
        in_hand = self._pace.pieces_in_hand(length * max(1, len(self._active)))
        return min(wanted, max(1, in_hand - fetching))  # not none: nothing that comes later would ask for the rest

    def abandon(self, download: Download, now: float) -> None:
        """End a download for which nobody has waited for a while. Whoever comes from now on begins a new one."""
        with self._lock:
            if download.readers or now - download.left_at < LINGER_SECONDS:
                return
            # First this: no two downloads ever write to the same file.
            download.fail(RequestError(503, "UNAVAILABLE", "nobody waits for this blob any more"))
            self._active.pop(download.digest, None)

    def forget(self, download: Download) -> None:
        """A download has ended."""
        with self._lock:
            if self._active.get(download.digest) is download:
                del self._active[download.digest]
            if not self._active:
                self.fetcher.rest()

    def swarm_is_up(self, _: Channel) -> None:
        """A channel opened: downloads that go on without a supernode may join one."""
        for download in self._snapshot():
            download.happened(events.SwarmAvailable())

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
        stopped = self._snapshot()
        for download in stopped:
            download.fail(RequestError(503, "UNAVAILABLE", "this agent is stopping"))
        self.fetcher.close()
        self.threads.shutdown(cancel_futures=True)
        for download in stopped:
            download.join(STOP_SECONDS_MAX)

    def _snapshot(self) -> list[Download]:
        with self._lock:
            return list(self._active.values())
