"""The downloads of this node: one for each blob that clients wait for, however many clients these are.

The manager begins downloads, finds the one that a new reader takes part in, and ends all of them when the agent stops. When a
download without readers ends is the download's own affair (`agent.download.download`). The manager's lock is held for a look into
a dict and never while another lock is waited for: every GET of a blob that is not stored takes that lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

from agent.download import events
from agent.download.download import BlobOrigin, Download, Reader, Shared
from agent.http.ratelimit import Pace
from agent.origin.client import Origin
from agent.pulls import BlobPull, Pulls
from agent.storage.store import Store
from agent.swarm.piece_client import PieceFetcher
from agent.swarm.supernodes import Supernodes
from agent.swarm.tickets import Encryption, SwarmKey
from agent.values.credential import Credential
from agent.values.errors import RequestError

DOWNLOADS_MAX = 96
DOWNLOADS_OF_ONE_MAX = 64
"""From one registry, so that one that sends a byte a second leaves places for the others."""
FILES_MAX = 32
"""Of web servers: pods that ask for them leave places for the images that their node pulls."""
FETCHERS_MAX = 32
STOP_SECONDS_MAX = 5.0


class DownloadManager:
    def __init__(
        self,
        store: Store,
        swarm: Supernodes,
        origin: Origin,
        swarm_key: SwarmKey,
        pace: Pace | None = None,
        encryption: Encryption = Encryption.PRIVATE,
    ) -> None:
        self.fetcher = PieceFetcher(swarm_key, pace, encryption=encryption)
        self.pulls = Pulls()
        self.threads = ThreadPoolExecutor(FETCHERS_MAX, thread_name_prefix="fetch")
        self._pace = pace
        self._shared = Shared(store, swarm, origin, self.fetcher, self.threads, self.window, self._ended, self.pulls)
        self._lock = threading.Lock()
        self._active: dict[str, Download] = {}
        self._stopping = False

    def reading(
        self, registry: str, repository: str, digest: str, credential: Credential | None, offset: int, asked_by: str = ""
    ) -> AbstractContextManager[Reader]:
        """Take part in the download of a blob, beginning it if need be. Raises RequestError when there are too many.

        `asked_by` is what the client calls itself.
        """
        return self.reading_from(BlobOrigin(registry, repository, digest, credential), offset, asked_by)

    @contextmanager
    def reading_from(self, origin: BlobOrigin, offset: int, asked_by: str = "") -> Iterator[Reader]:
        """The same, from an origin that may be another than a registry's."""
        digest = origin.digest
        with self._lock:
            if self._stopping:
                raise RequestError(503, "UNAVAILABLE", "this agent is stopping")
            download = self._active.get(digest)
            reader = download.join(offset, private=origin.credential is not None) if download else None
            if reader is None:  # there is no download, or one that has failed or is being abandoned
                if download is None:
                    self._check_room(origin)
                pull = BlobPull(f"{origin.registry}/{origin.repository}", digest, asked_by)
                download = Download(origin, self._shared, pull, earlier=download)
                reader = download.begin(offset)
                self._active[digest] = download
        try:
            yield reader
        finally:
            reader.download.leave(reader)

    def _check_room(self, origin: BlobOrigin) -> None:
        """A download that nobody waits for, and is kept all the same, makes room for one that somebody waits for."""
        registry, active = origin.registry, list(self._active.values())
        if origin.file and sum(download.is_of_file for download in active) >= FILES_MAX:
            raise RequestError(503, "TOOMANYREQUESTS", f"{FILES_MAX} files are being downloaded already")
        if len(active) >= DOWNLOADS_MAX and not any(download.keep_no_longer() for download in active):
            raise RequestError(503, "TOOMANYREQUESTS", f"{DOWNLOADS_MAX} blobs are being downloaded already")
        of_one = [download for download in active if download.registry == registry]
        if len(of_one) >= DOWNLOADS_OF_ONE_MAX and not any(download.keep_no_longer() for download in of_one):
            words = f"{DOWNLOADS_OF_ONE_MAX} blobs of the registry {registry} are being downloaded already"
            raise RequestError(503, "TOOMANYREQUESTS", words)

    def window(self, wanted: int, length: int, fetching: int) -> int:
        """Of `wanted` further pieces of `length` bytes, how many can come in time beside those that are being fetched."""
        if self._pace is None:
            return wanted
        in_hand = self._pace.pieces_in_hand(length * max(1, len(self._active)))
        return min(wanted, max(1, in_hand - fetching))  # not none: nothing that comes later would ask for the rest

    def swarm_is_up(self) -> None:
        """A channel opened: downloads that go on without a supernode may join one."""
        for download in self._snapshot():
            download.happened(events.News.SWARM_AVAILABLE)

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
        stopped = self._snapshot()
        for download in stopped:
            download.fail(RequestError(503, "UNAVAILABLE", "this agent is stopping"))
        self.fetcher.close()
        self.threads.shutdown(cancel_futures=True)
        for download in stopped:
            download.wait_for_end(STOP_SECONDS_MAX)

    def _ended(self, download: Download) -> None:
        """Called by the download's thread."""
        with self._lock:
            if self._active.get(download.digest) is download:  # and not the one that has replaced it
                del self._active[download.digest]
            is_last = not self._active
        if is_last:
            self.fetcher.rest()

    def _snapshot(self) -> list[Download]:
        with self._lock:
            return list(self._active.values())
