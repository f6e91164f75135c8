"""What strangers say to the servers: requests for images and pieces, and the channel before and after Hello."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import time
from functools import cache
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import cast

import pytest

from agent.admin import HEALTH_LIMITS, Surface
from agent.http.sealed import Tls, client_context
from agent.http.server import ClientGone, Listener
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.swarm import messages, tickets
from agent.swarm.channel import Frames, WireError, agent_message, frame, webhook_message
from agent.swarm.piece_server import PieceServer
from agent.swarm.tickets import SwarmKey
from agent.swarm.tls import ANSWER_BYTES, ProofError
from agent.values.address import Address
from agent.values.manifest import Manifest
from agent.values.pattern import pattern
from agent.values.pieces import Layout
from hack.origin import Origin
from supernode.api import application
from supernode.node_tokens import AUDIENCE, NodeTokens, TokenError
from supernode.overview import describe
from supernode.seeder import SeedRequest
from supernode.tracker.handshake import Certified, SealedTransport
from supernode.tracker.server import ChannelServer
from tests.endpoint import Endpoint
from tests.fuzz.sockets import HERE, said
from tests.fuzz.target import Target
from tests.node_tokens import CURVE, jwks, token
from tests.tracker import LAYOUT, MANIFEST, FakeWriter, Lab, digest_of, open_nothing

KEY = bytes(range(32))
DIGEST = "sha256:" + "ab" * 32
NOW = 1_700_000_000.0
BETWEEN_BODIES = b"\xc1"
"""No message has this byte: msgpack does not use it."""
HELLO = messages.Hello(messages.VERSION, "n1", "zone-a", "10.0.0.1", 65002, 4, [messages.Holding(bytes(32), 5)], "")

_left = contextlib.ExitStack()
"""What is open until the process ends."""


@cache
def directory() -> Path:
    return Path(_left.enter_context(TemporaryDirectory(ignore_cleanup_errors=True)))


def close() -> None:
    """Nothing is left behind. The next input has everything made anew."""
    _left.close()
    for made in (directory, _registry, _pieces, _surface, _identity, _tokens, _loop):
        made.cache_clear()


def key_file() -> SwarmKey:
    file = directory() / "key"
    file.write_bytes(KEY)
    return SwarmKey(str(file))


# Requests over HTTP.


@cache
def _registry() -> Listener:
    origin = cast(Origin, SimpleNamespace(address="registry.test:5000"))
    endpoint = Endpoint(directory() / "registry", origin, allow=(pattern("nobody.test"),))

    def end() -> None:
        endpoint.downloads.stop()
        endpoint.client.close()
        endpoint.downloads.threads.shutdown()
        endpoint.store.close()
        endpoint.listener._sock.close()

    _left.callback(end)
    return endpoint.listener


def _requests(data: bytes) -> None:
    _registry()._converse(said(data))


class _OneBlob:
    """A store that holds one blob."""

    def __init__(self) -> None:
        fd = os.memfd_create("blob", os.MFD_CLOEXEC)
        os.write(fd, bytes(1000))
        self._blob = Blob(DIGEST, Layout.of(1000), fd, stored=True, whole=True)

    def arriving(self, digest: str) -> None:
        return None

    def blob(self, digest: str) -> Blob | None:
        return self._blob if digest == DIGEST else None


@cache
def _pieces() -> Listener:
    server = PieceServer(cast(Store, _OneBlob()), key_file(), clocks=lambda: (NOW,))
    listener = server.listener(Address("127.0.0.1", 0))
    _left.callback(listener._sock.close)
    return listener


def _piece_requests(data: bytes) -> None:
    _pieces()._converse(said(data))


class _Asked(asyncio.Transport):
    """A connection from this machine, whose answers are kept."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 4321), "sockname": ("127.0.0.1", 65003)})
        self.answered = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.answered += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        raise AssertionError("no other protocol is spoken there")

    def pause_reading(self) -> None:
        """There is no more to read."""

    resume_reading = pause_reading


@cache
def _surface() -> Surface:
    """The supernode's: health, metrics, the page and what may be done; nothing is done."""
    api = application(lambda: "", lambda _: {"words": "done"}, lambda *_: 0)
    surface = Surface(api, cast(socket, None), HEALTH_LIMITS)
    surface.config.load()
    surface.lifespan = surface.config.lifespan_class(surface.config)
    return surface


def _surface_requests(data: bytes) -> None:
    """Every answer is one of HTTP; what is asked wrongly is no fault inside."""

    async def converse() -> bytes:
        surface, asked = _surface(), _Asked()
        connection = surface.connection()
        connection.connection_made(asked)
        if data:  # event loops tell of no bytes in another way
            connection.data_received(data)
        tasks = surface.server_state.tasks
        while tasks and (await asyncio.wait(tasks, timeout=WAITS_SECONDS, return_when=asyncio.FIRST_COMPLETED))[0]:
            await asyncio.sleep(0)  # the next one of several requests begins
        connection.connection_lost(None)  # whoever waits for more of a body gets none
        await asyncio.gather(*tasks)
        return bytes(asked.answered)

    answered = _loop().run_until_complete(converse())
    assert not answered or answered.startswith(b"HTTP/1.1 ")
    assert b"\r\nHTTP/1.1 500 " not in answered
    assert not answered.startswith(b"HTTP/1.1 500 ")


