"""What a runtime is told when a first pull cannot be: an OCI error with the registry's name, before containerd gives up."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.lab import Lab
from hack.lab.darner import HTTP_PORT, LOG_ALL, PIECE_PORT, REGISTRY_PORT, TREE, Agent
from hack.origin import Fault, Image, Origin

TOLD_SECONDS_MAX = 25.0


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        origin.push("team/app", "1", Image.of([b"layer"]))
        yield origin


@pytest.fixture
def agent(origin: Origin) -> Iterator[Agent]:
    with Lab() as lab:
        yield Agent(lab.loopback("node"), insecure_registries=[origin.address], arguments=LOG_ALL)
        print(lab.last_words())  # noqa: T201 (pytest shows it with a test that fails)


def ask_manifest(agent: Agent, origin: Origin) -> tuple[int, list[dict[str, str]], float]:
    """Status, OCI errors, and the seconds that it took."""
    began = time.monotonic()
    with contextlib.closing(agent.connection(agent.host.port(REGISTRY_PORT))) as connection:
        connection.request("GET", f"/v2/{origin.address.replace(':', '_')}/team/app/manifests/1")
        answer = connection.getresponse()
        assert answer.headers["Content-Type"] == "application/json"
        return answer.status, json.loads(answer.read())["errors"], time.monotonic() - began


def test_an_origin_that_refuses_connections_is_a_502_that_names_it(agent: Agent, origin: Origin) -> None:
    origin.stop()
    status, errors, seconds = ask_manifest(agent, origin)
    assert status == 502
    assert errors[0]["code"]
    assert origin.address in errors[0]["message"]
    assert seconds < TOLD_SECONDS_MAX / 5, "nobody waits for what is known at once"


def test_an_origin_that_never_answers_is_told_before_the_runtime_gives_up(agent: Agent, origin: Origin) -> None:
    origin.fail(Fault(delay_seconds=60))
    status, errors, seconds = ask_manifest(agent, origin)
    assert status in (502, 504)
    assert origin.address in errors[0]["message"]
    assert seconds < TOLD_SECONDS_MAX


@pytest.mark.parametrize("flag", ["--registry-listen", "--piece-listen", "--http-listen"])
def test_a_port_that_is_taken_is_one_line_and_status_1(flag: str, tmp_path: Path) -> None:
    with Lab() as lab, socket.create_server(("127.0.0.1", 0)) as taken:
        host = lab.loopback("node")
        ports = {"--registry-listen": REGISTRY_PORT, "--piece-listen": PIECE_PORT, "--http-listen": HTTP_PORT}
        addresses = {name: f"127.0.0.1:{host.port(port)}" for name, port in ports.items()}
        addresses[flag] = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = [part for item in addresses.items() for part in item]
        place = ["--node-name", "node", "--store", str(tmp_path / "store"), "--piece-address", addresses["--piece-listen"]]
        argv = [sys.executable, "-m", "agent", *place, *arguments]
        ended = subprocess.run(argv, cwd=TREE, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert addresses[flag] in ended.stderr
