"""A download: one blob on its way to this node.

It drives a `Planner`, which decides, with one thread that does nothing but take what happened and hand out work; pieces are
fetched by threads that all downloads share. Who waits for it, and until when it goes on, is `agent.download.manager`'s affair.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent import metrics
from agent.download import events, planner
from agent.download.origin_stream import OriginStream
from agent.download.session import Session
from agent.origin.blobstream import BlobStream
from agent.storage.blob import Blob
from agent.swarm import messages
from agent.values.address import Address
from agent.values.credential import Credential
from agent.values.errors import DarnerError, DigestError, OriginError, SourceError, StoreError
from agent.values.pieces import Layout

if TYPE_CHECKING:
    from agent.download.manager import DownloadManager

log = logging.getLogger(__name__)

LOOK_SECONDS_MAX = 0.25

_VERDICT_NAMES = {
    messages.UNREACHABLE: "unreachable",
    messages.STALLED: "stalled",
    messages.CORRUPT: "corrupt",
    messages.MISSING: "missing",
}


@dataclass(eq=False)
class Reader:
    """Somebody who waits for bytes from `offset` on, and moves it."""

    download: Download
    offset: int


class Download:
    """`downloads` keeps its readers, and what it shares with others."""

    def __init__(
        self, downloads: DownloadManager, registry: str, repository: str, digest: str, credential: Credential | None
    ) -> None:
        self.digest = digest
        self.readers: list[Reader] = []
        self.left_at = time.monotonic()
        self._all = downloads
        self._registry = registry
        self._repository = repository
        self._credential = credential
        self._events: queue.SimpleQueue[events.Event | messages.FromSupernode] = queue.SimpleQueue()
        self._planner = planner.Planner()
        self._session = Session(downloads.swarm, digest)
        self._fetching: set[int] = set()
        self._blob: Blob | None = None
        self._blob_lock = threading.Lock()
        self._error: DarnerError | None = None
        self._known = threading.Event()
        """Set when the blob's size is known, or the download has failed before it was."""
        self._stream = OriginStream()
        self._thread = threading.Thread(target=self._run, name=f"download {digest[:19]}", daemon=True)
        self._thread.start()

    def known(self, seconds: float) -> bool:
        """Whether `blob` has an answer within that time."""
        return self._known.wait(seconds)

    def blob(self, seconds: float) -> Blob:
        """The arriving blob, once its size is known. Raises what the download failed with, or OriginError 504."""
        if not self._known.wait(seconds):
            raise OriginError(504, f"no source of {self.digest} answered in time, the registry {self._registry} included")
        if self._blob is None:
            raise self._error.again() if self._error else OriginError(504, f"the download of {self.digest} ended")
        return self._blob

    @property
    def failed(self) -> bool:
        """Whether it ended without the blob. Whoever comes then begins anew."""
        return self._error is not None or bool(self._blob and self._blob.error)

    def happened(self, event: events.Event) -> None:
        self._events.put(event)

    def fail(self, error: DarnerError) -> None:
        """End this download. Nothing is written to its file from now on, and whoever waits is told."""
        with self._blob_lock:
            self._error = self._error or error.again()
            if self._blob:
                self._blob.fail(self._error)
        self._events.put(events.TimePassed())

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    # The deciding thread.

    def _run(self) -> None:
        metrics.DOWNLOADS.inc()
        try:
            self._blob = self._all.store.blob(self.digest)
            if self._blob:  # an earlier download ended between the look of whoever asks and now
                return
            self._do(self._planner.start(bool(self._all.swarm.owners(self.digest)), time.monotonic()))
            while self._planner.mode is not planner.Mode.ENDED and self._error is None:
                self._turn()
        except Exception as error:
            log.exception("the download of %s failed inside", self.digest)
            self.fail(DarnerError(f"the download failed inside: {type(error).__name__}"))
        finally:
            self._end()
            metrics.DOWNLOADS.dec()

    def _turn(self) -> None:
        wait_seconds = LOOK_SECONDS_MAX
        if self._planner.deadline is not None:
            wait_seconds = min(wait_seconds, max(0.0, self._planner.deadline - time.monotonic()))
        try:
            happened = self._events.get(timeout=wait_seconds)
        except queue.Empty:
            happened = events.TimePassed()
        now = time.monotonic()
        if self._blob:
            at = tuple(sorted({self._blob.layout.piece_at(reader.offset) for reader in tuple(self.readers)}))
            if at != self._planner.readers:
                self._do(self._planner.handle(events.ReadersMoved(at), now))
        event = self._understood(happened) if isinstance(happened, messages.Message) else happened
        self._do(self._planner.handle(event, now))
        self._all.abandon(self, now)

    def _end(self) -> None:
        """Leave everything in order: the swarm, the origin's stream, and whoever still waits."""
        self._session.leave()
        if self._error:
            self.fail(self._error)
        self._stream.abort()
        self._all.forget(self)
        self._known.set()
        del self._session, self._stream  # they know this download: without them it goes, and its blob, with its last reader

    def _do(self, commands: list[events.Command]) -> None:  # noqa: C901 (a table of commands)
        for command in commands:
            match command:
                case events.OpenSwarm():
                    self._open_swarm()
                case events.LeaveSwarm():
                    self._session.leave()
                case events.Fetch(piece, digest, source):
                    self._begin_fetch(piece, digest, source)
                case events.Confirm(piece, digest):
                    if self._blob:
                        self._blob.confirm(piece, digest)
                case events.Tell(done, window):
                    length = self._blob.layout.length if self._blob else 1
                    window = self._all.window(window, length, len(self._fetching))
                    self._session.tell(done, window, self._planner.readers)
                case events.FetchOrigin(first, end):
                    self._begin_stream(first, end)
                case events.LeaveOrigin():
                    self._stream.leave()
                case events.GiveUp(error):
                    self.fail(error)

    def _receive(self, layout: Layout) -> Blob | None:
        """The blob's file, made when its size is first known. None when there will be none: the download ends."""
        with self._blob_lock:
            if self._error:
                return None
            if self._blob is None:
                try:
                    self._blob = self._all.store.receive(self.digest, layout)
                except StoreError as error:
                    self._error = error
                    return None
                self._events.put(events.SizeKnown(layout, self._blob.held))
                self._blob.finish_if_empty()
                self._known.set()
        if self._blob.layout != layout:
            self.fail(DigestError(f"two sources of {self.digest} differ in its size"))
            return None
        return self._blob

    # The swarm.

    def _open_swarm(self) -> None:
        checked = self._blob.checked if self._blob else 0
        if not self._session.open(self._registry, self._repository, checked, self._planner.readers, self._heard):
            self._events.put(events.NoSwarm())

    def _heard(self, message: messages.FromSupernode | None) -> None:
        """Called by the channel's thread: the deciding thread looks at it."""
        self._events.put(message if message is not None else events.SwarmLost())

    def _understood(self, message: messages.FromSupernode) -> events.Event:
        if isinstance(message, messages.Task):
            return self._task_opened(message)
        if isinstance(message, messages.TaskFailed):
            log.warning("the supernode cannot get %s: %s", self.digest, message.reason)
            if message.corrupt:
                self.fail(DigestError(message.reason))
        return self._session.meaning(message)

    def _task_opened(self, message: messages.Task) -> events.Event:
        try:
            blob = self._receive(Layout(message.size, message.piece_length))
        except ValueError as error:
            log.warning("the supernode names a size that cannot be: %s", error)
            return events.SwarmFailed()
        if blob is None:
            return events.SwarmFailed()
        for piece, digest in message.known.items():
            blob.confirm(piece, digest)
        self._session.joined(message.task)
        self._do(self._planner.handle(events.SizeKnown(blob.layout, blob.held), time.monotonic()))
        return events.TaskOpened(message.task)

    def _begin_fetch(self, piece: int, digest: bytes, source: int) -> None:
        where = self._session.where(source)
        if self._blob is None or where is None:
            self._events.put(events.NotFetched(piece, source, 0.0, messages.UNREACHABLE))
        elif digest == messages.COMING and source != messages.SEED:  # nobody else is believed what a piece should be
            self._events.put(events.NotFetched(piece, source, 0.0, messages.MISSING))
        elif self._blob.confirm(piece, digest):
            self._events.put(events.Fetched(piece, source, 0.0))
        else:
            self._fetching.add(piece)
            self._all.threads.submit(self._fetch, self._blob, piece, digest, source, where)

    def _fetch(self, blob: Blob, piece: int, digest: bytes, source: int, where: Address) -> None:
        """In a shared thread: one piece from one node."""
        began = time.monotonic()
        event: events.Event = events.TimePassed()
        try:
            self._all.fetcher.fetch(blob, piece, digest, where)
        except SourceError as error:
            metrics.PIECE_FAILURES.labels(_VERDICT_NAMES[error.verdict]).inc()
            log.info("piece %d of %s did not come: %s", piece, self.digest, error)
            event = events.NotFetched(piece, source, time.monotonic() - began, error.verdict)
        except DarnerError as error:  # no key to ask with, or the blob has failed meanwhile
            log.info("piece %d of %s is not fetched: %s", piece, self.digest, error)
            event = events.NotFetched(piece, source, time.monotonic() - began, messages.UNREACHABLE)
        except OSError as error:
            self.fail(StoreError(f"the store cannot be written: {error.strerror}"))
        except Exception as error:
            log.exception("fetching a piece failed inside")
            self.fail(DarnerError(f"fetching a piece failed inside: {type(error).__name__}"))
        else:
            start, end = blob.layout.span(piece)
            metrics.RECEIVED_BYTES.labels("supernode" if source == messages.SEED else "peer").inc(end - start)
            event = events.Fetched(piece, source, time.monotonic() - began)
        self._fetching.discard(piece)
        self._events.put(event)

    # The origin.

    def _begin_stream(self, first: int, end: int | None) -> None:
        if self._all.swarm.channels:
            metrics.FALLBACKS.inc()
        start = self._blob.layout.span(first)[0] if self._blob and first else 0
        self._stream.begin(self, first, end, start, f"origin {self.digest[:19]}")

    @property
    def shares(self) -> bool:
        return bool(self._all.swarm.channels)

    def open_origin(self, start: int) -> BlobStream:
        return self._all.origin.open_blob(self._registry, self._repository, self.digest, self._credential, start)

    def receive_size(self, size: int) -> Blob | None:
        """The supernode may have cut the blob in another way than this node would. Raises ValueError."""
        return self._receive(self._blob.layout if self._blob and self._blob.size == size else Layout.of(size))
