"""The supernode's HTTP API: what is going on, for people and programs. Health and metrics are the same as the agent's.

GET /                        the page that shows the state to people; for this machine alone
GET /api/v1/state            nodes, rollouts, bytes by source and who is left alone, as JSON; for this machine alone
POST /api/v1/quarantine?node=&seconds=&reason=   a node is no source for so long; for this machine alone (`darner quarantine`)
POST /api/v1/release?node=   it is one again; for this machine alone
POST /api/v1/forget?image=   what a tag meant is forgotten; for this machine alone, and the agent has it too
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from agent.admin import Forget, NotReady, forget_route, health_routes, may_act, state_refusal
from agent.values.errors import DarnerError
from supernode import page
from supernode.overview import describe
from supernode.tracker.tracker import Tracker

Ask = Callable[[Callable[[Tracker], dict[str, Any]]], dict[str, Any]]
NodeName = Annotated[str, Query(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
"""As Kubernetes names nodes (RFC 1123, section 2.1)."""
QuarantineSeconds = Annotated[float, Query(gt=0, le=30 * 86400)]
Reason = Annotated[str, Query(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


def application(not_ready: NotReady, ask: Ask, forget: Forget) -> FastAPI:
    """`ask` runs a question in the tracker's own loop and gives its answer."""
    routes = [*health_routes(not_ready), forget_route(forget)]
    shown = page.read()
    headers = page.headers_of(shown)
    app = FastAPI(routes=routes, openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/")
    def index(request: Request) -> Response:
        if refusal := state_refusal(request):
            return PlainTextResponse(f"{refusal}\n", status_code=403)
        return HTMLResponse(shown, headers=headers)

    @app.get("/api/v1/state")
    def state(request: Request) -> JSONResponse:
        if refusal := state_refusal(request):
            return JSONResponse({"error": refusal}, status_code=403)
        try:
            return JSONResponse(ask(describe))
        except DarnerError as error:
            return JSONResponse({"error": str(error)}, status_code=503)

    @app.post("/api/v1/quarantine")
    def quarantine(request: Request, node: NodeName, seconds: QuarantineSeconds, reason: Reason) -> PlainTextResponse:
        def act(tracker: Tracker) -> dict[str, Any]:
            here = tracker.quarantine(node, reason, seconds)
            return {
                "words": f"{node} is no source for {seconds:.0f} s" + ("" if here else ", when it comes: it is not connected")
            }

        return _acted(request, ask, act)

    @app.post("/api/v1/release")
    def release(request: Request, node: NodeName) -> PlainTextResponse:
        def act(tracker: Tracker) -> dict[str, Any]:
            ended = tracker.release(node)
            return {"words": f"{node} may be a source again" if ended else f"{node} was in no quarantine"}

        return _acted(request, ask, act)

    return app


def _acted(request: Request, ask: Ask, act: Callable[[Tracker], dict[str, Any]]) -> PlainTextResponse:
    if not may_act(request):
        return PlainTextResponse("only a process on this machine, and no browser, may say who is a source\n", status_code=403)
    try:
        return PlainTextResponse(f"{ask(act)['words']}\n")
    except DarnerError as error:
        return PlainTextResponse(f"{error}\n", status_code=503)
