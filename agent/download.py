"""Downloads: one for each blob that somebody on this node waits for, whoever and however many they are.

A `Download` drives a `Planner`, which decides, with one thread that does nothing but take what happened and hand out work; pieces
are fetched by threads that all downloads share. It goes on while anyone waits and stops within a second when nobody does.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from agent import metrics, planner, wire
from agent.blob import Blob
from agent.channel import Channel, ChannelError, Swarm
from agent.credentials import Credential
from agent.errors import DarnerError, DigestError, OriginError, RequestError, SourceError, StoreError
from agent.fetch import PieceFetcher, fill
from agent.origin import Origin
from agent.pieces import Layout
from agent.settings import Address
from agent.store import Store
from agent.swarmkey import SwarmKey

log = logging.getLogger(__name__)

DOWNLOADS_MAX = 64
FETCHERS_MAX = 32
LINGER_SECONDS = 0.5
"""How long a download goes on after its last reader left: parallel range readers come and go."""
LOOK_SECONDS_MAX = 0.25

_VERDICT_NAMES = {wire.UNREACHABLE: "unreachable", wire.STALLED: "stalled", wire.CORRUPT: "corrupt", wire.MISSING: "missing"}


@dataclass(eq=False)
class Reader:
    """Somebody who waits for bytes from `offset` on, and moves it."""

    download: Download
    offset: int


class Downloads:
    """The downloads of a node, and what they share."""

    def __init__(self, store: Store, swarm: Swarm, origin: Origin, swarm_key: SwarmKey) -> None:
        self.store = store
        self.swarm = swarm
        self.origin = origin
        self.fetcher = PieceFetcher(swarm_key)
        self.threads = ThreadPoolExecutor(FETCHERS_MAX, thread_name_prefix="fetch")
        self._lock = threading.Lock()
        self._active: dict[str, Download] = {}

    @contextmanager
    def reading(
        self, registry: str, repository: str, digest: str, credential: Credential | None, offset: int
    ) -> Iterator[Reader]:
        """Take part in the download of a blob, beginning it if need be. Raises RequestError when there are too many."""
        with self._lock:
            download = self._active.get(digest)
            if download is None:
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

    def abandoned(self, download: Download, now: float) -> bool:
        """Whether nobody has waited for a while. If so, whoever comes now begins a new download."""
        with self._lock:
            if download.readers or now - download.left_at < LINGER_SECONDS:
                return False
            self._active.pop(download.digest, None)
            return True

    def forget(self, download: Download) -> None:
        with self._lock:
            if self._active.get(download.digest) is download:
                del self._active[download.digest]

    def swarm_is_up(self, _: Channel) -> None:
        """A channel opened: downloads that go on without a supernode may join one."""
        for download in self._snapshot():
            download.happened(planner.SwarmAvailable())

    def stop(self) -> None:
        for download in self._snapshot():
            download.stop(RequestError(503, "UNAVAILABLE", "this agent is stopping"))
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.fetcher.close()

    def _snapshot(self) -> list[Download]:
        with self._lock:
            return list(self._active.values())


class Download:
    """One blob on its way to this node. `Downloads` keeps its readers."""

    def __init__(self, downloads: Downloads, registry: str, repository: str, digest: str, credential: Credential | None) -> None:
        self.digest = digest
        self.readers: list[Reader] = []
        self.left_at = time.monotonic()
        self._all = downloads
        self._registry = registry
        self._repository = repository
        self._credential = credential
        self._events: queue.SimpleQueue[planner.Event | wire.FromSupernode] = queue.SimpleQueue()
        self._planner = planner.Planner()
        self._channel: Channel | None = None
        self._task = 0
        self._fetching: set[int] = set()
        self._blob: Blob | None = None
        self._blob_lock = threading.Lock()
        self._error: DarnerError | None = None
        self._known = threading.Event()
        """Set when the blob's size is known, or the download has failed before it was."""
        self._origin_stop = threading.Event()
        threading.Thread(target=self._run, name=f"download {digest[:19]}", daemon=True).start()

    def blob(self, seconds: float) -> Blob:
        """The arriving blob, once its size is known. Raises what the download failed with, or OriginError 504."""
        if not self._known.wait(seconds):
            raise OriginError(504, f"no source of {self.digest} answered in time, the registry {self._registry} included")
        if self._blob is None:
            raise self._error or OriginError(504, f"the download of {self.digest} ended")
        return self._blob

    def stop(self, error: DarnerError) -> None:
        self._error = self._error or error
        self._events.put(planner.Tick())

    def happened(self, event: planner.Event | wire.FromSupernode) -> None:
        self._events.put(event)

    # The deciding thread.

    def _run(self) -> None:
        metrics.DOWNLOADS.inc()
        try:
            self._do(self._planner.start(bool(self._all.swarm.owners(self.digest)), time.monotonic()))
            while self._planner.mode is not planner.Mode.ENDED and self._error is None:
                self._turn()
        except Exception as error:
            log.exception("the download of %s failed inside", self.digest)
            self._error = DarnerError(f"the download failed inside: {type(error).__name__}")
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
            happened = planner.Tick()
        now = time.monotonic()
        if self._blob:
            at = sorted({self._blob.layout.piece_at(reader.offset) for reader in tuple(self.readers)})
            self._do(self._planner.handle(planner.ReadersMoved(tuple(at)), now))
        event = self._understood(happened) if isinstance(happened, wire.Message) else happened
        self._do(self._planner.handle(event, now))
        if self._all.abandoned(self, now):
            self._error = self._error or RequestError(503, "UNAVAILABLE", "nobody waits for this blob any more")

    def _end(self) -> None:
        """Leave everything in order: the swarm, the origin's stream, and whoever still waits."""
        self._all.forget(self)
        self._origin_stop.set()
        self._leave_swarm()
        if self._blob and self._error:
            self._blob.fail(self._error)
        self._known.set()

    def _do(self, commands: list[planner.Command]) -> None:
        for command in commands:
            match command:
                case planner.OpenSwarm():
                    self._open_swarm()
                case planner.LeaveSwarm():
                    self._leave_swarm()
                case planner.Fetch(piece, digest, source):
                    self._begin_fetch(piece, digest, source)
                case planner.Confirm(piece, digest):
                    if self._blob:
                        self._blob.confirm(piece, digest)
                case planner.Tell(done, window):
                    self._tell(done, window)
                case planner.FetchOrigin(first, end):
                    self._begin_origin(first, end)
                case planner.LeaveOrigin():
                    self._origin_stop.set()
                case planner.GiveUp(error):
                    self._error = self._error or error

    def _receive(self, layout: Layout) -> Blob | None:
        """The blob's file, made when its size is first known. None when it cannot be: then the download ends."""
        with self._blob_lock:
            if self._blob is None and self._error is None:
                try:
                    self._blob = self._all.store.receive(self.digest, layout)
                except StoreError as error:
                    self.stop(error)
                    return None
                self._events.put(planner.SizeKnown(layout, self._blob.held))
                self._blob.finish_if_empty()
                self._known.set()
            if self._blob and self._blob.layout != layout:
                self.stop(DigestError(f"two sources of {self.digest} differ in its size"))
                return None
            return self._blob

    # The swarm.

    def _open_swarm(self) -> None:
        self._leave_swarm()
        for channel in self._all.swarm.owners(self.digest):
            checked = self._blob.checked if self._blob else 0
            self._channel = channel
            try:
                channel.open(self.digest, self._registry, self._repository, checked, self._planner.readers, self._heard)
            except ChannelError as error:
                log.info("%s", error)
                self._leave_swarm()
            else:
                return
        self._events.put(planner.NoSwarm())

    def _leave_swarm(self) -> None:
        if self._channel:
            self._channel.leave(self._heard)
            self._channel = None

    def _heard(self, message: wire.FromSupernode | None) -> None:
        """Called by the channel's thread, which must not be kept: the deciding thread looks at it."""
        self._events.put(message if message is not None else planner.SwarmLost())

    def _understood(self, message: wire.Message) -> planner.Event:
        match message:
            case wire.Task():
                return self._task_opened(message)
            case wire.Grant() if message.task == self._task:
                granted = [
                    planner.GrantedPiece(item.piece, item.digest, item.source, item.alternative) for item in message.pieces
                ]
                return planner.Granted(tuple(item for item in granted if self._blob and item.piece < self._blob.layout.count))
            case wire.TaskFailed():
                log.warning("the supernode cannot get %s: %s", self.digest, message.reason)
                if message.corrupt:
                    self._error = self._error or DigestError(message.reason)
                return planner.SwarmFailed()
            case wire.Seeding() if message.task == self._task:
                return planner.StillSeeding()
            case _:  # of a swarm that was left meanwhile
                return planner.Tick()

    def _task_opened(self, message: wire.Task) -> planner.Event:
        try:
            blob = self._receive(Layout(message.size, message.piece_length))
        except ValueError as error:
            log.warning("the supernode names a size that cannot be: %s", error)
            return planner.SwarmFailed()
        if blob is None:
            return planner.SwarmFailed()
        for piece, digest in message.known.items():
            blob.confirm(piece, digest)
        self._task = message.task
        self._do(self._planner.handle(planner.SizeKnown(blob.layout, blob.held), time.monotonic()))
        return planner.TaskOpened(message.task)

    def _tell(self, done: tuple[planner.Outcome, ...], window: int) -> None:
        outcomes = [wire.Done(item.piece, item.source, math.ceil(item.seconds * 1000), item.verdict) for item in done]
        if self._channel:
            try:
                self._channel.send(wire.Report(self._task, outcomes, window, list(self._planner.readers)))
            except ChannelError as error:  # the listener is told as well
                log.debug("%s", error)

    def _begin_fetch(self, piece: int, digest: bytes, source: int) -> None:
        where = self._channel.peers.get(source) if self._channel else None
        if self._blob is None or where is None:
            self._events.put(planner.NotFetched(piece, source, 0.0, wire.UNREACHABLE))
        elif self._blob.confirm(piece, digest):
            self._events.put(planner.Fetched(piece, source, 0.0))
        elif piece not in self._fetching:  # an earlier fetch of it may still be under way: its end is this one's too
            self._fetching.add(piece)
            self._all.threads.submit(self._fetch, self._blob, piece, digest, source, where)

    def _fetch(self, blob: Blob, piece: int, digest: bytes, source: int, where: Address) -> None:
        """In a shared thread: one piece from one node."""
        began = time.monotonic()
        event: planner.Event = planner.Tick()
        try:
            self._all.fetcher.fetch(blob, piece, digest, where)
        except SourceError as error:
            metrics.PIECE_FAILURES.labels(_VERDICT_NAMES[error.verdict]).inc()
            log.info("piece %d of %s did not come: %s", piece, self.digest, error)
            event = planner.NotFetched(piece, source, time.monotonic() - began, error.verdict)
        except OSError as error:
            self._error = StoreError(f"the store cannot be written: {error.strerror}")
        except Exception as error:
            log.exception("fetching a piece failed inside")
            self._error = DarnerError(f"fetching a piece failed inside: {type(error).__name__}")
        else:
            start, end = blob.layout.span(piece)
            metrics.RECEIVED_BYTES.labels("supernode" if source == wire.SEED else "peer").inc(end - start)
            event = planner.Fetched(piece, source, time.monotonic() - began)
        self._fetching.discard(piece)
        self._events.put(event)

    # The origin.

    def _begin_origin(self, first: int, end: int | None) -> None:
        if self._all.swarm.channels:
            metrics.FALLBACKS.inc()
        self._origin_stop = threading.Event()
        name = f"origin {self.digest[:19]}"
        threading.Thread(target=self._from_origin, args=(first, end, self._origin_stop), name=name, daemon=True).start()

    def _from_origin(self, first: int, end: int | None, stop: threading.Event) -> None:
        """In a thread of its own: pieces `first` to `end` from one answer of the origin, believed once the whole blob is right."""
        ended: DarnerError | None = None
        try:
            self._stream_origin(first, end, stop)
        except SourceError as error:
            ended = OriginError(502, f"the registry {self._registry} sent less than it announced: {error}")
        except DarnerError as error:
            ended = error
        except OSError as error:
            self._error = StoreError(f"the store cannot be written: {error.strerror}")
        except Exception as error:
            log.exception("the stream from the registry %s failed inside", self._registry)
            ended = OriginError(502, f"the stream from the registry {self._registry} failed inside: {type(error).__name__}")
        self._events.put(planner.OriginEnded(ended))

    def _stream_origin(self, first: int, end: int | None, stop: threading.Event) -> None:
        start = self._blob.layout.span(first)[0] if self._blob and first else 0
        stream = self._all.origin.open_blob(self._registry, self._repository, self.digest, self._credential, start)
        try:
            blob = self._receive(Layout.of(stream.size))
            count = blob.layout.count if blob else 0
            for piece in range(first, min(end, count) if end else count):
                # What an earlier try left is known only with the size: the planner goes on behind it, with another request.
                if stop.is_set() or blob is None or blob.held >> piece & 1:
                    return
                digest = fill(blob, piece, stream.read_into)
                blob.add(piece, digest, checked=False)
                span = blob.layout.span(piece)
                metrics.RECEIVED_BYTES.labels("origin").inc(span[1] - span[0])
                self._events.put(planner.OriginPiece(piece))
        except ValueError as error:
            raise OriginError(502, f"the registry {self._registry} names a size that cannot be: {error}") from None
        finally:
            stream.close()
