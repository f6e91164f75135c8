"""The blobs that are being distributed, who names their pieces, and how a copy of each comes here.

Nodes get the pieces that nobody has from their own origins, as the scheduler grants it, and name them; a node that holds the blob
whole names all of them. The supernode's copy is for later: a thread of `supernode.seeder` takes it from its own store, or from
nodes when the rush is over. The origin it asks only where nodes cannot, or bring nothing, or are not to be believed. Who takes
which piece from whom is the scheduler's affair; it is told from here that a blob begins, that a piece is known, or that all is
over.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable, Mapping
from zlib import crc32

import msgspec

from agent.storage.blob import Blob
from agent.swarm import messages
from agent.values import pieces
from agent.values.errors import DarnerError, OriginError, RequestError
from agent.values.pieces import Layout
from agent.values.reference import raw_digest
from agent.values.web_file import WebFile, files_allowed, parse_contents, parse_url
from supernode import metrics
from supernode.names import check_name
from supernode.scheduler import events
from supernode.scheduler.machine import Scheduler
from supernode.seeder import Holder, NotHereError, Seeder
from supernode.session import AgentSession
from supernode.tracker.doubts import Doubts
from supernode.tracker.health import Health
from supernode.tracker.seed_threads import SeedListener, SeedThreads
from supernode.tracker.task import BlobTask, Named, Source

log = logging.getLogger(__name__)

TASKS_PER_AGENT_MAX = 256
"""An agent has 96 downloads at once."""
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
PERMISSION = 401, 403, 404
"""What one origin answers to one node is no word on another node and its own."""
PAUSE_SECONDS_MAX = 5.0
"""A registry that wants to be left alone for longer is not waited for."""
DESCRIBERS_MAX = 2
"""Nodes that are asked at once which digests the pieces of a blob have that they hold."""
DESCRIBE_SECONDS = 3.0
"""How long a node is waited for that was asked, from one piece to the next; then the origin is the source."""
RESCUE_SECONDS = 4.0
"""After so long without a single piece the supernode asks the origin too, for nodes may have no way there."""
COPY_SECONDS = 30.0
"""How old a task is when the supernode takes its copy although nodes are still taking theirs."""
COPIES_MAX = 1
"""Blobs at once of which the supernode takes its copy from nodes."""
COPY_TRIES_MAX = 3
COPY_AGAIN_SECONDS = 10.0
"""Between two tries: a node that was too busy to give its bytes in time may not be so for long."""
ORIGINS_MAX = 4096
"""Registries that are told apart: two with one number share their limits."""
OVERDUE_SECONDS_MIN = 3.0
OVERDUE_SECONDS_MAX = 120.0
OVERDUE_TIMES = 2.0
"""Of what a blob takes between nodes, or from its origin. What the supernode alone has may take so much, and three seconds."""
ORIGIN_BYTES_PER_SECOND_MIN = 1 << 20
"""What an origin of which nobody knows anything brings at least."""
TAKERS_ASKED_MAX = 16
"""Of a blob, that are looked at to know what an origin brings to them."""
DISPUTES_MAX = 3
"""Tasks of one blob that turned out wrong: then every node is left to its own origin."""


def origin_number(registry: str) -> int:
    """By which the scheduler knows a registry."""
    return crc32(registry.encode()) % ORIGINS_MAX + 1


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
        exonerate: Callable[[str, str], None],
    ) -> None:
        """`sessions` are the agents that are connected now, by number. `schedule` has the scheduler take note of an event and its
        commands carried out. `distrust` is told of a holder, by its name, whose bytes were not the blob of that digest;
        `exonerate` of one who was said to send wrong bytes, and by whom, for the name of a piece that was wrong itself."""
        self._seeder = seeder
        self._rng = rng
        self._sessions = sessions
        self._health = health
        self._scheduler = scheduler
        self._schedule = schedule
        self._distrust = distrust
        self._exonerate = exonerate
        self._doubts = Doubts()
        listener = SeedListener(
            is_there=lambda task: self.tasks.get(task.number) is task,
            file_known=self._file_known,
            coming=self._coming,
            seeded=self._seeded,
            lied=self._lied,
            ended=self._seed_ended,
            size_known=self._size_known,
            size_failed=self._fail,
        )
        self._threads = SeedThreads(seeder, listener)
        self._numbers = itertools.count(1)
        self.tasks: dict[int, BlobTask] = {}
        self.on_open: Callable[[BlobTask], None] = lambda _: None
        """Told of each blob that a node takes part in from now on."""
        self._by_blob: dict[tuple[bytes, int], BlobTask] = {}
        """By digest and size: a node that names another size than the others is alone with it."""

    def stop(self) -> None:
        for task in self.tasks.values():
            task.abandoned.set()
        self._threads.stop()

    def join(self) -> None:
        """Wait for the threads, which end when the clients that they use are closed. Called from another thread, after `stop`."""
        self._threads.join()

    # What agents say.

    def joined(self, session: AgentSession) -> None:
        """An agent is there, and may hold whole what is being distributed."""
        for task in self.tasks.values():
            if task.is_named and session.holdings.get(task.digest) == task.size:
                self._schedule(events.HoldsAll(session.number, task.number))

    def left(self, session: AgentSession) -> None:
        """An agent is gone, and takes part in nothing any more."""
        for task in self.tasks.values():
            self._describes_no_more(task, session.number)
        for number in session.in_flight:
            if number in self.tasks:
                self._took_part(self.tasks[number], session)

    def open(self, session: AgentSession, message: messages.Open) -> None:
        """An agent wants a blob. The answer has to wait only where the agent does not know its size."""
        now = time.monotonic()
        source = Source(message.registry, message.repository)
        try:
            file = self._file(message)
            layout = self._checked(session, message, source, now)
        except DarnerError as error:
            session.send(messages.TaskFailed(message.request, 0, error.status, str(error)[: messages.MESSAGE_TEXT_MAX], False))
            return
        except ValueError as error:
            session.send(messages.TaskFailed(message.request, 0, 400, f"it names a size that cannot be: {error}", False))
            return
        task = self._by_blob.get((message.digest, message.size)) or (None if message.size else self._any_of(message.digest))
        if task and (failed := self._failure(task, source, now)):
            self._refuse(session, message, failed)
            return
        if task and task.over:
            self._forget(task)
            task = None
        if task is None:
            task = self._begin(session.name, message, layout, file, now)
        task.used_at = now
        if message.private:
            self._hide(task)
        if task.layout:
            self._answer(task, session, message, task.layout)
            self.on_open(task)
        else:
            session.waiting += session not in task.waiting
            task.waiting[session] = message

    def _checked(self, session: AgentSession, message: messages.Open, source: Source, now: float) -> Layout | None:
        """How the blob is cut, if its size is said. Raises DarnerError, and ValueError for a size that cannot be."""
        if message.file is None:
            check_name(message.registry, message.repository)
        if self._doubts.lies((message.digest, message.size), source, now):
            raise OriginError(502, f"the registry {message.registry} sends something else than this blob")
        layout = Layout.of(message.size) if message.size else None
        if len(session.in_flight) + session.waiting >= TASKS_PER_AGENT_MAX:
            raise OriginError(429, f"{TASKS_PER_AGENT_MAX} blobs are being distributed to this node already")
        return layout

    def _file(self, message: messages.Open) -> WebFile | None:
        """The file of a web server that a node wants, where it is no blob. Raises RequestError."""
        if message.file is None:
            return None
        said = message.file
        digest = parse_contents(said.digest) if said.digest else ""
        file = WebFile(parse_url(said.url), said.validator, message.size, digest)
        if not files_allowed(self._seeder.files, file.url):
            raise RequestError(403, "DENIED", f"{file.server} is not among the servers that this supernode may ask for files")
        is_meant = (raw_digest(file.task), file.server, file.path) == (message.digest, message.registry, message.repository)
        if not is_meant or not file.validator or not file.size:
            raise RequestError(400, "NAME_INVALID", "the file is not the one that its task names")
        return file

    @staticmethod
    def _failure(task: BlobTask, source: Source, now: float) -> messages.TaskFailed | None:
        """What a task has failed with, as long as that is the answer to whoever opens the blob with that origin."""
        failed = task.failed
        if failed is None or now - task.used_at >= FAILURE_SECONDS:
            return None
        is_refusal = task.layout is not None and failed.status in PERMISSION
        return None if is_refusal or (failed.corrupt and task.source != source) else failed

    def close(self, session: AgentSession, number: int) -> None:
        """An agent wants no more of a blob."""
        session.in_flight.pop(number, None)
        if number in self.tasks:
            self._took_part(self.tasks[number], session)
        self._schedule(events.Closed(session.number, number))

    @staticmethod
    def _took_part(task: BlobTask, session: AgentSession) -> None:
        task.takers.discard(session)
        task.sources.pop(session, None)
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

    def brought(self, session: AgentSession, message: messages.Brought) -> None:
        """An agent names pieces that it got from its origin, or has in a blob that it holds whole."""
        task = self.tasks.get(message.task)
        if task is None or task.layout is None or task.failed or task.file or self._health.quarantine(session.name):
            return
        now = time.monotonic()
        if session.number in task.describers:
            task.describers[session.number] = now + DESCRIBE_SECONDS
        elif session not in task.takers:
            return
        if session.number in task.leaves:
            task.leaves[session.number] = now + LEAVE_SECONDS
        good = self._named_right(task, session, task.layout, message.pieces)
        task.arrivals.pieces += good.bit_count() * (session in task.takers)  # else it had them already
        self._schedule(events.Fetched(session.number, task.number, good))
        if session.number in task.describers and task.is_named:
            task.describers.clear()
            self._hold_all(task)
            self._let_nodes_fetch(task)

    def _named_right(self, task: BlobTask, session: AgentSession, layout: Layout, named: Mapping[int, bytes]) -> int:
        """Of the pieces that a node names those, as a set, that it names as others do, or first."""
        swarm, denied = self._scheduler.swarms[task.number], task.denied(session.name)
        good = 0
        for piece, digest in named.items():
            if piece >= layout.count or denied >> piece & 1:
                continue
            known = task.digests.get(piece)
            if known is None or not (swarm.seeded | swarm.copies.present) >> piece & 1:
                task.name_piece(piece, Named(digest, session.name, task.sources.get(session, task.source)))
            if task.digests[piece] == digest:
                good |= 1 << piece
            elif task.whole and session in task.takers and not task.named[piece].node:
                self._note_misled(task, session)
        return good

    def _note_misled(self, task: BlobTask, session: AgentSession) -> None:
        """What an origin has sent makes a node's pull wrong. When it asks again, it gets the blob from the cluster alone."""
        now = time.monotonic()
        if not self._doubts.is_misled(task.blob_id, session.name, now):
            self._doubts.note_misled(task.blob_id, session.name, now)
            log.warning("%s/%s sends %s something else than %s", *task.sources[session], session.name, task.name)
            self._may_fetch(task, session)

    def run_ended(self, session: AgentSession, message: messages.RunEnded) -> None:
        """An agent asks its origin for no more of a run."""
        task = self.tasks.get(message.task)
        if task is None or session not in task.takers:
            return
        pause = float(message.retry_after)
        self._schedule(events.RunOver(session.number, task.number, message.first, message.outcome, pause))
        if message.outcome == messages.RUN_TOO_MANY and pause > PAUSE_SECONDS_MAX and not task.digests:
            registry = task.sources[session].registry
            words = f"the registry {registry} wants to be left alone for {message.retry_after} s"
            self._fail(task, messages.TaskFailed(0, task.number, 429, words, False, message.retry_after))
        elif message.outcome != messages.RUN_WHOLE:
            self._rescue(task, time.monotonic())

    def disputed(self, session: AgentSession, number: int) -> None:
        """An agent has all pieces with the digests that were said, and the blob is wrong: some of them were named wrongly."""
        task = self.tasks.get(number)
        if task is None or task.file or not task.is_named or session not in task.takers or task.whole:
            return
        if self._doubts.is_heard(task.blob_id, session.name):
            self._dispute(task, session.name)

    def _dispute(self, task: BlobTask, accuser: str) -> None:
        """The task is over: what its pieces are is asked anew, by others, and compared."""
        named = {said.node for said in task.named.values()}
        if named == {accuser}:  # nobody has lied to it: what it was sent itself was wrong, as it knows now
            log.warning("%s is wrong, says %s, from where it fetched all of it itself", task.name, accuser)
        else:
            self._doubts.add(task.blob_id, task.named, accuser)
            words = "%s is wrong, says %s: %d nodes named its pieces, which are compared with the origin"
            log.warning(words, task.name, accuser, len(named))
        reason = f"pieces were wrong, and are fetched anew, for the bytes of {task.name} do not have that digest"
        self._fail(task, messages.TaskFailed(0, task.number, 502, reason, True))
        self._forget(task)

    def holds(self, session: AgentSession, message: messages.Holds) -> None:
        """An agent has a whole blob now, or has it no longer."""
        task = self._by_blob.get((message.blob.digest, message.blob.size))
        if not message.held:
            session.holdings.pop(message.blob.digest, None)
            if task:
                self._schedule(events.HoldsNone(session.number, task.number))
                self._describes_no_more(task, session.number)
        elif len(session.holdings) < messages.HOLDINGS_MAX:
            if task and session in task.takers and message.blob.digest not in session.holdings:
                task.finished += 1
            session.holdings[message.blob.digest] = message.blob.size
            if task and task.is_named:
                self._schedule(events.HoldsAll(session.number, task.number))

    def _answer(self, task: BlobTask, session: AgentSession, message: messages.Open, layout: Layout) -> None:
        session.send(messages.Task(message.request, task.number, layout.size, layout.length, task.digests, task.private))
        if not task.takers:
            self._begin_alone(task)
        task.takers.add(session)
        task.sources[session] = Source(message.registry, message.repository)
        session.in_flight[task.number] = {}
        # What nodes have named may be named wrongly, and the node have it right: of that it says so when it is granted it.
        known = sum(1 << piece for piece, said in task.named.items() if not said.node)
        have = pieces.from_bytes(message.have, layout) & known
        self._schedule(events.Opened(session.number, task.number, have, tuple(message.readers), 0))
        if not task.is_held_back:
            self._may_fetch(task, session)

    def _may_fetch(self, task: BlobTask, session: AgentSession) -> None:
        origin, denied = origin_number(task.sources[session].registry), task.denied(session.name) | task.streaming
        if task.layout and self._doubts.is_misled(task.blob_id, session.name, time.monotonic()):
            denied = task.layout.everything
        self._schedule(events.MayFetch(session.number, task.number, origin, denied))

    @staticmethod
    def _hide(task: BlobTask) -> None:
        """Somebody needs a credential for the blob: all who take part hear that its pieces are private."""
        if task.blob:
            task.blob.hide()
        if not task.private:
            task.private = True
            for session in task.takers:
                session.send(messages.Private(task.number))

    @staticmethod
    def _refuse(session: AgentSession, message: messages.Open, failed: messages.TaskFailed) -> None:
        session.send(messages.TaskFailed(message.request, 0, failed.status, failed.reason, failed.corrupt, failed.retry_after))

    # Seeding.

    def _begin(self, node: str, message: messages.Open, layout: Layout | None, file: WebFile | None, now: float) -> BlobTask:
        source = Source(message.registry, message.repository)
        task = BlobTask(next(self._numbers), message.digest, node, source, now, now, layout, file)
        task.doubts = self._doubts.of(task.blob_id)
        self.tasks[task.number] = self._by_blob[task.blob_id] = task
        metrics.TASKS.set(len(self.tasks))
        holders = self._holders(task)
        if layout:
            self._schedule(events.Made(task.number, layout.count, 0, layout.length))
            for seconds in self._scheduler.head_times(layout.count):
                asyncio.get_running_loop().call_later(seconds, self._schedule, events.HeadTime(task.number))
            if holders and not task.doubts:
                self._ask_to_describe(task, holders, layout, now)
        size_here = self._seeder.store.size_of(task.name)
        is_here = size_here is not None
        task.is_held_back = is_here or bool(task.doubts) or bool(task.describers) or file is not None
        if layout is None:
            sizes = {session.holdings[task.digest] for session in holders} if size_here is None else {size_here}
            self._threads.find_size(task, sizes)
        elif is_here or task.doubts or file:
            self._seed(task, asks_origin=not is_here)
        return task

    def _any_of(self, digest: bytes) -> BlobTask | None:
        """A task of the blob, for an agent that does not know its size."""
        found = (task for (known, _), task in self._by_blob.items() if known == digest and not task.over)
        return next(found, None)

    def _size_known(self, task: BlobTask, layout: Layout) -> None:
        """Those that did not know the size join the task of those that do, or begin it."""
        for session, message in self._waiting(task):
            self.open(session, msgspec.structs.replace(message, size=layout.size))
        self._forget(task)

    def _holders(self, task: BlobTask) -> list[AgentSession]:
        """The nodes from which it can be had whole, and checked: a file of a web server has no digest for that."""
        if task.file:
            return []
        size = task.layout.size if task.layout else None
        return [
            session
            for session in self._sessions.values()
            if (held := session.holdings.get(task.digest)) is not None
            and size in (None, held)
            and session.located
            and not self._health.quarantine(session.name)
        ]

    def _ask_to_describe(self, task: BlobTask, holders: list[AgentSession], layout: Layout, now: float) -> None:
        """Nodes hold the blob whole: the others can have it from them as soon as somebody has named its pieces."""
        for session in holders:
            self._schedule(events.HoldsAll(session.number, task.number))
        for session in self._rng.sample(holders, min(len(holders), DESCRIBERS_MAX)):
            task.describers[session.number] = now + DESCRIBE_SECONDS
            session.send(messages.Describe(task.number, task.digest, layout.size, layout.length))

    def _hold_all(self, task: BlobTask) -> None:
        """All pieces have names: whoever holds the blob whole is a source of it."""
        for session in self._sessions.values():
            if session.holdings.get(task.digest) == task.size:
                self._schedule(events.HoldsAll(session.number, task.number))

    def _seed(self, task: BlobTask, *, asks_origin: bool) -> None:
        """Begin to get the blob into the supernode's cache."""
        task.is_seeding, task.asks_origin = True, asks_origin
        # What is in doubt is compared with the origin's own bytes, or with a blob that nodes have found to be right since then.
        sessions = [] if task.doubts and asks_origin else self._holders(task)
        holders = [Holder(at.name, at.where, at.holdings[task.digest], at.fingerprint) for at in sessions]
        asked = self._rng.sample(holders, min(len(holders), HOLDERS_ASKED_MAX))
        self._threads.seed(task, asked, asks_origin=asks_origin)

    def _file_known(self, task: BlobTask, blob: Blob) -> None:
        task.blob = blob
        if task.private or blob.private:  # it may be here from an earlier swarm, which was
            self._hide(task)

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
        """The supernode has a piece. What it got itself, or found right, judges what nodes have said."""
        known = task.digests.get(piece)
        if known is not None and known != digest:
            self._convict(task, task.named[piece])
            self._dispute(task, "the supernode itself")
            return
        for doubts in task.doubts:
            if piece in doubts and doubts[piece].digest != digest:
                self._convict(task, doubts[piece])
        task.name_piece(piece, Named(digest, "", task.source))
        if piece in task.coming:
            task.coming.discard(piece)
        else:
            self._schedule(events.Seeded(task.number, piece))

    def _convict(self, task: BlobTask, said: Named) -> None:
        """A piece was named wrongly: by a node that lies, or that has a registry of its own, which then is the one that does."""
        for sender, reporter in said.blamed:
            self._exonerate(sender, reporter)
        if said.source != task.source:
            log.warning("%s/%s sends something else than %s", *said.source, task.name)
        elif said.node:
            log.warning("%s named a piece of %s wrongly", said.node, task.name)
            self._distrust(said.node, task.digest)

    def _lied(self, task: BlobTask, name: str) -> None:
        log.warning("%s holds something else than %s", name, task.name)
        self._distrust(name, task.digest)
        if any(said.node == name for said in task.named.values()):  # as others would be blamed for, who send what is right
            self._dispute(task, "the supernode itself")

    def _seed_ended(self, task: BlobTask, error: DarnerError | None) -> None:
        task.is_seeding = False
        if error is None:
            log.info("%s is here whole, %.1f s after it was first opened", task.name, time.monotonic() - task.begun_at)
            task.whole = True
            self._hold_all(task)
            self._begin_alone(task)
            return
        task.blob = None
        if isinstance(error, NotHereError):
            task.copy_after = time.monotonic() + COPY_AGAIN_SECONDS
            self._let_nodes_fetch(task)
            return
        log.warning("%s cannot be seeded: %s", task.name, error)
        failed = task.seed_error = task.failure(error)
        if failed.corrupt and task.layout and any(source != task.source for source in task.sources.values()):
            self._note_lie(task)
        if task.layout and not failed.corrupt and task.doubts and len(task.doubts) < DISPUTES_MAX:
            self._let_nodes_fetch(task)
        elif task.layout is None or failed.corrupt or not self._can_fetch(task):
            self._fail(task, failed)

    def _note_lie(self, task: BlobTask) -> None:
        """The origin sent something else than the blob, and some nodes have another one, where it may be right."""
        log.warning("%s/%s sends something else than %s: its nodes are left to it", *task.source, task.name)
        self._doubts.note_lie(task.blob_id, task.source, time.monotonic())

    def _let_nodes_fetch(self, task: BlobTask) -> None:
        """What was looked for here first is not here: nodes get it, and none names a piece again that is in doubt."""
        if task.is_held_back and not task.file:
            task.is_held_back = False
            for session in task.takers:
                self._may_fetch(task, session)

    def _can_fetch(self, task: BlobTask) -> bool:
        """Whether a node may get from its origin what nobody has, or nothing is left to be got."""
        swarm = self._scheduler.swarms.get(task.number)
        if swarm is None or not swarm.unclaimed:
            return swarm is not None
        fetchers = swarm.fetchers.some(0.0, len(swarm.fetchers) if task.doubts else 1)
        return any(swarm.unclaimed & ~fetcher.denied for fetcher in fetchers)

    def _fail(self, task: BlobTask, failed: messages.TaskFailed) -> None:
        """The task is over, and why."""
        task.failed = failed
        task.blob = None
        for session, message in self._waiting(task):
            self._refuse(session, message, task.failed)
        for session in task.takers:
            session.send(task.failed)
            session.in_flight.pop(task.number, None)
        task.takers.clear()
        task.sources.clear()
        task.used_at = time.monotonic()
        self._schedule(events.Ended(task.number))

    # Warming: a blob of which no node has asked for a piece yet (`supernode.tracker.warm_blobs`).

    def warm(self, source: Source, digest: bytes, layout: Layout) -> BlobTask | str:
        """A task of it, which nobody takes part in yet; or, as metrics name it, why it needs none."""
        name, now = f"sha256:{digest.hex()}", time.monotonic()
        if (digest, layout.size) in self._by_blob:
            return "wanted"
        if self._seeder.store.size_of(name) is not None:
            return "here"
        if any(digest in session.holdings for session in self._sessions.values()):
            return "held"
        if self._doubts.of((digest, layout.size)) or self._doubts.lies((digest, layout.size), source, now):
            return "doubted"
        task = BlobTask(next(self._numbers), digest, "", source, now, now, layout, is_warm=True)
        self.tasks[task.number] = self._by_blob[task.blob_id] = task
        metrics.TASKS.set(len(self.tasks))
        self._schedule(events.Made(task.number, layout.count, 0, layout.length))
        return task

    def knows(self, task: BlobTask) -> bool:
        return self.tasks.get(task.number) is task and not task.over

    def warm_came(self, task: BlobTask, blob: Blob, pieces_here: Mapping[int, bytes]) -> None:
        """The supernode has these pieces, by their digests."""
        if task.blob is not blob:
            self._file_known(task, blob)
        for piece, digest in pieces_here.items():
            self._seeded(task, piece, digest)

    def warm_streams(self, task: BlobTask, streaming: int) -> None:
        """The supernode itself is getting these pieces, and no node asks the origin for them as long as it is."""
        less, task.streaming = task.streaming & ~streaming, streaming
        if less and not task.is_held_back:
            for session in task.takers:
                self._may_fetch(task, session)

    def warm_opened(self, task: BlobTask, now: float) -> None:
        """The first node has asked for it: from now on it is a blob as all others."""
        task.is_warm, task.begun_at, task.used_at = False, now, now
        self._schedule(events.Stopped(task.number))

    def warm_ended(self, task: BlobTask, error: DarnerError | None = None) -> None:
        """The blob is here whole, or complete and wrong."""
        if error:
            self._seed_ended(task, error)
            return
        log.info("%s is here whole, %.1f s after it was first warmed", task.name, time.monotonic() - task.begun_at)
        task.whole = True
        self._hold_all(task)

    # Time.

    def look_at_all(self, now: float) -> None:
        """Forget the blobs in which nobody takes part any more, and help those that do not come."""
        alone = sum(bool(task.alone and task.takers) for task in self.tasks.values())
        for task in list(self.tasks.values()):
            for session, message in task.waiting.items():
                session.send(messages.Seeding(0, message.request))
            task.arrivals.look(now)
            self._look_at_describers(task, now)
            self._rescue(task, now)
            self._look_at_pace(task, alone, now)
            self._look_at(task, now)

    def _begin_alone(self, task: BlobTask) -> None:
        """Nodes begin to take a blob, of which the supernode may have pieces that nobody else has."""
        swarm = self._scheduler.swarms.get(task.number)
        task.alone, task.alone_at = swarm.fresh if swarm else 0, time.monotonic()

    def _look_at_pace(self, task: BlobTask, at_once: int, now: float) -> None:
        """What the supernode alone has and sends far too slowly, nodes may get from the origin, too."""
        if not task.alone or task.file or task.doubts:
            return
        is_overdue = self._is_overdue(task, at_once, now)
        if is_overdue is not False:
            task.alone = 0
        if is_overdue:
            log.info("%s comes slowly from here: its nodes may ask %s too", task.name, task.source.registry)
            self._let_nodes_fetch(task)
            self._schedule(events.Overdue(task.number))

    def _is_overdue(self, task: BlobTask, at_once: int, now: float) -> bool | None:
        """None when that need not be asked any more.

        A link as a node's takes a third longer for a piece than nodes need among themselves, and one of a quarter four times as
        long. Where no node sends anything yet, it is compared with how fast it came from its registry, or others did. `at_once`
        blobs come at the same time, and share links.
        """
        swarm = self._scheduler.swarms.get(task.number)
        seconds = now - task.alone_at
        if swarm is None or not swarm.takers or seconds > OVERDUE_SECONDS_MAX:
            return None
        left = task.alone & swarm.fresh
        if not left:  # all of it is on its way at least, and may be so in vain
            missing = task.alone
            for member in swarm.members.values():
                missing &= ~member.have
            return False if missing else None
        count = task.alone.bit_count()
        link = self._scheduler.origins.get(origin_number(task.source.registry))
        known = task.warm_rate or (link.connection_rate if link else 0.0) or ORIGIN_BYTES_PER_SECOND_MIN
        rate = max(taker.node.origin_rate or known for taker in itertools.islice(swarm.takers.values(), TAKERS_ASKED_MAX))
        usual = at_once * (swarm.node_pace or swarm.piece_bytes / rate)
        is_slow = seconds * count > (count - left.bit_count()) * (OVERDUE_SECONDS_MIN + OVERDUE_TIMES * usual * count)
        return seconds >= OVERDUE_SECONDS_MIN and is_slow

    def _look_at_describers(self, task: BlobTask, now: float) -> None:
        for number in [number for number, until in task.describers.items() if now >= until]:
            self._describes_no_more(task, number)

    def _describes_no_more(self, task: BlobTask, number: int) -> None:
        """The last of those that were asked has not named all pieces: what nobody has named, nodes get from the origin."""
        if task.describers.pop(number, None) is not None and not task.describers and not task.is_named:
            for session in self._sessions.values():
                if task.digest in session.holdings:
                    self._schedule(events.HoldsNone(session.number, task.number))
            self._let_nodes_fetch(task)

    def _rescue(self, task: BlobTask, now: float) -> None:
        """Ask the origin here where no node can, or none brings anything. Where that fails too, all are left to themselves."""
        if not task.takers or task.is_seeding or task.whole or task.failed or task.layout is None or task.describers:
            return
        is_helpless = not self._can_fetch(task)
        if not is_helpless and (now - task.begun_at < RESCUE_SECONDS or task.is_brought):
            return
        if task.seed_error is None:
            self._seed(task, asks_origin=True)
        elif is_helpless:
            self._fail(task, task.seed_error)

    def _copy(self, task: BlobTask, now: float) -> None:
        """Take the supernode's own copy from nodes that have all of it, when few of them need their links.

        It tells who is right, too: where a node was blamed for a piece that another one has named, that does not wait.
        """
        if task.whole or task.is_seeding or task.failed or task.is_warm or not task.is_named:
            return
        if task.copy_tries >= COPY_TRIES_MAX or now < task.copy_after:
            return
        is_early = task.takers and now < task.begun_at + COPY_SECONDS
        if is_early and not any(said.blamed for said in task.named.values()):
            return
        if sum(other.is_seeding for other in self.tasks.values()) < COPIES_MAX and self._holders(task):
            task.copy_tries += 1
            self._seed(task, asks_origin=False)

    def _look_at(self, task: BlobTask, now: float) -> None:
        self._copy(task, now)
        is_copied = task.is_seeding and not task.asks_origin
        if task.takers or is_copied or task.is_warm or any(session.number in self._sessions for session in task.waiting):
            task.used_at = now
        elif now - task.used_at > (IDLE_SECONDS if task.whole or task.failed else ABANDON_SECONDS):
            self._forget(task)

    def _forget(self, task: BlobTask) -> None:
        task.abandoned.set()
        for session in task.takers:
            session.in_flight.pop(task.number, None)
        self.tasks.pop(task.number, None)
        if self._by_blob.get(task.blob_id) is task:
            del self._by_blob[task.blob_id]
        metrics.TASKS.set(len(self.tasks))
        self._schedule(events.Ended(task.number))
