"""Thousands of agents as a supernode sees them: one connection each, and the messages of a node whose link has a given rate.

One thread and one epoll for all of them, because the machine that measures is the one that is measured. A granted piece takes the
time that it would take on the node's link, one piece after the other; then it is reported as delivered, though nothing was sent.
Lost connections come back as `agent.swarm.channel`'s do, after the same random waits.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import random
import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from agent.download.inflight import WINDOW
from agent.http.sealed import Tls, client_context, fingerprint_of
from agent.swarm import messages
from agent.swarm.channel import (
    CONNECT_SECONDS_MAX,
    HANDSHAKE_SECONDS_MAX,
    HEARTBEATS_PER_LEASE,
    RETRY_SECONDS_MAX,
    RETRY_SECONDS_MIN,
    Frames,
    frame,
    supernode_message,
)
from agent.swarm.tls import CHALLENGE_BYTES, PROOF_BYTES, answer
from agent.values.address import Address

RECEIVE_BYTES = 64 << 10
NODES_PER_ADDRESS = 200
"""No more say Hello at once from one address."""
EVENTS_MAX = 1024


class CrowdError(Exception):
    """The supernode did not do what an agent may expect."""


@dataclass(frozen=True)
class Errand:
    """What all of them want."""

    digest: bytes
    registry: str
    repository: str
    piece_seconds: float
    """How long a piece takes on a node's own link; 0 reports it at once."""
    window: int = WINDOW


class Member:
    """One node."""

    __slots__ = (
        *("answered", "came", "count", "early", "fd", "frames", "free_at", "held", "name", "proven", "retry_seconds", "sock"),
        *("source", "task", "tls", "welcome"),
    )

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source
        """The address that it connects from."""
        self.came = False
        self.sock: socket.socket | None = None
        self.fd = -1
        self.fresh()
        self.welcome: messages.Welcome | None = None
        self.task = 0
        self.count = 0
        """Pieces of the blob."""
        self.held = 0
        """How many of them it has."""
        self.free_at = 0.0
        """When its link has brought what was granted so far."""
        self.retry_seconds = RETRY_SECONDS_MIN

    def fresh(self) -> None:
        """Nothing has been said yet."""
        self.frames = Frames()
        self.tls: Tls | None = None
        self.early = b""
        self.answered = self.proven = False

    @property
    def done(self) -> bool:
        return self.task != 0 and self.held == self.count


