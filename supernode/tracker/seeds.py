"""The blobs that are being distributed, and how each of them comes here: every blob that is opened gets a seed.

A seed is a thread of `supernode.seeder`, which brings the blob into the supernode's store and says in the tracker's loop how far
it is. Agents that open the blob are answered as soon as its size is known, and all of them share the one seed. Who takes which
piece from whom is the scheduler's affair; it is told from here that a blob begins, has one piece more, or is over.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from agent.storage.blob import Blob
from agent.swarm import messages
from agent.values import pieces
from agent.values.errors import DarnerError, DigestError, OriginError
from supernode import metrics
from supernode.names import check_name
from supernode.scheduler import events
from supernode.scheduler.machine import Scheduler
from supernode.seeder import Holder, Seeder, SeedRequest
from supernode.session import AgentSession
from supernode.tracker.health import Health

log = logging.getLogger(__name__)

SEEDS_MAX = 64
"""Blobs that are being fetched at once; others wait their turn."""
TASKS_PER_AGENT_MAX = 256
"""An agent has 64 downloads at once."""
HOLDERS_ASKED_MAX = 64
"""Of the nodes that hold a blob, as many are named to its seeding."""
IDLE_SECONDS = 60.0
"""How long a task that nobody takes part in is remembered; opening it again later costs hashing its blob once more."""
ABANDON_SECONDS = 30.0
"""How long a blob goes on arriving that nobody waits for any more."""
LEAVES_MAX = 4
"""Nodes of one swarm that have leave to ask the origin at once."""
LEAVE_SECONDS = 30.0
"""How long a node's leave is good that brings nothing from there: a piece, on a slow way, takes less."""
FAILURE_SECONDS = 3.0
"""How long the origin's failure is the answer to every agent that opens the same blob."""


@dataclass(eq=False)
class BlobTask:
    """A task: one blob that is being distributed, as the tracker knows it."""

    number: int
    digest: bytes
    begun_at: float
    used_at: float
    """When somebody last took part."""
    blob: Blob | None = None
    """In the supernode's cache, where it is not evicted as long as it is distributed. Its size is known with it."""
    digests: dict[int, bytes] = field(default_factory=dict)
    """Of the pieces that the supernode has, by number: nothing is granted that the taker could not check."""
    coming: set[int] = field(default_factory=set)
    """Pieces that the supernode is just getting. Their digests follow their bytes to the agents that take them from it."""
    whole: bool = False
    takers: set[AgentSession] = field(default_factory=set)
    waiting: dict[AgentSession, messages.Open] = field(default_factory=dict)
    """Opens that are answered when the size is known. An agent that opens the blob anew has given up what it asked before: an
    answer to that would make it leave the swarm that it has just joined."""
    leaves: dict[int, float] = field(default_factory=dict)
    """By session, until when it has leave to ask the origin."""
    cut_off: set[int] = field(default_factory=set)
    """Sessions that a piece of another node did not come to, and none has come to since."""
    failed: messages.TaskFailed | None = None
    abandoned: threading.Event = field(default_factory=threading.Event)
    """Set when seeding is to stop, because nobody takes part."""

    @property
    def name(self) -> str:
        return f"sha256:{self.digest.hex()}"

    @property
    def over(self) -> bool:
        """Whether an agent that opens the blob now needs another task."""
        return self.failed is not None or self.abandoned.is_set()


