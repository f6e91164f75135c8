"""The control surface of a process: health and metrics, over FastAPI. No blob byte passes here.

The supernode mounts its API on the same application; the port, the thread and the orderly end are the same for both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from agent.listener import bind
from agent.settings import Address

STOP_SECONDS_MAX = 5

NotReady = Callable[[], str]
"""Why the process cannot do its work now, in words; the empty string when it can."""


def application(not_ready: NotReady) -> FastAPI:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/healthz")
    def healthz() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz")
    def readyz() -> Response:
        reason = not_ready()
        return Response(f"{reason or 'ok'}\n", status_code=503 if reason else 200, media_type="text/plain")

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


class ControlServer:
    """Serves an application in a thread of its own."""

    def __init__(self, app: FastAPI, where: Address) -> None:
        self._sock = bind(where, "control surface")
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=STOP_SECONDS_MAX, ws="none"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._sock],), name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS_MAX + 1)
        self._sock.close()