def _ticket(data: bytes) -> None:
    shown = data.decode("latin-1")
    refused = tickets.refusal([KEY], DIGEST, [HERE], shown, [NOW])
    assert refused or shown.lstrip("0") == TICKET


TICKET = tickets.issue(KEY, DIGEST, HERE, NOW)
PIECE = f"GET /pieces/{DIGEST}/0 HTTP/1.1\r\nHost: n\r\nAuthorization: Ticket {TICKET}\r\n\r\n".encode()
MANIFEST_REQUEST = f"HEAD /v2/registry.test/team/app/manifests/{DIGEST} HTTP/1.1\r\nHost: 127.0.0.1:65001\r\n".encode()
WAITS_SECONDS = 0.05
"""A request that is not answered within that waits for more of its body."""
SURFACE = (
    b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 2,
    b"GET /api/v1/state HTTP/1.1\r\nHost: 127.0.0.1:65003\r\nOrigin: http://127.0.0.1:65003\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: n\r\nAccept: application/openmetrics-text; q=0.5\r\nAccept-Encoding: gzip\r\n\r\n",
    b"POST /api/v1/quarantine?node=n1&seconds=60&reason=a%20test HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n",
    b"POST /api/v1/forget?image=registry.test%2Fteam%2Fapp:1 HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"OPTIONS * HTTP/1.0\r\n\r\n",
)
REQUESTS = (
    b"GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1:65001\r\nAuthorization: Basic dTpw\r\n\r\n" * 2,
    MANIFEST_REQUEST + b"Accept: application/vnd.oci.image.index.v1+json, */*\r\n\r\n",
    f"GET /v2/team/app/blobs/{DIGEST}?ns=registry.test%3A5000 HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n".encode(),
    b"GET /v2/registry.test_5000/app/tags/list?n=5&last=a HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT registry.test:443 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
)


# The channel.


