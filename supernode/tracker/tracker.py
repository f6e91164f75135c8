"""The tracker: what agents say goes to the scheduler, what it decides goes to agents, and every blob that is opened gets a seed.

One event loop owns the scheduler, the health records and all that is here; threads (seeding, manifests) come back to it by
`call_soon_threadsafe`. Its state is soft: whatever is lost with it, the agents say again when they reconnect. What agents say is
never believed so far that it could break another's download.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from agent.registry.manifests import Manifests
from agent.storage.blob import Blob
from agent.swarm import frames, messages
from agent.values import pieces
from agent.values.address import Address
from agent.values.errors import DarnerError, DigestError, OriginError
from supernode import metrics
from supernode.scheduler import machine
from supernode.scheduler.machine import Limits, Scheduler
from supernode.seeder import Holder, Seeder, Wanted
from supernode.tags.resolver import Names, check
from supernode.tracker.health import Expired, Health, HealthSettings, Quarantine, Release
from supernode.tracker.session import Link, Outbox
from supernode.tracker.task import Task

log = logging.getLogger(__name__)

SEEDS_MAX = 64
"""Blobs that are being fetched at once; others wait their turn."""
TASKS_PER_LINK_MAX = 256
"""An agent has 64 downloads at once."""
HOLDERS_ASKED_MAX = 64
"""Of the nodes that hold a blob, as many are named to its seeding."""
TICK_SECONDS = 1.0
TICK_SILENCE_SECONDS_MAX = 30.0
"""After so long without a tick the supernode is not ready: its loop stands still, or has more to do than it can."""
IDLE_SECONDS = 60.0
"""How long a task that nobody takes part in is remembered; opening it again later costs hashing its blob once more."""
ABANDON_SECONDS = 30.0
"""How long a blob goes on arriving that nobody waits for any more."""
FAILURE_SECONDS = 3.0
"""How long the origin's failure is the answer to everybody who opens the same blob."""

