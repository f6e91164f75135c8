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

from agent.origin.client import BLOB_SECONDS_MAX
from agent.registry.manifests import Manifests
from agent.swarm import messages
from agent.swarm.channel import WireError
from agent.values.address import Address
from agent.values.received import BytesBySource
from supernode import metrics
from supernode.loaded.images import LoadedImages
from supernode.node_tokens import Proven, TokenError
from supernode.scheduler import events
from supernode.scheduler.limits import Limits
from supernode.scheduler.machine import Scheduler
from supernode.seeder import Seeder
from supernode.session import AgentSession
from supernode.tags.resolver import TagResolver
from supernode.tracker.health import SELF, Health, HealthSettings
from supernode.tracker.received import ReceivedBytes
from supernode.tracker.seeds import Seeds
from supernode.tracker.task import BlobTask
from supernode.tracker.warm_blobs import WarmBlobs
from supernode.tracker.warm_names import WarmNames
from supernode.verdicts import Verdicts

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
TICK_SILENCE_SECONDS_MAX = 30.0
"""After so long without a tick the supernode is not ready: its loop stands still, or has more to do than it can."""


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
        fingerprint: bytes = b"",
        zone_of: Callable[[str], str] = lambda _: "",
        loaded: LoadedImages | None = None,
    ) -> None:
        """Made in the event loop that is to own it. `clock` tells Unix time; `witnesses_min` agents say what a lost tag meant.

        `fingerprint` is that of the supernode's own piece server, at `piece_address`. `zone_of` tells the zone of a node, "" as
        long as it is not known, and does not wait.
        """
        self._fingerprint = fingerprint
        self._zone_of = zone_of
        self._clock = clock
        self.node_name = node_name
        self._piece_address = piece_address
        self.health = Health(health)
        self.scheduler = Scheduler(rng, limits)
        self.sessions: dict[int, AgentSession] = {}
        self._by_name: dict[str, AgentSession] = {}
        self._lease_seconds = min(health.lease_seconds, messages.LEASE_SECONDS_MAX)
        self._numbers = itertools.count(1)
        self._granted = 0
        """Pieces, since the metric was told."""
        self.loaded = loaded
        """What an operator has put here, which everybody may have."""
        self._tags = TagResolver(manifests, self.sessions, witnesses_min, loaded.manifest if loaded else lambda *_: None)
        self.verdicts = Verdicts(
            self.sessions,
            lambda registry, repository, digest: seeder.origin.blob_size(registry, repository, digest, None, BLOB_SECONDS_MAX),
            lambda registry, repository, reference: manifests.believed_seconds(registry, repository, reference),
            loaded,
        )
        self.received = ReceivedBytes()
        self.seeds = Seeds(
            seeder, rng, self.sessions, self.health, self.scheduler, self._schedule, self._distrust, self._exonerate
        )
        self.warm_names = WarmNames(manifests, loaded.manifest if loaded else lambda *_: None)
        self.warm_blobs = WarmBlobs(seeder, self.seeds)
        self.seeds.on_open = self.warm_blobs.opened
        self._ticked_at = time.monotonic()
        self._tick_failure = ""
        """What the last tick failed with, in words."""
        self._ticking = asyncio.get_running_loop().create_task(self._keep_ticking())

    def stop(self) -> None:
        self._ticking.cancel()
        self.warm_names.stop()
        self.warm_blobs.stop()
        self.seeds.stop()
        self._tags.stop()
        self.verdicts.stop()
        for session in list(self.sessions.values()):
            session.close()

    def join(self) -> None:
        """Wait for the threads, which end when the clients that they use are closed. Called from another thread, after `stop`."""
        self.warm_names.join()
        self.warm_blobs.join()
        self.seeds.join()
        self._tags.join()
        self.verdicts.join()

    def not_ready(self) -> str:
        """Why leases, rescues and quarantines may not be kept, in words; "" when they are. Called from any thread."""
        if self._tick_failure:
            return f"the tracker's last tick failed: {self._tick_failure}"
        silence = time.monotonic() - self._ticked_at
        return "" if silence < TICK_SILENCE_SECONDS_MAX else f"the tracker has not ticked for {silence:.0f} s"

    # Agents.

    def join_agent(
        self, hello: messages.Hello, writer: asyncio.WriteTransport, proven: Proven | None = None, *, located: bool = True
    ) -> AgentSession:
        """An agent is there. If it was there already, its earlier connection is no longer its.

        Unless it is `located`, others are sent to its address only after `locate`. Raises TokenError for a pod that is older than
        the one whose agent is there.
        """
        earlier = self._by_name.get(hello.node)
        if earlier:
            if proven and earlier.proven and proven.pod != earlier.proven.pod and proven.issued_at < earlier.proven.issued_at:
                raise TokenError("its node has a newer agent")
            self.leave(earlier)
            earlier.close()
        where = Address(hello.host, hello.port)
        zone = self._zone_of(hello.node) or hello.zone
        session = AgentSession(next(self._numbers), hello.node, zone, where, writer, fingerprint=hello.fingerprint)
        session.proven, session.located = proven, located
        session.holdings = {holding.digest: holding.size for holding in hello.holdings}
        self.sessions[session.number] = self._by_name[session.name] = session
        metrics.CONNECTED_NODES.set(len(self.sessions))
        self.heard(session)
        self.health.heard(session.name, session.heard_at)
        host, port = self._piece_address
        session.send(
            messages.Welcome(
                messages.VERSION,
                self.node_name,
                self._lease_seconds,
                host,
                port,
                self._clock(),
                self._fingerprint,
                takes_byte_reports=True,
            )
        )
        self._schedule(events.Joined(session.number, session.zone, hello.upload_slots, located))
        if self.health.quarantine(session.name):
            self._schedule(events.Quarantined(session.number))
        self.seeds.joined(session)
        return session

    def locate(self, session: AgentSession) -> None:
        """The agent has answered at the address that it names."""
        session.located = True
        self._schedule(events.Located(session.number))

    def zone_known(self, node: str, zone: str) -> None:
        """In which zone a node is, whatever its agent says. Swarms that it is in already go on as they are."""
        session = self._by_name.get(node)
        if session and session.zone != zone:
            session.zone = zone
            self._schedule(events.Moved(session.number, zone))

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
        self.verdicts.left(session)
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
            case messages.Brought():
                self.seeds.brought(session, message)
            case messages.RunEnded():
                self.seeds.run_ended(session, message)
            case messages.Disputed(number):
                self.seeds.disputed(session, number)
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
            case messages.AskVerdict():
                self.verdicts.ask(session, message)
            case messages.Told():
                self.verdicts.told(session, message)
            case messages.Received(peer, supernode, origin, age_seconds):
                more = BytesBySource(peer, supernode, origin)
                self.received.told(session.name, more, age_seconds, time.monotonic())
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
                task.arrivals.pieces += item.milliseconds > 0 and item.verdict == messages.DELIVERED
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
            if item.verdict == messages.CORRUPT and item.piece in task.named:
                task.named[item.piece].blame(source.name, session.name)
            if item.verdict in (messages.UNREACHABLE, messages.STALLED):
                task.cut_off.add(session.number)
            self._accuse(source.name, session.name, item.verdict, now)

    def _accuse(self, name: str, reporter: str, verdict: int, now: float) -> None:
        believed = self.health.believes(reporter, now)
        quarantine = self.health.failed(name, reporter, verdict, now)
        if believed and not self.health.believes(reporter, now):
            log.warning("%s complains about so many others that what it says of them counts no more", reporter)
        if quarantine:
            metrics.QUARANTINES.inc()
            metrics.QUARANTINED_NODES.set(len(self.health.quarantines))
            log.warning("%s is no source for %.0f s: %s", name, quarantine.until - now, quarantine.reason)
            self._schedule_of(name, events.Quarantined)

    def quarantine(self, name: str, reason: str, seconds: float) -> bool:
        """By hand, for a node that need not be here; whether it is."""
        self.health.hold_by_hand(name, reason, seconds, time.monotonic())
        log.warning("%s is no source for %.0f s, by hand: %s", name, seconds, reason)
        return self._schedule_of(name, events.Quarantined)

    def release(self, name: str) -> bool:
        """By hand, whoever began the quarantine. False: there was none."""
        if not self.health.release(name, time.monotonic()):
            return False
        log.warning("%s may be a source again, by hand", name)
        self._schedule_of(name, events.Released)
        return True

    def _distrust(self, name: str, digest: bytes) -> None:
        """A holder gave the supernode something else than the blob that it says it holds."""
        if name in self._by_name:
            self._by_name[name].holdings.pop(digest, None)
        self._accuse(name, SELF, messages.CORRUPT, time.monotonic())

    def _exonerate(self, name: str, reporter: str) -> None:
        """What a reporter said of a node's bytes followed from the name that a third one gave a piece, and that was wrong."""
        if self.health.withdraw(name, reporter, time.monotonic()):
            log.warning("%s may be a source again: it did not send what %s was told to expect, which was wrong", name, reporter)
            self._schedule_of(name, events.Released)

    # Decisions.

    def _schedule_of(self, name: str, event: type[events.Quarantined | events.Released]) -> bool:
        """Whether that node is here, and so the scheduler was told."""
        found = self._by_name.get(name)
        if found:
            self._schedule(event(found.number))
        return found is not None

    def _schedule(self, event: events.Event) -> None:
        for command in self.scheduler.handle(event, time.monotonic()):
            session, task = self.sessions.get(command.node), self.seeds.tasks.get(command.task)
            if session is None or task is None:
                continue
            if isinstance(command, events.GrantPieces):
                self._grant(session, task, command)
            elif isinstance(command, events.GrantRun):
                session.send(messages.Run(task.number, command.first, command.end))
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
        metrics.QUARANTINED_NODES.set(len(self.health.quarantines))
        for name in expired:
            if found := self._by_name.get(name):
                log.info("%s was not heard for %.0f s and counts as gone", name, self._lease_seconds)
                found.close()
                self.leave(found)
        for name in released:
            if self._schedule_of(name, events.Released):
                log.info("%s may be a source again", name)
        self._schedule(events.Tick())
        self.seeds.look_at_all(now)
        self.warm_blobs.look(now)
        self.verdicts.tick(now)
        self.received.look(now)
