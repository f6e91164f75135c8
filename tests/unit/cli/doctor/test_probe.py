"""What a pod sees from where it is."""

from __future__ import annotations

import ast
import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cli.doctor import probe
from cli.doctor.gather import _PROBE, _Told

BODIES = {
    "/api/v1/state": b'{"pulls": []}',
    "/metrics": b'# HELP darner_received_bytes_total x\ndarner_received_bytes_total{source="peer"} 5.0\nother 1.0\n',
}


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = BODIES.get(self.path)
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `here` has an address."""
    known = socket.getaddrinfo

    def looked_up(name: str, port: int, *more: Any, **named: Any) -> Any:
        if name in ("here", "127.0.0.1"):
            return known("127.0.0.1", port, *more, **named)
        raise socket.gaierror("nobody knows it")

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.usefixtures("names")
def test_names_channels_disk_and_the_process_are_looked_at(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARNER_HTTP_LISTEN", f"[127.0.0.1]:{port}")
    monkeypatch.setenv("DARNER_STORE_QUOTA", "20%")
    told = probe.told([f"here:{port}", "gone:65004"])
    assert told["addresses"] == {"here": ["127.0.0.1"], "gone": []}
    assert told["answered"] == {"here": ""}
    assert told["settings"] == {"DARNER_STORE_QUOTA": "20%"}
    assert told["disk"]["bytes"] >= told["disk"]["free"] >= 0
    assert told["state"] == {"pulls": []}
    assert told["metrics"] == ['darner_received_bytes_total{source="peer"} 5.0']


@pytest.mark.usefixtures("names")
def test_a_channel_and_a_process_that_do_not_answer_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARNER_HTTP_LISTEN", f"0.0.0.0:{closed_port()}")
    told = probe.told([f"here:{closed_port()}"])
    assert "refused" in told["answered"]["here"]
    assert (told["state"], told["metrics"]) == (None, [])


def test_its_text_stands_alone_and_prints_what_is_read_elsewhere() -> None:
    tree = ast.parse(_PROBE.read_text())
    modules = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in modules} <= sys.stdlib_module_names
    environment = {"DARNER_HTTP_LISTEN": f"127.0.0.1:{closed_port()}"}
    command = [sys.executable, "-I", "-c", _PROBE.read_text()]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert set(json.loads(done.stdout)) == set(_Told.__struct_fields__)
