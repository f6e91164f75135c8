"""One file of a web server on all nodes at once, asked for at the agents' sockets as `darner get` does.

The server is the registry of the lab, which gives blobs by their URL like any other file, with an entity tag and ranges; nobody
says their digest.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from dataclasses import dataclass
from io import BytesIO
from urllib.parse import quote

from hack.bench.figures import BY_NAME, Measured
from hack.bench.puller import BUFFER_BYTES, SILENCE_SECONDS, PullError
from hack.bench.scenario import Options, Tell
from hack.bench.site import REPOSITORY, Plan, bound_seconds, site

HEAD_BYTES_MAX = 64 << 10


@dataclass
class FileClient:
    """One node's, which throws the bytes away, in a thread of its own from `start` on."""

    path: str
    """Of the agent's socket."""
    url: str
    size: int
    seconds: float | None = None
    error: Exception | None = None

    def start(self, began: float) -> None:
        self._thread = threading.Thread(target=self._run, args=(began,), name=f"client-{self.path}")
        self._thread.start()

    def join(self) -> float:
        """How long it took. Raises PullError."""
        self._thread.join()
        if self.seconds is None:
            raise PullError(f"{self.path}: {self.error}") from self.error
        return self.seconds

    def _run(self, began: float) -> None:
        try:
            self._get()
            self.seconds = time.monotonic() - began
        except (OSError, ValueError, LookupError, http.client.HTTPException, PullError) as error:
            self.error = error

    def _get(self) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SILENCE_SECONDS)
            connection.connect(self.path)
            target = f"/v1/file?url={quote(self.url, safe='')}"
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            said = bytearray()
            while b"\r\n\r\n" not in said and len(said) < HEAD_BYTES_MAX and (more := connection.recv(4096)):
                said += more
            head, _, body = said.partition(b"\r\n\r\n")
            first, _, fields = head.partition(b"\r\n")
            length = int(http.client.parse_headers(BytesIO(bytes(fields) + b"\r\n\r\n")).get("Content-Length") or 0)
            if b" 200 " not in first or length != self.size:
                raise PullError(f"{first.decode('latin-1')} {bytes(body[:400])!r}")
            received, buffer = len(body), memoryview(bytearray(BUFFER_BYTES))
            while received < length:
                count = connection.recv_into(buffer)
                if not count:
                    raise PullError(f"it broke off after {received} of {length} bytes")
                received += count


def files(name: str, plan: Plan, options: Options, tell: Tell) -> list[Measured]:
    ratios, sent = [], []
    with site(plan) as place:
        for number in range(options.rounds):
            image, _ = place.new_image()
            (digest,) = image.layers
            size = plan.image_bytes
            url = f"http://{place.registry.name}/v2/{REPOSITORY}/blobs/{digest}"
            place.wait_until_connected()
            clients = [FileClient(str(place.socket_of(agent.host)), url, size) for agent in place.agents]
            began = time.monotonic()
            for client in clients:
                client.start(began)
            slowest = max(client.join() for client in clients)
            ratios.append(slowest / bound_seconds(size, plan.nodes, plan.rate, plan.rate))
            sent.append(place.origin_sent(image) / size)
            tell(f"{name}, round {number + 1}: {ratios[-1]:.3f}, the server sent {sent[-1]:.3f} files")
    return [Measured(BY_NAME[name], ratios), Measured(BY_NAME["origin-egress"], sent, {}, name)]
