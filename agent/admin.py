"""Health and metrics of a process, and the one home of ASGI: each listener that uvicorn serves is a `Surface` with limits.

An agent and a supernode serve one of them in a thread of its own (`ControlServer`), the webhook serves two in its event loop. The
supernode adds its API to the health routes, and the webhook's admission is an application of its own. FastAPI is their affair: it
takes 17 MiB, which an agent would pay for four routes on every node. No blob byte passes here.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from socket import socket
from typing import Any, cast

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.http.server import bind
from agent.values.address import Address
from agent.values.reference import InvalidReference, Reference

log = logging.getLogger(__name__)

BACKLOG_MAX = 128
"""Connections that wait to be accepted; so many are tried at a time, and without a free descriptor each try is an error."""
HOST_CHARACTERS_MAX = 100
"""Of the name by which a client calls this machine, in a line of ours."""
COMPLAINT_SECONDS = 10.0
"""Between two lines that say so."""
TLS_SECONDS_MAX = 5.0
"""For a client to begin TLS and agree on keys; asyncio's own 60 s are for the Internet."""
STOP_SECONDS_MAX = 1
"""For the thread to end, beyond what the requests under way get."""


@dataclass(frozen=True)
class SurfaceLimits:
    """Of one listener."""

    connections_max: int
    connections_per_address_max: int
    head_seconds_max: float
    """For the first byte of a connection to the last one of a request's head."""
    idle_seconds_max: int
    """Between two requests."""
    connection_seconds_max: float | None
    """For all of a connection, so that a slow reader does not keep it. None where clients keep theirs for hours."""
    drain_seconds_max: int
    """For requests under way when the process ends."""


HEALTH_LIMITS = SurfaceLimits(
    connections_max=512,
    # A kubelet and a Prometheus have one each. Nobody in the cluster keeps them out, or takes the descriptors that pulls need.
    connections_per_address_max=64,
    head_seconds_max=5.0,
    idle_seconds_max=5,
    connection_seconds_max=60.0,
    drain_seconds_max=5,
)


NotReady = Callable[[], str | None]
"""Why the process cannot do its work now, in words; nothing when it can."""


