"""Three ways into a pod through the API server: a command in it, one that is spoken with, and one of its ports.

All are websockets, with Kubernetes' channels in them: the first byte of each message says which one it is for
(v4.channel.k8s.io). The kubernetes client makes the connection, with the kubeconfig's authorities, certificates and proxies.
"""

from __future__ import annotations

import json
import re
import select
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

import websocket
from kubernetes import client
from kubernetes.stream.ws_client import create_websocket

from cli.errors import ClusterUnreachable, CommandError, ExitCode, NotAllowed, NotThere, TimedOut

PROTOCOL = "v4.channel.k8s.io"
CONNECT_SECONDS_MAX = 10.0
OUTPUT_BYTES_MAX = 64 << 20
WORDS_MAX = 500
"""Characters of what a stranger says, in one line of ours."""
CHUNK_BYTES = 1 << 16
SEND_SECONDS_MAX = 120.0
"""How long a command may take nothing of what it is sent."""
DATA_FRAMES = websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY
STDIN, STDOUT, STDERR, RESULT = 0, 1, 2, 3
"""Channels of a command."""
DATA, FAILURE = 0, 1
"""Channels of a port."""

# The client has no way to say so for one connection. Nothing else in this process uses websockets.
websocket.setdefaulttimeout(CONNECT_SECONDS_MAX)


class Executed(NamedTuple):
    """How a command in a pod ended."""

    status: int
    output: str
    errors: str

    def ended_well(self, what: str) -> str:
        """Its output. Raises CommandError, with the command's last line, if its status is not 0."""
        if self.status == 0:
            return self.output
        lines = (self.errors or self.output).strip().splitlines()
        said = lines[-1] if lines else "it said nothing"
        timed_out = self.status == ExitCode.TIMED_OUT
        raise (TimedOut if timed_out else CommandError)(f"{what} ended with status {self.status}: {said}")


