"""What tests of the swarm share: supernodes and nodes in this process, on loopback, and clients that speak the channel raw.

A `Node` is an agent without its registry endpoint: a store, a piece server, channels and downloads, wired together as in
`agent.app`. A `Supernode` is the real one. `RawAgent` and `RawSupernode` are one end of a channel, in the hand of the test.
"""

from __future__ import annotations

import contextlib
import gc
import http.client
import itertools
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from agent.download.manager import DownloadManager
from agent.http.certificate import Certificate
from agent.http.server import Exchange, Listener
from agent.origin.client import Origin as OriginClient
from agent.origin.mirrors import Mirror
from agent.origin.tls import TlsFiles
from agent.registry.manifests import Manifests
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.swarm import messages
from agent.swarm.channel import Channel, Frames, agent_message, frame, supernode_message
from agent.swarm.describe import Describer
from agent.swarm.piece_server import PieceServer
from agent.swarm.supernodes import Supernodes
from agent.swarm.tickets import SwarmKey
from agent.values.address import Address
from agent.values.credential import Credential
from agent.values.errors import DigestError, SourceError
from agent.values.manifest import Manifest
from agent.values.pieces import PIECE_BYTES_CUT_MIN
from agent.values.reference import raw_digest
from agent.values.tag_pattern import TagPattern
from hack.origin import Image, Origin
from hack.ports import free_port
from supernode.app import Supernode
from supernode.settings import SupernodeSettings
from tests.acceptor import Acceptor

REPOSITORY = "team/app"
SECONDS = 20.0
"""How long a test waits for what has to happen; the machine may be busy."""
PIECE = PIECE_BYTES_CUT_MIN

M = TypeVar("M", bound=messages.Message)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def wait_until(holds: Callable[[], object], seconds: float = SECONDS, said: Callable[[], str] = lambda: "") -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"it did not come about in time; {said()}"
        time.sleep(0.01)


@contextlib.contextmanager
def nothing_left_running() -> Iterator[None]:
    """Whatever was started inside has ended: no thread is left, and no file or socket that nobody closed."""
    before = set(threading.enumerate())
    yield
    left: set[threading.Thread] = set()

    def none_is_left() -> bool:
        left.clear()
        left.update({thread for thread in threading.enumerate() if thread.is_alive()} - before)
        return not left

    wait_until(none_is_left, said=lambda: f"still running: {sorted(thread.name for thread in left)}")
    gc.collect()  # what was not closed is said as a ResourceWarning now, in the test that left it


def knows_nothing(question: messages.Recall) -> messages.Recalled:
    """The answer of a node that remembers no names."""
    return messages.Recalled(question.request, None, 0.0, "", b"")


def free_address() -> Address:
    """One where nobody listens."""
    return Address("127.0.0.1", free_port())


