"""The webhook's HTTP: POST /mutate for API servers. Health and metrics have a listener of their own (`agent.admin`).

This module bounds what it reads, counts, and turns an error inside into a pod that is admitted as it is: an error of ours
must never stand between a pod and the cluster. Decisions are `webhook.admission.handler`'s.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from webhook.admission.handler import Judge
from webhook.admission.load import Load, Share
from webhook.admission.review import answer, read, unchanged
from webhook.admission.rewrite import Verdict
from webhook.errors import BadReview
from webhook.gates import Reason
from webhook.metrics import ADMISSION_SECONDS, ADMISSIONS, LAST_ADMISSION, LEFT_ALONE, REWRITTEN_IMAGES

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 3 << 20
"""The API server takes objects of up to 3 MiB, and etcd half of that."""
DISCARDED_BYTES_MAX = 32 << 20
"""So much of a body that is too large is read and dropped, so that its sender gets to read why."""
BODY_SECONDS_MAX = 5.0

for _reason in Reason:
    LEFT_ALONE.labels(_reason)


def admission_app(judge: Judge) -> FastAPI:
    # Whether anybody traces would be asked of the environment for each question; nobody does.
    app = FastAPI(title="darner webhook", openapi_url=None, telemetry={"tracing": False, "metrics": False, "logs": False})
    load = Load()

    async def mutate(request: Request) -> Response:
        with ADMISSION_SECONDS.time():
            try:
                with load.question(request.client.host if request.client else "") as share:
                    return _json(200, await _answer(await _body(request, share), judge))
            except BadReview as refused:
                ADMISSIONS.labels("bad-request").inc()
                return _json(refused.status, {"error": str(refused)})

    # A plain route: there are no parameters for FastAPI to find out, and to look for them took a twentieth of each answer.
    app.add_route("/mutate", mutate, methods=["POST"])
    return app


async def _answer(body: bytes, judge: Judge) -> dict[str, Any]:
    admission = read(body)
    try:
        verdict = await judge.verdict(admission)
        answered = answer(admission, verdict)
    except Exception:
        log.exception("a pod in namespace %r is admitted as it is, because its review failed", admission.namespace)
        ADMISSIONS.labels("failed").inc()
        return unchanged(admission, "an internal error; the images are left as they are")
    _count(verdict)
    if verdict.rewrites or verdict.left:
        log.debug("namespace %r: %d images rewritten; %s", admission.namespace, len(verdict.rewrites), verdict.decision)
    return answered


def _count(verdict: Verdict) -> None:
    LAST_ADMISSION.set_to_current_time()
    ADMISSIONS.labels("rewritten" if verdict.rewrites else "unchanged").inc()
    REWRITTEN_IMAGES.inc(len(verdict.rewrites))
    for left in verdict.left:
        LEFT_ALONE.labels(left.reason).inc()


async def _body(request: Request, share: Share) -> bytes:
    """The whole body, bounded in bytes and in time. Raises BadReview."""
    body = bytearray()
    discarded = 0
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            async for chunk in request.stream():
                if discarded or len(body) + len(chunk) > BODY_BYTES_MAX:
                    discarded += len(chunk)
                else:
                    share.grow(len(chunk))
                    body += chunk
                if discarded > DISCARDED_BYTES_MAX:
                    break
    except TimeoutError:
        raise BadReview(f"the body did not arrive within {BODY_SECONDS_MAX:g} s") from None
    except ClientDisconnect:
        raise BadReview("the client left before its body had arrived") from None
    if discarded:
        raise BadReview(f"the body has more than {BODY_BYTES_MAX >> 20} MiB")
    return bytes(body)


def _json(status: int, document: dict[str, Any]) -> Response:
    # In ASCII, because a pod may carry texts that no UTF-8 can hold, such as half a surrogate pair.
    return Response(json.dumps(document).encode("ascii"), status, media_type="application/json")