class Forward:
    """A connection to a port of a pod, to be used with `with`. A thread carries it, until either side closes."""

    def __init__(self, opened: Any) -> None:
        self.socket, self._inside = socket.socketpair()
        self.error = ""
        """What the node says of it, such as that nobody listens."""
        self._opened = opened
        self._thread = threading.Thread(target=self._carry, name="port-forward", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self._thread.join(CONNECT_SECONDS_MAX)

    def _carry(self) -> None:
        begun: set[int] = set()
        try:
            while True:
                if not _is_waiting(self._opened.sock):
                    ready, _, _ = select.select([self._opened.sock, self._inside], [], [])
                    if self._inside in ready:
                        data = self._inside.recv(CHUNK_BYTES)
                        if not data:
                            return
                        self._opened.send_binary(bytes([DATA]) + data)
                    if self._opened.sock not in ready:
                        continue
                opcode, message = self._opened.recv_data()
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    return
                if message and message[0] not in begun:
                    begun.add(message[0])  # the first message of a channel is the number of its port
                elif message[:1] == bytes([DATA]):
                    self._inside.sendall(message[1:])
                else:
                    self.error += " ".join(message[1:].decode(errors="replace").split())[:WORDS_MAX]
        except (OSError, websocket.WebSocketException):
            pass  # either side has left
        finally:
            self._inside.close()
            self._opened.shutdown()


class Dialogue:
    """A command in a pod that is spoken with, to be used with `with`: it is sent bytes, and answers in lines."""

    def __init__(self, opened: Any, who: str, command: str) -> None:
        self._opened, self._who, self._command = opened, who, command
        self._output = {STDOUT: bytearray(), STDERR: bytearray(), RESULT: bytearray()}
        self._has_ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.shutdown()

    def interrupt(self) -> None:
        """From any thread: for whoever speaks here, the command has ended."""
        with suppress(OSError):
            socket.socket.shutdown(self._opened.sock, socket.SHUT_RDWR)  # not TLS' own, which is the speaking thread's

    def send(self, data: bytes) -> bool:
        """Whether it went. What the command has said meanwhile, or that it has ended, goes before. Raises CommandError."""
        while not self._has_ended and (_is_waiting(self._opened.sock) or select.select([self._opened.sock], [], [], 0)[0]):
            self._hear(SEND_SECONDS_MAX)
        if self._has_ended or self._output[STDOUT]:
            return False
        self._opened.settimeout(SEND_SECONDS_MAX)
        try:
            self._opened.send_binary(bytes([STDIN]) + data)
        except (websocket.WebSocketTimeoutException, TimeoutError):
            raise TimedOut(f"`{self._command}` in {self._who} takes nothing any more; try again") from None
        except (OSError, websocket.WebSocketException):
            self._has_ended = True
        return not self._has_ended

    def line(self, seconds: float) -> bytes:
        """The command's next line. Raises CommandError where it ends without one, and TimedOut."""
        deadline = time.monotonic() + seconds
        output = self._output[STDOUT]
        while b"\n" not in output:
            if self._has_ended:
                raise self._ended()
            self._hear(deadline - time.monotonic())
        line, _, rest = bytes(output).partition(b"\n")
        output[:] = rest
        return line

    def _hear(self, seconds: float) -> None:
        self._opened.settimeout(max(0.001, seconds))
        try:
            opcode, message = self._opened.recv_data(control_frame=True)  # else a ping would be waited behind
        except (websocket.WebSocketTimeoutException, TimeoutError):
            raise TimedOut(f"`{self._command}` did not answer in {self._who} in time; try again") from None
        except (OSError, websocket.WebSocketException):
            opcode, message = websocket.ABNF.OPCODE_CLOSE, b""
        self._has_ended = self._has_ended or opcode == websocket.ABNF.OPCODE_CLOSE
        if opcode in DATA_FRAMES and message and message[0] in self._output and not self._has_ended:
            self._output[message[0]] += message[1:]
            if sum(map(len, self._output.values())) > OUTPUT_BYTES_MAX:
                raise CommandError(f"`{self._command}` in {self._who} printed more than {OUTPUT_BYTES_MAX >> 20} MiB")

    def _ended(self) -> CommandError:
        status = _status(bytes(self._output[RESULT]), self._who)
        said = self._output[STDERR].decode(errors="replace").strip().splitlines() or ["it said nothing"]
        return CommandError(f"`{self._command}` in {self._who} ended with status {status}: {said[-1][:WORDS_MAX]}")


class Streams:
    def __init__(self, configuration: client.Configuration) -> None:
        self._configuration = configuration

    def execute(self, namespace: str, pod: str, command: list[str], container: str, seconds: float) -> Executed:
        who = f"pod {namespace}/{pod}"
        query = [("stdout", "true"), ("stderr", "true"), *(("command", word) for word in command)]
        query += [("container", container)] if container else []
        opened = self._opened(namespace, pod, "exec", query)
        try:
            return _to_its_end(opened, who, " ".join(command), time.monotonic() + seconds)
        finally:
            opened.shutdown()

    def dialogue(self, namespace: str, pod: str, command: list[str], container: str) -> Dialogue:
        query = [("stdin", "true"), ("stdout", "true"), ("stderr", "true"), *(("command", word) for word in command)]
        query += [("container", container)] if container else []
        opened = self._opened(namespace, pod, "exec", query)
        return Dialogue(opened, f"pod {namespace}/{pod}", " ".join(command))

    def forward(self, namespace: str, pod: str, port: int) -> Forward:
        opened = self._opened(namespace, pod, "portforward", [("ports", str(port))])
        opened.settimeout(None)  # a browser's connection may be idle
        return Forward(opened)

    def _opened(self, namespace: str, pod: str, what: str, query: Sequence[tuple[str, str]]) -> Any:
        who = f"pod {namespace}/{pod}"
        configuration = self._configuration
        host = re.sub("^http", "ws", configuration.host)
        url = f"{host}/api/v1/namespaces/{namespace}/pods/{pod}/{what}?{urlencode(query)}"
        tokens: Any = configuration.auth_settings()
        headers = {token["key"]: token["value"] for token in tokens.values()} | {"sec-websocket-protocol": PROTOCOL}
        try:
            return create_websocket(configuration, url, headers)  # type: ignore[no-untyped-call]
        except websocket.WebSocketBadStatusException as error:
            raise _refusal(error, who) from None
        except (OSError, websocket.WebSocketException) as error:
            raise ClusterUnreachable(f"the API server was not reached about {who}: {' '.join(str(error).split())}") from None


def _is_waiting(sock: Any) -> bool:
    """Whether TLS has decrypted more than was read, which no `select` tells."""
    pending = getattr(sock, "pending", None)
    return bool(pending and pending())


def _to_its_end(opened: Any, who: str, command: str, deadline: float) -> Executed:
    output = {STDOUT: bytearray(), STDERR: bytearray(), RESULT: bytearray()}
    while True:
        left = deadline - time.monotonic()
        opened.settimeout(max(0.001, left))
        try:
            opcode, message = opened.recv_data()
        except (websocket.WebSocketTimeoutException, TimeoutError):
            raise TimedOut(f"`{command}` did not end in {who} in time; try again") from None
        except (OSError, websocket.WebSocketException):
            break
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            break
        if message and message[0] in output:
            output[message[0]] += message[1:]
        if sum(map(len, output.values())) > OUTPUT_BYTES_MAX:
            raise CommandError(f"`{command}` in {who} printed more than {OUTPUT_BYTES_MAX >> 20} MiB")
    status = _status(bytes(output[RESULT]), who)
    return Executed(status, output[STDOUT].decode(errors="replace"), output[STDERR].decode(errors="replace"))


def _status(result: bytes, who: str) -> int:
    """The exit status, from the Status object that ends a command."""
    try:
        document = json.loads(result)
    except ValueError:
        raise CommandError(f"{who} went away while a command ran in it; try again") from None
    if document.get("status") == "Success":
        return 0
    for cause in (document.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise CommandError(f"no command can run in {who}: {' '.join(str(document.get('message')).split())}")


def _refusal(error: websocket.WebSocketBadStatusException, who: str) -> CommandError:
    body = (error.resp_body or b"").decode(errors="replace")
    with suppress(ValueError, LookupError, TypeError):  # what is no Status object comes from a proxy in between
        body = json.loads(body)["message"]
    said = " ".join(str(body).split())[:WORDS_MAX]
    if error.status_code == 401:
        return ClusterUnreachable("the cluster does not accept these credentials (401): they are expired or wrong; log in anew")
    if error.status_code == 403:
        return NotAllowed(f"Kubernetes does not allow it: {said}")
    if error.status_code == 404:
        return NotThere(f"{who} is not there any more")
    return CommandError(f"{who} cannot be connected to (status {error.status_code}): {said}")