def health_routes(not_ready: NotReady) -> list[BaseRoute]:
    async def healthz(_: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def readyz(_: Request) -> Response:
        reason = not_ready()
        return Response(f"{reason or 'ok'}\n", status_code=503 if reason else 200, media_type="text/plain")

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


MayAsk = Callable[[asyncio.BaseTransport], bool]
"""Whether a connection, whose TLS handshake is over, is that of a caller who is answered."""

Forget = Callable[[str, str, str], int]
"""Drops the last answers about a registry, a repository and a tag, and says how many there were."""


def from_this_machine(request: Request) -> bool:
    """Only on this machine has a connection one address at both ends: over loopback, or at the node's own address.

    The system drops packets from elsewhere that claim to come from an address of its own. In a pod, `kubectl exec` and
    `kubectl port-forward` come from there, with the rights that Kubernetes gives for them.
    """
    here = request.scope.get("server")
    return request.client is not None and here is not None and request.client.host == here[0]


def may_act(request: Request) -> bool:
    """Who changes something here: a process on this machine, and no page of the Internet in the browser of a person who has a
    port-forward open. A browser says in every request to another site whose page it is from (Fetch standard, `Origin`).
    """
    return from_this_machine(request) and not any(name in request.headers for name in ("origin", "sec-fetch-site"))


def forget_route(forget: Forget) -> Route:
    """`POST /api/v1/forget?image=NAME`, by which a person on this machine has a tag asked for anew (`cli.forget`)."""

    def handle(request: Request) -> Response:
        if not may_act(request):
            return Response("only a process on this machine, and no browser, may say what is to be forgotten\n", status_code=403)
        try:
            name = Reference.parse(request.query_params.get("image", ""))
        except InvalidReference as error:
            return Response(f"{error}\n", status_code=error.status)
        if name.digest:
            return Response("a digest always means the same; name a tag\n", status_code=400)
        count = forget(name.registry, name.repository, name.tag or "latest")
        log.info("%d answers about %s are forgotten", count, name)
        return Response(f"{count} answers about {name} are forgotten\n")

    return Route("/api/v1/forget", handle, methods=["POST"])


def state_refusal(request: Request) -> str:
    """Why the state is not shown to whoever asks; "" when it is.

    A page of the Internet may have a name that it turns into 127.0.0.1 once it is loaded: the browser of a person with an open
    port-forward would let that page read what is answered here. It says that name as the host.
    """
    if not from_this_machine(request):
        return "the state is shown on this machine alone; use kubectl port-forward"
    host = request.url.hostname or ""
    if host != "localhost":
        try:
            ip_address(host)
        except ValueError:
            return f"the state is not shown as {host[:HOST_CHARACTERS_MAX]!a}; say localhost"
    return ""


def state_route(describe: Callable[[], dict[str, Any]]) -> Route:
    """`GET /api/v1/state`: what is going on in this process, as JSON; for this machine alone, as names of images are in it."""

    def handle(request: Request) -> Response:
        if refusal := state_refusal(request):
            return JSONResponse({"error": refusal}, status_code=403)
        return JSONResponse(describe())

    return Route("/api/v1/state", handle, methods=["GET"])


def application(not_ready: NotReady, *more: BaseRoute) -> Starlette:
    return Starlette(routes=[*health_routes(not_ready), *more])


_MAY_BEGIN_AN_ANSWER = ("IDLE", "SEND_RESPONSE")
"""States of h11's."""


class _Connection(H11Protocol):
    """uvicorn's, with limits that it has not: on connections, in all and of one address, on a head's time, and on a connection's.

    Its own timer runs between two requests only: a silent connection, or half a head, would be held for ever.
    """

    _head_end: float | None = None
    _life: asyncio.TimerHandle | None = None

    @property
    def _limits(self) -> SurfaceLimits:
        return cast("_Config", self.config).limits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._is_one_too_many() or not cast("_Config", self.config).may_ask(transport):
            transport.abort()
            return
        if self._limits.connection_seconds_max is not None:
            self._life = self.loop.call_later(self._limits.connection_seconds_max, transport.abort)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._head_end = None
        else:
            self._expect_head()

    def send_400_response(self, msg: str) -> None:
        """Also while an earlier request is being answered, or was before its body came.

        Nobody is sent more of that answer, and no traceback is logged.
        """
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if str(self.conn.our_state) in _MAY_BEGIN_AN_ANSWER:
            super().send_400_response(msg)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        if self._life:
            self._life.cancel()

    def _is_one_too_many(self) -> bool:
        if len(self.connections) > self._limits.connections_max:
            return True
        host = self.client and self.client[0]
        others = cast("set[H11Protocol]", self.connections)
        from_here = sum(1 for other in others if other.client and other.client[0] == host)
        return from_here > self._limits.connections_per_address_max

    def _expect_head(self) -> None:
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self._head_end = self._head_end or self.loop.time() + self._limits.head_seconds_max
            self.timeout_keep_alive_task = self.loop.call_at(self._head_end, self.timeout_keep_alive_handler)


class _Config(uvicorn.Config):
    def __init__(
        self, app: Callable[..., Any], limits: SurfaceLimits, context: ssl.SSLContext | None, may_ask: MayAsk | None
    ) -> None:
        super().__init__(
            app,
            http=_Connection,
            ssl_context_factory=(lambda _config, _default: context) if context else None,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,  # who asks is who is connected
            backlog=BACKLOG_MAX,
            timeout_keep_alive=limits.idle_seconds_max,
            timeout_graceful_shutdown=limits.drain_seconds_max,
        )
        self.limits = limits
        self.may_ask = may_ask or (lambda _: True)


class Surface(uvicorn.Server):
    """An application on a socket that is bound already; over TLS with a context, whose certificate may be swapped at any time.

    `serve` runs until `should_exit` is set, and closes the socket.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        sock: socket,
        limits: SurfaceLimits = HEALTH_LIMITS,
        context: ssl.SSLContext | None = None,
        may_ask: MayAsk | None = None,
    ) -> None:
        super().__init__(_Config(app, limits, context, may_ask))
        self.limits = limits
        self.sock = sock

    @property
    def address(self) -> Address:
        host, port = self.sock.getsockname()[:2]
        return Address(host, port)

    async def serve(self, sockets: list[socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(AcceptComplaints())
        await super().serve(sockets or [self.sock])

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """As uvicorn's own, which says nothing of how long TLS may take."""

        loop, tls = asyncio.get_running_loop(), self.config.ssl
        seconds, backlog = TLS_SECONDS_MAX if tls else None, self.config.backlog
        self.servers = [
            await loop.create_server(self.connection, sock=sock, ssl=tls, backlog=backlog, ssl_handshake_timeout=seconds)
            for sock in sockets or [self.sock]
        ]
        self.started = True

    def connection(self) -> _Connection:
        return _Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's, which may have several surfaces and more to end than these."""
        yield


class AcceptComplaints:
    """What an event loop has to say: that it cannot accept connections is one line and not thousands of tracebacks a second.

    For each connection that it could not accept it listens anew a second later, which fails as often when the listener has been
    closed in that second; that is no news at all.
    """

    def __init__(self) -> None:
        self._said = -COMPLAINT_SECONDS

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, ValueError) and "_start_serving" in context.get("message", ""):
            return
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            loop.default_exception_handler(context)
        elif loop.time() - self._said >= COMPLAINT_SECONDS:
            self._said = loop.time()
            log.error("no more connections are accepted for the moment: %s", error.strerror)


class ControlServer:
    """A surface in a thread of its own, for a process whose work is not in an event loop."""

    def __init__(self, app: Starlette, where: Address, limits: SurfaceLimits = HEALTH_LIMITS) -> None:
        self.surface = Surface(app, bind(where, "control surface"), limits)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.surface.should_exit = True
        self._thread.join(self.surface.limits.drain_seconds_max + STOP_SECONDS_MAX)
        self.surface.sock.close()

    def _run(self) -> None:
        asyncio.run(self.surface.serve())