class _Transport(FakeWriter):
    """An agent's connection, whose bytes nobody reads."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def write(self, data: bytes) -> None:
        """Taken."""

    def get_extra_info(self, _name: str) -> tuple[str, int]:
        return "10.0.0.1", 4321


class _QuickLab(Lab):
    """The seeds of which have a piece at once."""

    def seed(self, wanted: SeedRequest) -> None:
        wanted.on_size(Blob(wanted.digest, LAYOUT, open_nothing()))
        wanted.on_piece(0, digest_of(0))

    def resolve(self, registry: str, repository: str, reference: str) -> Manifest:
        return MANIFEST


@cache
def _identity() -> Certified:
    return Certified(key_file())


@cache
def _tokens() -> NodeTokens:
    file = directory() / "node-keys"
    file.write_text(jwks(one=CURVE))
    return NodeTokens(str(file), "darner-system/darner-agent")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    _left.callback(loop.close)
    return loop


def _to_supernode(*parts: bytes, tokens: NodeTokens | None = None) -> None:
    """An agent says this to a supernode, which then tells what it knows."""

    async def converse() -> Lab:
        patch = pytest.MonkeyPatch()
        lab = _QuickLab(patch)
        lab.cached.append(CACHED)
        connection = ChannelServer(lab.tracker, None, tokens).connected()
        connection.connection_made(cast(asyncio.Transport, _Transport()))
        for part in parts:
            for start in range(0, len(part), 1 << 16):
                piece = part[start : start + (1 << 16)]
                cast(memoryview, connection.get_buffer(-1))[: len(piece)] = piece
                connection.buffer_updated(len(piece))
                await asyncio.sleep(0)
        json.dumps(describe(lab.tracker))
        lab.tracker._tick(time.monotonic())
        connection.connection_lost(None)
        lab.stop()
        patch.undo()
        return lab

    _loop().run_until_complete(converse()).join()


def _before_hello(data: bytes) -> None:
    _to_supernode(data[:3], data[3:])


def _after_hello(data: bytes) -> None:
    _to_supernode(frame(HELLO), *(len(body).to_bytes(4, "big") + body for body in data.split(BETWEEN_BODIES)))


def _frames(data: bytes) -> None:
    """Whole or byte by byte, they are the same."""
    whole, single = Frames(), Frames()
    try:
        bodies = list(whole.feed(data))
    except WireError:
        return
    assert bodies == [body for byte in data for body in single.feed(bytes([byte]))]


def _agent_message(data: bytes) -> None:
    agent_message(data)


def _webhook_message(data: bytes) -> None:
    webhook_message(data)


def _handshake(data: bytes) -> None:
    SealedTransport(cast(asyncio.Transport, _Transport()), _identity()).opened(memoryview(data))


class _Wire(_Transport):
    def __init__(self) -> None:
        super().__init__()
        self.pending = bytearray()

    def write(self, data: bytes) -> None:
        self.pending += data


def _handshake_answer(data: bytes) -> None:
    """TLS as it should be, and then anything in the place of the proof."""
    wire, agent = _Wire(), Tls(client_context(), server=False)
    supernode = SealedTransport(cast(asyncio.Transport, wire), _identity())
    agent.feed()
    while not agent.shaken:
        assert supernode.opened(memoryview(agent.pending())) == b""
        agent.feed(bytes(wire.pending))
        wire.pending.clear()
    assert supernode.opened(memoryview(agent.pending() + agent.seal(data))) == b"" or len(data) >= ANSWER_BYTES
    assert not supernode.proven


def _node_token(data: bytes) -> None:
    _tokens().check(data.decode("utf-8", "replace"), "n1")


def _signed_claims(data: bytes) -> None:
    """Claims that the cluster itself has signed, whatever they are."""
    import jwt.api_jws  # here alone: PyJWT's own way to sign what is no dictionary

    _tokens().check(jwt.api_jws.encode(data, CURVE, "ES256", {"kid": "one"}), "n1")


def _node_keys(data: bytes) -> None:
    file = directory() / "other-node-keys"
    file.write_bytes(data)
    NodeTokens(str(file), "darner-system/darner-agent").check(NODE_TOKEN, "n1")


NODE_TOKEN = token(CURVE, algorithm="ES256", exp=4_000_000_000, iat=1, nbf=1)
CLAIMS = json.dumps(
    {
        "aud": [AUDIENCE],
        "exp": 4_000_000_000,
        "iat": 1,
        "kubernetes.io": {
            "namespace": "darner-system",
            "node": {"name": "n1"},
            "pod": {"uid": "p1"},
            "serviceaccount": {"name": "darner-agent"},
        },
    }
).encode()
CACHED = b"\xab" * 32
SAID_BY_AGENTS: tuple[messages.Message, ...] = (
    messages.Heartbeat(),
    messages.Resolve(1, "registry.test", "team/app", "1"),
    messages.Open(1, bytes(32), "registry.test", "team/app", b"\x01", [0], 5),
    messages.Open(2, bytes(32), "registry.test", "team/app", b"", [0]),
    messages.Open(3, CACHED, "registry.test", "team/app", b"\x01", [0], LAYOUT.size, True),
    messages.Report(1, [messages.Done(0, 0, 5, messages.DELIVERED)], 4, [0]),
    messages.Brought(1, {0: bytes(32)}),
    messages.RunEnded(1, 0, messages.RUN_FAILED, 5),
    messages.Disputed(1),
    messages.AskLeave(1),
    messages.Close(1),
    messages.Holds(messages.Holding(bytes(32), 5), True),
    messages.Recalled(1, bytes(32), 3.5, "application/json", b"{}"),
    messages.AskVerdict(1, "registry.test", "team/app", f"blobs/{DIGEST}", bytes(32)),
)
BODIES = tuple(frame(message)[4:] for message in SAID_BY_AGENTS)
HELD = BODIES[11]
OPENED = BETWEEN_BODIES.join((BODIES[2], *BODIES[5:11]))
DISPUTED = BETWEEN_BODIES.join((HELD, BODIES[2], BODIES[6], BODIES[8], BODIES[2], BODIES[4]))

TARGETS = (
    Target("registry-requests", _requests, (ClientGone,), REQUESTS),
    Target("piece-requests", _piece_requests, (ClientGone,), (PIECE, PIECE.replace(b"/0 ", b"/0?digest ") * 2, *REQUESTS[4:])),
    Target("surface-requests", _surface_requests, (), (*SURFACE, *REQUESTS[4:])),
    Target("ticket", _ticket, (), (TICKET.encode(),)),
    Target("channel-frames", _frames, (), tuple(map(frame, (HELLO, *SAID_BY_AGENTS)))),
    Target("channel-before-hello", _before_hello, (), (frame(HELLO), frame(HELLO) + frame(SAID_BY_AGENTS[2]))),
    Target("channel-after-hello", _after_hello, (), (*BODIES, OPENED, DISPUTED)),
    Target("agent-message", _agent_message, (WireError,), (frame(HELLO)[4:], *BODIES)),
    Target(
        "webhook-message",
        _webhook_message,
        (WireError,),
        (
            frame(messages.Warm(1, "registry.test", "team/app", "1", ["amd64"]))[4:],
            frame(messages.WarmBlob("registry.test", "team/app", messages.Holding(bytes(32), 7)))[4:],
        ),
    ),
    Target("handshake", _handshake, (ProofError, ssl.SSLError), (REQUESTS[4], b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03")),
    Target("handshake-answer", _handshake_answer, (ProofError, ssl.SSLError), (bytes(ANSWER_BYTES), frame(HELLO))),
    Target("node-token", _node_token, (TokenError,), (NODE_TOKEN.encode(), token(CURVE, algorithm="ES256").encode())),
    Target("node-token-claims", _signed_claims, (TokenError,), (CLAIMS,)),
    Target("node-keys", _node_keys, (TokenError,), (jwks(one=CURVE).encode(),)),
)
