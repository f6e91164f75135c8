"""The tracker: channels in, the scheduler's decisions out, and a seed for every blob that somebody opens.

One event loop owns the scheduler, the health records and all that is here; threads (seeding, manifests) come back to it by
`call_soon_threadsafe`. Its state is soft: whatever is lost with it, the agents say again when they reconnect.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from agent import pieces, wire
from agent.blob import Blob
from agent.errors import DarnerError, DigestError
from agent.manifests import Manifests
from agent.settings import Address
from supernode import metrics, scheduler
from supernode.health import Expired, Health, HealthSettings, Quarantine, Release
from supernode.link import Link
from supernode.scheduler import Limits, Scheduler
from supernode.seed import Seeder, Wanted

log = logging.getLogger(__name__)

HELLO_SECONDS_MAX = 5.0
CONNECTIONS_MAX = 20_000
RECEIVE_BYTES = 256 << 10
SEEDS_MAX = 16
"""Blobs that are being fetched at once; others wait their turn."""
RESOLVERS_MAX = 32
TICK_SECONDS = 1.0
IDLE_SECONDS = 60.0
"""How long a swarm that nobody takes part in is remembered; opening it again later costs hashing its blob once more."""
FAILURE_SECONDS = 3.0
"""How long the origin's failure is the answer to everybody who opens the same blob."""

_VERDICT_NAMES = {wire.UNREACHABLE: "unreachable", wire.STALLED: "stalled", wire.CORRUPT: "corrupt", wire.MISSING: "missing"}


@dataclass(eq=False)
class Swarm:
    """A blob that is being distributed."""

    number: int
    digest: bytes
    begun_at: float
    used_at: float
    blob: Blob | None = None
    digests: dict[int, bytes] = field(default_factory=dict)
    """Of the pieces that the supernode has: nothing is granted that the taker could not check."""
    whole: bool = False
    takers: set[Link] = field(default_factory=set)
    waiting: list[tuple[Link, wire.Open]] = field(default_factory=list)
    """Opens that are answered when the size is known."""
    failed: wire.TaskFailed | None = None

    @property
    def name(self) -> str:
        return f"sha256:{self.digest.hex()}"