class Node:
    """An agent without its registry endpoint."""

    def __init__(
        self,
        root: Path,
        name: str,
        lab: Lab,
        zone: str = "",
        *,
        wait: bool = True,
        quota: int = 1 << 30,
        key: str | None = None,
        clock: Callable[[], float] = time.time,
        through: Callable[[Address], Address] = lambda where: where,
    ) -> None:
        """With `wait`, every supernode has welcomed it. `key` is a file, if not the one of the lab.

        `through` says where others are told that its piece server is.
        """
        self.name = name
        self.fetched: list[tuple[int, Address, int]] = []
        """Pieces that were asked for at other nodes: number, from where, and the verdict."""
        self._lab = lab
        self.store = Store(root / name, quota=quota, free=0, age=3600.0)
        self.client = OriginClient(lab.insecure, [], mirrors=lab.mirrors, registry_tls=lab.registry_tls)
        self.manifests = Manifests(
            root / name, self.client, interval=lab.tag_interval, stale_if_error=3600.0, fresh=lab.fresh_tags
        )
        swarm_key = SwarmKey(lab.key if key is None else key)
        server = PieceServer(self.store, swarm_key, clocks=lambda: self.swarm.clocks(), node_name=name)
        self.pieces = piece_listener(server.handle)
        where = through(self.pieces.address)
        server._addresses = (where,)

        def hello() -> messages.Hello:
            holdings = [messages.Holding(raw_digest(digest), size) for digest, size in self.store.offered().items()]
            mark = certificate().fingerprint
            return messages.Hello(messages.VERSION, name, zone, where.host, where.port, 0, holdings, fingerprint=mark)

        self.describer = Describer(self.store)
        self.swarm = Supernodes(tuple(lab.channels), hello, self._up, self.manifests.recall, swarm_key, self.describer.describe)
        self.swarm.clock = clock
        self.downloads = DownloadManager(self.store, self.swarm, self.client, swarm_key)
        self.store.on_change = self.swarm.tell
        fetcher = self.downloads.fetcher
        self._fetch, fetcher.fetch_together = fetcher.fetch_together, self._note_fetch  # type: ignore[method-assign]
        self.swarm.start()
        if wait:
            wait_until(lambda: all(channel.up for channel in self.swarm.channels))

    def _up(self, _: Channel) -> None:
        self.downloads.swarm_is_up()

    def _note_fetch(
        self,
        blob: Blob,
        digests: Mapping[int, bytes | None],
        where: Address,
        unix_seconds: float | None = None,
        fingerprint: bytes = b"",
    ) -> Iterator[int]:
        left = sorted(digests)
        try:
            for piece in self._fetch(blob, digests, where, unix_seconds, fingerprint):
                self.fetched.append((left.pop(0), where, messages.DELIVERED))
                yield piece
        except SourceError as error:
            self.fetched.append((left[0], where, error.verdict))
            raise

    def resolve(self, reference: str, registry: str = "", repository: str = REPOSITORY) -> Manifest:
        """What a name means, as the registry endpoint asks for whoever has no credential."""
        registry = registry or self._lab.origin.address
        manifest = self.swarm.resolve(registry, repository, reference)
        if manifest is None:
            return self.manifests.resolve(registry, repository, reference)
        if not manifest.stale:
            self.manifests.remember(registry, repository, reference, None, manifest)
        return manifest

    def pull(
        self,
        digest: str,
        seconds: float = SECONDS,
        on_bytes: Callable[[int], None] = lambda count: None,
        registry: str = "",
        credential: Credential | None = None,
    ) -> bytes:
        """All bytes of a blob, each run as soon as it is there, as the registry endpoint reads it. Raises what it would raise."""
        until = time.monotonic() + seconds
        stored = self.store.blob(digest)
        if stored:
            return read(stored, until)
        with self.downloads.reading(registry or self._lab.origin.address, REPOSITORY, digest, credential, 0) as reader:
            blob = reader.download.blob(seconds)

            def moved(count: int) -> None:
                reader.offset = count
                on_bytes(count)

            return read(blob, until, moved)

    def held(self, digest: str) -> int:
        """How many pieces of a blob are here that is on its way."""
        download = self.downloads._active.get(digest)
        blob = download._blob if download else None
        return blob.held.bit_count() if blob else 0

    def sources(self) -> set[Address]:
        """The nodes that gave it a piece."""
        return {where for _, where, verdict in self.fetched if verdict == messages.DELIVERED}

    def close(self) -> None:
        self.downloads.stop()
        self.swarm.stop()
        self.describer.stop()
        self.pieces.stop()
        self.client.close()
        self.store.close()


def read(blob: Blob, until: float, moved: Callable[[int], None] = lambda count: None) -> bytes:
    body = bytearray()
    while len(body) < blob.size:
        ready = blob.wait(len(body), 0.25)
        body += os.pread(blob.fd, ready - len(body), len(body))
        moved(len(body))
        assert time.monotonic() < until, f"only {len(body)} of {blob.size} bytes came in time"
    assert blob.wait_whole(SECONDS)
    return bytes(body)


_certificates: list[Certificate] = []
_making = threading.Lock()


def certificate() -> Certificate:
    """One for all nodes of a test: to make one takes another process."""
    with _making:
        if not _certificates:
            _certificates.append(Certificate.make())
        return _certificates[0]


def piece_listener(handle: Callable[[Exchange], None]) -> Listener:
    listener = Listener(
        Address("127.0.0.1", 0),
        handle,
        name="pieces",
        connections_max=512,
        per_address_max=512,
        idle_seconds=30.0,
        tls=certificate().context,
    )
    listener.start()
    return listener


