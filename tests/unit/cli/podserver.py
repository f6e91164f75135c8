"""An API server that leads into pods: what a command prints there, what a port answers, what a container has logged.

Its half of Kubernetes' protocol over websockets (RFC 6455; v4.channel.k8s.io) is written out here, so that the client's half is
tested against something that is not itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

from hack.lab.apiserver import ApiServer, Handler

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, CLOSE, PING = 2, 8, 9
Ran = tuple[int, str, str]
"""Exit status, output, errors."""


class PodServer(ApiServer):
    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = PodHandler
        self.commands: Callable[[str, list[str]], Ran | None] = lambda pod, command: (0, "", "")
        """What a command in a pod comes to; None: the pod goes away in the middle of it."""
        self.dialogues: Callable[[str, list[str], int, int], int] = lambda pod, command, source, sink: 0
        """A command in a pod that is spoken with: it reads and writes descriptors, which it need not close."""
        self.pings = False
        """Whether it asks those who speak with a command whether they are there."""
        self.ports: dict[str, int] = {}
        """By pod, the port of this machine that stands for all of its own."""
        self.logs: dict[str, str] = {}
        self.refused_streams = 0
        """The status by which every stream is refused."""


class PodHandler(Handler):
    server: PodServer

    def do_any(self) -> None:
        target = urlsplit(self.path)
        match = re.fullmatch(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)/(exec|portforward|log)", target.path)
        if match is None:
            super().do_any()
        elif match[3] == "log":
            self.log_of(match[2])
        else:
            self.upgrade(match[2], match[3], parse_qs(target.query))

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do_any  # noqa: N815

    def log_of(self, pod: str) -> None:
        body = self.server.logs.get(pod, "").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def upgrade(self, pod: str, kind: str, query: dict[str, list[str]]) -> None:
        if self.server.refused_streams or f"/{pod}" not in " ".join(self.server.objects):
            code = self.server.refused_streams or 404
            self.answer(code, {"kind": "Status", "message": f'pods "{pod}" is not for you', "code": code})
            return
        accept = base64.b64encode(hashlib.sha1((self.headers["Sec-WebSocket-Key"] + GUID).encode()).digest()).decode()
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)):
            self.send_header(name, value)
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        self.close_connection = True
        if kind == "exec" and "stdin" in query:
            self.speak(pod, query["command"])
        elif kind == "exec":
            self.run(self.server.commands(pod, query["command"]))
        else:
            self.carry(pod, int(query["ports"][0]))

    def run(self, ran: Ran | None) -> None:
        if ran is not None:
            status, output, errors = ran
            cause = {"reason": "ExitCode", "message": str(status)}
            failed = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [cause]}}
            self.send(1, output.encode())
            self.send(2, errors.encode())
            self.send(3, json.dumps(failed if status else {"status": "Success"}).encode())
        self.frame(CLOSE, b"")

    def speak(self, pod: str, command: list[str]) -> None:
        """The command has a thread of its own, and so has what it says."""
        source, to_it = os.pipe()
        from_it, sink = os.pipe()
        ended: list[int] = []
        if self.server.pings:
            self.frame(PING, b"\x01")

        def act() -> None:
            ended.append(self.server.dialogues(pod, command, source, sink))
            os.close(sink)
            os.close(source)

        def say() -> None:
            while data := os.read(from_it, 1 << 16):
                self.send(1, data)
            os.close(from_it)
            self.run((ended[0], "", ""))

        def hear() -> None:
            with suppress(OSError, struct.error, ValueError):  # either side has left
                while message := self.received():
                    os.write(to_it, message[1:])
            os.close(to_it)

        threads = [threading.Thread(target=do) for do in (act, say, hear)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def carry(self, pod: str, port: int) -> None:
        for channel in (0, 1):
            self.send(channel, struct.pack("<H", port))
        try:
            inside = socket.create_connection(("127.0.0.1", self.server.ports.get(pod, 1)))
        except OSError as error:
            self.send(1, f"nobody listens: {error}".encode())
            self.frame(CLOSE, b"")
            return
        with inside:
            threading.Thread(target=self.inward, args=(inside,), daemon=True).start()
            while data := inside.recv(1 << 16):
                self.send(0, data)
            self.frame(CLOSE, b"")

    def inward(self, inside: socket.socket) -> None:
        try:
            while message := self.received():
                inside.sendall(message[1:])
        except (OSError, struct.error, ValueError):
            pass  # either side has left

    def send(self, channel: int, data: bytes) -> None:
        self.frame(BINARY, bytes([channel]) + data)

    def frame(self, opcode: int, payload: bytes) -> None:
        length = bytes([len(payload)]) if len(payload) < 126 else b"\x7f" + struct.pack(">Q", len(payload))
        with suppress(OSError):  # the client has left
            self.wfile.write(bytes([0x80 | opcode]) + length + payload)

    def received(self) -> bytes:
        """The payload of the client's next frame, which is masked; empty at the end."""
        first, second = self.rfile.read(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self.rfile.read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self.rfile.read(8))
        mask, payload = self.rfile.read(4), self.rfile.read(length)
        data = bytes(byte ^ mask[number % 4] for number, byte in enumerate(payload))
        return b"" if first & 0x0F == CLOSE else data