class Seeds:
    """One owner, the tracker, calls all that is public here, in its event loop."""

    def __init__(
        self,
        seeder: Seeder,
        rng: random.Random,
        sessions: Mapping[int, AgentSession],
        health: Health,
        scheduler: Scheduler,
        schedule: Callable[[events.Event], None],
        distrust: Callable[[str, bytes], None],
    ) -> None:
        """`sessions` are the agents that are connected now, by number. `schedule` has the scheduler take note of an event and its
        commands carried out. `distrust` is told of a holder, by its name, whose bytes were not the blob of that digest."""
        self._seeder = seeder
        self._rng = rng
        self._sessions = sessions
        self._health = health
        self._scheduler = scheduler
        self._schedule = schedule
        self._distrust = distrust
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(SEEDS_MAX, thread_name_prefix="seed")
        self._numbers = itertools.count(1)
        self.tasks: dict[int, BlobTask] = {}
        self._by_digest: dict[bytes, BlobTask] = {}

    def stop(self) -> None:
        for task in self.tasks.values():
            task.abandoned.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait for the threads, which end when the clients that they use are closed. Called from another thread, after `stop`."""
        self._threads.shutdown()

    # What agents say.

    def joined(self, session: AgentSession) -> None:
        """An agent is there, and may hold whole what is being distributed."""
        for task in self.tasks.values():
            if task.whole and task.digest in session.holdings:
                self._schedule(events.HoldsAll(session.number, task.number))

    def left(self, session: AgentSession) -> None:
        """An agent is gone, and takes part in nothing any more."""
        for number in session.in_flight:
            if number in self.tasks:
                self._took_part(self.tasks[number], session)

    def open(self, session: AgentSession, message: messages.Open) -> None:
        """An agent wants a blob. A seed is begun unless there is one; the answer may have to wait for the blob's size."""
        now = time.monotonic()
        try:
            check_name(message.registry, message.repository)
            if len(session.in_flight) + session.waiting >= TASKS_PER_AGENT_MAX:
                raise OriginError(429, f"{TASKS_PER_AGENT_MAX} blobs are being distributed to this node already")
        except DarnerError as error:
            session.send(messages.TaskFailed(message.request, 0, error.status, str(error)[: messages.MESSAGE_TEXT_MAX], False))
            return
        task = self._by_digest.get(message.digest)
        if task and task.failed and now - task.used_at < FAILURE_SECONDS:
            self._refuse(session, message, task.failed)
            return
        if task and task.over:
            self._forget(task)
            task = None
        if task is None:
            task = self._begin(message, now)
        task.used_at = now
        if task.blob:
            self._answer(task, session, message, task.blob)
        else:
            session.waiting += session not in task.waiting
            task.waiting[session] = message

    def close(self, session: AgentSession, number: int) -> None:
        """An agent wants no more of a blob."""
        session.in_flight.pop(number, None)
        if number in self.tasks:
            self._took_part(self.tasks[number], session)
        self._schedule(events.Closed(session.number, number))

    @staticmethod
    def _took_part(task: BlobTask, session: AgentSession) -> None:
        task.takers.discard(session)
        task.leaves.pop(session.number, None)
        task.cut_off.discard(session.number)

    def ask_leave(self, session: AgentSession, number: int) -> None:
        """The swarm brings an agent nothing. A few may ask the origin themselves; the others get from these what they bring.

        All may to whom the pieces of others do not come either, as where a firewall has closed the port between all nodes.
        """
        task = self.tasks.get(number)
        if task is None or session not in task.takers:
            return
        now = time.monotonic()
        task.leaves = {holder: until for holder, until in task.leaves.items() if now < until}
        is_one_of_few = session.number in task.leaves or len(task.leaves) < LEAVES_MAX
        given = is_one_of_few or session.number in task.cut_off
        if is_one_of_few:
            task.leaves[session.number] = now + LEAVE_SECONDS
        metrics.LEAVES.inc(given)
        session.send(messages.Leave(number, given))

    def offer(self, session: AgentSession, message: messages.Offer) -> None:
        """An agent has pieces from the origin. It is granted them, and so told which digests they should have."""
        task, in_flight = self.tasks.get(message.task), session.in_flight.get(message.task)
        if task is None or task.blob is None or in_flight is None:
            return
        if session.number in task.leaves:
            task.leaves[session.number] = time.monotonic() + LEAVE_SECONDS
        offered = pieces.members(pieces.from_bytes(message.pieces, task.blob.layout))
        seed = messages.SEED
        known = [messages.Granted(piece, task.digests[piece], seed, seed) for piece in offered if piece in task.digests]
        new = [granted for granted in known if granted.piece not in in_flight]
        in_flight.update((granted.piece, (seed, seed)) for granted in new)
        for first in range(0, len(new), messages.BATCH_MAX):
            session.send(messages.Grant(task.number, new[first : first + messages.BATCH_MAX]))

    def holds(self, session: AgentSession, message: messages.Holds) -> None:
        """An agent has a whole blob now, or has it no longer."""
        task = self._by_digest.get(message.blob.digest)
        if not message.held:
            session.holdings.pop(message.blob.digest, None)
            if task:
                self._schedule(events.HoldsNone(session.number, task.number))
        elif len(session.holdings) < messages.HOLDINGS_MAX:
            session.holdings[message.blob.digest] = message.blob.size
            if task and task.whole:
                self._schedule(events.HoldsAll(session.number, task.number))

    def _answer(self, task: BlobTask, session: AgentSession, message: messages.Open, blob: Blob) -> None:
        session.send(messages.Task(message.request, task.number, blob.size, blob.layout.length, task.digests))
        task.takers.add(session)
        session.in_flight[task.number] = {}
        known = sum(1 << piece for piece in task.digests)
        have = pieces.from_bytes(message.have, blob.layout) & known  # of the others it says so when they are granted to it
        self._schedule(events.Opened(session.number, task.number, have, tuple(message.readers), 0))

    @staticmethod
    def _refuse(session: AgentSession, message: messages.Open, failed: messages.TaskFailed) -> None:
        session.send(messages.TaskFailed(message.request, 0, failed.status, failed.reason, failed.corrupt, failed.retry_after))

    # Seeding.

    def _begin(self, message: messages.Open, now: float) -> BlobTask:
        task = BlobTask(next(self._numbers), message.digest, now, now)
        self.tasks[task.number] = self._by_digest[task.digest] = task
        metrics.TASKS.set(len(self.tasks))
        holders = [
            Holder(session.name, session.where, session.holdings[message.digest])
            for session in self._sessions.values()
            if message.digest in session.holdings and not self._health.quarantine(session.name)
        ]
        if message.size:
            self._seeder.origin.sizes.learn(message.registry, message.repository, {task.name: message.size})
        wanted = SeedRequest(
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
        self._threads.submit(self._seeder.seed, wanted)
        return task

    def _from_thread(self, call: Callable[..., None], task: BlobTask, *arguments: object) -> None:
        def if_it_still_matters() -> None:
            if self.tasks.get(task.number) is task:
                call(task, *arguments)

        try:
            self._loop.call_soon_threadsafe(if_it_still_matters)
        except RuntimeError:
            return  # the loop has ended: the process is stopping

    def _size_known(self, task: BlobTask, blob: Blob) -> None:
        known, task.blob = task.blob, blob
        if known:  # the same blob, begun anew
            return
        self._schedule(events.Made(task.number, blob.layout.count, 0))
        for session, message in self._waiting(task):
            self._answer(task, session, message, blob)

    def _waiting(self, task: BlobTask) -> list[tuple[AgentSession, messages.Open]]:
        """The Opens that waited for the size, of agents that are still there. None waits from now on."""
        waited, task.waiting = task.waiting, {}
        for session in waited:
            session.waiting -= 1
        return [(session, message) for session, message in waited.items() if session.number in self._sessions]

    def _coming(self, task: BlobTask, piece: int) -> None:
        swarm = self._scheduler.swarms.get(task.number)
        if swarm is None or not swarm.fresh:  # else there is something that can be sent at once
            task.coming.add(piece)
            self._schedule(events.Seeded(task.number, piece))

    def _seeded(self, task: BlobTask, piece: int, digest: bytes) -> None:
        task.digests[piece] = digest
        if piece in task.coming:
            task.coming.discard(piece)
        else:
            self._schedule(events.Seeded(task.number, piece))

    def _lied(self, task: BlobTask, name: str) -> None:
        log.warning("%s holds something else than %s", name, task.name)
        self._distrust(name, task.digest)

    def _seed_ended(self, task: BlobTask, error: DarnerError | None) -> None:
        if error is None:
            log.info("%s is here whole, %.1f s after it was first opened", task.name, time.monotonic() - task.begun_at)
            task.whole = True
            for session in self._sessions.values():
                if task.digest in session.holdings:
                    self._schedule(events.HoldsAll(session.number, task.number))
            return
        log.warning("%s cannot be seeded: %s", task.name, error)
        reason = str(error)[: messages.MESSAGE_TEXT_MAX]
        pause = error.retry_after if isinstance(error, OriginError) else 0
        task.failed = messages.TaskFailed(0, task.number, error.status, reason, isinstance(error, DigestError), pause)
        task.blob = None
        for session, message in self._waiting(task):
            self._refuse(session, message, task.failed)
        for session in task.takers:
            session.send(task.failed)
            session.in_flight.pop(task.number, None)
        task.takers.clear()
        task.used_at = time.monotonic()
        self._schedule(events.Ended(task.number))

    # Time.

    def look_at_all(self, now: float) -> None:
        """Forget the blobs in which nobody takes part any more."""
        for task in list(self.tasks.values()):
            for session, message in task.waiting.items():
                session.send(messages.Seeding(0, message.request))
            self._look_at(task, now)

    def _look_at(self, task: BlobTask, now: float) -> None:
        if task.takers or any(session.number in self._sessions for session in task.waiting):
            task.used_at = now
        elif now - task.used_at > (IDLE_SECONDS if task.whole or task.failed else ABANDON_SECONDS):
            self._forget(task)

    def _forget(self, task: BlobTask) -> None:
        task.abandoned.set()
        for session in task.takers:
            session.in_flight.pop(task.number, None)
        del self.tasks[task.number]
        if self._by_digest.get(task.digest) is task:
            del self._by_digest[task.digest]
        metrics.TASKS.set(len(self.tasks))
        self._schedule(events.Ended(task.number))
