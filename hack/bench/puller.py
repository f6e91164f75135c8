"""A client that pulls an image as a container runtime does, and costs next to nothing: it throws the bytes away.

Manifest by tag, then config and layers, three at once. The bodies are received with MSG_TRUNC: the kernel counts them and copies
nothing, so that sixteen clients on one machine do not take the processor from the programs that are measured. Whoever wants
to know that the bytes were right pulls again with `checked`, which hashes them, when the clock has stopped.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from hack.lab import Host

LAYERS_AT_ONCE = 3
"""What containerd does by default."""
SILENCE_SECONDS = 60
BUFFER_BYTES = 1 << 20
_HEAD_BYTES_MAX = 64 << 10
ACCEPT = "application/vnd.oci.image.manifest.v1+json"
_nowhere = bytearray(BUFFER_BYTES)
"""Where received bytes would go if they were copied; nothing is ever written to it."""

Consume = Callable[[memoryview], None]


class PullError(Exception):
    """The pull did not bring all of the image."""


@dataclass(frozen=True)
class Door:
    """Where an image can be pulled: an agent's endpoint or a registry, as seen from the client's host."""

    address: str
    port: int
    path: str
    """Of the repository: `/v2/...`."""
    tag: str
    authorization: str = ""
    """The header's value; empty where everybody may pull."""


@dataclass
class Puller:
    """One pull on one host, in a thread of its own from `start` on."""

    host: Host
    door: Door
    checked: bool = False
    """Copy and hash every byte."""
    seconds: float | None = None
    """From the common start to the last byte of the last blob; None as long as that has not come."""
    first_byte_seconds: dict[str, float] = field(default_factory=dict)
    """By digest of the layer: from its request to its first byte."""
    error: Exception | None = None
    _sockets: list[socket.socket] = field(default_factory=list)

    def start(self, began: float) -> None:
        """`began` is when the clock was started, of time.monotonic()."""
        self._thread = threading.Thread(target=self._run, args=(began,), name=f"client-{self.host.name}")
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def abort(self) -> None:
        """Whatever it waits for, it does not any more."""
        for connection in list(self._sockets):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def _run(self, began: float) -> None:
        try:
            self._pull()
            self.seconds = time.monotonic() - began
        except (OSError, ValueError, LookupError, http.client.HTTPException, PullError) as error:
            self.error = error

    def _pull(self) -> None:
        body = bytearray()
        self._get(f"/manifests/{self.door.tag}", body.extend)
        manifest = json.loads(body)
        with ThreadPoolExecutor(LAYERS_AT_ONCE) as pool:
            list(pool.map(self._blob, [manifest["config"], *manifest["layers"]]))

    def _blob(self, part: dict[str, Any]) -> None:
        digest, hasher = part["digest"], hashlib.sha256()
        path = f"/blobs/{digest}"
        received, first_byte_seconds = self._get(path, hasher.update if self.checked else None)
        if received != part["size"]:
            raise PullError(f"{self.host.name}: {digest} ended after {received} of {part['size']} bytes")
        if self.checked and digest != f"sha256:{hasher.hexdigest()}":
            raise PullError(f"{self.host.name}: {digest} came with the digest sha256:{hasher.hexdigest()}")
        if "layer" in part["mediaType"]:
            self.first_byte_seconds[digest] = first_byte_seconds

    def _get(self, path: str, consume: Consume | None) -> tuple[int, float]:
        """The length of the body that came, and the seconds from the request to its first byte."""
        asked = time.monotonic()
        connection = self.host.connect(self.door.port, self.door.address, SILENCE_SECONDS)
        self._sockets.append(connection)
        with connection:
            head = f"GET {self.door.path}{path} HTTP/1.1\r\nHost: {self.door.address}:{self.door.port}\r\n"
            if self.door.authorization:
                head += f"Authorization: {self.door.authorization}\r\n"
            connection.sendall(f"{head}Accept: {ACCEPT}\r\nConnection: close\r\n\r\n".encode())
            length, body = _answer(connection)
            if consume:
                consume(memoryview(body))
            received = len(body)
            first_byte_seconds = time.monotonic() - asked
            buffer = memoryview(bytearray(BUFFER_BYTES) if consume else _nowhere)
            flags = 0 if consume else socket.MSG_TRUNC
            while received < length:
                count = connection.recv_into(buffer, min(length - received, BUFFER_BYTES), flags)
                if not count:
                    raise PullError(f"{self.host.name}: {path} broke off after {received} of {length} bytes")
                if not received:
                    first_byte_seconds = time.monotonic() - asked
                if consume:
                    consume(buffer[:count])
                received += count
        return received, first_byte_seconds


def _answer(connection: socket.socket) -> tuple[int, bytes]:
    """The length of the body, and what of it came together with the head. Raises PullError unless the answer is a 200."""
    said = bytearray()
    while b"\r\n\r\n" not in said:
        more = connection.recv(4096)
        if not more or len(said) > _HEAD_BYTES_MAX:
            raise PullError(f"no answer, only {bytes(said[:200])!r}")
        said += more
    head, _, body = said.partition(b"\r\n\r\n")
    first, _, fields = head.partition(b"\r\n")
    if first.split()[1] != b"200":
        raise PullError(f"{first.decode('latin-1')} {bytes(body[:400])!r}")
    return int(http.client.parse_headers(BytesIO(bytes(fields) + b"\r\n\r\n"))["Content-Length"]), bytes(body)
