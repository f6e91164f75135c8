"""What tests of the tracker share: one in an event loop, whose seeds, names and sockets are in the hand of the test."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from blake3 import blake3

from agent.origin.shares import Prompt, Seat, Shares
from agent.registry.manifests import Manifests
from agent.storage.blob import Blob
from agent.swarm import messages
from agent.swarm.channel import Frames, supernode_message
from agent.values.address import Address
from agent.values.errors import DarnerError
from agent.values.manifest import Manifest
from agent.values.pieces import Layout, to_bytes
from agent.values.reference import raw_digest
from supernode.scheduler.limits import Limits
from supernode.seeder import Seeder, SeedRequest
from supernode.session import AgentSession
from supernode.tracker.health import HealthSettings
from supernode.tracker.tracker import Tracker
from tests.swarm import PIECE, SECONDS, nothing_left_running

RAW = b"\xab" * 32
OTHER = b"\xcd" * 32
LAYOUT = Layout.of(8 * PIECE)
MANIFEST = Manifest.of("application/vnd.oci.image.manifest.v1+json", b'{"schemaVersion": 2}')


class FakeWriter:
    """Takes what is sent to an agent."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self.closed = False
        self.aborted = False
        self.unsent = 0
        self._flush = flush
        self._frames = Frames()
        self._sent: list[messages.FromSupernode] = []

    @property
    def sent(self) -> list[messages.FromSupernode]:
        self._flush()
        return self._sent

    def write(self, data: bytes) -> None:
        self._sent += [supernode_message(body) for body in self._frames.feed(data)]

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True


class Agent:
    """One end of a channel, without a socket."""

    def __init__(self, lab: Lab, name: str, *holdings: bytes, port: int = 65002) -> None:
        self.lab = lab
        self.writer = FakeWriter(lab.flush)
        held = [messages.Holding(digest, LAYOUT.size) for digest in holdings]
        hello = messages.Hello(messages.VERSION, name, "", "10.0.0.1", port, 0, held)
        self.session: AgentSession = lab.tracker.join_agent(hello, cast(asyncio.WriteTransport, self.writer))
        lab.sessions.append(self.session)
        self._ended = 0

    def say(self, *said: messages.FromAgent) -> None:
        for message in said:
            self.lab.tracker.receive(self.session, message)
        self.lab.flush()

    def open(
        self, request: int = 1, digest: bytes = RAW, have: int = 0, size: int = LAYOUT.size, registry: str = "registry.test"
    ) -> None:
        """With the size 0 the answer comes when the supernode has found it."""
        self.say(messages.Open(request, digest, registry, "team/app", to_bytes(have), [], size))

    def report(self, *done: messages.Done, window: int = 4, task: int | None = None) -> None:
        self.say(messages.Report(self.task.task if task is None else task, list(done), window, []))

    def bring(self, *pieces: int, digest: Callable[[int], bytes] | None = None) -> None:
        """Name pieces as if they had come from the origin: rightly, or as `digest` has it."""
        name = digest or digest_of
        self.say(messages.Brought(self.task.task, {piece: name(piece) for piece in pieces}))

    def end_run(self, outcome: int = messages.RUN_WHOLE, retry_after: int = 0) -> None:
        """The first of its runs that has not ended."""
        self.say(messages.RunEnded(self.task.task, self.runs[self._ended].first, outcome, retry_after))
        self._ended += 1

    def cannot_fetch(self) -> None:
        """Its origin refuses it all runs."""
        while len(self.runs) > self._ended:
            self.end_run(messages.RUN_REFUSED)

    def take(self, verdict: Callable[[int], int] = lambda source: messages.DELIVERED) -> None:
        """Fetch what is granted until nothing more is, and say of each source what `verdict` says; alternatives deliver."""
        self.report(window=16)
        seen = 0
        while new := self.granted[seen:]:
            seen += len(new)
            done = []
            for grant in new:
                done.append(messages.Done(grant.piece, grant.source, 5, verdict(grant.source)))
                if done[-1].verdict != messages.DELIVERED and grant.alternative != grant.source:
                    done.append(messages.Done(grant.piece, grant.alternative, 5, messages.DELIVERED))
            self.report(*done, window=16)

    def heard(self, kind: type[messages.Message]) -> list[Any]:
        return [message for message in self.writer.sent if isinstance(message, kind)]

    @property
    def task(self) -> messages.Task:
        task: messages.Task = self.heard(messages.Task)[-1]
        return task

    @property
    def granted(self) -> list[messages.Granted]:
        return [piece for grant in self.heard(messages.Grant) for piece in grant.pieces]

    @property
    def runs(self) -> list[messages.Run]:
        return self.heard(messages.Run)

    def leave(self) -> None:
        self.lab.tracker.leave(self.session)