class Crowd:
    """Use it as a context manager: at the end every connection is closed."""

    def __init__(self, supernode: Address, nodes: int, errand: Errand, key: bytes = b"") -> None:
        """Without a key of the swarm they speak in clear."""
        self._supernode = supernode
        self._key = key
        self._context = client_context()
        self._errand = errand
        self.members = [Member(f"node-{number}", f"127.1.0.{1 + number // NODES_PER_ADDRESS}") for number in range(nodes)]
        self.welcomed = self.done = self.delivered = 0
        self.sent: Counter[str] = Counter()
        """Messages to the supernode, by their kind."""
        self.heard: Counter[str] = Counter()
        self._epoll = select.epoll()
        self._by_fd: dict[int, Member] = {}
        self._due: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._booked = itertools.count()
        self._beating = False

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *exception: object) -> None:
        for member in self.members:
            self._close(member)
        self._epoll.close()

    # What the measurement asks for.

    def connect(self, seconds_max: float) -> None:
        """All of them come at once, or after the waits that they are in; until all have been welcomed."""
        for member in self.members:
            if not member.came:
                member.came = True
                self._connect(member)
        self._run(lambda: self.welcomed == len(self.members), seconds_max)

    def open(self, seconds_max: float) -> None:
        """All of them open the blob; until all have all of it."""
        for member in self.members:
            errand = self._errand
            self._say(member, messages.Open(1, errand.digest, errand.registry, errand.repository, b"", [0]))
        self._run(lambda: self.done == len(self.members), seconds_max)

    def beat(self, seconds: float) -> None:
        """Nothing but heartbeats, each node's at its own moment."""
        self._beating = True
        for member in self.members:
            self._book(random.uniform(0.0, self._beat_seconds(member)), self._beat, member)
        end = time.monotonic() + seconds
        self._run(lambda: time.monotonic() >= end, seconds + 1.0)
        self._beating = False

    def lost(self) -> None:
        """The supernode is gone: wait until every connection has noticed, which sets the times of their return."""
        self._run(lambda: self.welcomed == 0, 30.0)

    # The loop.

    def _run(self, until: Callable[[], bool], seconds_max: float) -> None:
        end = time.monotonic() + seconds_max
        due = self._due
        while not until():
            now = time.monotonic()
            if now > end:
                raise CrowdError(f"not done after {seconds_max:g} s: {self.welcomed} welcomed, {self.done} done")
            while due and due[0][0] <= now:
                _, _, do, arguments = heapq.heappop(due)
                do(*arguments)
            wait = min(max(due[0][0] - time.monotonic(), 0.0), 0.1) if due else 0.1
            for fd, events in self._epoll.poll(wait, EVENTS_MAX):
                member = self._by_fd[fd]
                try:
                    if events & select.EPOLLOUT:
                        self._connected(member)
                    else:
                        self._receive(member)
                except OSError:
                    self._lost(member)

    def _book(self, seconds: float, do: Callable[..., None], *arguments: object) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._booked), do, arguments))

    # Connections.

    def _connect(self, member: Member) -> None:
        sock = member.sock = socket.socket()
        member.fd = sock.fileno()
        self._by_fd[member.fd] = member
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: the port is taken when the connection is made
        sock.bind((member.source, 0))
        if sock.connect_ex(self._supernode) not in (0, errno.EINPROGRESS):
            self._lost(member)
            return
        self._epoll.register(member.fd, select.EPOLLOUT)
        self._book(CONNECT_SECONDS_MAX + HANDSHAKE_SECONDS_MAX, self._give_up, member, sock)

    def _give_up(self, member: Member, sock: socket.socket) -> None:
        if member.sock is sock and member.welcome is None:
            self._lost(member)

    def _connected(self, member: Member) -> None:
        assert member.sock is not None
        problem = member.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            raise OSError(problem, "not connected")
        member.sock.setblocking(True)  # what is sent is small, and is only read when there is something
        self._epoll.modify(member.fd, select.EPOLLIN)
        if self._key:
            member.tls = Tls(self._context, server=False)
            self._opened(member, member.tls, b"")
        else:
            self._greet(member)

    def _greet(self, member: Member) -> None:
        self._say(member, messages.Hello(messages.VERSION, member.name, "", member.source, 65002, 0, []))

    def _opened(self, member: Member, tls: Tls, data: bytes) -> bytes:
        """What the supernode says in `data`, once both have shown the key."""
        assert member.sock is not None
        said = tls.feed(data)
        member.sock.sendall(tls.pending())
        if member.proven:
            return said
        member.early += said
        if not member.answered and len(member.early) >= CHALLENGE_BYTES:
            challenge, member.early = member.early[:CHALLENGE_BYTES], member.early[CHALLENGE_BYTES:]
            ours = random.randbytes(CHALLENGE_BYTES)
            member.sock.sendall(tls.seal(answer([self._key], challenge, ours, fingerprint_of(tls.certificate()))))
            member.answered = True
        if member.answered and len(member.early) >= PROOF_BYTES:
            member.proven = True
            self._greet(member)
            return member.early[PROOF_BYTES:]
        return b""

    def _lost(self, member: Member) -> None:
        self._close(member)
        wait = member.retry_seconds * random.uniform(0.5, 1.0)
        member.retry_seconds = min(member.retry_seconds * 2, RETRY_SECONDS_MAX)
        self._book(wait, self._connect, member)

    def _close(self, member: Member) -> None:
        if member.sock is None:
            return
        member.sock.close()  # which takes it out of the epoll as well
        del self._by_fd[member.fd]
        member.sock, member.fd = None, -1
        member.fresh()
        self.welcomed -= member.welcome is not None
        member.welcome = None

    # Messages.

    def _say(self, member: Member, *said: messages.Message) -> None:
        for message in said:
            self.sent[type(message).__name__] += 1
        if member.sock is not None:
            try:
                data = b"".join(map(frame, said))
                member.sock.sendall(member.tls.seal(data) if member.tls else data)
            except OSError:
                self._lost(member)

    def _receive(self, member: Member) -> None:
        assert member.sock is not None
        data = member.sock.recv(RECEIVE_BYTES)
        if not data:
            raise OSError("closed by the supernode")
        if member.tls:
            data = self._opened(member, member.tls, data)
        for body in member.frames.feed(data):
            self._hear(member, supernode_message(body))

    def _hear(self, member: Member, message: messages.FromSupernode) -> None:
        self.heard[type(message).__name__] += 1
        match message:
            case messages.Grant(_, pieces):
                self._granted(member, pieces)
            case messages.Run(number, first):  # what an origin gives is not what is measured: the supernode asks it
                self._say(member, messages.RunEnded(number, first, messages.RUN_REFUSED))
            case messages.Welcome():
                member.welcome = message
                member.retry_seconds = RETRY_SECONDS_MIN
                self.welcomed += 1
            case messages.Task(_, number, size, length):
                member.task, member.count = number, -(-size // length)
                self._say(member, messages.Report(number, [], min(self._errand.window, member.count), [0]))
            case messages.TaskFailed(_, _, status, reason):
                raise CrowdError(f"{member.name} cannot have the blob: {status} {reason}")
            case messages.Refused(reason):
                raise OSError(reason)

    def _granted(self, member: Member, pieces: list[messages.Granted]) -> None:
        if not self._errand.piece_seconds:
            self._deliver(member, [messages.Done(granted.piece, granted.source, 1, messages.DELIVERED) for granted in pieces])
            return
        now = time.monotonic()
        for granted in pieces:
            member.free_at = max(member.free_at, now) + self._errand.piece_seconds
            seconds = member.free_at - now
            done = messages.Done(granted.piece, granted.source, ceil(seconds * 1000), messages.DELIVERED)
            self._book(seconds, self._deliver, member, [done])

    def _deliver(self, member: Member, done: list[messages.Done]) -> None:
        member.held += len(done)
        self.delivered += len(done)
        missing = member.count - member.held
        report = messages.Report(member.task, done, min(self._errand.window, missing), [member.held] if missing else [])
        if missing:
            self._say(member, report)
            return
        self.done += 1
        self._say(member, report, messages.Close(member.task))

    def _beat(self, member: Member) -> None:
        if self._beating:
            self._say(member, messages.Heartbeat())
            self._book(self._beat_seconds(member), self._beat, member)

    def _beat_seconds(self, member: Member) -> float:
        assert member.welcome is not None
        return member.welcome.lease_seconds / HEARTBEATS_PER_LEASE
