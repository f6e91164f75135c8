"""No blob byte goes through an ASGI server: which listener serves which bytes, and what the modules of the data path import."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.lab import Lab
from hack.lab.darner import HTTP_PORT, PIECE_PORT, REGISTRY_PORT, TREE, Agent
from hack.origin import Image, Origin

LAYER = b"layer" * 200_000
DIGEST = "sha256:" + hashlib.sha256(LAYER).hexdigest()
DATA_PATH = (
    "agent.registry.endpoint",
    "agent.swarm.piece_server",
    "agent.download.download",
    "agent.storage.store",
    "agent.origin.client",
    "agent.http.server",
)
ASGI = ("uvicorn", "starlette", "fastapi")


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        origin.push("team/app", "1", Image.of([LAYER]))
        yield origin


@pytest.fixture(scope="module")
def agent(origin: Origin) -> Iterator[Agent]:
    with Lab() as lab:
        agent = Agent(lab.loopback("node"), insecure_registries=[origin.address])
        repository = f"/v2/{origin.address.replace(':', '_')}/team/app"
        assert ask(agent, REGISTRY_PORT, f"{repository}/manifests/1")[0] == 200
        assert ask(agent, REGISTRY_PORT, f"{repository}/blobs/{DIGEST}")[2] == LAYER
        yield agent


def ask(agent: Agent, port: int, path: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    with contextlib.closing(agent.connection(agent.host.port(port))) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def blob_path(origin: Origin) -> str:
    return f"/v2/{origin.address.replace(':', '_')}/team/app/blobs/{DIGEST}"


def test_the_http_listener_serves_health_and_metrics_by_uvicorn(agent: Agent) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        status, headers, _ = ask(agent, HTTP_PORT, path)
        assert (status, headers["Server"]) == (200, "uvicorn")


def test_the_http_listener_knows_no_blob_no_manifest_and_no_piece(agent: Agent, origin: Origin) -> None:
    repository = blob_path(origin).partition("/blobs")[0]
    for path in ("/v2/", blob_path(origin), f"{repository}/manifests/1", f"/pieces/{DIGEST}/0"):
        assert ask(agent, HTTP_PORT, path)[0] == 404, path


def test_the_registry_listener_serves_blobs_and_is_no_asgi_server(agent: Agent, origin: Origin) -> None:
    status, headers, body = ask(agent, REGISTRY_PORT, blob_path(origin))
    assert (status, body) == (200, LAYER)
    assert "uvicorn" not in str(headers)
    assert ask(agent, REGISTRY_PORT, "/healthz")[0] == 404


def test_the_piece_listener_serves_pieces_and_is_no_asgi_server(agent: Agent) -> None:
    status, headers, _ = ask(agent, PIECE_PORT, f"/pieces/{DIGEST}/0")
    assert status == 401, "it has that piece, and wants a ticket"
    assert "uvicorn" not in str(headers)
    for path in ("/healthz", "/metrics", "/v2/"):
        assert ask(agent, PIECE_PORT, path)[0] in (401, 404), path


def test_each_port_belongs_to_one_process_and_the_data_ports_answer_what_uvicorn_would_not(agent: Agent) -> None:
    """uvicorn answers a TLS greeting with `Invalid HTTP request received.`, ours with an OCI error; pieces are had by TLS."""
    for port, ours, uvicorns in ((REGISTRY_PORT, True, False), (PIECE_PORT, False, False), (HTTP_PORT, False, True)):
        address = "127.0.0.1"
        with agent.host.connect(agent.host.port(port), address) as connection:
            connection.sendall(b"\x16\x03\x01\x00\x05hello\r\n\r\n")
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while part := connection.recv(4096):
                    answer += part
        assert (b'"errors"' in answer) == ours
        assert (b"Invalid HTTP request" in answer) == uvicorns


@pytest.mark.parametrize("module", DATA_PATH)
def test_the_data_path_imports_no_asgi_framework(module: str) -> None:
    script = f"import sys, {module}; print(*sorted(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", script], cwd=TREE, capture_output=True, text=True, check=True).stdout
    assert not set(printed.split()) & set(ASGI)


def test_uvicorn_and_fastapi_are_imported_by_the_control_surfaces_alone() -> None:
    importing = {
        str(path.relative_to(TREE))
        for package in ("agent", "supernode")
        for path in Path(TREE, package).glob("*.py")
        if any(line.startswith((f"import {name}", f"from {name}")) for line in path.read_text().splitlines() for name in ASGI)
    }
    assert importing
    assert not importing & {f"{module.replace('.', '/')}.py" for module in DATA_PATH}
