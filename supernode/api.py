"""The supernode's HTTP API: what is going on, for people and programs. Health and metrics are the same as the agent's.

GET /api/v1/state            connected nodes, swarms and quarantines, as JSON; for this machine alone
POST /api/v1/forget?image=   what a tag meant is forgotten; for this machine alone, and the agent has it too
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from agent.admin import Forget, NotReady, forget_route, from_this_machine, health_routes
from agent.values.errors import DarnerError
from supernode.tracker.seeds import BlobTask
from supernode.tracker.tracker import Tracker

SHOWN_MAX = 1000
"""Of each list; what is over it is counted only."""


def application(
    not_ready: NotReady, ask: Callable[[Callable[[Tracker], dict[str, Any]]], dict[str, Any]], forget: Forget
) -> FastAPI:
    """`ask` runs a question in the tracker's own loop and gives its answer."""
    routes = [*health_routes(not_ready), forget_route(forget)]
    app = FastAPI(routes=routes, openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/api/v1/state")
    def state(request: Request) -> JSONResponse:
        if not from_this_machine(request):
            return JSONResponse({"error": "the state is shown on this machine alone; use kubectl port-forward"}, status_code=403)
        try:
            return JSONResponse(ask(describe))
        except DarnerError as error:
            return JSONResponse({"error": str(error)}, status_code=503)

    return app


def describe(tracker: Tracker) -> dict[str, Any]:
    return {
        "nodes": [
            {"name": session.name, "zone": session.zone, "address": str(session.where), "blobs": len(session.holdings)}
            for session in list(tracker.sessions.values())[:SHOWN_MAX]
        ],
        "nodesTotal": len(tracker.sessions),
        "swarms": [_describe_swarm(tracker, task) for task in list(tracker.seeds.tasks.values())[:SHOWN_MAX]],
        "swarmsTotal": len(tracker.seeds.tasks),
        "quarantines": [{"name": item.name, "reason": item.reason} for item in tracker.health.quarantines[:SHOWN_MAX]],
    }


def _describe_swarm(tracker: Tracker, task: BlobTask) -> dict[str, Any]:
    swarm = tracker.scheduler.swarms.get(task.number)
    return {
        "digest": task.name,
        "size": task.blob.size if task.blob else None,
        "whole": task.whole,
        "failed": task.failed.reason if task.failed else None,
        "pieces": swarm.count if swarm else None,
        "seeded": swarm.seeded.bit_count() if swarm else None,
        "takers": len(swarm.takers) if swarm else 0,
        "holders": len(swarm.holders) if swarm else 0,
        "parked": swarm.parked.count if swarm else 0,
        "inFlight": sum(len(member.flights) for member in swarm.takers.values()) if swarm else 0,
    }
