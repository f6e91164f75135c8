"""A download in a trial: the product's planner decides, and this carries its commands out, as `agent.download.download` does.

What that does with a thread, a queue and sockets is done with events here: the same commands, the same memory of what did not
work, the same rules for the blob's file.
"""

from __future__ import annotations

import contextlib
from math import ceil, inf
from typing import TYPE_CHECKING

from blake3 import blake3

from agent.download import events
from agent.download.download import LINGER_SECONDS
from agent.download.events import News, Order
from agent.download.planner import EVIDENCE_SECONDS, Mode, Planner, Trouble
from agent.storage.blob import Claim
from agent.swarm import messages
from agent.swarm.channel import Channel
from agent.values.address import Address
from agent.values.errors import DarnerError, DigestError, OriginError, RequestError, SupersededError
from agent.values.pieces import Layout
from hack.simulate.trial.content import ArrivingBlob, Content
from hack.simulate.trial.evidence import Evidence
from hack.simulate.trial.origin import OriginRequest
from hack.simulate.trial.transfer import Outcome, Transfer

if TYPE_CHECKING:
    from hack.simulate.trial.client import Reader
    from hack.simulate.trial.node import Node


class Download:
    def __init__(self, node: Node, content: Content) -> None:
        self.content = content
        self.readers: list[Reader] = []
        self.blob: ArrivingBlob | None = None
        self.error: DarnerError | None = None
        self.is_over = False
        self.planner = Planner()
        self.transfers: dict[Transfer, None] = {}
        self.evidence: Evidence
        self.stream: Stream | None = None
        self._node = node
        self._world = node.world
        self._channel: Channel | None = None
        self._opened = 0
        self._size = self._opened_size = 0
        self._asked_at: float | None = None
        self._trouble: Trouble | None = None
        self._left_at = 0.0
        self._tick_at = inf
        self._seeding = f"blobs of {node.registry}"

    # Readers.

    def begin(self, reader: Reader) -> None:
        self.readers.append(reader)
        node, now = self._node, self._world.now
        owners = node.supernodes.owners(self.content.digest)
        is_silent = bool(owners) and node.supernodes.memory.avoids(("supernode", owners[0].where), now)
        self._world.say(node.name, f"begins {self.content.name}, {len(owners)} supernodes connected, silent: {is_silent}")
        is_slow = bool(owners) and node.supernodes.memory.avoids((self._seeding, owners[0].where), now)
        self.evidence = Evidence(now, is_silent=is_silent, is_slow=is_slow)
        self._do(self.planner.start(bool(owners), now, is_silent=is_silent, is_slow=is_slow))
        self._settle()

    def join(self, reader: Reader) -> bool:
        if self.is_over or self.error or (self.blob and self.blob.error):
            return False
        self.readers.append(reader)
        return True

    def leave(self, reader: Reader) -> None:
        if reader in self.readers:
            self.readers.remove(reader)
            self._left_at = self._world.now
            self._world.after(LINGER_SECONDS + 0.01, self._look_whether_abandoned)

    def _look_whether_abandoned(self) -> None:
        if not self.is_over and not self.readers and self._world.now - self._left_at >= LINGER_SECONDS:
            self.fail(RequestError(503, "UNAVAILABLE", "nobody waits for this blob any more"))

    # Its end.

    def fail(self, error: DarnerError) -> None:
        self.error = self.error or error.again()
        if self.blob:
            self.blob.fail(self.error)
        self._end()

    def die(self) -> None:
        """The process ends."""
        self.is_over = True
        for transfer in list(self.transfers):
            transfer.forget()
        if self.stream:
            self.stream.request.forget()
            self.stream = None

    def _end(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self._node.disputes and self._channel and not self.error:
            self._channel.tell(messages.Disputed(self.planner.task))
        self._world.say(self._node.name, f"ends {self.content.name}: {self.error or 'whole'}")
        self._leave_swarm()
        if self.stream:
            self.stream.request.abort()
            self.stream = None
        if self._node.downloads.get(self.content.digest) is self:
            del self._node.downloads[self.content.digest]
        for reader in list(self.readers):
            reader.look()

    # Deciding.

    def swarm_is_up(self) -> None:
        self._happened(News.SWARM_AVAILABLE)

    def _happened(self, event: events.Event) -> None:
        """As events of threads do, it waits for its turn."""
        self._world.after(0.0, self._turn, event)

    def _turn(self, event: events.Event) -> None:
        if self.is_over or not self._node.is_up:
            return
        if self.blob and self.blob.error:
            if isinstance(self.blob.error, DigestError) and self._channel:
                self._world.found_wrong_at.setdefault(self.content.digest, self._world.now)
                self._channel.tell(messages.Disputed(self.planner.task))
            self.fail(self.blob.error)
            return
        if event is not News.TIME_PASSED:
            self._world.say(self._node.name, event)
        for item in [*self._readers_moved(), *self._prepared(event)]:
            self._do(self.planner.handle(item, self._world.now))
        self._note_trouble()
        self._settle()

    def _readers_moved(self) -> list[events.Event]:
        if self.blob is None:
            return []
        at = tuple(sorted({self.blob.layout.piece_at(reader.position) for reader in self.readers}))
        return [events.ReadersMoved(at)] if at != self.planner.readers else []

    def _settle(self) -> None:
        for reader in list(self.readers):
            reader.look()
        if self.planner.mode is Mode.ENDED:
            self._end()
        elif self.planner.deadline is not None and self.planner.deadline < self._tick_at:
            self._book_tick(self.planner.deadline)

    def _book_tick(self, at: float) -> None:
        self._tick_at = at
        self._world.at(at, self._tick, at)

    def _tick(self, at: float) -> None:
        if at != self._tick_at or self.is_over:
            return
        self._tick_at, deadline = inf, self.planner.deadline
        if deadline is None:
            return
        if deadline > self._world.now:
            self._book_tick(deadline)
        else:
            self._turn(News.TIME_PASSED)

    def _note_trouble(self) -> None:
        trouble = self.planner.trouble
        if trouble is not self._trouble:
            self._trouble = trouble
            self._world.say(self._node.name, f"trouble of {self.content.name}: {trouble.value if trouble else 'none'}")
            if self._channel and trouble not in (None, Trouble.TURN, Trouble.SLOW):
                place = "supernode" if trouble is Trouble.SILENT else "swarms"
                self._node.supernodes.memory.failed((place, self._channel.where), self._world.now)

    def _note_seeding(self) -> None:
        if self._channel and self._asked_at is not None and self._world.now >= self._asked_at + EVIDENCE_SECONDS:
            self._node.supernodes.memory.failed((self._seeding, self._channel.where), self._world.now)

    def _do(self, commands: list[events.Command]) -> None:  # noqa: C901 (a table of commands)
        for command in commands:
            if not isinstance(command, messages.Report):
                self._world.say(self._node.name, command)
            match command:
                case Order.OPEN_SWARM:
                    self._open_swarm()
                case Order.LEAVE_SWARM:
                    self._note_seeding()
                    self._leave_swarm()
                case events.Fetch(piece, digest, source):
                    self._fetch(piece, digest, source)
                case events.Confirm(piece, digest):
                    if self.blob:
                        self.blob.confirm(piece, digest)
                case messages.Report() | messages.Brought() | messages.RunEnded() | messages.AskLeave():
                    if isinstance(command, messages.AskLeave):
                        self.evidence.asked_leave(self._world.now)
                    if isinstance(command, messages.Brought):
                        command = self._node.named(self.content, command)
                    if self._channel:
                        self._channel.tell(command)
                case events.FetchOrigin(first, end):
                    self._look_for_a_reason(first, end)
                    self.stream = Stream(self, self._node, first, end)
                    self.stream.begin()
                case Order.LEAVE_ORIGIN:
                    if self.stream:
                        self.stream.is_leaving = True
                case events.GiveUp(error):
                    self.fail(error)

    def _look_for_a_reason(self, first: int, end: int | None) -> None:
        """In the swarm it asks for what it was granted, and else where there is a reason."""
        name, evidence = self._node.name, self.evidence
        if self.planner.mode is Mode.SWARM:
            if not evidence.was_granted(first, self.content.layout.count if end is None else end):
                self._world.broken(f"{name} asks the origin for pieces of {self.content.name} that it was not granted there")
        elif not evidence.may_ask_the_origin(self._world.now):
            self._world.broken(f"{name} asks the origin for {self.content.name} without a reason")

    # The blob's file.

    def receive(self, layout: Layout) -> ArrivingBlob | None:
        if self.error:
            return None
        if self.blob is None:
            self.blob = self._node.shelf.receive(self.content.digest, layout)
            self._happened(events.SizeKnown(layout, self.blob.held))
        if self.blob.layout != layout:
            self.fail(DigestError("two sources differ in the size"))
            return None
        return self.blob

    # The swarm.

    def _open_swarm(self) -> None:
        self._leave_swarm()
        self._opened += 1
        self._asked_at = self._world.now
        checked = self.blob.checked if self.blob else 0
        node, readers = self._node, self.planner.readers
        size = self._opened_size = self._size or (self.content.layout.size if node.knows_sizes else 0)
        self._channel = node.supernodes.open(self.content.digest, node.registry, "app", checked, readers, self._heard, size)
        self.evidence.opened(self._channel.where if self._channel else None, self._world.now)
        if self._channel is None:
            self._happened(News.NO_SWARM)

    def _finds_size(self) -> bool:
        if self._opened_size or self._size:
            return False
        with contextlib.suppress(OriginError):
            self._size = self._node.blob_size(self._node.registry, "app", self.content.digest)
        return self._size > 0

    def _leave_swarm(self) -> None:
        if self._channel:
            self._channel.leave(self._heard)
            self._channel = None

    def _heard(self, message: messages.TaskMessage | None) -> None:
        self.evidence.heard(message, self._world.now)
        if isinstance(message, messages.Run):
            self._node.is_granted_a_run()
        self._happened(message or News.SWARM_LOST)

    def _prepared(self, event: events.Event) -> list[events.Event]:
        if self._channel and isinstance(event, messages.Message):
            self._node.supernodes.memory.worked(("supernode", self._channel.where))
        if isinstance(event, messages.Task):
            blob = self.receive(Layout(event.size, event.piece_length))
            if blob is None:
                return []
            for piece, digest in event.known.items():
                blob.confirm(piece, digest)
            self._asked_at = None
            where = self._channel.where if self._channel else Address("", 0)
            self._node.supernodes.memory.worked((self._seeding, where))
            is_doubted = self._node.supernodes.memory.avoids(("swarms", where), self._world.now)
            return [events.SizeKnown(blob.layout, blob.held), *([News.SWARM_DOUBTED] if is_doubted else []), event]
        if isinstance(event, messages.TaskFailed):
            if event.corrupt:
                self._node.hears_of_wrong_pieces(self.content)
            if not event.corrupt and event.status in (401, 403, 404) and self._finds_size():
                self._open_swarm()
                return []
            if event.retry_after:
                self._node.leave_alone(self._node.registry, event.retry_after)
        return [event]

    def _fetch(self, piece: int, digest: bytes, source: int) -> None:
        channel, node = self._channel, self._node
        where = channel.peers.get(source) if channel else None

        def at_once(verdict: int) -> None:
            if verdict != messages.MISSING:
                self.evidence.fetched(verdict, self._world.now, from_node=source != messages.SEED)
            self._happened(messages.Done(piece, source, 0, verdict))

        is_avoided = (
            where is not None and source != messages.SEED and node.supernodes.sources.avoids(("pieces", where), self._world.now)
        )
        if self.blob is None or channel is None or where is None or is_avoided:
            at_once(messages.UNREACHABLE)
        elif digest == messages.COMING and source != messages.SEED:
            at_once(messages.MISSING)
        elif self.blob.confirm(piece, digest):
            at_once(messages.DELIVERED)
        else:
            opened = self._opened
            giver = self._world.party_at(where.host)
            transfer: Transfer

            def done(outcome: Outcome) -> None:
                self.transfers.pop(transfer, None)
                if outcome.verdict is not None and not (outcome.verdict == messages.MISSING and digest == messages.COMING):
                    from_node, is_reported = source != messages.SEED, opened == self._opened
                    self.evidence.fetched(outcome.verdict, self._world.now, from_node=from_node, is_reported=is_reported)
                self._fetched(piece, source, where, channel, opened, outcome)

            transfer = Transfer(self._world, node, giver, self.blob, piece, digest, channel.unix_seconds, done)
            self.transfers[transfer] = None

    def _fetched(self, piece: int, source: int, where: Address, channel: Channel, opened: int, outcome: Outcome) -> None:
        node, verdict = self._node, outcome.verdict
        event: events.Event
        if verdict is None:
            event = events.Superseded(piece, source)
        else:
            event = messages.Done(piece, source, ceil(outcome.seconds * 1000), verdict)
        if verdict == messages.DELIVERED:
            node.supernodes.memory.worked(("swarms", channel.where))
            node.supernodes.memory.worked(("tickets", where))
            node.supernodes.sources.worked(("pieces", where))
        elif outcome.is_refused:
            node.supernodes.memory.failed(("tickets", where), self._world.now)
        if verdict in (messages.UNREACHABLE, messages.STALLED) and not outcome.is_nobodys:
            node.supernodes.sources.failed(("pieces", where), self._world.now)
        if opened == self._opened or verdict == messages.DELIVERED:
            self._happened(event)

    # The origin.

    def streamed(self, piece: int, digest: bytes) -> None:
        self.evidence.streamed(self._world.now)
        self._happened(events.OriginPiece(piece, digest))

    def stream_ended(self, stream: Stream, error: DarnerError | None) -> None:
        if self.stream is stream:
            self.stream = None
        self._happened(events.OriginEnded(error))


class Stream:
    """The origin's stream of a download, as `agent.download.origin_stream` has it."""

    def __init__(self, download: Download, node: Node, first: int, end: int | None) -> None:
        self._download, self._node = download, node
        self._first, self._end = first, end
        self._claim: Claim | None = None
        self._is_superseded = False
        self.is_leaving = False
        self.request: OriginRequest

    def begin(self) -> None:
        node, content = self._node, self._download.content
        self.request = OriginRequest(node.world, node, node.registry, content, self._first, self._end, self)

    def head(self) -> None:
        """`begins` finds out whether the download goes on."""
        self._download.receive(self._download.content.layout)

    def begins(self, piece: int) -> bool:
        blob = self._download.blob
        if blob is None or self._download.error or self.is_leaving or blob.held >> piece & 1:
            return False
        if piece >= (self._end or blob.layout.count):
            return False
        self._is_superseded = False
        self._claim = blob.claim_for(piece, self._superseded)
        blob.begin(piece, self._download.content.marks[piece], self._claim)
        return True

    def came(self, piece: int, mark: bytes) -> bool:
        blob = self._download.blob
        if blob is None or self._is_superseded:
            return False
        try:
            if mark != self._download.content.marks[piece]:
                blob.begin(piece, mark, self._claim)
            blob.end(piece, mark, self._claim)
            digest = blake3(mark).digest()
            blob.add(piece, digest, checked=True, claim=self._claim)
        except (SupersededError, DarnerError):
            return False
        self._download.streamed(piece, digest)
        return True

    def ended(self, error: DarnerError | None) -> None:
        is_told = error is not None and not self._is_superseded
        if is_told:
            self._download.evidence.origin_failed(self._node.world.now)
        self._download.stream_ended(self, error if is_told else None)

    def _superseded(self) -> None:
        """With the next bytes that come, the stream notices; one that is frozen does not."""
        blob = self._download.blob
        if self.request.is_moving and blob and not blob.error and blob.is_claimed_anew(self.request.piece, self._claim):
            self._is_superseded = True
            self.request.abort()
