"""The tracker: what agents say goes to the scheduler, and what the scheduler decides goes to agents.

One event loop owns the scheduler, the health records and all that is here; threads (of seeds, of tags) come back to that loop by
`call_soon_threadsafe`. The tracker's state is soft: the agents say all of it again when they reconnect. What agents say is never
believed so far that it could break another's download.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable

from agent.registry.manifests import Manifests
from agent.swarm import messages
from agent.swarm.channel import WireError
from agent.values.address import Address
from supernode import metrics
from supernode.node_tokens import Proven, TokenError
from supernode.scheduler import events
from supernode.scheduler.limits import Limits
from supernode.scheduler.machine import Scheduler
from supernode.seeder import Seeder
from supernode.session import AgentSession
from supernode.tags.resolver import TagResolver
from supernode.tracker.health import Health, HealthSettings
from supernode.tracker.seeds import BlobTask, Seeds

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
TICK_SILENCE_SECONDS_MAX = 30.0
"""After so long without a tick the supernode is not ready: its loop stands still, or has more to do than it can."""

_SELF = "the supernode itself"
"""The reporter of a holder that lied to the supernode."""


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
        clock: Callable[[], float] = time.time,
        witnesses_min: int = 2,
    ) -> None:
        """Made in the event loop that is to own it. `clock` tells Unix time; `witnesses_min` agents say what a lost tag meant."""
        self._clock = clock
        self._node_name = node_name
        self._piece_address = piece_address
        self.health = Health(health)
        self.scheduler = Scheduler(rng, limits)
        self.sessions: dict[int, AgentSession] = {}
        self._by_name: dict[str, AgentSession] = {}
        self._lease_seconds = min(health.lease_seconds, messages.LEASE_SECONDS_MAX)
        self._numbers = itertools.count(1)
        self._granted = 0
        """Pieces, since the metric was told."""
        self._tags = TagResolver(manifests, self.sessions, witnesses_min)
        self.seeds = Seeds(seeder, rng, self.sessions, self.health, self.scheduler, self._schedule, self._distrust)
        self._ticked_at = time.monotonic()
        self._tick_failure = ""
        """What the last tick failed with, in words."""
        self._ticking = asyncio.get_running_loop().create_task(self._keep_ticking())

    def stop(self) -> None:
        self._ticking.cancel()
        self.seeds.stop()
        self._tags.stop()
        for session in list(self.sessions.values()):
            session.close()

    def join(self) -> None:
        """Wait for the threads, which end when the clients that they use are closed. Called from another thread, after `stop`."""
        self.seeds.join()
        self._tags.join()

    def not_ready(self) -> str:
        """Why leases, rescues and quarantines may not be kept, in words; "" when they are. Called from any thread."""
        if self._tick_failure:
            return f"the tracker's last tick failed: {self._tick_failure}"
        silence = time.monotonic() - self._ticked_at
        return "" if silence < TICK_SILENCE_SECONDS_MAX else f"the tracker has not ticked for {silence:.0f} s"

    # Agents.

    def join_agent(self, hello: messages.Hello, writer: asyncio.WriteTransport, proven: Proven | None = None) -> AgentSession:
        """An agent is there. If it was there already, its earlier connection is no longer its.

        Raises TokenError for a pod that is older than the one whose agent is there.
        """
        earlier = self._by_name.get(hello.node)
        if earlier:
            if proven and earlier.proven and proven.pod != earlier.proven.pod and proven.issued_at < earlier.proven.issued_at:
                raise TokenError("its node has a newer agent")
            self.leave(earlier)
            earlier.close()
        session = AgentSession(next(self._numbers), hello.node, hello.zone, Address(hello.host, hello.port), writer)
        session.proven = proven
        session.holdings = {holding.digest: holding.size for holding in hello.holdings}
        self.sessions[session.number] = self._by_name[session.name] = session
        metrics.CONNECTED_NODES.set(len(self.sessions))
        self.heard(session)
        self.health.heard(session.name, session.heard_at)
        where = self._piece_address
        session.send(
            messages.Welcome(messages.VERSION, self._node_name, self._lease_seconds, where.host, where.port, self._clock())
        )
        self._schedule(events.Joined(session.number, session.zone, hello.upload_slots))
        if self.health.quarantine(session.name):
            self._schedule(events.Quarantined(session.number))
        self.seeds.joined(session)
        return session

    def knows(self, session: AgentSession) -> bool:
        """Whether this is still the connection of that agent."""
        return self.sessions.get(session.number) is session

    def heard(self, session: AgentSession) -> None:
        session.heard_at = time.monotonic()

    def leave(self, session: AgentSession) -> None:
        if self.sessions.pop(session.number, None) is None:
            return
        del self._by_name[session.name]
        self.health.left(session.name, time.monotonic())
        self.seeds.left(session)
        metrics.CONNECTED_NODES.set(len(self.sessions))
        self._schedule(events.Left(session.number))

    # Messages.

    def receive(self, session: AgentSession, message: messages.FromAgent) -> None:  # noqa: C901 (a table of messages)
        """What an agent said. Raises WireError for what no agent says."""
        if not self.knows(session):
            return
        match message:
            case messages.Report():
                self._reported(session, message)
            case messages.Open():
                self.seeds.open(session, message)
            case messages.Offer():
                self.seeds.offer(session, message)
            case messages.AskLeave(number):
                self.seeds.ask_leave(session, number)
            case messages.Close(number):
                self.seeds.close(session, number)
            case messages.Holds():
                self.seeds.holds(session, message)
            case messages.Resolve():
                self._tags.ask(session, message)
            case messages.Recalled():
                self._tags.recalled(session, message)
            case messages.Heartbeat():
                session.send(messages.Heartbeat(self._clock()))
            case messages.Hello():
                raise WireError("Hello is said once")

    def _reported(self, session: AgentSession, report: messages.Report) -> None:
        task, in_flight = self.seeds.tasks.get(report.task), session.in_flight.get(report.task)
        if task is None or in_flight is None:
            return
        now = time.monotonic()
        done = []
        for item in report.done:
            if item.piece not in task.digests and item.piece not in task.coming:
                continue  # nobody was ever granted it, and others could not check what this agent would give them
            sources = in_flight.get(item.piece, ())
            if item.source in sources:  # else it was not asked, or what became of that was said before
                self._judge(session, task, item, now)
            if item.verdict == messages.DELIVERED or item.source in sources[-1:]:
                in_flight.pop(item.piece, None)
            elif item.source in sources:
                in_flight[item.piece] = sources[1:]
            done.append((item.piece, item.source, item.milliseconds / 1000, item.verdict))
        want = max(0, report.window - len(in_flight))
        self._schedule(events.Reported(session.number, report.task, tuple(done), want, tuple(report.readers)))

    def _judge(self, session: AgentSession, task: BlobTask, item: messages.Done, now: float) -> None:
        """What a report says of the peer that was the source, and of the way between the two."""
        source = self.sessions.get(item.source)
        if item.verdict == messages.DELIVERED:
            if source and item.milliseconds:  # else the taker had the piece from elsewhere
                self.health.delivered(source.name, now)
                task.cut_off.discard(session.number)
            return
        metrics.FAILED_PIECES.labels(messages.VERDICT_NAMES[item.verdict]).inc()
        if source:
            if item.verdict in (messages.UNREACHABLE, messages.STALLED):
                task.cut_off.add(session.number)
            self._accuse(source.name, session.name, item.verdict, now)

    def _accuse(self, name: str, reporter: str, verdict: int, now: float) -> None:
        quarantine = self.health.failed(name, reporter, verdict, now)
        if quarantine:
            metrics.QUARANTINES.inc()
            log.warning("%s is no source for %.0f s: %s", name, quarantine.until - now, quarantine.reason)
            if name in self._by_name:
                self._schedule(events.Quarantined(self._by_name[name].number))

    def _distrust(self, name: str, digest: bytes) -> None:
        """A holder gave the supernode something else than the blob that it says it holds."""
        if name in self._by_name:
            self._by_name[name].holdings.pop(digest, None)
        self._accuse(name, _SELF, messages.CORRUPT, time.monotonic())

    # Decisions.

    def _schedule(self, event: events.Event) -> None:
        for command in self.scheduler.handle(event, time.monotonic()):
            session, task = self.sessions.get(command.node), self.seeds.tasks.get(command.task)
            if session is None or task is None:
                continue
            if isinstance(command, events.GrantPieces):
                self._grant(session, task, command)
            else:
                session.send(messages.Seeding(task.number))

    def _grant(self, session: AgentSession, task: BlobTask, grant: events.GrantPieces) -> None:
        sessions, digests, in_flight = self.sessions, task.digests, session.in_flight.setdefault(task.number, {})
        granted = []
        for piece, source, alternative in grant.pieces:
            if source in sessions:
                session.introduce(sessions[source])
            if alternative != source and alternative in sessions:
                session.introduce(sessions[alternative])
            granted.append(messages.Granted(piece, digests.get(piece, messages.COMING), source, alternative))
            in_flight[piece] = (source, alternative)
        self._granted += len(granted)
        session.send(messages.Grant(task.number, granted))

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
        for session in self.sessions.values():
            self.health.heard(session.name, session.heard_at)
        expired, released = self.health.tick(now)
        for name in expired:
            if found := self._by_name.get(name):
                log.info("%s was not heard for %.0f s and counts as gone", name, self._lease_seconds)
                found.close()
                self.leave(found)
        for name in released:
            if found := self._by_name.get(name):
                log.info("%s may be a source again", name)
                self._schedule(events.Released(found.number))
        self._schedule(events.Tick())
        self.seeds.look_at_all(now)
