"""A node in a trial: an agent with its channels, downloads and piece server, and what survives its process.

The channel's messages, tasks and peers are the product's (`agent.swarm.channel`, `agent.swarm.supernodes`); connecting, silence
and heartbeats, which there are a thread's, are events here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from blake3 import blake3

from agent.swarm import messages
from agent.swarm.channel import (
    CONNECT_SECONDS_MAX,
    HEARTBEATS_PER_LEASE,
    LEASE_SECONDS_MIN,
    RETRY_SECONDS_MAX,
    RETRY_SECONDS_MIN,
    SEND_SECONDS_MAX,
    Channel,
    Frames,
    WireError,
    frame,
    supernode_message,
)
from agent.swarm.describe import Describer
from agent.swarm.supernodes import Memory, Supernodes
from agent.values.errors import DarnerError, StoreError
from agent.values.reference import raw_digest
from hack.simulate.trial.content import Content, wrong
from hack.simulate.trial.download import Download
from hack.simulate.trial.origin import REGISTRIES
from hack.simulate.trial.party import Party
from hack.simulate.trial.supernode import Supernode
from hack.simulate.trial.ways import Purpose, Way
from hack.simulate.trial.wire import Wire

if TYPE_CHECKING:
    from hack.simulate.trial.client import Reader
    from hack.simulate.trial.world import World

DESCRIBE_SECONDS = 0.05
"""Before a node that is asked which digests the pieces of a blob have says the first of them."""
NO_RECALL = messages.Recalled(0, None, 0.0, "", b"")


class Node(Party):
    def __init__(self, world: World, name: str, ip: str, rate: float, zone: str) -> None:
        super().__init__(world, name, ip, rate)
        self.zone = zone
        self.downloads: dict[str, Download] = {}
        self.channels: list[NodeChannel] = []
        self.registry = REGISTRIES[0]
        self.knows_sizes = True
        """From manifests that its runtime was shown."""
        self.describes = True
        self.misnamed_at: dict[str, float] = {}
        """By blob, when it first did so."""
        self.misnames = False
        """It names digests that the pieces do not have, and sends bytes that fit them."""
        self.repents = False
        """It does so once of each blob: when that was found to be wrong, it says and sends what is right."""
        self._repented: set[str] = set()
        self.disputes = False
        """It says of blobs that are right that they are wrong."""
        self.runs = 0
        """That it was granted."""
        self.dies_in_a_run: Callable[[], None] | None = None
        """What makes it die, some time after it is granted one."""
        self.supernodes = Supernodes((), self.hello, self._swarm_is_up, lambda _: NO_RECALL)

    def start(self) -> None:
        if self.is_up:
            return
        self.world.say(self.name, "starts")
        self.is_up, self.is_dark = True, False
        self.supernodes.memory, self.supernodes.sources = Memory(), Memory(strikes=2)
        self.channels = [NodeChannel(self, supernode) for supernode in self.world.supernodes]
        self.supernodes.channels[:] = self.channels
        self._describer = Describer(cast(Any, self.shelf))
        self.shelf.on_change = self.supernodes.tell
        for channel in self.channels:
            channel.connect()
        self.world.look_at_transfers()

    def crash(self, *, silently: bool, wiped: bool) -> None:
        """The process ends; its clients are told."""
        if not self.is_up:
            return
        self.world.say(self.name, "crashes")
        self.is_up, self.is_dark = False, silently
        for channel in self.channels:
            channel.die(silently=silently)
        readers = [reader for download in self.downloads.values() for reader in download.readers]
        for download in self.downloads.values():
            download.die()
        self.downloads.clear()
        self.shelf.crash(wiped=wiped)
        for reader in readers:
            reader.cut("the connection is reset")
        self.world.look_at_transfers()

    def crash_for(self, seconds: float, silently: bool, wiped: bool) -> None:
        self.crash(silently=silently, wiped=wiped)
        self.world.after(seconds, self.start)

    def hello(self) -> messages.Hello:
        held = {digest: blob.size for digest, blob in self.shelf.wholes.items()}
        if self.pretends:
            held |= {digest: content.layout.size for digest, content in self.world.contents.items()}
        holdings = [messages.Holding(raw_digest(digest), size) for digest, size in held.items()]
        return messages.Hello(messages.VERSION, self.name, self.zone, self.where.host, self.where.port, 0, holdings)

    @property
    def is_honest(self) -> bool:
        return not (self.lies or self.pretends or self.misnames or self.disputes)

    def named(self, content: Content, said: messages.Brought) -> messages.Brought:
        """What it says of the digests of pieces."""
        if not self.misnames or content.digest in self._repented:
            return said
        self.misnamed.setdefault(content.digest, set()).update(said.pieces)
        self.misnamed_at.setdefault(content.digest, self.world.now)
        self.world.doubtful.add(content.digest)
        return messages.Brought(said.task, {piece: blake3(wrong(content.marks[piece])).digest() for piece in said.pieces})

    def hears_of_wrong_pieces(self, content: Content) -> None:
        """The swarm is over, for somebody has named pieces wrongly."""
        if self.repents and content.digest in self.misnamed:
            self._repented.add(content.digest)
            del self.misnamed[content.digest]

    def describe(self, wanted: messages.Describe, tell: Callable[[messages.Message], None]) -> None:
        """Hashing takes a while."""
        self.world.after(DESCRIBE_SECONDS, self._describe, wanted, tell)

    def _describe(self, wanted: messages.Describe, tell: Callable[[messages.Message], None]) -> None:
        content = self.world.contents[f"sha256:{wanted.digest.hex()}"]
        if self.is_up and self.describes:
            self._describer.describe(wanted, lambda said: tell(self.named(content, cast(messages.Brought, said))))

    def is_granted_a_run(self) -> None:
        self.runs += 1
        if self.dies_in_a_run:
            self.dies_in_a_run()

    def read(self, reader: Reader) -> Download:
        """A client takes part in the download of its blob, which is begun if need be."""
        digest = reader.content.digest
        download = self.downloads.get(digest)
        if download is None or not download.join(reader):
            earlier = download
            download = self.downloads[digest] = Download(self, reader.content)
            if earlier:
                earlier.fail(StoreError("the download was begun anew"))
            download.begin(reader)
        return download

    def clocks(self) -> list[float]:
        return [self.unix_seconds, *(channel.unix_seconds for channel in self.channels if channel.tells_time)]

    def _swarm_is_up(self, _channel: Channel) -> None:
        for download in list(self.downloads.values()):
            download.swarm_is_up()


class NodeChannel(Channel):
    """To one supernode."""

    def __init__(self, node: Node, supernode: Supernode) -> None:
        super().__init__(supernode.channel, node.hello, node._swarm_is_up, lambda _: NO_RECALL, None, node.describe)
        self._node, self._supernode = node, supernode
        self._world = node.world
        self._wire: Wire | None = None
        self._inbox = Frames()
        self._began = self._heard_at = 0.0
        self._silence_seconds = SEND_SECONDS_MAX
        self._retry_seconds = RETRY_SECONDS_MIN
        self._is_dead = False

    @property
    def waits_for_something(self) -> bool:
        return bool(self._opening or self._tasks)

    def connect(self) -> None:
        if self._is_dead:
            return
        world, supernode = self._world, self._supernode
        self._began = self._heard_at = world.now
        way = world.ways.of(self._node.name, supernode.name, Purpose.CHANNEL)
        if way is Way.DROPPED or supernode.is_dark:
            world.after(CONNECT_SECONDS_MAX, self._retry)
        elif way is Way.REFUSED or not supernode.is_up:
            world.after(world.latency(), self._retry)
        else:
            world.after(2 * world.latency(), self._connected)

    def die(self, *, silently: bool) -> None:
        self._is_dead = True
        if self._wire:
            self._wire.agent_dies(silently=silently)

    def break_off(self) -> None:
        if self._wire:
            self._wire.break_off()

    def _connected(self) -> None:
        if self._is_dead:
            return
        supernode = self._supernode
        if not supernode.is_up or self._node.key != supernode.key:  # it proves the swarm's key before it says Hello
            self._retry()
            return
        names = self._node.name, supernode.name
        self._wire = wire = Wire(self._world, names, supernode.accept(), self._received, lambda: self._ended(wire))
        supernode.wires[wire] = None
        self._inbox = Frames()
        self._silence_seconds = SEND_SECONDS_MAX
        self._began = self._heard_at = self._world.now
        wire.end.sendall(frame(self._hello()))
        self._world.after(SEND_SECONDS_MAX, self._look, wire)

    def _look(self, wire: Wire) -> None:
        """Silence is noticed, and broken."""
        if wire is not self._wire or self._is_dead:
            return
        now = self._world.now
        if not self.up or now - self._heard_at > HEARTBEATS_PER_LEASE * self._silence_seconds:
            wire.lose()
            return
        if now - self._sent_at >= self._silence_seconds:
            self.tell(messages.Heartbeat())
        self._world.after(self._silence_seconds, self._look, wire)

    def _received(self, data: bytes) -> None:
        if self._is_dead or self._wire is None:
            return
        wire, self._heard_at = self._wire, self._world.now
        try:
            for body in self._inbox.feed(data):
                message = supernode_message(body)
                if isinstance(message, messages.Welcome | messages.Refused):
                    self._world.say(self._node.name, message)
                if isinstance(message, messages.Refused):
                    raise WireError(message.reason)
                if isinstance(message, messages.Welcome) == self.up:
                    raise WireError(f"it says {type(message).__name__} at the wrong time")
                if isinstance(message, messages.Welcome):
                    lease_seconds = max(LEASE_SECONDS_MIN, message.lease_seconds)
                    self._silence_seconds = min(SEND_SECONDS_MAX, lease_seconds / HEARTBEATS_PER_LEASE)
                    self._welcome(cast(Any, wire.end), message)
                else:
                    self._receive(message)
        except (OSError, DarnerError) as error:
            self._world.say(self._node.name, f"loses its channel: {error}")
            wire.lose()

    def _ended(self, wire: Wire) -> None:
        """The connection is over."""
        if wire is not self._wire or self._is_dead:
            return
        self._world.say(self._node.name, f"has no channel to {self._supernode.name} any more")
        self._wire = None
        self._supernode.wires.pop(wire, None)
        if self.up and self._world.now - self._began > RETRY_SECONDS_MAX:
            self._retry_seconds = RETRY_SECONDS_MIN
        self._down()
        self._retry()

    def _retry(self) -> None:
        if not self._is_dead:
            self._world.after(self._retry_seconds * (0.5 + self._world.chance.random() / 2), self.connect)
            self._retry_seconds = min(self._retry_seconds * 2, RETRY_SECONDS_MAX)