class Lab:
    """A tracker whose seeds are in the hand of the test."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.wanted: list[SeedRequest] = []
        self.cached: list[bytes] = []
        """What is in the supernode's cache: a seed begins with its first Open, and no node is granted a run."""
        self.sizes: dict[bytes, int | DarnerError | None] = {}
        """What the origin says how long blobs are, where it is not `LAYOUT.size`."""
        self.sizes_asked: list[tuple[str, str, bytes]] = []
        self.sessions: list[AgentSession] = []
        self.names: list[tuple[str, str, str]] = []
        self.answer: Manifest | Exception = MANIFEST
        self.prompt = Prompt()
        self.origin = self
        self.tracker = Tracker(
            "supernode",
            Address("10.0.0.9", 65002),
            cast(Seeder, self),
            cast(Manifests, self),
            HealthSettings(),
            Limits(),
            random.Random(1),
            lambda: 1000.0,
        )

        # Seeds begin in the order in which blobs are opened, so that the same chances give the same test.
        patch.setattr(
            self.tracker.seeds._threads._threads, "submit", lambda registry, node, do: do(Seat(Shares(1), registry, node))
        )

    def flush(self) -> None:
        for session in self.sessions:
            session.flush()

    def stop(self) -> None:
        self.tracker.stop()

    def join(self) -> None:
        self.tracker.join()

    @property
    def store(self) -> Lab:
        """The cache's part."""
        return self

    def size_of(self, digest: str) -> int | None:
        return LAYOUT.size if raw_digest(digest) in self.cached else None

    def seed(self, wanted: SeedRequest) -> None:
        """The seeder's part: the test does the rest."""
        self.wanted.append(wanted)

    def blob_size(self, registry: str, repository: str, digest: str, credential: None = None) -> int | None:
        """The seeder's part, and the origin's."""
        raw = bytes.fromhex(digest.removeprefix("sha256:"))
        self.sizes_asked.append((registry, repository, raw))
        size = self.sizes.get(raw, LAYOUT.size)
        if isinstance(size, DarnerError):
            raise size
        return size

    def resolve(self, registry: str, repository: str, reference: str) -> Manifest:
        """The manifests' part."""
        self.names.append((registry, repository, reference))
        time.sleep(0.05)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def believed_seconds(self, registry: str, repository: str, reference: str) -> float:
        """The manifests' part."""
        return 60.0

    async def until(self, holds: Callable[[], object]) -> None:
        end = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < end, "it did not come about in time"
            await asyncio.sleep(0.005)

    async def sized(self, number: int = 0, layout: Layout = LAYOUT) -> SeedRequest:
        """The seed has a file for the blob."""
        await self.until(lambda: len(self.wanted) > number)
        wanted = self.wanted[number]
        wanted.on_size(Blob(wanted.digest, layout, open_nothing()))
        await asyncio.sleep(0.01)
        return wanted

    async def sized_blob(self, *, private: bool = False) -> Blob:
        """The same, and the blob itself."""
        await self.until(lambda: self.wanted)
        wanted = self.wanted[0]
        blob = Blob(wanted.digest, LAYOUT, open_nothing(), private=private)
        wanted.on_size(blob)
        await asyncio.sleep(0.01)
        return blob

    async def seeded(self, wanted: SeedRequest, *pieces: int) -> None:
        for piece in pieces:
            wanted.on_piece(piece, digest_of(piece))
        await asyncio.sleep(0.01)

    async def ended(self, wanted: SeedRequest, error: DarnerError | None = None) -> None:
        wanted.on_end(error)
        await asyncio.sleep(0.01)

    async def distributed(self) -> SeedRequest:
        """A blob that is here whole."""
        wanted = await self.sized()
        await self.seeded(wanted, *range(LAYOUT.count))
        await self.ended(wanted)
        return wanted


def digest_of(piece: int) -> bytes:
    return blake3(bytes([piece])).digest()


def open_nothing() -> int:
    """A file of nobody else's: a blob of a private image makes its own file private."""
    return os.memfd_create("a blob")


def in_loop(test: Callable[[Lab], Coroutine[Any, Any, None]]) -> Callable[[pytest.MonkeyPatch], None]:
    """A test that runs in the tracker's loop, with a lab."""

    def run(monkeypatch: pytest.MonkeyPatch) -> None:
        async def with_lab() -> None:
            lab = Lab(monkeypatch)
            try:
                await test(lab)
            finally:
                lab.stop()
            await asyncio.get_running_loop().run_in_executor(None, lab.join)

        with nothing_left_running():
            asyncio.run(with_lab())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