_VERDICT_NAMES = {
    messages.UNREACHABLE: "unreachable",
    messages.STALLED: "stalled",
    messages.CORRUPT: "corrupt",
    messages.MISSING: "missing",
}
_SELF = "the supernode itself"
"""Who reports a holder that lied to it."""


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
        """Made in the event loop that is to own it."""
        self._node_name = node_name
        self._piece_address = piece_address
        self._seeder = seeder
        self._rng = rng
        self.health = Health(health)
        self.scheduler = Scheduler(rng, limits)
        self.links: dict[int, Link] = {}
        self.tasks: dict[int, Task] = {}
        self._by_name: dict[str, Link] = {}
        self._by_digest: dict[bytes, Task] = {}
        self._lease_seconds = min(health.lease_seconds, messages.LEASE_SECONDS_MAX)
        self._numbers = itertools.count(1)
        self._granted = 0
        """Pieces, since the metric was told."""
        self._loop = asyncio.get_running_loop()
        self.outbox = Outbox(self._loop)
        self._names = Names(manifests, self._loop, self.links.values)
        self._seeding = ThreadPoolExecutor(SEEDS_MAX, thread_name_prefix="seed")
        self._ticked_at = time.monotonic()
        self._tick_failure = ""
        """What the last tick failed with, in words."""
        self._ticking = self._loop.create_task(self._keep_ticking())

    def stop(self) -> None:
        self._ticking.cancel()
        for task in self.tasks.values():
            task.abandoned.set()
        for link in list(self.links.values()):
            link.close()
        self._names.stop()
        self._seeding.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait for the threads, which end when the clients that they use are closed. Called from another thread, after `stop`."""
        self._names.join()
        self._seeding.shutdown()

    def not_ready(self) -> str:
        """Why leases, rescues and quarantines may not be kept, in words; "" when they are. Called from any thread."""
        if self._tick_failure:
            return f"the tracker's last tick failed: {self._tick_failure}"
        silence = time.monotonic() - self._ticked_at
        return "" if silence < TICK_SILENCE_SECONDS_MAX else f"the tracker has not ticked for {silence:.0f} s"

    # Agents.

    def join_agent(self, hello: messages.Hello, writer: asyncio.WriteTransport) -> Link:
        """An agent is there. If it was there already, its earlier connection is no longer its."""
        earlier = self._by_name.get(hello.node)
        if earlier:
            self.leave(earlier)
            earlier.close()
        link = Link(next(self._numbers), hello.node, hello.zone, Address(hello.host, hello.port), writer, self.outbox)
        link.holdings = {holding.digest: holding.size for holding in hello.holdings}
        self.links[link.number] = self._by_name[link.name] = link
        metrics.CONNECTED_NODES.set(len(self.links))
        self.heard(link)
        self.health.heard(link.name, link.heard_at)
        where = self._piece_address
        link.send(messages.Welcome(messages.VERSION, self._node_name, self._lease_seconds, where.host, where.port))
        self._schedule(machine.Joined(link.number, link.zone, hello.upload_slots))
        if self.health.quarantine(link.name):
            self._schedule(machine.Quarantined(link.number))
        for task in self.tasks.values():
            if task.whole and task.digest in link.holdings:
                self._schedule(machine.HoldsAll(link.number, task.number))
        return link

    def knows(self, link: Link) -> bool:
        """Whether this is still the connection of that agent."""
        return self.links.get(link.number) is link

    def heard(self, link: Link) -> None:
        link.heard_at = time.monotonic()

    def leave(self, link: Link) -> None:
        if self.links.pop(link.number, None) is None:
            return
        del self._by_name[link.name]
        self.health.left(link.name, time.monotonic())
        for number in link.in_flight:
            if number in self.tasks:
                self.tasks[number].takers.discard(link)
        metrics.CONNECTED_NODES.set(len(self.links))
        self._schedule(machine.Left(link.number))

    # Messages.

    def receive(self, link: Link, message: messages.FromAgent) -> None:
        """What an agent said. Raises WireError for what no agent says."""
        if not self.knows(link):
            return
        match message:
            case messages.Report():
                self._reported(link, message)
            case messages.Open():
                self._opened(link, message)
            case messages.Close(number):
                self._closed(link, number)
            case messages.Holds():
                self._holds(link, message)
            case messages.Resolve():
                self._names.ask(link, message)
            case messages.Recalled():
                self._names.recalled(link, message)
            case messages.Heartbeat():
                link.send(messages.Heartbeat())
            case messages.Hello():
                raise frames.WireError("Hello is said once")

    def _reported(self, link: Link, report: messages.Report) -> None:
        task, in_flight = self.tasks.get(report.task), link.in_flight.get(report.task)
        if task is None or in_flight is None:
            return
        now = time.monotonic()
        done = []
        for item in report.done:
            if item.piece not in task.digests and item.piece not in task.coming:
                continue  # nobody was ever granted it, and others could not check what this agent would give them
            sources = in_flight.get(item.piece, ())
            if item.source in sources:  # else it was not asked, or what became of that was said before
                self._judge(link, item, now)
            if item.verdict == messages.DELIVERED or item.source in sources[-1:]:
                in_flight.pop(item.piece, None)
            elif item.source in sources:
                in_flight[item.piece] = sources[1:]
            done.append((item.piece, item.source, item.milliseconds / 1000, item.verdict))
        want = max(0, report.window - len(in_flight))
        self._schedule(machine.Reported(link.number, report.task, tuple(done), want, tuple(report.readers)))

    def _judge(self, link: Link, item: messages.Done, now: float) -> None:
        """What a report says of the peer that was the source."""
        source = self.links.get(item.source)
        if item.verdict == messages.DELIVERED:
            if source and item.milliseconds:  # else the taker had the piece from elsewhere
                self.health.delivered(source.name, now)
            return
        metrics.FAILED_PIECES.labels(_VERDICT_NAMES[item.verdict]).inc()
        if source:
            self._accuse(source.name, link.name, item.verdict, now)

    def _accuse(self, name: str, reporter: str, verdict: int, now: float) -> None:
        quarantine = self.health.failed(name, reporter, verdict, now)
        if quarantine:
            metrics.QUARANTINES.inc()
            log.warning("%s is no source for %.0f s: %s", name, quarantine.until - now, quarantine.reason)
            if name in self._by_name:
                self._schedule(machine.Quarantined(self._by_name[name].number))

    def _opened(self, link: Link, message: messages.Open) -> None:
        now = time.monotonic()
        try:
            check(message.registry, message.repository)
            if len(link.in_flight) + link.waiting >= TASKS_PER_LINK_MAX:
                raise OriginError(429, f"{TASKS_PER_LINK_MAX} blobs are being distributed to this node already")
        except DarnerError as error:
            link.send(messages.TaskFailed(message.request, 0, error.status, str(error)[: messages.MESSAGE_TEXT_MAX], False))
            return
        task = self._by_digest.get(message.digest)
        if task and task.failed and now - task.used_at < FAILURE_SECONDS:
            self._refuse(link, message, task.failed)
            return
        if task and task.over:
            self._forget(task)
            task = None
        if task is None:
            task = self._begin(message, now)
        task.used_at = now
        if task.blob:
            self._answer(task, link, message, task.blob)
        else:
            link.waiting += 1
            task.waiting.append((link, message))

    def _closed(self, link: Link, number: int) -> None:
        link.in_flight.pop(number, None)
        if number in self.tasks:
            self.tasks[number].takers.discard(link)
        self._schedule(machine.Closed(link.number, number))

    def _holds(self, link: Link, message: messages.Holds) -> None:
        task = self._by_digest.get(message.blob.digest)
        if not message.held:
            link.holdings.pop(message.blob.digest, None)
            if task:
                self._schedule(machine.HoldsNone(link.number, task.number))
        elif len(link.holdings) < messages.HOLDINGS_MAX:
            link.holdings[message.blob.digest] = message.blob.size
            if task and task.whole:
                self._schedule(machine.HoldsAll(link.number, task.number))

    def _answer(self, task: Task, link: Link, message: messages.Open, blob: Blob) -> None:
        link.send(messages.Task(message.request, task.number, blob.size, blob.layout.length, task.digests))
        task.takers.add(link)
        link.in_flight[task.number] = {}
        known = sum(1 << piece for piece in task.digests)
        have = pieces.from_bytes(message.have, blob.layout) & known  # of the others it says so when they are granted to it
        self._schedule(machine.Opened(link.number, task.number, have, tuple(message.readers), 0))

    @staticmethod
    def _refuse(link: Link, message: messages.Open, failed: messages.TaskFailed) -> None:
        link.send(messages.TaskFailed(message.request, 0, failed.status, failed.reason, failed.corrupt))

    # Seeds.

    def _begin(self, message: messages.Open, now: float) -> Task:
        task = Task(next(self._numbers), message.digest, now, now)
        self.tasks[task.number] = self._by_digest[task.digest] = task
        metrics.TASKS.set(len(self.tasks))
        holders = [
            Holder(link.name, link.where, link.holdings[message.digest])
            for link in self.links.values()
            if message.digest in link.holdings and not self.health.quarantine(link.name)
        ]
        wanted = Wanted(
            digest=task.name,
            registry=message.registry,
            repository=message.repository,
            holders=tuple(self._rng.sample(holders, min(len(holders), HOLDERS_ASKED_MAX))),
            on_size=lambda blob: self._from_thread(self._size_known, task, blob),
            on_coming=lambda piece: self._from_thread(self._coming, task, piece),
            on_piece=lambda piece, digest: self._from_thread(self._seeded, task, piece, digest),
            on_liar=lambda name: self._from_thread(self._lied, task, name),
            on_end=lambda error: self._from_thread(self._seed_ended, task, error),
            abandoned=task.abandoned,
        )
        self._seeding.submit(self._seeder.seed, wanted)
        return task

    def _from_thread(self, call: Callable[..., None], task: Task, *arguments: object) -> None:
        def if_it_still_matters() -> None:
            if self.tasks.get(task.number) is task:
                call(task, *arguments)

        try:
            self._loop.call_soon_threadsafe(if_it_still_matters)
        except RuntimeError:
            return  # the loop has ended: the process is stopping

    def _size_known(self, task: Task, blob: Blob) -> None:
        known, task.blob = task.blob, blob
        if known:  # the same blob, begun anew
            return
        self._schedule(machine.Made(task.number, blob.layout.count, 0))
        for link, message in self._waiting(task):
            self._answer(task, link, message, blob)

    def _waiting(self, task: Task) -> list[tuple[Link, messages.Open]]:
        """Those who waited for the size, and are still there. Nobody waits from now on."""
        waited, task.waiting = task.waiting, []
        for link, _ in waited:
            link.waiting -= 1
        return [(link, message) for link, message in waited if self.knows(link)]

    def _coming(self, task: Task, piece: int) -> None:
        if not self.scheduler.has_fresh(task.number):  # else there is something that can be sent at once
            task.coming.add(piece)
            self._schedule(machine.Seeded(task.number, piece))

    def _seeded(self, task: Task, piece: int, digest: bytes) -> None:
        task.digests[piece] = digest
        if piece in task.coming:
            task.coming.discard(piece)
        else:
            self._schedule(machine.Seeded(task.number, piece))

    def _lied(self, task: Task, name: str) -> None:
        log.warning("%s holds something else than %s", name, task.name)
        if name in self._by_name:
            self._by_name[name].holdings.pop(task.digest, None)
        self._accuse(name, _SELF, messages.CORRUPT, time.monotonic())

    def _seed_ended(self, task: Task, error: DarnerError | None) -> None:
        if error is None:
            log.info("%s is here whole, %.1f s after it was first opened", task.name, time.monotonic() - task.begun_at)
            task.whole = True
            for link in self.links.values():
                if task.digest in link.holdings:
                    self._schedule(machine.HoldsAll(link.number, task.number))
            return
        log.warning("%s cannot be seeded: %s", task.name, error)
        reason = str(error)[: messages.MESSAGE_TEXT_MAX]
        task.failed = messages.TaskFailed(0, task.number, error.status, reason, isinstance(error, DigestError))
        task.blob = None
        for link, message in self._waiting(task):
            self._refuse(link, message, task.failed)
        for link in task.takers:
            link.send(task.failed)
            link.in_flight.pop(task.number, None)
        task.takers.clear()
        task.used_at = time.monotonic()
        self._schedule(machine.Ended(task.number))

    def _forget(self, task: Task) -> None:
        task.abandoned.set()
        for link in task.takers:
            link.in_flight.pop(task.number, None)
        del self.tasks[task.number]
        if self._by_digest.get(task.digest) is task:
            del self._by_digest[task.digest]
        metrics.TASKS.set(len(self.tasks))
        self._schedule(machine.Ended(task.number))

    # Decisions.

    def _schedule(self, event: machine.Event) -> None:
        for command in self.scheduler.handle(event, time.monotonic()):
            link, task = self.links.get(command.node), self.tasks.get(command.task)
            if link is None or task is None:
                continue
            if isinstance(command, machine.GrantPieces):
                self._grant(link, task, command)
            else:
                link.send(messages.Seeding(task.number))

    def _grant(self, link: Link, task: Task, grant: machine.GrantPieces) -> None:
        links, digests, in_flight = self.links, task.digests, link.in_flight.setdefault(task.number, {})
        granted = []
        for piece, source, alternative in grant.pieces:
            if source in links:
                link.introduce(links[source])
            if alternative != source and alternative in links:
                link.introduce(links[alternative])
            granted.append(messages.Granted(piece, digests.get(piece, messages.COMING), source, alternative))
            in_flight[piece] = (source, alternative)
        self._granted += len(granted)
        link.send(messages.Grant(task.number, granted))

    # Time.

    async def _keep_ticking(self) -> None:
        """A tick that fails is told to the log and to `not_ready`, and the next one comes all the same."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                self._tick(time.monotonic())
            except Exception as error:
                log.exception("a tick of the tracker failed inside")
                self._tick_failure = type(error).__name__
            else:
                self._ticked_at = time.monotonic()
                self._tick_failure = ""

    def _tick(self, now: float) -> None:
        metrics.GRANTED_PIECES.inc(self._granted)
        self._granted = 0
        for link in self.links.values():
            self.health.heard(link.name, link.heard_at)
        for decision in self.health.tick(now):
            found = self._by_name.get(decision.name)
            match decision:
                case Expired() if found:
                    log.info("%s was not heard for %.0f s and counts as gone", found.name, self._lease_seconds)
                    found.close()
                    self.leave(found)
                case Quarantine() if found:
                    self._schedule(machine.Quarantined(found.number))
                case Release() if found:
                    log.info("%s may be a source again", found.name)
                    self._schedule(machine.Released(found.number))
        self._schedule(machine.Tick())
        for task in list(self.tasks.values()):
            self._look_at(task, now)

    def _look_at(self, task: Task, now: float) -> None:
        if task.takers or any(self.knows(link) for link, _ in task.waiting):
            task.used_at = now
        elif now - task.used_at > (IDLE_SECONDS if task.whole or task.failed else ABANDON_SECONDS):
            self._forget(task)
