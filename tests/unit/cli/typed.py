"""A command as a person types it, at a cluster in which Darner's processes answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent.admin import ControlServer, application
from agent.values.address import Address
from cli.app import main
from tests.swarm import wait_until
from tests.unit.cli.installed import NAMESPACE, Document, install, selector
from tests.unit.cli.podserver import PodServer, Ran

STATE: Document = {
    "version": "0.1.0",
    "name": "darner-supernode-0",
    "bytes24h": {"peer": 3 << 30, "supernode": 1 << 30, "origin": 0},
    "nodes": [{"name": "n0", "zone": "z", "address": "10.0.0.1:65002", "blobs": 4, "bytes24h": {"peer": 1 << 20}}],
    "swarms": [{"digest": "sha256:" + "a" * 64, "image": "docker.io/library/nginx", "size": 100, "takers": 1, "holders": 2}],
    "quarantines": [{"name": "n1", "reason": "its disk", "until": 3600.0}],
    "loaded": [{"name": "gone.test/a:1", "digest": "sha256:" + "c" * 64, "bytes": 1 << 20, "blobsMissing": 0}],
    "leftAlone": [{"kind": "registry", "name": "slow.test", "why": "it asked for it", "until": 60.0}],
}
METRICS = """\
darner_webhook_certificate_expiry_timestamp_seconds 4.0e+09
darner_webhook_last_admission_timestamp_seconds 1.0e+09
darner_webhook_reverted_pods_total{reason="pull"} 2.0
darner_webhook_reverted_pods_total{reason="other"} 1.0
"""
AGENT: Document = {
    "node": "n0",
    "images": [{"name": "docker.io/library/nginx", "digest": "sha256:" + "b" * 64, "bytes": 5 << 20}],
}


@contextmanager
def answering(state: Document, metrics: str) -> Iterator[int]:
    """The port of a process that says this of itself."""

    async def say_state(_: Request) -> Response:
        return JSONResponse(state)

    async def say_metrics(_: Request) -> Response:
        return Response(metrics, media_type="text/plain")

    app = application(lambda: "")
    app.router.routes[:0] = [Route("/api/v1/state", say_state), Route("/metrics", say_metrics)]
    server = ControlServer(app, Address("127.0.0.1", 0))
    server.start()
    wait_until(lambda: server.surface.started)
    yield server.surface.address.port
    server.stop()


@contextmanager
def running_darner(api: PodServer) -> Iterator[None]:
    """Two nodes, a supernode and a webhook, all well."""
    install(api)
    labels = selector("webhook") | {"app.kubernetes.io/part-of": "darner"}
    client = {"service": {"namespace": NAMESPACE, "name": "darner-webhook"}, "caBundle": "YQ=="}
    path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/darner"
    api.put(path, {"metadata": {"labels": labels}, "webhooks": [{"name": "pods.darner.dev", "clientConfig": client}]})

    def commands(pod: str, command: list[str]) -> Ran:
        return (0, json.dumps(AGENT | {"node": pod}), "") if "agent" in pod else (0, "told\n", "")

    api.commands = commands
    with answering(STATE, METRICS) as port:
        api.ports |= {"darner-supernode-0": port, "darner-webhook-0": port}
        yield


Typed = Callable[..., tuple[int, str, str]]


def typed_with(capsys: pytest.CaptureFixture[str]) -> Typed:
    """What a command ends with, prints and says; no command ever shows a traceback."""

    def typed(*argv: str) -> tuple[int, str, str]:
        status = main(list(argv))
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return status, said.out, said.err

    return typed