def as_a_runtime(node: Node, digest: str, registry: str = "", credential: Credential | None = None) -> bytes:
    """It asks again when the first answer was wrong, or broke off."""
    with contextlib.suppress(DigestError):
        return node.pull(digest, registry=registry, credential=credential)
    return node.pull(digest, registry=registry, credential=credential)


class Lab:
    """An origin, supernodes and nodes, all in this process. Use it as a context manager."""

    def __init__(
        self,
        root: Path,
        supernodes: int = 1,
        *,
        tag_interval: float = 30.0,
        fresh_tags: tuple[TagPattern, ...] = (),
        **settings: object,
    ) -> None:
        self.root = root
        self.origin = Origin()
        self.insecure: list[str] = []
        """Registries on loopback: the origin, and what a test adds before it starts nodes."""
        self.mirrors: list[Mirror] = []
        self.registry_tls: list[TlsFiles] = []
        """What a test adds to these before it enters the lab."""
        self.tag_interval = tag_interval
        self.fresh_tags = fresh_tags
        self.key = str(settings.get("swarm_key_file", ""))
        self.clock = time.time
        """The supernodes'."""
        self.supernodes: list[Supernode | None] = [None] * supernodes
        self.channels = [free_address() for _ in range(supernodes)]
        self.nodes: list[Node] = []
        self._pieces = [free_address() for _ in range(supernodes)]
        self._http = [free_address() for _ in range(supernodes)]
        self._settings = settings
        self._names = itertools.count()
        self._stores = [0] * supernodes
        """How many each supernode has had."""
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Lab:
        self._closing.enter_context(nothing_left_running())
        self._closing.enter_context(self.origin)
        self.insecure.append(self.origin.address)
        for number in range(len(self.supernodes)):
            self.start_supernode(number)
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(Node.close, self.nodes))
                list(pool.map(self.stop_supernode, range(len(self.supernodes))))
        finally:
            self._closing.close()

    def start_supernode(self, number: int = 0, *, empty: bool = True) -> Supernode:
        """On the same addresses as before, with an empty store or with the last one."""
        self._stores[number] += empty
        settings = SupernodeSettings(
            node_name=f"supernode-{number}",
            store=str(self.root / f"supernode-{number}-{self._stores[number]}"),
            piece_listen=self._pieces[number],
            channel_listen=self.channels[number],
            http_listen=self._http[number],
            insecure_registries=tuple(self.insecure),
            mirrors=tuple(self.mirrors),
            registry_tls=tuple(self.registry_tls),
            store_free=0,
            tag_interval=self.tag_interval,
            fresh_tags=self.fresh_tags,
        )
        supernode = Supernode(replace(settings, **self._settings), lambda: self.clock())  # type: ignore[arg-type]
        supernode.start()
        self.supernodes[number] = supernode
        return supernode

    def stop_supernode(self, number: int = 0) -> None:
        supernode, self.supernodes[number] = self.supernodes[number], None
        if supernode:
            supernode.stop()

    @property
    def supernode(self) -> Supernode:
        assert self.supernodes[0]
        return self.supernodes[0]

    def state(self, number: int = 0) -> dict[str, Any]:
        """What a supernode's API tells of its swarms."""
        connection = http.client.HTTPConnection(*self._http[number], timeout=SECONDS)
        try:
            connection.request("GET", "/api/v1/state")
            with connection.getresponse() as answer:
                assert answer.status == 200
                found: dict[str, Any] = json.loads(answer.read())
                return found
        finally:
            connection.close()

    def seed_address(self, number: int = 0) -> Address:
        """The supernode's piece server."""
        return self._pieces[number]

    def node(
        self,
        zone: str = "",
        quota: int = 1 << 30,
        *,
        wait: bool = True,
        key: str | None = None,
        clock: Callable[[], float] = time.time,
        through: Callable[[Address], Address] = lambda where: where,
    ) -> Node:
        name = f"node-{next(self._names)}"
        node = Node(self.root, name, self, zone, wait=wait, quota=quota, key=key, clock=clock, through=through)
        self.nodes.append(node)
        return node

    def push(self, *layers: bytes, tag: str = "1") -> Image:
        return self.origin.push(REPOSITORY, tag, Image.of(layers))

    def distribute(self, body: bytes) -> str:
        """A blob that the supernode has whole, and no node that is there."""
        digest = self.push(body).layers[0]
        holder = self.node()
        assert holder.pull(digest) == body
        wait_until(lambda: all(swarm["whole"] for swarm in self.state()["swarms"]), said=lambda: str(self.state()))
        self.nodes.remove(holder)
        holder.close()
        wait_until(lambda: holder.name not in [node["name"] for node in self.state()["nodes"]])
        return digest

    def settled(self) -> int:
        """The blob bytes that the origin has sent, when it sends no more."""
        wait_until(lambda: not self.origin._under_way)
        return self.origin.blob_bytes_sent

    def pull_everywhere(self, digest: str, nodes: list[Node] | None = None) -> list[bytes]:
        """On all nodes at once."""
        nodes = self.nodes if nodes is None else nodes
        with ThreadPoolExecutor(len(nodes)) as pool:
            return list(pool.map(lambda node: node.pull(digest), nodes))


