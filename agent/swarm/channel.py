"""A channel: the one persistent TCP connection from a node to a supernode: frames, as both ends know them, and the node's end.

A frame is a big-endian u32 length and that many bytes of msgpack, which are one message (`agent.swarm.messages`). `Frames` reads
no socket: it is fed bytes and gives the bodies of frames. The node's end, `Channel`, comes back by itself after it was lost and
says anew what this node holds; whoever had asked something over it is told. It carries no blob bytes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

import msgspec

from agent import metrics
from agent.http.sealed import client_context
from agent.swarm import messages
from agent.swarm.tickets import SwarmKey, SwarmKeyError
from agent.swarm.tls import ProofError, SealedSocket
from agent.values import pieces
from agent.values.address import Address
from agent.values.errors import DarnerError, OriginError
from agent.values.manifest import MANIFEST_BYTES_MAX, Manifest
from agent.values.reference import raw_digest

log = logging.getLogger(__name__)

_LENGTH = struct.Struct(">I")
FRAME_BYTES_MAX = 5 << 20
"""A manifest of 4 MiB and its envelope; the holdings of a node with 100,000 blobs are 4 MB."""
CONNECT_SECONDS_MAX = 3.0
SEND_SECONDS_MAX = 5.0
HANDSHAKE_SECONDS_MAX = 20.0
"""Each wait of it. Ten thousand agents at once cost a supernode that has just started some ten seconds of a processor."""
RETRY_SECONDS_MIN = 0.2
RETRY_SECONDS_MAX = 5.0
HEARTBEATS_PER_LEASE = 3
RECEIVE_BYTES = 256 << 10
LEASE_SECONDS_MIN = 1.0
STOP_SECONDS_MAX = 2.0
LOOK_SECONDS = 0.1
"""How soon a question is given up of which nobody wants the answer any more."""

TaskListener = Callable[[messages.TaskMessage | None], None]
"""Told of every message of one swarm; None when the channel is lost."""
Recall = Callable[[messages.Recall], messages.Recalled]
"""What this node knows of a name that a supernode has lost."""
Describe = Callable[[messages.Describe, Callable[[messages.Message], None]], None]
"""Has the pieces of a blob named that this node holds whole: what there is to say, by the function that comes with it."""
Revoked = Callable[[messages.Revoked], None]
"""Told that others are refused what this node may have been told is allowed."""


# Frames.


class WireError(DarnerError):
    """The sender's fault: a frame that is too long, or bytes that are no message."""


Decoded = TypeVar("Decoded")
_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[messages.FromAgent] = msgspec.msgpack.Decoder(messages.FromAgent)
_from_supernode: msgspec.msgpack.Decoder[messages.FromSupernode] = msgspec.msgpack.Decoder(messages.FromSupernode)
_from_webhook: msgspec.msgpack.Decoder[messages.FromWebhook] = msgspec.msgpack.Decoder(messages.FromWebhook)
_to_webhook: msgspec.msgpack.Decoder[messages.ToWebhook] = msgspec.msgpack.Decoder(messages.ToWebhook)


def frame(message: messages.Message) -> bytes:
    """Raises WireError for a message that is too long to be sent."""
    body = _encoder.encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise WireError(f"{type(message).__name__} of {len(body)} bytes does not fit a frame of {FRAME_BYTES_MAX}")
    return _LENGTH.pack(len(body)) + body


def agent_message(body: bytes) -> messages.FromAgent:
    """What an agent sent. Raises WireError."""
    return _decoded(_from_agent, body)


def supernode_message(body: bytes) -> messages.FromSupernode:
    """What a supernode sent. Raises WireError."""
    return _decoded(_from_supernode, body)


def webhook_message(body: bytes) -> messages.FromWebhook:
    """What a webhook sent. Raises WireError."""
    return _decoded(_from_webhook, body)


def warm_answer(body: bytes) -> messages.ToWebhook:
    """What a supernode sent to a webhook. Raises WireError."""
    return _decoded(_to_webhook, body)


def _decoded(decoder: msgspec.msgpack.Decoder[Decoded], body: bytes) -> Decoded:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(
            f"not a message of version {messages.VERSION}: {ascii(str(error)[: messages.REASON_CHARACTERS_MAX])[1:-1]}"
        ) from None