class Tracker:
    def __init__(
        self,
        node_name: str,
        piece_address: Address,
        seeder: Seeder,
        manifests: Manifests,
        health: HealthSettings,
        limits: Limits,
        rng: random.Random,
    ) -> None:
        self._node_name = node_name
        self._piece_address = piece_address
        self._seeder = seeder
        self._manifests = manifests
        self.health = Health(health)
        self.scheduler = Scheduler(rng, limits)
        self.links: dict[int, Link] = {}
        self.swarms: dict[int, Swarm] = {}
        self._by_name: dict[str, Link] = {}
        self._by_digest: dict[bytes, Swarm] = {}
        self._lease_seconds = health.lease_seconds
        self._numbers = itertools.count(1)
        self._seeding = ThreadPoolExecutor(SEEDS_MAX, thread_name_prefix="seed")
        self._resolving = ThreadPoolExecutor(RESOLVERS_MAX, thread_name_prefix="resolve")
        self._loop = asyncio.get_running_loop()
        self._ticking = self._loop.create_task(self._tick())

    def stop(self) -> None:
        self._ticking.cancel()
        for link in list(self.links.values()):
            link.close()
        self._seeding.shutdown(wait=False, cancel_futures=True)
        self._resolving.shutdown(wait=False, cancel_futures=True)

    # Connections.

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One agent, from Hello to the end of its connection."""
        link: Link | None = None
        frames = wire.Frames()
        try:
            async with asyncio.timeout(HELLO_SECONDS_MAX):
                link, rest = await self._greet(reader, writer, frames)
            for message in rest:
                self._receive(link, message)
            while data := await reader.read(RECEIVE_BYTES):
                for body in frames.feed(data):
                    self._receive(link, wire.agent_message(body))
                self.health.heard(link.name, time.monotonic())
        except wire.WireError as error:
            metrics.REFUSED_CHANNELS.inc()
            log.warning("the channel of %s is refused: %s", link.name if link else writer.get_extra_info("peername"), error)
            if link is None:
                writer.write(wire.frame(wire.Refused(str(error)[: wire.MESSAGE_TEXT_MAX])))
        except (OSError, TimeoutError) as error:
            log.debug("a channel broke off: %s", error)
        except asyncio.CancelledError:
            log.debug("a channel is closed: the supernode is stopping")
        finally:
            if link:
                self._left(link)
            writer.close()

    async def _greet(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, frames: wire.Frames
    ) -> tuple[Link, list[wire.FromAgent]]:
        """The link of an agent that said Hello, and what it said in the same breath. Raises WireError when it is refused."""
        messages: list[wire.FromAgent] = []
        while not messages:
            data = await reader.read(RECEIVE_BYTES)
            if not data:
                raise OSError("closed before it said Hello")
            messages += [wire.agent_message(body) for body in frames.feed(data)]
        hello = messages[0]
        if not isinstance(hello, wire.Hello):
            raise wire.WireError("the first message has to be Hello")
        if hello.version != wire.VERSION:
            raise wire.WireError(f"version {hello.version} of the channel is not spoken here, version {wire.VERSION} is")
        if len(self.links) >= CONNECTIONS_MAX:
            raise wire.WireError(f"{CONNECTIONS_MAX} agents are connected already")
        return self._joined(hello, writer), messages[1:]

    def _joined(self, hello: wire.Hello, writer: asyncio.StreamWriter) -> Link:
        earlier = self._by_name.get(hello.node)
        if earlier:
            self._left(earlier)
            earlier.close()
        link = Link(next(self._numbers), hello.node, hello.zone, Address(hello.host, hello.port), writer)
        link.holdings = {holding.digest: holding.size for holding in hello.holdings}
        self.links[link.number] = self._by_name[link.name] = link
        metrics.CONNECTED_NODES.set(len(self.links))
        now = time.monotonic()
        self.health.heard(link.name, now)
        where = self._piece_address
        link.send(wire.Welcome(wire.VERSION, self._node_name, self._lease_seconds, where.host, where.port))
        self._schedule(scheduler.Joined(link.number, link.zone, hello.upload_slots))
        if self.health.quarantine(link.name):
            self._schedule(scheduler.Quarantined(link.number))
        for digest in link.holdings:
            if digest in self._by_digest and self._by_digest[digest].whole:
                self._schedule(scheduler.HoldsAll(link.number, self._by_digest[digest].number))
        return link

    def _left(self, link: Link) -> None:
        if self.links.pop(link.number, None) is None:
            return
        if self._by_name.get(link.name) is link:
            del self._by_name[link.name]
            self.health.left(link.name, time.monotonic())
        for swarm in self.swarms.values():
            swarm.takers.discard(link)
        metrics.CONNECTED_NODES.set(len(self.links))
        self._schedule(scheduler.Left(link.number))

    # Messages.

    def _receive(self, link: Link, message: wire.FromAgent) -> None:
        match message:
            case wire.Report():
                self._reported(link, message)
            case wire.Open():
                self._opened(link, message)
            case wire.Close(task):
                link.in_flight.pop(task, None)
                if task in self.swarms:
                    self.swarms[task].takers.discard(link)
                self._schedule(scheduler.Closed(link.number, task))
            case wire.Holds():
                self._holds(link, message)
            case wire.Resolve():
                self._loop.run_in_executor(self._resolving, self._resolve, link, message)
            case wire.Heartbeat():
                link.send(wire.Heartbeat())
            case wire.Hello():
                raise wire.WireError("Hello is said once")

    def _reported(self, link: Link, report: wire.Report) -> None:
        in_flight = link.in_flight.get(report.task)
        if in_flight is None:
            return
        now = time.monotonic()
        done = []
        for item in report.done:
            in_flight.discard(item.piece)
            done.append((item.piece, item.source, item.milliseconds / 1000, item.verdict))
            self._judge(link, item, now)
        want = max(0, report.window - len(in_flight))
        self._schedule(scheduler.Reported(link.number, report.task, tuple(done), want, tuple(report.readers)))

    def _judge(self, link: Link, item: wire.Done, now: float) -> None:
        """What a report says of the peer that was the source."""
        source = self.links.get(item.source)
        if item.verdict == wire.DELIVERED:
            if source:
                self.health.delivered(source.name, now)
            return
        metrics.FAILED_PIECES.labels(_VERDICT_NAMES[item.verdict]).inc()
        quarantine = self.health.failed(source.name, link.name, item.verdict, now) if source else None
        if source and quarantine:
            metrics.QUARANTINES.inc()
            log.warning("%s is no source for %.0f s: %s", source.name, quarantine.until - now, quarantine.reason)
            self._schedule(scheduler.Quarantined(source.number))

    def _opened(self, link: Link, message: wire.Open) -> None:
        now = time.monotonic()
        swarm = self._by_digest.get(message.digest)
        if swarm and swarm.failed and now - swarm.used_at >= FAILURE_SECONDS:
            self._forget(swarm)
            swarm = None
        if swarm and swarm.failed:
            link.send(self._failure(swarm.failed, message.request, 0))
            return
        if swarm is None:
            swarm = self._begin(message, now)
        if swarm.blob:
            self._answer(swarm, link, message, swarm.blob)
        else:
            swarm.waiting.append((link, message))

    def _begin(self, message: wire.Open, now: float) -> Swarm:
        swarm = Swarm(next(self._numbers), message.digest, now, now)
        self.swarms[swarm.number] = self._by_digest[swarm.digest] = swarm
        metrics.TASKS.set(len(self.swarms))
        holders = [link for link in self.links.values() if message.digest in link.holdings]
        holders = [link for link in holders if not self.health.quarantine(link.name)]
        wanted = Wanted(
            digest=swarm.name,
            registry=message.registry,
            repository=message.repository,
            size=holders[0].holdings[message.digest] if holders else None,
            holders=[link.where for link in holders],
            on_size=lambda blob: self._from_thread(self._size_known, swarm, blob),
            on_piece=lambda piece, digest: self._from_thread(self._seeded, swarm, piece, digest),
            on_end=lambda error: self._from_thread(self._seed_ended, swarm, error),
        )
        self._loop.run_in_executor(self._seeding, self._seeder.seed, wanted)
        return swarm

    def _from_thread(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return  # the loop has ended: the process is stopping

    def _answer(self, swarm: Swarm, link: Link, message: wire.Open, blob: Blob) -> None:
        if link.number not in self.links:
            return
        link.send(wire.Task(message.request, swarm.number, blob.size, blob.layout.length, swarm.digests))
        swarm.takers.add(link)
        link.in_flight[swarm.number] = set()
        known = sum(1 << piece for piece in swarm.digests)
        have = pieces.from_bytes(message.have, blob.layout) & known  # of the others the node says so when they are granted to it
        self._schedule(scheduler.Opened(link.number, swarm.number, have, tuple(message.readers), 0))

    def _holds(self, link: Link, message: wire.Holds) -> None:
        swarm = self._by_digest.get(message.blob.digest)
        if message.held:
            link.holdings[message.blob.digest] = message.blob.size
            if swarm and swarm.whole:
                self._schedule(scheduler.HoldsAll(link.number, swarm.number))
        else:
            link.holdings.pop(message.blob.digest, None)
            if swarm:
                self._schedule(scheduler.HoldsNone(link.number, swarm.number))

    def _resolve(self, link: Link, message: wire.Resolve) -> None:
        """In a thread: what a name means now, for whoever has no credential."""
        answer: wire.Message
        try:
            manifest = self._manifests.resolve(message.registry, message.repository, message.reference)
            answer = wire.Resolved(message.request, manifest.media_type, manifest.body, manifest.stale)
        except DarnerError as error:
            answer = wire.Unresolved(message.request, error.status, error.code, str(error)[: wire.MESSAGE_TEXT_MAX])
        except Exception as error:
            log.exception("resolving a name failed inside")
            answer = wire.Unresolved(message.request, 502, "UNAVAILABLE", f"the supernode failed inside: {type(error).__name__}")
        self._from_thread(link.send, answer)

    # The seed.

    def _size_known(self, swarm: Swarm, blob: Blob) -> None:
        if swarm.blob:
            return
        swarm.blob = blob
        self._schedule(scheduler.Made(swarm.number, blob.layout.count, 0))
        for link, message in swarm.waiting:
            self._answer(swarm, link, message, blob)
        swarm.waiting.clear()

    def _seeded(self, swarm: Swarm, piece: int, digest: bytes) -> None:
        swarm.digests[piece] = digest
        self._schedule(scheduler.Seeded(swarm.number, piece))

    def _seed_ended(self, swarm: Swarm, error: DarnerError | None) -> None:
        if error is None:
            log.info("%s is here whole, %.1f s after it was first opened", swarm.name, time.monotonic() - swarm.begun_at)
            swarm.whole = True
            for link in self.links.values():
                if swarm.digest in link.holdings:
                    self._schedule(scheduler.HoldsAll(link.number, swarm.number))
            return
        log.warning("%s cannot be seeded: %s", swarm.name, error)
        reason = str(error)[: wire.MESSAGE_TEXT_MAX]
        swarm.failed = wire.TaskFailed(0, swarm.number, error.status, reason, isinstance(error, DigestError))
        swarm.used_at = time.monotonic()
        for link, message in swarm.waiting:
            link.send(self._failure(swarm.failed, message.request, 0))
        for link in swarm.takers:
            link.send(swarm.failed)
            link.in_flight.pop(swarm.number, None)
        swarm.waiting.clear()
        swarm.takers.clear()
        self._schedule(scheduler.Ended(swarm.number))

    @staticmethod
    def _failure(failed: wire.TaskFailed, request: int, task: int) -> wire.TaskFailed:
        return wire.TaskFailed(request, task, failed.status, failed.reason, failed.corrupt)

    def _forget(self, swarm: Swarm) -> None:
        self.swarms.pop(swarm.number, None)
        if self._by_digest.get(swarm.digest) is swarm:
            del self._by_digest[swarm.digest]
        metrics.TASKS.set(len(self.swarms))

    # Decisions.

    def _schedule(self, event: scheduler.Event) -> None:
        for command in self.scheduler.handle(event, time.monotonic()):
            link, swarm = self.links.get(command.node), self.swarms.get(command.task)
            if link is None or swarm is None:
                continue
            if isinstance(command, scheduler.Grant):
                self._grant(link, swarm, command)
            else:
                link.send(wire.Seeding(swarm.number))

    def _grant(self, link: Link, swarm: Swarm, grant: scheduler.Grant) -> None:
        messages: list[wire.Message] = []
        granted = []
        for piece, source, alternative in grant.pieces:
            for number in (source, alternative):
                if number not in link.introduced and number in self.links:
                    link.introduced.add(number)
                    where = self.links[number].where
                    messages.append(wire.Peer(number, where.host, where.port))
            granted.append(wire.Granted(piece, swarm.digests[piece], source, alternative))
            link.in_flight.setdefault(swarm.number, set()).add(piece)
        metrics.GRANTED_PIECES.inc(len(granted))
        link.send(*messages, wire.Grant(swarm.number, granted))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            for decision in self.health.tick(now):
                link = self._by_name.get(decision.name)
                match decision:
                    case Expired() if link:
                        log.info("%s was not heard for %.0f s and counts as gone", link.name, self._lease_seconds)
                        link.close()
                        self._left(link)
                    case Quarantine() if link:
                        self._schedule(scheduler.Quarantined(link.number))
                    case Release() if link:
                        log.info("%s may be a source again", link.name)
                        self._schedule(scheduler.Released(link.number))
            self._schedule(scheduler.Tick())
            for swarm in list(self.swarms.values()):
                if swarm.takers or swarm.waiting:
                    swarm.used_at = now
                elif (swarm.whole or swarm.failed) and now - swarm.used_at > IDLE_SECONDS:
                    self._schedule(scheduler.Ended(swarm.number))
                    self._forget(swarm)
