"""A download: one blob on its way to this node, until it is here, has failed, or nobody has read it for a moment.

A thread of its own takes events from one queue, tells them to a `Planner`, which decides, and carries out the commands that come
back. Pieces are fetched by threads that all downloads share, the origin's bytes by a thread of their own
(`agent.download.origin_stream`); both put the outcome of their work into the queue. Nothing here decides which source is next.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from math import ceil

import msgspec

from agent import metrics
from agent.download import events
from agent.download.events import News, Order
from agent.download.origin_stream import OriginStream
from agent.download.planner import EVIDENCE_SECONDS, Mode, Planner, Trouble
from agent.origin.blobstream import BlobStream
from agent.origin.client import Origin
from agent.pulls import BlobPull, Pulls
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.swarm import messages
from agent.swarm.channel import Channel
from agent.swarm.piece_client import PIECE_SECONDS_MAX, TOGETHER_BYTES_MAX, PieceFetcher, TicketRefusedError
from agent.swarm.supernodes import Supernodes
from agent.values.address import Address
from agent.values.credential import Credential
from agent.values.errors import DarnerError, DigestError, OriginError, RequestError, SourceError, StoreError, SupersededError
from agent.values.pieces import Layout
from agent.values.web_file import WebFile

log = logging.getLogger(__name__)

LOOK_SECONDS_MAX = 0.25
"""How soon a reader that moved, or left, is noticed."""
IDLE_SECONDS_MIN = 1.0
"""A shorter silence of the pieces that are being fetched is not worth telling."""
COMING_SECONDS = 0.5
"""So much later counts a fetch as begun whose piece the supernode is just getting: if its origin is silent it says so before the
planner loses patience (`agent.swarm.piece_server`)."""
TOGETHER_SECONDS_MAX = 0.25
"""How often what has come of requests is told that have not ended: others may want it."""
PAUSE_SECONDS_MAX = 0.5
"""A longer pause without any fetch ends a silence: there was nothing that could have come."""
EARLIER_SECONDS_MAX = 2.0
"""How long the end of an earlier download of the same blob is waited for."""
LINGER_SECONDS = 0.5
"""How long a download goes on after its last reader left: parallel range readers come and go."""
KEPT_SECONDS_MAX = 3600.0
"""The same of one that is kept, so that a registry that sends a byte now and then does not hold it for ever."""


@dataclass(frozen=True)
class Shared:
    """The parts of the agent that all downloads use."""

    store: Store
    swarm: Supernodes
    origin: Origin
    fetcher: PieceFetcher
    threads: Executor
    """Where pieces are fetched."""
    window: Callable[[int, int, int], int]
    """Of so many pieces, of so many bytes each, how many can come in time beside so many that are being fetched."""
    on_end: Callable[[Download], None]
    """Told of each download's end, by its own thread."""
    pulls: Pulls


@dataclass(frozen=True)
class BlobOrigin:
    """A blob, where it comes from, and the credential of the client that asked for it first."""

    registry: str
    repository: str
    digest: str
    credential: Credential | None

    @property
    def file(self) -> WebFile | None:
        """Where this is no blob, but a file of a web server."""
        return None

    @property
    def shared(self) -> bool:
        """Whether other nodes take part."""
        return True

    def open(self, origin: Origin, start: int, end: int | None) -> BlobStream:
        """The bytes from `start` to `end` (not included; None: the last). Raises OriginError."""
        return origin.open_blob(self.registry, self.repository, self.digest, self.credential, start, end=end)


@dataclass(eq=False)
class Reader:
    """A client that waits for bytes from `offset` on, and moves it."""

    download: Download
    offset: int