class RawAgent:
    """An agent's end of a channel: says what it is told to, and hears what comes."""

    def __init__(self, where: Address, hello: messages.Message | None = None) -> None:
        self.sock = socket.create_connection(where, SECONDS)
        self._frames = Frames()
        self._heard: list[messages.FromSupernode] = []
        if hello is not None:
            self.say(hello)
            self.welcome = self.hear(messages.Welcome)

    @classmethod
    def joined(cls, where: Address, name: str, pieces: Address | None = None, *holdings: tuple[str, int]) -> RawAgent:
        """One that the supernode has welcomed. `holdings` are digests and sizes."""
        at = pieces or Address("127.0.0.1", 1)
        held = [messages.Holding(raw_digest(digest), size) for digest, size in holdings]
        return cls(where, messages.Hello(messages.VERSION, name, "", at.host, at.port, 0, held))

    def __enter__(self) -> RawAgent:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def say(self, *said: messages.Message) -> None:
        self.sock.sendall(b"".join(map(frame, said)))

    def open(self, origin: Origin, digest: str, request: int = 1) -> None:
        self.say(messages.Open(request, raw_digest(digest), origin.address, REPOSITORY, b"", []))

    def hear(self, kind: type[M]) -> M:
        """The next message of this kind; those before it are dropped."""
        self.sock.settimeout(SECONDS)
        message = self.hear_or_end(kind)
        assert message, f"the supernode closed the connection before it said {kind.__name__}"
        return message

    def hear_or_end(self, kind: type[M]) -> M | None:
        """The next message of this kind, or None at the end of the connection."""
        while True:
            while self._heard:
                message = self._heard.pop(0)
                if isinstance(message, kind):
                    return message
            data = self.sock.recv(1 << 20)
            if not data:
                return None
            self._heard += [supernode_message(body) for body in self._frames.feed(data)]

    def end(self) -> None:
        """Make another thread, which hears, see the end."""
        self.sock.settimeout(None)
        self.sock.shutdown(socket.SHUT_RDWR)

    def until_closed(self) -> None:
        """Wait for the end of the connection, whatever is said before."""
        self.sock.settimeout(SECONDS)
        with contextlib.suppress(ConnectionError):
            while self.sock.recv(1 << 20):
                continue


class RawSupernode:
    """A supernode's end of channels: `converse(sock, messages)` is called for each connection, in a thread of its own."""

    def __init__(self, converse: Callable[[socket.socket, Iterator[messages.FromAgent]], None]) -> None:
        self._converse = converse
        self._acceptor = Acceptor("raw supernode", self._serve)
        self.where = self._acceptor.where

    def __enter__(self) -> RawSupernode:
        return self

    def __exit__(self, *_: object) -> None:
        self._acceptor.close()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            self._converse(sock, _messages(sock))


def _messages(sock: socket.socket) -> Iterator[messages.FromAgent]:
    inbox = Frames()
    while data := sock.recv(1 << 20):
        for body in inbox.feed(data):
            yield agent_message(body)
