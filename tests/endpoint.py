"""What tests of the registry endpoint share: one that runs in this process, on any free port, with an origin of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.download.manager import DownloadManager
from agent.origin.client import Origin as OriginClient
from agent.origin.credential_provider import CredentialProviders
from agent.origin.mirrors import Mirror
from agent.origin.shown import Permission, WhenDown
from agent.registry.endpoint import HEAD_SECONDS_MAX, Registry
from agent.registry.manifests import Manifests
from agent.storage.store import Store
from agent.swarm.supernodes import Supernodes
from agent.swarm.tickets import SwarmKey
from agent.values.address import Address
from agent.values.pattern import Pattern
from agent.values.pieces import PIECE_BYTES_CUT_MIN
from agent.values.space import Percent
from hack.origin import Image, Origin
from tests.swarm import Node

REPOSITORY = "team/app"
LAYER = random.Random(11).randbytes(3 * PIECE_BYTES_CUT_MIN + 4321)
IMAGE = Image.of([LAYER])
DIGEST = IMAGE.layers[0]
RESET_AT_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def code(self) -> str:
        """The OCI error code; a KeyError when this is no OCI error."""
        code: str = json.loads(self.body)["errors"][0]["code"]
        return code

    @property
    def message(self) -> str:
        message: str = json.loads(self.body)["errors"][0]["message"]
        return message


class Endpoint:
    """The registry endpoint and what it stands on, without supernodes. Use it as a context manager."""

    def __init__(
        self,
        root: Path,
        origin: Origin,
        *,
        head_seconds: float = HEAD_SECONDS_MAX,
        quota: int | Percent = 1 << 30,
        free: int | Percent = 0,
        allow: tuple[Pattern, ...] = (),
        interval: float = 30.0,
        providers: CredentialProviders | None = None,
        mirrors: Iterable[Mirror] = (),
        when_down: WhenDown = WhenDown.SAME_IMAGE,
        lazy: bool = False,
    ) -> None:
        self.origin = origin
        self.store = Store(root, quota=quota, free=free, age=3600.0)
        self.client = OriginClient([origin.address], [], mirrors=mirrors)
        manifests = Manifests(root, self.client, interval=interval, stale_if_error=3600.0, when_down=when_down)
        swarm = Supernodes((), _no_hello, lambda _: None, manifests.recall)
        self.downloads = DownloadManager(self.store, swarm, self.client, SwarmKey(""))
        registry = Registry(
            self.store,
            self.downloads,
            manifests,
            Permission(),
            swarm,
            self.client,
            head_seconds,
            allow,
            providers,
            when_down,
            lazy=lazy,
        )
        self.client.on_shown = registry.shown
        self.listener = registry.listener(Address("127.0.0.1", 0))
        self.prefix = f"/v2/{origin.address.replace(':', '_')}/{REPOSITORY}"

    def __enter__(self) -> Endpoint:
        self.listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.stop()
        self.downloads.stop()
        self.client.close()
        wait_until(lambda: not self.listener._open and not self.downloads._active)
        self.downloads.threads.shutdown()
        self.store.close()

    # Clients.

    def connect(self) -> socket.socket:
        return socket.create_connection(self.listener.address, 10)

    @contextlib.contextmanager
    def asked(self, path: str, method: str = "GET", **headers: str) -> Iterator[http.client.HTTPResponse]:
        """An answer whose body is not read yet. `path` is relative to the repository unless it begins with a slash."""
        connection = http.client.HTTPConnection(*self.listener.address, timeout=10)
        try:
            target = path if path.startswith("/") else f"{self.prefix}/{path}"
            connection.request(method, target, headers={name.replace("_", "-"): value for name, value in headers.items()})
            with connection.getresponse() as answer:
                yield answer
        finally:
            connection.close()

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        with self.asked(path, method, **headers) as answer:
            return Answer(answer.status, answer.headers, answer.read())

    def say(self, *parts: bytes) -> bytes:
        """Send bytes as they are, and give all that comes back until the connection ends."""
        with self.connect() as sock:
            for part in parts:
                sock.sendall(part)
            received = bytearray()
            while data := sock.recv(1 << 20):
                received += data
            return bytes(received)

    @contextlib.contextmanager
    def reader(self, path: str, **headers: str) -> Iterator[Callable[[int], bytes]]:
        """A client that reads some bytes of a body, and leaves with a reset at the end of the block, as containerd does."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with self.connect() as sock, sock.makefile("rb") as file:
            sock.sendall(f"GET {self.prefix}/{path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
            while file.readline() not in (b"\r\n", b""):
                continue
            yield file.read
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)


def _no_hello() -> None:
    raise AssertionError("there is no supernode here")


def push(origin: Origin, *layers: bytes, tag: str = "1") -> Image:
    return origin.push(REPOSITORY, tag, Image.of(layers or (LAYER,)))


def threads_and_descriptors() -> tuple[int, int]:
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def no_more_than(before: tuple[int, int]) -> bool:
    """Whether no thread and no descriptor came since; fewer are fine, since those of an earlier test may end meanwhile."""
    return all(now <= then for now, then in zip(threads_and_descriptors(), before, strict=True))


def wait_until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "did not come about in time"
        time.sleep(0.01)


@contextlib.contextmanager
def runtime_at_node(
    node: Node, origin: Origin, head_seconds: float = HEAD_SECONDS_MAX, *, lazy: bool = False
) -> Iterator[Endpoint]:
    """The registry endpoint of a node that has supernodes, asked as a runtime asks it."""
    permission = Permission()
    registry = Registry(node.store, node.downloads, node.manifests, permission, node.swarm, node.client, head_seconds, lazy=lazy)
    node.client.on_shown = registry.shown
    endpoint = Endpoint.__new__(Endpoint)
    endpoint.listener, endpoint.origin = registry.listener(Address("127.0.0.1", 0)), origin
    endpoint.prefix = f"/v2/{origin.address.replace(':', '_')}/{REPOSITORY}"
    endpoint.listener.start()
    try:
        yield endpoint
    finally:
        endpoint.listener.stop()