class Download:
    def __init__(self, origin: BlobOrigin, shared: Shared, pull: BlobPull, earlier: Download | None = None) -> None:
        """`earlier` is a download of the same blob that nobody can join any more; this one sees to it that it writes no more."""
        self.digest = origin.digest
        self.registry = origin.registry
        self.is_of_file = origin.file is not None
        """Whether it is no blob, but a file of a web server."""
        self.pull = pull
        self._from = origin
        self._shared = shared
        self._earlier = earlier
        self._events: queue.SimpleQueue[events.Event] = queue.SimpleQueue()
        self._planner = Planner()
        self._channel: Channel | None = None
        """To the supernode that was asked to let this node take part."""
        self._private = origin.credential is not None or not origin.shared
        """Whether a reader, or somebody in the swarm, needs a credential for the blob: runtimes send one when they were asked."""
        self._opened = 0
        """How often one was asked. What was begun for an earlier one, and fails, is nobody's failure any more."""
        self._size = 0
        """Bytes of the blob, as the origin said when it was asked for that; 0 when it was not."""
        self._opened_size = 0
        """As the supernode was told."""
        self._asked_at: float | None = None
        """When a supernode was, which has not answered."""
        self._seeding = f"blobs of {origin.registry}"
        """The place where it is remembered that a supernode does not get them."""
        self._trouble: Trouble | None = None
        self._stream: OriginStream | None = None
        self._fetching: set[int] = set()
        self._begun_at = 0.0
        """When the first fetch was begun since bytes came last, or since there was none for a while."""
        self._under_way: set[int] = set()
        """Threads that are fetching now."""
        self._untold: dict[int, Callable[[], None]] = {}
        """By thread, how to tell what has come of its request."""
        self._told_at = 0.0
        """When that was last done."""
        self._ended_at = 0.0
        """When the last fetch ended."""
        self._idle_since: float | None = None
        """What the planner was told of that."""
        self._readers: list[Reader] = []
        self._left_at = 0.0
        """When the last reader left."""
        self._closed = self._kept = False
        self._readers_lock = threading.Lock()
        """Guards the four above, and is held for nothing that takes time: the manager waits for it under its own lock."""
        self._blob: Blob | None = None
        self._error: DarnerError | None = None
        self._blob_lock = threading.Lock()
        """Guards the two above. The store may evict for seconds while it is held."""
        self._known = threading.Event()
        """Set when the blob's size is known, or the download has failed before it was."""
        self._thread = threading.Thread(target=self._run, name=f"download {self.digest[:19]}", daemon=True)

    # Readers.

    def is_from(self, registry: str, repository: str, credential: Credential | None) -> bool:
        """Whether this is where it asks the origin, and as whom: else a reader may have the blob though this download fails."""
        return (self._from.registry, self._from.repository, self._from.credential) == (registry, repository, credential)

    def begin(self, offset: int) -> Reader:
        """Start, with the first reader."""
        reader = Reader(self, offset)
        self._readers.append(reader)
        self._thread.start()
        return reader

    def join(self, offset: int, *, private: bool) -> Reader | None:
        """Take part; None when this download has failed or is being abandoned, so that another has to be begun."""
        if private:
            self._hide()
        with self._readers_lock:
            if self._closed or self._error or (self._blob and self._blob.error):
                return None
            reader = Reader(self, offset)
            self._readers.append(reader)
            return reader

    def leave(self, reader: Reader) -> None:
        with self._readers_lock:
            self._readers.remove(reader)
            self._left_at = time.monotonic()

    def keep(self) -> None:
        """Go on to the end, though no reader waits: whoever reads a part at a time comes back for others."""
        with self._readers_lock:
            self._kept = True

    def keep_no_longer(self) -> bool:
        """Whether it was kept for nobody who waits: then it ends in a moment, and what has come stays for the next reader."""
        with self._readers_lock:
            was_kept_for_nobody = self._kept and not self._readers
            self._kept = self._kept and not was_kept_for_nobody
            return was_kept_for_nobody

    def known(self, seconds: float) -> bool:
        """Whether `blob` has an answer within that time."""
        return self._known.wait(seconds)

    def blob(self, seconds: float) -> Blob:
        """The arriving blob, once its size is known. Raises the error that the download failed with, or OriginError 504."""
        if not self._known.wait(seconds):
            registry = self._from.registry
            words = f"no source of {self.digest} answered in time, the registry {registry} included"
            raise OriginError(504, words, certain=False)
        if self._blob is None:
            ended = OriginError(504, f"the download of {self.digest} ended", certain=False)
            raise self._error.again() if self._error else ended
        return self._blob

    def _hide(self) -> None:
        """Keep the blob from everybody's eyes from now on. Whoever makes its file looks whether this was said before."""
        self._private = True
        if self._blob:
            self._blob.hide()

    # From other threads.

    def happened(self, event: events.Event) -> None:
        self._events.put(event)

    def fail(self, error: DarnerError) -> None:
        """End this download and tell its readers. When this returns, nothing is written to the blob's file any more.

        Waits for the store while that makes room for the blob.
        """
        if earlier := self._earlier:
            earlier.fail(error)
        with self._blob_lock:
            self._error = self._error or error.again()
            if self._blob:
                self._blob.fail(self._error)
        self._events.put(News.TIME_PASSED)

    def wait_for_end(self, seconds: float) -> None:
        self._thread.join(seconds)

    # The deciding thread.

    def _run(self) -> None:
        metrics.DOWNLOADS.inc()
        try:
            if self._earlier:  # no two downloads ever write to the same file
                self._earlier.fail(StoreError(f"the download of {self.digest} was begun anew"))
                self._earlier.wait_for_end(EARLIER_SECONDS_MAX)  # it may have to dispute the swarm that this one is not to join
                self._earlier = None
            self._blob = self._shared.store.blob(self.digest)
            if self._blob:  # an earlier download ended between the client's look into the store and now
                self.pull.sources["store"] += self._blob.size
                return
            now, owners = time.monotonic(), self._shared.swarm.owners(self.digest) if self._from.shared else []
            is_silent = bool(owners) and self._shared.swarm.memory.avoids(("supernode", owners[0].where), now)
            is_slow = bool(owners) and self._shared.swarm.memory.avoids((self._seeding, owners[0].where), now)
            self._do(self._planner.start(bool(owners), now, is_silent=is_silent, is_slow=is_slow))
            while self._planner.mode is not Mode.ENDED and self._error is None:
                self._turn()
        except Exception as error:
            log.exception("the download of %s failed inside", self.digest)
            self.fail(DarnerError(f"the download failed inside: {type(error).__name__}"))
        finally:
            self._end()
            metrics.DOWNLOADS.dec()

    def _turn(self) -> None:
        """Wait for an event, take those that came with it, and carry out the commands that the planner answers them with."""
        wait_seconds = LOOK_SECONDS_MAX
        if self._planner.deadline is not None:
            wait_seconds = min(wait_seconds, max(0.0, self._planner.deadline - time.monotonic()))
        try:
            happened: list[events.Event] = [self._events.get(timeout=wait_seconds)]
        except queue.Empty:
            happened = [News.TIME_PASSED]
        now = time.monotonic()
        if now - self._told_at >= TOGETHER_SECONDS_MAX:
            self._tell_late(now)
        happened += [self._events.get_nowait() for _ in range(self._events.qsize())]
        if self._blob and self._blob.error:  # the store has given it up
            self.fail(self._blob.error)
            return
        for event in [*self._readers_moved(), *self._idle(now)]:
            self._do(self._planner.handle(event, now))
        self._handle(happened, now)
        self._note_trouble(now)
        if self._is_abandoned(now):
            self.fail(RequestError(503, "UNAVAILABLE", "nobody waits for this blob any more"))

    def _handle(self, happened: list[events.Event], now: float) -> None:
        """In the order in which it happened; pieces that came one after the other are reported together."""
        for is_done, together in itertools.groupby(happened, lambda event: isinstance(event, messages.Done)):
            if is_done:
                self._do(self._planner.handle_together(together, now))
                continue
            for news in together:
                if isinstance(news, messages.Run):  # some of it may be here from nodes of an earlier supernode
                    self._name(news.task, range(news.first, news.end))
                for event in self._prepared(news):
                    self._do(self._planner.handle(event, now))

    def _note_trouble(self, now: float) -> None:
        """Say once what keeps the swarm from helping, and remember it for the next blob."""
        trouble, memory = self._planner.trouble, self._shared.swarm.memory
        if trouble is self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            log.info("the swarm of %s carries again", self.digest)
            return
        metrics.SWARM_TROUBLES.labels(trouble.name.lower()).inc()
        log.warning("the swarm of %s is no help to this node: %s. The origin is asked as well", self.digest, trouble.value)
        if self._channel and trouble not in (Trouble.TURN, Trouble.SLOW):
            memory.failed(("supernode" if trouble is Trouble.SILENT else "swarms", self._channel.where), now)

    def _note_seeding(self) -> None:
        """A supernode is left that was asked and has not let this node take part: the next blob does not wait for it as long."""
        asked_at = self._asked_at
        if self._channel and asked_at is not None and time.monotonic() >= asked_at + EVIDENCE_SECONDS:
            self._shared.swarm.memory.failed((self._seeding, self._channel.where), time.monotonic())

    def _readers_moved(self) -> list[events.Event]:
        if self._blob is None:
            return []
        with self._readers_lock:
            at = tuple(sorted({self._blob.layout.piece_at(reader.offset) for reader in self._readers}))
        return [events.ReadersMoved(at)] if at != self._planner.readers else []

    def _idle(self, now: float) -> list[events.Event]:
        if self._blob is None:
            return []
        since = max(self._begun_at, self._blob.written_at)
        idle_since = since if since and now - since >= IDLE_SECONDS_MIN else None
        if idle_since == self._idle_since:
            return []
        self._idle_since = idle_since
        return [events.Idle(idle_since)]

    def _is_abandoned(self, now: float) -> bool:
        """Whether nobody has read for a while. From then on nobody joins, and the next client begins another download.

        A whole blob is not: its end is about to be told, however long the disk takes to keep it.
        """
        if self._blob and self._blob.whole:
            return False
        with self._readers_lock:
            seconds = KEPT_SECONDS_MAX if self._kept else LINGER_SECONDS
            self._closed = not self._readers and now - self._left_at >= seconds
            return self._closed

    def _end(self) -> None:
        """Leave everything in order: the swarm, the origin's stream, and the readers that still wait."""
        if self._blob and isinstance(self._blob.error, DigestError) and not self._blob.missing:
            self._dispute(self._blob)
        self._leave_swarm()
        if self._error:
            self.fail(self._error)
        if self._stream:
            self._stream.abort()
            self._stream = None  # the stream knows this download, which shall go, with its blob's file, when its last reader does
        self._shared.on_end(self)
        self._known.set()
        error = self._error or (self._blob.error if self._blob else None)
        self._shared.pulls.ended(self.pull, str(error) if error else None)

    def _do(self, commands: list[events.Command]) -> None:  # noqa: C901 (a table of commands)
        for command in _with_fetches_together(commands):
            match command:
                case Order.OPEN_SWARM:
                    self._open_swarm()
                case Order.LEAVE_SWARM:
                    self._note_seeding()
                    self._leave_swarm()
                case list():
                    self._begin_fetches(command)
                case events.Confirm(piece, digest):
                    if self._blob:
                        self._blob.confirm(piece, digest)
                case messages.Report():
                    self._report(command)
                case messages.Brought() | messages.RunEnded() | messages.AskLeave():
                    if self._channel:
                        self._channel.tell(command)
                case events.FetchOrigin(first, end):
                    self._begin_stream(first, end)
                case Order.LEAVE_ORIGIN:
                    if self._stream:
                        self._stream.leave()
                case events.GiveUp(error):
                    self.fail(error)

    # The blob's file.

    def _receive(self, layout: Layout) -> Blob | None:
        """The blob's file, made when its size is first known. None when there will be none: the download ends."""
        with self._blob_lock:
            if self._error:
                return None
            if self._blob is None:
                try:
                    file = self._from.file
                    self._blob = self._shared.store.receive(
                        self.digest, layout, public=not self._private, contents=file.digest if file else None
                    )
                    if self._private:
                        self._blob.hide()
                except StoreError as error:
                    self._error = error
                    return None
                self.pull.sources["store"] += self._blob.size - self._blob.to_come
                self._blob.provenance.begin(self._from.registry, self._from.repository, is_empty=not self._blob.held)
                self._events.put(events.SizeKnown(layout, self._blob.held))
                self._blob.finish_if_empty()
                self._known.set()
        if self._blob.layout != layout:
            self.fail(DigestError(f"two sources of {self.digest} differ in its size"))
            return None
        return self._blob

    def _receive_size(self, size: int) -> Blob | None:
        """The supernode may have cut the blob in another way than this node would. Raises ValueError."""
        blob = self._receive(self._blob.layout if self._blob and self._blob.size == size else Layout.of(size))
        if blob:
            blob.provenance.keep(blob.provenance.wanted)
        return blob

    # The swarm.

    def _open_swarm(self) -> None:
        self._leave_swarm()
        if not self._from.shared:
            self._events.put(News.NO_SWARM)
            return
        self._opened += 1
        self._asked_at = time.monotonic()
        origin, checked = self._from, self._blob.checked if self._blob else 0
        size = self._size or self._shared.origin.sizes.of(origin.registry, origin.repository, self.digest) or 0
        opened = None
        if file := origin.file:
            size, opened = file.size, messages.OpenedFile(file.url, file.validator, file.digest)
        self._opened_size = size
        listener, readers = self._heard, self._planner.readers
        self._channel = self._shared.swarm.open(
            self.digest, origin.registry, origin.repository, checked, readers, listener, size, self._private, opened
        )
        if self._channel is None:
            self._events.put(News.NO_SWARM)

    def _finds_size(self) -> bool:
        """Ask the origin for the size that neither this node's manifests say nor the supernode may ask for."""
        if self._opened_size or self._size:
            return False
        origin = self._from
        with contextlib.suppress(OriginError):
            self._size = self._shared.origin.blob_size(origin.registry, origin.repository, self.digest, origin.credential) or 0
        return self._size > 0

    def _leave_swarm(self) -> None:
        if self._channel:
            self._channel.leave(self._heard)
            self._channel = None

    def _heard(self, message: messages.TaskMessage | None) -> None:
        """Called by the channel's thread: the deciding thread looks at the message."""
        if isinstance(message, messages.Private) or (isinstance(message, messages.Task) and message.private):
            self._hide()
        if not isinstance(message, messages.Private):
            self._events.put(message or News.SWARM_LOST)

    def _prepared(self, event: events.Event) -> list[events.Event]:
        """What the planner is told of an event: of a supernode's answer after the blob has its file, and the digests it names."""
        if self._channel and isinstance(event, messages.Message):
            self._shared.swarm.memory.worked(("supernode", self._channel.where))
        if isinstance(event, messages.Task):
            try:
                blob = self._receive(Layout(event.size, event.piece_length))
            except ValueError as error:
                reason = f"it names a size that cannot be: {error}"
                event = messages.TaskFailed(event.request, event.task, 502, reason, corrupt=False)
            else:
                if blob is None:
                    return []
                for piece, digest in event.known.items():
                    blob.confirm(piece, digest)
                self._asked_at = None
                if self._channel:
                    self._shared.swarm.memory.worked((self._seeding, self._channel.where))
                place = "swarms", self._channel.where if self._channel else Address("", 0)
                is_doubted = self._shared.swarm.memory.avoids(place, time.monotonic())
                return [events.SizeKnown(blob.layout, blob.held), *([News.SWARM_DOUBTED] if is_doubted else []), event]
        if isinstance(event, messages.TaskFailed):
            return self._refused(event)
        return [event]

    def _refused(self, event: messages.TaskFailed) -> list[events.Event]:
        """The supernode cannot get the blob: perhaps for want of its size alone, which this node may ask for."""
        if not event.task and event.status in (401, 403, 404) and self._finds_size():
            self._open_swarm()
            return []
        log.warning("the supernode cannot get %s: %s", self.digest, event.reason)
        if event.retry_after:  # then it is not asked from here either
            refused = OriginError(event.status, event.reason, "TOOMANYREQUESTS", retry_after=event.retry_after)
            self._shared.origin.throttle.keep(self._from.registry, None, refused)
        return [event]

    def _name(self, task: int, pieces: range) -> None:
        """Tell the supernode the digests of those of the pieces that are here."""
        blob, channel = self._blob, self._channel
        if blob is None or channel is None:
            return
        here = [(piece, blob.digests[piece]) for piece in pieces if blob.checked >> piece & 1 and piece in blob.digests]
        for first in range(0, len(here), messages.BATCH_MAX):
            channel.tell(messages.Brought(task, dict(here[first : first + messages.BATCH_MAX])))

    def _dispute(self, blob: Blob) -> None:
        """All pieces are here, and the blob is wrong."""
        if self._channel:
            self._name(self._planner.task, range(blob.layout.count))  # those that came last are not named yet
            self._channel.tell(messages.Disputed(self._planner.task))

    def _report(self, report: messages.Report) -> None:
        length = self._blob.layout.length if self._blob else 1
        window = self._shared.window(report.window, length, len(self._fetching))
        if self._channel:
            self._channel.tell(msgspec.structs.replace(report, window=window))

    def _begin_fetches(self, fetches: list[events.Fetch]) -> None:
        blob, channel = self._blob, self._channel
        peers = channel.peers if channel else {}  # of another channel soon, perhaps
        due = [fetch for fetch in fetches if self._is_to_be_fetched(fetch, peers.get(fetch.source))]
        if blob is None or channel is None:
            return
        self._fetching.update(fetch.piece for fetch in due)
        for together in in_requests(due, blob.layout):
            where = peers[together[0].source]
            self._shared.threads.submit(self._fetch, blob, channel, self._opened, together, where)

    def _is_to_be_fetched(self, fetch: events.Fetch, where: Address | None) -> bool:
        """Whether the piece is neither here nor known not to come; else that is told as if it had been asked for."""
        piece, digest, source = fetch.piece, fetch.digest, fetch.source
        verdict = None
        if self._blob is None or where is None:
            verdict = messages.UNREACHABLE
        elif source != messages.SEED and self._shared.swarm.sources.avoids(("pieces", where), time.monotonic()):
            verdict = messages.UNREACHABLE  # the alternative is asked at once
        elif digest == messages.COMING and source != messages.SEED:
            verdict = messages.MISSING  # only the supernode is believed which bytes a piece should have
        elif self._blob.confirm(piece, digest):
            verdict = messages.DELIVERED
        if verdict is not None:
            self._events.put(messages.Done(piece, source, 0, verdict))
        return verdict is None

    def _fetch(
        self,
        blob: Blob,
        channel: Channel,
        opened: int,
        fetches: list[events.Fetch],
        where: Address,
        asked_at: float | None = None,
    ) -> None:
        """In a shared thread: pieces that follow each other, in one request to one node.

        Those that came are told together, and as if each had taken the whole time: so it would have with a request of its own,
        beside the others. Those behind one that the node does not have are asked for anew, as long as all of them would be back
        in the time of one piece; `asked_at` is when the first was asked for.
        """
        began = time.monotonic()
        asked_at = began if asked_at is None else asked_at
        is_after_pause = not self._under_way and began - self._ended_at > PAUSE_SECONDS_MAX
        if self._begun_at <= blob.written_at or is_after_pause:
            self._begun_at = began + (COMING_SECONDS if fetches[0].digest == messages.COMING else 0.0)
        self._under_way.add(threading.get_ident())
        failures, left = self._take(blob, channel, fetches, where, began)
        if time.monotonic() - asked_at >= PIECE_SECONDS_MAX or opened != self._opened:
            failures, left = [*failures, *(_done(fetch, messages.STALLED, asked_at) for fetch in left)], []
        self._fetching.difference_update({fetch.piece for fetch in fetches} - {fetch.piece for fetch in left})
        self._under_way.discard(threading.get_ident())
        self._ended_at = time.monotonic()
        for failure in failures:
            if opened == self._opened or isinstance(failure, events.Broken):
                self._events.put(failure)
        if left:
            self._shared.threads.submit(self._fetch, blob, channel, opened, left, where, asked_at)

    def _take(
        self, blob: Blob, channel: Channel, fetches: list[events.Fetch], where: Address, began: float
    ) -> tuple[Sequence[events.Event], list[events.Fetch]]:
        """Tell what comes. What is to be told of that which does not, and what is to be asked for anew."""
        left = list(fetches)
        try:
            self._tell_what_comes(blob, channel, left, where, began)
        except SourceError as error:
            self._note_failure(error, left[0].piece, where, began)
            first, others = _done(left[0], error.verdict, began), left[1:]
            if error.verdict == messages.MISSING:
                return [first], others
            verdict = messages.MISSING if error.verdict == messages.CORRUPT else error.verdict  # a liar is not asked again
            return [first, *(_done(fetch, verdict, began) for fetch in others)], []
        except SupersededError:
            return [events.Superseded(fetch.piece, fetch.source) for fetch in left], []
        except DarnerError as error:  # no key to ask with, or the blob has failed meanwhile
            log.debug("piece %d of %s is not fetched: %s", left[0].piece, self.digest, error)
            return [_done(fetch, messages.UNREACHABLE, began) for fetch in left], []
        except OSError as error:
            return [events.Broken(StoreError(f"the store cannot be written: {error.strerror}"))], []
        except Exception as error:
            log.exception("fetching a piece failed inside")
            return [events.Broken(DarnerError(f"fetching a piece failed inside: {type(error).__name__}"))], []
        return [], left

    def _tell_what_comes(self, blob: Blob, channel: Channel, left: list[events.Fetch], where: Address, began: float) -> None:
        """Ask for what is `left`, and take from that what comes. Raises what `PieceFetcher.fetch_together` raises."""
        came: deque[events.Fetch] = deque()
        digests, fingerprint = {fetch.piece: fetch.digest for fetch in left}, channel.fingerprints.get(where, b"")
        tell = self._untold[threading.get_ident()] = partial(self._tell_arrived, blob, channel, came, where, began)
        try:
            for _ in self._shared.fetcher.fetch_together(blob, digests, where, channel.unix_seconds, fingerprint):
                came.append(left.pop(0))
        finally:
            self._untold.pop(threading.get_ident(), None)
            tell()

    def _tell_late(self, now: float) -> None:
        self._told_at = now
        for tell in list(self._untold.values()):
            tell()

    def _tell_arrived(self, blob: Blob, channel: Channel, came: deque[events.Fetch], where: Address, began: float) -> None:
        """Called by the thread that fetches, and by the one that decides: each piece is told by one of them."""
        memory = self._shared.swarm.memory
        with contextlib.suppress(IndexError):
            while fetch := came.popleft():
                start, end = blob.layout.span(fetch.piece)
                self._count("supernode" if fetch.source == messages.SEED else "peer", end - start)
                memory.worked(("swarms", channel.where))
                memory.worked(("tickets", where))
                self._shared.swarm.sources.worked(("pieces", where))
                self._events.put(_done(fetch, messages.DELIVERED, began))

    def _count(self, source: str, size: int) -> None:
        metrics.RECEIVED_BYTES.labels(source).inc(size)
        with self._blob_lock:
            self.pull.sources[source] += size

    def _note_failure(self, error: SourceError, piece: int, where: Address, now: float) -> None:
        memory, is_refused = self._shared.swarm.memory, isinstance(error, TicketRefusedError)
        metrics.PIECE_FAILURES.labels("refused" if is_refused else messages.VERDICT_NAMES[error.verdict]).inc()
        is_news = is_refused and not memory.avoids(("tickets", where), now)
        log.log(logging.WARNING if is_news else logging.DEBUG, "piece %d of %s did not come: %s", piece, self.digest, error)
        if is_refused:
            memory.failed(("tickets", where), now)
        if error.verdict in (messages.UNREACHABLE, messages.STALLED):
            self._shared.swarm.sources.failed(("pieces", where), now)

    # The origin.

    def _begin_stream(self, first: int, end: int | None) -> None:
        """The planner begins one stream at a time: the last one has ended."""
        shares = bool(self._shared.swarm.channels)
        if shares and self._planner.mode is not Mode.SWARM:
            metrics.FALLBACKS.inc()
        origin, layout = self._from, self._blob.layout if self._blob else None
        start = layout.span(first)[0] if layout and first else 0
        stop = layout.span(end - 1)[1] if layout and end else None

        def ask() -> BlobStream:
            return origin.open(self._shared.origin, start, stop)

        self._stream = OriginStream(
            ask,
            self._receive_size,
            self.happened,
            came=lambda size: self._count("origin", size),
            first=first,
            end=end,
            shares=shares,
        )
        self._stream.begin(f"origin {self.digest[:19]}")


def in_requests(fetches: Iterable[events.Fetch], layout: Layout) -> Iterator[list[events.Fetch]]:
    """The same in lists, each for one request: of pieces that follow each other, from one node, which are not too many bytes.

    What the supernode is itself still getting is asked for piece by piece: each comes in its own time.
    """
    most, together = max(1, TOGETHER_BYTES_MAX // layout.length), list[events.Fetch]()
    for fetch in fetches:
        last = together[-1] if together else None
        follows = last and (fetch.source, fetch.piece) == (last.source, last.piece + 1) and len(together) < most
        if last and not (follows and messages.COMING not in (fetch.digest, last.digest)):
            yield together
            together = []
        together.append(fetch)
    if together:
        yield together


def _with_fetches_together(commands: Iterable[events.Command]) -> Iterator[events.Command | list[events.Fetch]]:
    fetches: list[events.Fetch] = []
    for command in commands:
        if isinstance(command, events.Fetch):
            fetches.append(command)
            continue
        if fetches:
            yield fetches
            fetches = []
        yield command
    if fetches:
        yield fetches


def _done(fetch: events.Fetch, verdict: int, began: float) -> messages.Done:
    return messages.Done(fetch.piece, fetch.source, ceil((time.monotonic() - began) * 1000), verdict)
