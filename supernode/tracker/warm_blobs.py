"""Warming: blobs of images that pods were just admitted with come into the cache before a node asks for them.

A webhook has asked which blobs an image has (`supernode.tracker.warm_names`), and tells each to its supernode. Here is decided
what of that is done, and when (docs/decisions/0036): little at a time, and nothing while nodes need the same registry. A blob
comes in runs of a quarter of a second (`supernode.warm_run`). As soon as a node opens it, no further run begins: what is here
goes to the nodes, what the last run still brings they are not granted at the origin, and the rest they get as ever. All but the
runs is done in the tracker's event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from agent.origin.shares import SharedThreads
from agent.storage.blob import Blob
from agent.storage.disk import piece_digest
from agent.swarm import messages
from agent.values.errors import DarnerError, DigestError, OriginError, StoreError
from agent.values.pieces import Layout, lowest, members
from agent.values.reference import InvalidReference
from supernode import metrics
from supernode.loop import call_in
from supernode.names import check_name
from supernode.seeder import Seeder
from supernode.tracker.seeds import Seeds
from supernode.tracker.task import BlobTask, Source
from supernode.warm_run import WarmRun, was_refused

log = logging.getLogger(__name__)

BLOBS_MAX = 1024
"""That wait to be warmed, or are being."""
BLOB_SECONDS_MAX = 300.0
"""A blob that did not come by then is left to the nodes, which have asked or will not ask."""
RUNS_MAX = 4
RUNS_OF_REGISTRY_MAX = 2
RUN_SECONDS = 0.25
"""What a run is to take: so long the rest of it may be in the way of nodes that begin to pull."""
RUN_PIECES_MAX = 32
RUN_LEFT_SECONDS_MAX = 2.0
"""What is left of a run when nodes begin to need the registry may take so long, for an origin that has become slow."""
PAUSE_SECONDS = 30.0
"""How long a registry that did not answer is not asked again, unless it says itself for how long."""
FAILURES_MAX = 3
"""Runs of a blob that failed."""
UNASKED_PART = 4
"""Blobs that no node has asked for yet have this part of the cache's quota at most."""
UNASKED_SECONDS = 3600.0
"""After that they are blobs as all others."""
READY_SECONDS = 600.0
"""So long the pieces of a blob are kept ready for the first node, and its file open; after that it is one of the cache."""


@dataclass(eq=False)
class _WarmBlob:
    source: Source
    digest: bytes
    layout: Layout
    since: float
    task: BlobTask | None = None
    """Once it was begun."""
    run: WarmRun | None = None
    is_leaving: bool = False
    """Nodes need the registry, and this run has a moment left."""
    run_since: float = 0.0
    run_pieces: int = 1
    """How many the next run has."""
    failures: int = 0

    @property
    def blob_id(self) -> tuple[bytes, int]:
        return self.digest, self.layout.size