class Frames:
    """Bytes in, bodies of frames out. Between two calls it holds at most one frame, which is not whole yet."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The bodies that `data` completes. Raises WireError as soon as a length is over the limit."""
        buffer = self._buffer
        if buffer:
            buffer += data
        whole = buffer or data
        start, end = 0, len(whole)
        try:
            while end - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(whole, start)
                if length > FRAME_BYTES_MAX:
                    raise WireError(f"a frame of {length} bytes is over the limit of {FRAME_BYTES_MAX}")
                after = start + _LENGTH.size + length
                if after > end:
                    break
                body = bytes(whole[start + _LENGTH.size : after])
                start = after
                yield body
        finally:
            if whole is buffer:
                del buffer[:start]
            else:
                buffer += whole[start:]


# The node's end.


class ChannelRefusedError(WireError):
    """The supernode has nothing to do with this agent: it speaks another version, or does not believe which node this is."""


class ChannelError(DarnerError):
    """The supernode is gone, or does not answer."""

    status = 504


class Channel:
    """The connection to one supernode."""

    def __init__(
        self,
        where: Address,
        hello: Callable[[], messages.Hello],
        on_up: Callable[[Channel], None],
        recall: Recall,
        swarm_key: SwarmKey | None = None,
        describe: Describe | None = None,
        on_revoked: Revoked = lambda _: None,
        on_down: Callable[[], None] = lambda: None,
    ) -> None:
        """All of them are called by the channel's thread. Without a key the channel is in clear, and nobody proves anything."""
        self.where = where
        self._swarm_key = swarm_key
        self._context = client_context()
        self._complaint = ""
        """As it was said last, since the channel was open."""
        self.peers: dict[int, Address] = {}
        self.fingerprints: dict[Address, bytes] = {}
        """Of the piece servers of these."""
        self.process = b""
        """Which process the supernode is: another one, after it was started anew."""
        self._takes_byte_reports = False
        self._hello = hello
        self._on_up = on_up
        self._recall = recall
        self._describe = describe
        self._on_revoked = on_revoked
        self._on_down = on_down
        self._connection: socket.socket | None = None
        self._sock: SealedSocket | socket.socket | None = None
        """The connection, once the supernode has said Welcome."""
        self._sent_at = 0.0
        self._clock_ahead: float | None = None
        """Of the monotonic clock, how much the supernode's own clock is; None when it has not told."""
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._opening: dict[int, TaskListener] = {}
        self._tasks: dict[int, TaskListener] = {}
        self._asked: dict[int, Future[messages.Resolved | messages.Unresolved | messages.Judged]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._live, name=f"channel {where}", daemon=True)

    @property
    def up(self) -> bool:
        return self._sock is not None

    @property
    def unix_seconds(self) -> float:
        """The supernode's clock now, on which tickets of its swarms count; this node's, when the supernode tells none."""
        return time.time() if self._clock_ahead is None else time.monotonic() + self._clock_ahead

    @property
    def tells_time(self) -> bool:
        """Whether the supernode has told its clock."""
        return self._clock_ahead is not None

    @property
    def takes_byte_reports(self) -> bool:
        """Whether the supernode is there and wants to be told what this node receives; one of an earlier version does not."""
        return self.up and self._takes_byte_reports

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._drop(self._connection)
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS_MAX)

    # What the rest of the agent asks.

    def resolve(self, registry: str, repository: str, reference: str, seconds: float) -> Manifest:
        """The manifest that a name means now, for whoever has no credential. Raises OriginError and ChannelError."""
        message = self._ask(lambda number: messages.Resolve(number, registry, repository, reference), seconds)
        if isinstance(message, messages.Judged):
            raise ChannelError(f"the supernode {self.where} answers something else")
        if isinstance(message, messages.Unresolved):
            raise OriginError(message.status, message.reason, message.code, retry_after=message.retry_after)
        if len(message.body) > MANIFEST_BYTES_MAX:
            raise ChannelError(f"the supernode {self.where} sent a manifest over {MANIFEST_BYTES_MAX} bytes")
        manifest = Manifest.of(message.media_type, message.body)
        if reference.startswith("sha256:") and manifest.digest != reference:
            raise ChannelError(f"the supernode {self.where} sent something else than {reference}")
        return manifest.as_stale() if message.stale else manifest

    def verdict(
        self, registry: str, repository: str, path: str, who: bytes, seconds: float, is_over: Callable[[], bool]
    ) -> messages.Judged:
        """What is known of a permission. Raises ChannelError, also as soon as `is_over`, and what that raises."""
        message = self._ask(lambda number: messages.AskVerdict(number, registry, repository, path, who), seconds, is_over)
        if not isinstance(message, messages.Judged):
            raise ChannelError(f"the supernode {self.where} answers something else")
        return message

    def _ask(
        self, question: Callable[[int], messages.Message], seconds: float, is_over: Callable[[], bool] = lambda: False
    ) -> messages.Resolved | messages.Unresolved | messages.Judged:
        number = next(self._numbers)
        answer: Future[messages.Resolved | messages.Unresolved | messages.Judged] = Future()
        with self._lock:
            self._asked[number] = answer
        try:
            self.send(question(number))
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0 and not is_over():
                with contextlib.suppress(TimeoutError):
                    return answer.result(min(left, LOOK_SECONDS))
            raise ChannelError(f"the supernode {self.where} does not answer")
        finally:
            with self._lock:
                self._asked.pop(number, None)

    def open(
        self,
        digest: str,
        registry: str,
        repository: str,
        have: int,
        readers: tuple[int, ...],
        listener: TaskListener,
        size: int = 0,
        private: bool = False,
        file: messages.OpenedFile | None = None,
    ) -> None:
        """Join a swarm; `listener` hears the answer and all that follows. Raises ChannelError."""
        number = next(self._numbers)
        with self._lock:
            self._opening[number] = listener
        held, wanted = pieces.to_bytes(have), list(readers)
        self.send(messages.Open(number, raw_digest(digest), registry, repository, held, wanted, size, private, file))

    def leave(self, listener: TaskListener) -> None:
        """Stop listening, and tell the supernode if the swarm was joined."""
        with self._lock:
            for number in [key for key, known in self._opening.items() if known == listener]:
                del self._opening[number]
            tasks = [key for key, known in self._tasks.items() if known == listener]
            for task in tasks:
                del self._tasks[task]
        for task in tasks:
            self.tell(messages.Close(task))

    def tell(self, message: messages.Message) -> None:
        """Send what has no answer. Those who listen are told of a loss of the channel anyway."""
        try:
            self.send(message)
        except ChannelError as error:
            log.debug("%s", error)

    def send(self, message: messages.Message) -> None:
        sock = self._sock
        if sock is None:
            raise ChannelError(f"the supernode {self.where} is not connected")
        try:
            with self._sending:
                sock.sendall(frame(message))
                self._sent_at = time.monotonic()
        except OSError as error:
            self._drop(sock)
            raise ChannelError(f"the supernode {self.where} is gone: {error}") from None

    # The connection's life.

    def _live(self) -> None:
        retry_seconds = RETRY_SECONDS_MIN
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                with socket.create_connection(self.where, CONNECT_SECONDS_MAX) as sock:
                    self._connection = sock
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sock.settimeout(SEND_SECONDS_MAX)
                    self._converse(self._proven(sock))
            except (OSError, DarnerError) as error:
                self._complain(error)
            if self.up and time.monotonic() - began > RETRY_SECONDS_MAX:
                retry_seconds = RETRY_SECONDS_MIN
            self._down()
            self._stopping.wait(retry_seconds * random.uniform(0.5, 1.0))
            retry_seconds = min(retry_seconds * 2, RETRY_SECONDS_MAX)

    def _complain(self, error: Exception) -> None:
        """A refusal, and a key that is not the supernode's, are said once, since nobody but the operator can mend them."""
        level = logging.INFO if self.up else logging.DEBUG
        if isinstance(error, ProofError | SwarmKeyError | ChannelRefusedError) and str(error) != self._complaint:
            self._complaint, level = str(error), logging.WARNING
        log.log(level, "no channel to the supernode %s: %s", self.where, error)

    def _proven(self, sock: socket.socket) -> SealedSocket | socket.socket:
        """The connection inside TLS, once both ends have shown the swarm's key. Raises OSError, ProofError and SwarmKeyError."""
        keys = self._swarm_key.all() if self._swarm_key else ()
        if not keys:
            return sock
        sock.settimeout(HANDSHAKE_SECONDS_MAX)
        sealed = SealedSocket(sock, self._context)
        sealed.prove(keys)
        sock.settimeout(SEND_SECONDS_MAX)
        return sealed

    def _converse(self, sock: SealedSocket | socket.socket) -> None:
        """From Hello to the end of the connection. Raises OSError, WireError and ChannelError."""
        sock.sendall(frame(self._hello()))
        inbox = Frames()
        silence_seconds = SEND_SECONDS_MAX
        heard_at = time.monotonic()
        while not self._stopping.is_set():
            try:
                data = sock.recv(RECEIVE_BYTES)
                if not data:
                    raise OSError("it closed the connection")
                heard_at = time.monotonic()
            except TimeoutError:
                if not self.up or time.monotonic() - heard_at > HEARTBEATS_PER_LEASE * silence_seconds:
                    raise OSError("it says nothing") from None
                data = b""
            if self.up and time.monotonic() - self._sent_at >= silence_seconds:
                self.send(messages.Heartbeat())
            for body in inbox.feed(data):
                message = supernode_message(body)
                if isinstance(message, messages.Refused):
                    raise ChannelRefusedError(f"it refuses this agent: {message.reason}")
                if isinstance(message, messages.Welcome) == self.up:
                    raise WireError(f"it says {type(message).__name__} {'again' if self.up else 'instead of Welcome'}")
                if isinstance(message, messages.Welcome):
                    lease_seconds = max(LEASE_SECONDS_MIN, message.lease_seconds)
                    silence_seconds = min(SEND_SECONDS_MAX, lease_seconds / HEARTBEATS_PER_LEASE)
                    sock.settimeout(silence_seconds)
                    self._welcome(sock, message)
                else:
                    self._receive(message)

    def _set_clock(self, unix_seconds: float) -> None:
        if unix_seconds:
            self._clock_ahead = unix_seconds - time.monotonic()

    def _welcome(self, sock: SealedSocket | socket.socket, message: messages.Welcome) -> None:
        self._clock_ahead = None
        self._set_clock(message.unix_seconds)
        self.peers, self.fingerprints = {}, {}
        self._know(messages.SEED, Address(message.host, message.port), message.fingerprint)
        self.process, self._takes_byte_reports = message.fingerprint, message.takes_byte_reports
        self._sent_at = time.monotonic()
        self._complaint = ""
        self._sock = sock
        metrics.SUPERNODES_CONNECTED.inc()
        log.info("channel to the supernode %s (%s) is open", message.node, self.where)
        self._on_up(self)

    def _know(self, number: int, where: Address, fingerprint: bytes) -> None:
        self.peers[number], self.fingerprints[where] = where, fingerprint

    def _receive(self, message: messages.FromSupernode) -> None:  # noqa: C901 (a table of messages)
        match message:
            case messages.Heartbeat():
                self._set_clock(message.unix_seconds)
            case messages.Peer(number, host, port, fingerprint):
                self._know(number, Address(host, port), fingerprint)
            case messages.Revoked():
                self._on_revoked(message)
            case messages.Resolved() | messages.Unresolved() | messages.Judged():
                with self._lock:
                    answer = self._asked.pop(message.request, None)
                if answer:
                    answer.set_result(message)
            case messages.Recall():
                self.send(self._recall(message))
            case messages.Task():
                with self._lock:
                    listener = self._opening.pop(message.request, None)
                    if listener:
                        self._tasks[message.task] = listener
                if listener:
                    listener(message)
                else:  # whoever asked has left meanwhile
                    self.send(messages.Close(message.task))
            case messages.TaskFailed():
                with self._lock:
                    listener = self._opening.pop(message.request, None) or self._tasks.pop(message.task, None)
                if listener:
                    listener(message)
            case messages.Seeding() if message.request:
                listener = self._opening.get(message.request)
                if listener:
                    listener(message)
            case messages.Describe():
                if self._describe:
                    self._describe(message, self.tell)
            case messages.Grant() | messages.Run() | messages.Seeding() | messages.Leave() | messages.Private():
                listener = self._tasks.get(message.task)
                if listener:
                    listener(message)

    def _drop(self, sock: SealedSocket | socket.socket | None) -> None:
        """Make the receiving thread see the end of the connection."""
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _down(self) -> None:
        if self._sock is None:
            return
        self._sock = None
        metrics.SUPERNODES_CONNECTED.dec()
        with self._lock:
            listeners = {id(listener): listener for listener in [*self._opening.values(), *self._tasks.values()]}
            waiting = list(self._asked.values())
            self._opening.clear()
            self._tasks.clear()
            self._asked.clear()
        for listener in listeners.values():
            listener(None)
        for answer in waiting:
            answer.set_exception(ChannelError(f"the supernode {self.where} is gone"))
        self._on_down()
