"""The control surface of a process: health and metrics, over Starlette. No blob byte passes here.

The supernode adds its API to these routes; the port, the thread and the orderly end are the same for both. FastAPI is the
supernode's affair: it takes 17 MiB, which an agent would pay for three routes on every node.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import cast

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.http.server import bind
from agent.values.address import Address

STOP_SECONDS_MAX = 5
HEAD_SECONDS_MAX = 5.0
CONNECTION_SECONDS_MAX = 60.0
CONNECTIONS_PER_ADDRESS_MAX = 64
"""So that nobody in the cluster keeps the kubelet's probes out, or takes the descriptors that pulls need."""

NotReady = Callable[[], str]
"""Why the process cannot do its work now, in words; the empty string when it can."""


def health_routes(not_ready: NotReady) -> list[BaseRoute]:
    async def healthz(_: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def readyz(_: Request) -> Response:
        reason = not_ready()
        return Response(f"{reason or 'ok'}\n", status_code=503 if reason else 200, media_type="text/plain")

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


def application(not_ready: NotReady) -> Starlette:
    return Starlette(routes=health_routes(not_ready))


class _Connection(H11Protocol):
    """uvicorn's, with limits that it has not: on the connections of one address, on silence, and on a connection's life."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timers = (
            self.loop.call_later(HEAD_SECONDS_MAX, self._end_silence),
            self.loop.call_later(CONNECTION_SECONDS_MAX, transport.abort),
        )
        hosts = [other.client[0] for other in cast("set[H11Protocol]", self.connections) if other.client]
        if self.client and hosts.count(self.client[0]) > CONNECTIONS_PER_ADDRESS_MAX:
            transport.abort()

    def _end_silence(self) -> None:
        if self.cycle is None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self._timers:
            timer.cancel()
        super().connection_lost(exc)


class ControlServer:
    """Serves an application in a thread of its own."""

    def __init__(self, app: Starlette, where: Address) -> None:
        self._sock = bind(where, "control surface")
        config = uvicorn.Config(
            app,
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=STOP_SECONDS_MAX,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._sock],), name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS_MAX + 1)
        self._sock.close()
