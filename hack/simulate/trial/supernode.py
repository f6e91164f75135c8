"""A supernode in a trial: the product's channel server, tracker, health and scheduler; seeding is played.

The seeding does what `supernode.seeder` does, as events: its own store first, then the nodes that hold the blob, then the origin,
piece by piece, and a piece is said to be coming when half of it is there.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, cast

from blake3 import blake3

from agent.origin.shares import Prompt
from agent.storage.blob import Blob, Claim
from agent.swarm import messages
from agent.values import pieces
from agent.values.address import Address
from agent.values.errors import DarnerError, DigestError, SupersededError
from hack.simulate.trial.content import ArrivingBlob, Content, mark_of
from hack.simulate.trial.origin import OriginRequest
from hack.simulate.trial.party import Party
from hack.simulate.trial.transfer import Outcome, Transfer
from hack.simulate.trial.watched import WatchedScheduler
from hack.simulate.trial.wire import Wire
from supernode.scheduler.limits import Limits
from supernode.seeder import HOLDERS_MAX, ORIGIN_TRIES_MAX, AbandonedError, Holder, NotHereError, SeedRequest
from supernode.tracker.health import HealthSettings
from supernode.tracker.server import AgentConnection, ChannelServer
from supernode.tracker.tracker import Tracker

if TYPE_CHECKING:
    from hack.simulate.trial.world import World

CHANNEL_PORT = 65000


class Supernode(Party):
    def __init__(self, world: World, name: str, ip: str, rate: float) -> None:
        super().__init__(world, name, ip, rate)
        self.channel = Address(ip, CHANNEL_PORT)
        self.wires: dict[Wire, None] = {}
        self.seedings: dict[Seeding, None] = {}
        self.tracker: Tracker
        self._server: ChannelServer
        self._starts = 0
        self.seeded = 0
        """Blobs that were begun."""

    def start(self) -> None:
        if self.is_up:
            return
        self._starts += 1
        rng = Random(f"{self.world.seed} {self.name} {self._starts}")
        seeder = cast(Any, self)  # `seed` is all that the tracker asks of it, and the sizes that agents told
        self.tracker = Tracker(
            self.name,
            self.where,
            seeder,
            seeder,
            HealthSettings(),
            Limits(head_pieces_min=2),
            rng,
            clock=lambda: self.unix_seconds,
        )  # names are not simulated
        self.tracker.scheduler = cast(Any, WatchedScheduler(self.tracker.scheduler, self._granted_what_was_refused))
        self._server = ChannelServer(self.tracker)
        self.is_up, self.is_dark = True, False
        self.world.say(self.name, "starts")

    def crash(self, *, silently: bool, wiped: bool) -> None:
        if not self.is_up:
            return
        self.world.say(self.name, "crashes")
        self.is_up, self.is_dark = False, silently
        for wire in list(self.wires):
            wire.supernode_dies(silently=silently)
        self.wires.clear()
        for seeding in list(self.seedings):
            seeding.forget()
        self.seedings.clear()
        self.shelf.crash(wiped=wiped)
        self._awaiting.clear()
        for session in self.tracker.sessions.values():
            session.unsent.clear()
        self.tracker.stop()
        self.world.look_at_transfers()

    def _granted_what_was_refused(self, node: int, task: int) -> None:
        name, blob = self.tracker.sessions[node].name, self.tracker.seeds.tasks[task].name
        self.world.broken(f"{name} is granted a run of {self.world.contents[blob].name}, which its registry has refused it")

    def accept(self) -> AgentConnection:
        return AgentConnection(self._server)

    # What the tracker asks of its seeder.

    def seed(self, wanted: SeedRequest) -> None:
        self.seeded += 1
        self.seedings[Seeding(self, wanted)] = None

    @property
    def store(self) -> Supernode:
        return self

    prompt = Prompt()

    @property
    def origin(self) -> Supernode:
        return self

    def size_of(self, digest: str) -> int | None:
        blob = self.shelf.wholes.get(digest)
        return blob.size if blob else None


class Seeding:
    """One blob on its way to the supernode."""

    def __init__(self, supernode: Supernode, wanted: SeedRequest) -> None:
        self._node = supernode
        self._world = supernode.world
        self._wanted = wanted
        self._content: Content = self._world.contents[wanted.digest]
        self._blob: ArrivingBlob | None = None
        self._is_mixed = False
        self._announced: dict[int, bytes] = {}
        self._two_versions: DarnerError | None = None
        """Of a piece that was announced already, another one came."""
        self._tries = 0
        self._held_before = 0
        self._claim: Claim | None = None
        self._request: OriginRequest | None = None
        self._transfer: Transfer | None = None
        self._is_over = False
        self._holders: list[Holder] = []
        self._givers: set[str] = set()
        self._world.say(supernode.name, f"seeds {self._content.name}")
        self._world.after(0.001, self._begin)

    def forget(self) -> None:
        self._is_over = True
        if self._request:
            self._request.forget()
        if self._transfer:
            self._transfer.forget()

    def _begin(self) -> None:
        if self._is_over:
            return
        whole = self._node.shelf.wholes.get(self._wanted.digest)
        if whole:
            self._wanted.on_size(whole)
            self._end_whole(whole)
            return
        self._holders = [holder for holder in self._wanted.holders if holder.size == self._content.layout.size][:HOLDERS_MAX]
        if self._holders:
            self._blob = self._receive()
            self._givers = {"an earlier try"} if self._is_mixed else set()
            self._is_mixed = True
            self._from_holders()
        else:
            self._from_origin()

    # From nodes that hold it.

    def _from_holders(self) -> None:
        blob = self._blob
        assert blob
        if self._gone_on():
            return
        if blob.error:
            self._world.say(self._node.name, f"{self._content.name} as its holders have it is wrong: {sorted(self._givers)}")
            self._blob, self._is_mixed = None, False
            if len(self._givers) == 1 and "an earlier try" not in self._givers:
                self._wanted.on_liar(*self._givers)
            self._from_origin()
        elif not blob.missing:
            self._end_whole(blob)
        elif not self._holders:
            self._from_origin()
        else:
            piece, giver = pieces.lowest(blob.missing), self._world.party_at(self._holders[0].where.host)
            self._transfer = Transfer(self._world, self._node, giver, blob, piece, None, self._node.unix_seconds, self._given)

    def _given(self, outcome: Outcome) -> None:
        if self._is_over:
            return
        if outcome.verdict == messages.DELIVERED:
            self._givers.add(self._holders[0].name)
        else:
            self._holders.pop(0)
        self._from_holders()

    # From the origin.

    def _from_origin(self) -> None:
        if not self._wanted.asks_origin:
            self._end(NotHereError("it is not here"))
            return
        self._held_before = self._blob.held if self._blob else 0
        first = pieces.lowest(self._blob.missing) if self._blob else 0
        self._request = OriginRequest(self._world, self._node, self._wanted.registry, self._content, first, None, self)

    def head(self) -> None:
        self._blob = self._blob or self._receive()

    def begins(self, piece: int) -> bool:
        blob = self._blob
        assert blob
        if self._wanted.abandoned.is_set() or blob.error or blob.held >> piece & 1:
            return False
        self._claim = blob.claim_for(piece, lambda: None)
        blob.begin(piece, self._content.marks[piece], self._claim)
        if blob.missing != 1 << piece:
            self._world.after(self._world.coming_seconds, self._comes, piece, blob)
        return True

    def _comes(self, piece: int, blob: Blob) -> None:
        """Half of it is there."""
        if not self._is_over and blob is self._blob and piece not in self._announced and not blob.held >> piece & 1:
            self._wanted.on_coming(piece)

    def came(self, piece: int, mark: bytes) -> bool:
        blob = self._blob
        assert blob
        digest = blake3(mark).digest()
        try:
            blob.begin(piece, mark, self._claim)  # once more: the origin may lie
            blob.end(piece, mark, self._claim)
            if blob.missing != 1 << piece:
                self._announce(piece, digest)
            blob.add(piece, digest, checked=True, claim=self._claim)
        except (SupersededError, DarnerError) as error:
            if piece in self._announced and self._announced[piece] != digest:
                self._two_versions = error
            return False
        self._node.piece_is_here(self._wanted.digest, piece)
        return not self._wanted.abandoned.is_set()

    def ended(self, error: DarnerError | None) -> None:
        self._request = None
        blob = self._blob
        if self._is_over or self._gone_on():
            return
        if self._two_versions:
            self._end(self._two_versions)
            return
        if error:
            self._tries = 1 if blob and blob.held != self._held_before else self._tries + 1
            if self._tries >= ORIGIN_TRIES_MAX or getattr(error, "answered", False) or blob is None:
                self._end(error)
                return
        assert blob
        if isinstance(blob.error, DigestError) and self._is_mixed:
            self._blob, self._is_mixed = None, False
            self._from_origin()
        elif blob.error:
            self._end(blob.error)
        elif blob.missing:
            self._from_origin()
        else:
            self._end_whole(blob)

    # Both.

    def _receive(self) -> ArrivingBlob:
        blob = self._node.shelf.receive(self._wanted.digest, self._content.layout)
        self._is_mixed = bool(blob.held)
        self._wanted.on_size(blob)
        for piece in pieces.members(blob.checked):
            if piece in blob.digests:
                self._announce(piece, blob.digests[piece])
        return blob

    def _announce(self, piece: int, digest: bytes) -> None:
        if self._announced.get(piece, digest) != digest:
            raise DigestError("two versions of it were sent under its one digest")
        if piece not in self._announced:
            self._announced[piece] = digest
            self._wanted.on_piece(piece, digest)

    def _gone_on(self) -> bool:
        if self._wanted.abandoned.is_set():
            self._end(AbandonedError("nobody wants it any more"))
            return True
        return False

    def _end_whole(self, blob: Blob) -> None:
        for piece in range(blob.layout.count):
            self._announce(piece, blob.digests.get(piece) or blake3(mark_of(blob, piece)).digest())
        self._end(None)

    def _end(self, error: DarnerError | None) -> None:
        self._is_over = True
        self._node.seedings.pop(self, None)
        self._world.say(self._node.name, f"has {self._content.name} whole" if error is None else f"cannot seed: {error}")
        if error and self._blob:
            self._blob.fail(error)
        self._wanted.on_end(error)
