"""The threads in which the supernode gets blobs, and how the tracker's loop hears of what they do.

`supernode.seeder` does the work. Nothing is decided here: `supernode.tracker.seeds` says what is to be got and from where. What a
thread has to tell comes to it in the loop, as long as the task is still there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent.origin.shares import Seat, SharedThreads
from agent.storage.blob import Blob
from agent.swarm import messages
from agent.values.errors import DarnerError, OriginError
from agent.values.pieces import Layout
from supernode.loop import call_in
from supernode.seeder import Holder, Seeder, SeedRequest
from supernode.tracker.task import BlobTask

SEEDS_MAX = 256
"""Blobs that are being fetched at once; others wait their turn."""
SEEDS_OF_ONE_MAX = 64
"""From one registry, or for one node."""


@dataclass(frozen=True)
class SeedListener:
    """Whom the threads tell what, in the loop."""

    is_there: Callable[[BlobTask], bool]
    """Whether anybody wants to hear of the task."""
    file_known: Callable[[BlobTask, Blob], None]
    coming: Callable[[BlobTask, int], None]
    seeded: Callable[[BlobTask, int, bytes], None]
    lied: Callable[[BlobTask, str], None]
    ended: Callable[[BlobTask, DarnerError | None], None]
    size_known: Callable[[BlobTask, Layout], None]
    size_failed: Callable[[BlobTask, messages.TaskFailed], None]


class SeedThreads:
    """Made in the loop that is told."""

    def __init__(self, seeder: Seeder, listener: SeedListener) -> None:
        self._seeder = seeder
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._threads = SharedThreads(SEEDS_MAX, "seed", SEEDS_OF_ONE_MAX, seeder.origin.prompt)

    def stop(self) -> None:
        self._threads.stop()

    def join(self) -> None:
        """Wait for the threads, which end when the clients that they use are closed. Called from another thread, after `stop`."""
        self._threads.join()

    def seed(self, task: BlobTask, holders: Sequence[Holder], *, asks_origin: bool) -> None:
        """Get the blob into the supernode's cache: from its own store, from `holders`, and then from the origin if so told."""
        tell = self._listener
        wanted = SeedRequest(
            digest=task.name,
            registry=task.source.registry,
            repository=task.source.repository,
            private=task.private,
            size=task.size,
            asks_origin=asks_origin,
            holders=tuple(holders),
            on_size=lambda blob: self._tell(tell.file_known, task, blob),
            on_coming=lambda piece: self._tell(tell.coming, task, piece),
            on_piece=lambda piece, digest: self._tell(tell.seeded, task, piece, digest),
            on_liar=lambda name: self._tell(tell.lied, task, name),
            on_end=lambda error: self._tell(tell.ended, task, error),
            abandoned=task.abandoned,
            file=task.file,
        )

        def seed(place: Seat) -> None:
            def sized(blob: Blob) -> None:
                place.answered()
                wanted.on_size(blob)

            self._seeder.seed(replace(wanted, on_size=sized))

        self._threads.submit(task.source.registry, task.opener, seed)

    def find_size(self, task: BlobTask, held: set[int]) -> None:
        """How long a blob is whose agents do not know it: as the cache has it, or nodes that agree, or as the origin says."""
        self._threads.submit(task.source.registry, task.opener, lambda _: self._find_size(task, held))

    def _find_size(self, task: BlobTask, held: set[int]) -> None:
        try:
            size = held.pop() if len(held) == 1 else self._seeder.blob_size(*task.source, task.name)
            if size is None:
                raise OriginError(404, f"the registry {task.source.registry} does not have {task.name}", "BLOB_UNKNOWN")
            if not size:  # which also says of a blob that has some who answers HEAD without its length
                raise OriginError(502, f"{task.name} has no bytes that could be shared, as the registry or a node says")
            layout = Layout.of(size)
        except DarnerError as error:
            self._tell(self._listener.size_failed, task, task.failure(error))
        except ValueError as error:
            reason = f"a size is named for it that cannot be: {error}"
            self._tell(self._listener.size_failed, task, messages.TaskFailed(0, task.number, 502, reason, False))
        else:
            self._tell(self._listener.size_known, task, layout)

    def _tell(self, call: Callable[..., None], task: BlobTask, *arguments: object) -> None:
        def if_it_still_matters() -> None:
            if self._listener.is_there(task):
                call(task, *arguments)

        call_in(self._loop, if_it_still_matters)