class WarmBlobs:
    """One owner, the tracker, calls all that is public here, in its event loop."""

    def __init__(self, seeder: Seeder, seeds: Seeds) -> None:
        self._seeder = seeder
        self._seeds = seeds
        self._loop = asyncio.get_running_loop()
        self._running = SharedThreads(RUNS_MAX * 4, "warm", RUNS_MAX * 4)  # so none of RUNS_MAX ever waits for a place
        self._blobs: dict[tuple[bytes, int], _WarmBlob] = {}
        """In the order in which they were named."""
        self._busy: set[_WarmBlob] = set()
        """Those for which a thread does something."""
        self._paused: dict[str, float] = {}
        """Registries, and until when they are not asked."""
        self._unasked: OrderedDict[bytes, tuple[BlobTask, float]] = OrderedDict()
        """Blobs of which no more is got, and for which no node has asked yet, and since when."""
        self._is_stopped = False

    def stop(self) -> None:
        self._is_stopped = True
        for item in self._blobs.values():
            if item.run:
                item.run.abort()
        self._running.stop()

    def join(self) -> None:
        """Wait for the threads, which end when the origin client is closed. Called from another thread, after `stop`."""
        self._running.join()

    def want(self, message: messages.WarmBlob) -> None:
        """Get a blob when nothing is in the way of that. Raises nothing: what cannot be is counted."""
        digest, size = message.blob.digest, message.blob.size
        if len(self._blobs) >= BLOBS_MAX:
            metrics.WARM_BLOBS.labels("limited").inc()
            return
        try:
            check_name(message.registry, message.repository)
            layout = Layout.of(size)
        except (InvalidReference, ValueError):
            metrics.WARM_BLOBS.labels("failed").inc()
            return
        if size and (digest, size) not in self._blobs:
            source = Source(message.registry, message.repository)
            self._blobs[digest, size] = _WarmBlob(source, digest, layout, time.monotonic())
            self._go_on()

    def opened(self, task: BlobTask) -> None:
        """A node takes part in that blob's swarm. Whatever is warmed from its registry makes room for it."""
        self._unasked.pop(task.digest, None)
        if task.is_warm:
            self._seeds.warm_opened(task, time.monotonic())
            item = self._blobs.get(task.blob_id)
            if item and item not in self._busy:
                self._drop(item, "wanted")
        for item in self._busy if task.needs_origin else ():
            if item.run and not item.is_leaving and item.source.registry == task.source.registry:
                item.is_leaving = True
                self._loop.call_later(RUN_LEFT_SECONDS_MAX, self._abort, item, item.run)

    def look(self, now: float) -> None:
        """Called every second."""
        for item in list(self._blobs.values()):
            if now - item.since > BLOB_SECONDS_MAX:
                if item.run:
                    self._abort(item, item.run)
                self._drop(item, "late")
        for digest, (task, since) in list(self._unasked.items()):
            task.is_warm = task.is_warm and now - since < READY_SECONDS
            if now - since >= UNASKED_SECONDS:
                del self._unasked[digest]
        self._paused = {registry: until for registry, until in self._paused.items() if now < until}
        if self._blobs:
            self._go_on()

    def _go_on(self) -> None:
        """Begin what may begin now, in the order in which blobs were named."""
        if self._is_stopped:
            return
        now, may = time.monotonic(), dict[str, bool]()
        for item in list(self._blobs.values()):
            if len(self._busy) >= RUNS_MAX:
                return
            registry = item.source.registry
            if item in self._busy or sum(other.source.registry == registry for other in self._busy) >= RUNS_OF_REGISTRY_MAX:
                continue
            if registry not in may:
                may[registry] = now >= self._paused.get(registry, 0.0) and not self._is_needed(registry)
            if may[registry]:
                self._next(item)

    def _is_needed(self, registry: str) -> bool:
        """Whether nodes are pulling from it what is not in the cluster yet."""
        return any(task.needs_origin and task.source.registry == registry for task in self._seeds.tasks.values())

    def _next(self, item: _WarmBlob) -> None:
        """The next that is to be done for a blob."""
        if item.task is None:
            self._begin(item)
        elif not self._seeds.knows(item.task) or not item.task.is_warm:
            self._drop(item, "wanted")
        elif item.task.blob:
            self._run(item, item.task, item.task.blob)

    def _begin(self, item: _WarmBlob) -> None:
        """Make a file for the blob, which may take a while where an earlier try has left something."""
        if not self._has_room(item.layout.size):
            self._drop(item, "limited")
            return
        found = self._seeds.warm(item.source, item.digest, item.layout)
        if isinstance(found, str):
            self._drop(item, found)
            return
        task = item.task = found
        self._busy.add(item)

        def begin() -> None:
            try:
                blob = self._seeder.store.receive(task.name, item.layout, public=True)
                blob.provenance.begin(*item.source, is_empty=not blob.held)
            except (DarnerError, OSError) as error:
                call_in(self._loop, self._begun, item, task, None, error)
            else:
                call_in(self._loop, self._begun, item, task, blob, None)

        self._submit(item, begin, lambda: self._begun(item, task, None, StoreError("no thread is left")))

    def _has_room(self, size: int) -> bool:
        size_of = self._seeder.store.size_of
        for digest, (task, _) in list(self._unasked.items()):
            if not task.is_warm and size_of(task.name) is None:
                del self._unasked[digest]
        under_way = sum(item.layout.size for item in self._blobs.values() if item.task)
        try:
            quota = self._seeder.store.room().quota
        except OSError:
            return False
        return under_way + size + sum(task.size for task, _ in self._unasked.values()) <= quota // UNASKED_PART

    def _begun(self, item: _WarmBlob, task: BlobTask, blob: Blob | None, error: Exception | None) -> None:
        self._busy.discard(item)
        if blob is None:
            log.info("%s is not warmed: %s", task.name, error)
            self._drop(item, "failed")
        elif not self._seeds.knows(task) or task.blob:
            self._drop(item, "wanted")
        else:
            self._seeds.warm_came(
                task, blob, {piece: blob.digests[piece] for piece in members(blob.checked) if piece in blob.digests}
            )
        self._go_on()

    def _run(self, item: _WarmBlob, task: BlobTask, blob: Blob) -> None:
        if not blob.missing:
            self._drop(item, "failed")
            return
        first = lowest(blob.missing)
        end = first + 1
        while end < min(blob.layout.count, first + item.run_pieces) and not blob.held >> end & 1:
            end += 1

        unsaid = set(members(blob.held)) - task.digests.keys()

        def came(piece: int, digest: bytes) -> None:
            call_in(self._loop, self._came, task, blob, piece, digest)

        run = WarmRun(self._seeder.origin, *item.source, blob, first, end, came)
        item.run, item.run_since, item.is_leaving = run, time.monotonic(), False
        self._busy.add(item)
        self._seeds.warm_streams(task, run.pieces)

        def fetch() -> None:
            error: DarnerError | None = None
            try:
                run.fetch()
                if blob.whole:  # an earlier try may have left pieces that nobody has named yet
                    unnamed = [piece for piece in range(blob.layout.count) if piece not in blob.digests or piece in unsaid]
                    for piece in unnamed:
                        came(piece, blob.digests.get(piece) or piece_digest(blob.fd, blob.layout, piece))
            except DarnerError as failed:
                error = failed.again()
            except OSError as failed:
                error = StoreError(f"the cache cannot be read: {failed.strerror}")
            except Exception as failed:
                log.exception("warming %s failed inside", task.name)
                error = StoreError(f"warming failed inside: {type(failed).__name__}")
            call_in(self._loop, self._ended, item, task, blob, error)

        self._submit(item, fetch, lambda: self._ended(item, task, blob, StoreError("no thread is left")))

    def _submit(self, item: _WarmBlob, do: Callable[[], None], failed: Callable[[], None]) -> None:
        try:
            self._running.submit(item.source.registry, "", lambda _: do())
        except RuntimeError:
            self._loop.call_soon(failed)

    def _came(self, task: BlobTask, blob: Blob, piece: int, digest: bytes) -> None:
        if self._seeds.knows(task) and task.blob is blob:
            self._seeds.warm_came(task, blob, {piece: digest})

    def _abort(self, item: _WarmBlob, run: WarmRun) -> None:
        """Nodes need not wait any longer for what is left of it."""
        if item.run is run and item.task:
            run.abort()
            if self._seeds.knows(item.task):
                self._seeds.warm_streams(item.task, 0)

    def _ended(self, item: _WarmBlob, task: BlobTask, blob: Blob, error: DarnerError | None) -> None:
        """A run is over."""
        run, item.run = item.run, None
        self._busy.discard(item)
        is_known = self._seeds.knows(task) and task.blob is blob
        if is_known:
            self._seeds.warm_streams(task, 0)
        if not is_known:
            self._drop(item, "wanted")
        elif blob.whole:
            self._seeds.warm_ended(task)
            self._drop(item, "whole")
        elif isinstance(error, DigestError):
            task.is_warm = False
            self._seeds.warm_ended(task, error)
            self._drop(item, "failed")
        elif not task.is_warm:
            self._drop(item, "wanted")
        elif error and run and not run.is_aborted:
            self._failed(item, error)
        elif run:
            seconds = max(time.monotonic() - item.run_since, 0.001)
            if not run.is_aborted:
                task.warm_rate = max(task.warm_rate, (run.end - run.first) * blob.layout.length / seconds)
            wanted = int((run.end - run.first) * RUN_SECONDS / seconds)
            item.run_pieces = max(1, min(wanted, 2 * item.run_pieces, RUN_PIECES_MAX))
        self._go_on()

    def _failed(self, item: _WarmBlob, error: DarnerError) -> None:
        """What has come stays, for nodes that ask for the blob in the next minutes."""
        registry = item.source.registry
        item.failures += 1
        log.debug("a blob of %s/%s is not warmed now: %s", *item.source, error)
        if isinstance(error, StoreError) or was_refused(error) or item.failures >= FAILURES_MAX:
            self._drop(item, "private" if was_refused(error) else "failed")
        elif isinstance(error, OriginError):
            self._paused[registry] = time.monotonic() + (error.retry_after or PAUSE_SECONDS)

    def _drop(self, item: _WarmBlob, outcome: str) -> None:
        """No more is done for it. What has come is kept, as long as a node may still ask for it."""
        if self._blobs.get(item.blob_id) is not item:
            return
        del self._blobs[item.blob_id]
        metrics.WARM_BLOBS.labels(outcome).inc()
        if item.task and item.task.is_warm and self._seeds.knows(item.task):
            self._unasked[item.digest] = item.task, time.monotonic()
