"""Row 48: an agent with 64 descriptors, or without threads, serves less and comes back; it neither dies nor floods its log."""

from __future__ import annotations

import contextlib
import http.client
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.origin import Origin
from tests.endpoint import DIGEST, LAYER, push
from tests.swarm import free_address

TREE = Path(__file__).resolve().parent.parent.parent
DESCRIPTORS = 64
LOG_LINES_MAX = 20


class Agent:
    def __init__(self, store: Path, origin: Origin, descriptors: int) -> None:
        self.prefix = f"/v2/{origin.address.replace(':', '_')}/team/app"
        self.control = free_address()
        listen = [part for flag in ("registry", "piece") for part in (f"--{flag}-listen", "127.0.0.1:0")]
        listen += ["--http-listen", str(self.control)]
        place = ["--node-name", "n", "--store", str(store), "--piece-address", "127.0.0.1:1"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agent", *place, *listen, "--insecure-registries", origin.address],
            cwd=TREE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)),
        )
        assert self._process.stdout
        line = self._process.stdout.readline()
        found = re.search(r"registry on 127\.0\.0\.1:(\d+)", line)
        assert found, line
        self.address = ("127.0.0.1", int(found[1]))

    def connect(self, address: tuple[str, int] | None = None) -> socket.socket:
        return socket.create_connection(address or self.address, 10)

    def ask(self, path: str) -> tuple[int, bytes]:
        with contextlib.closing(http.client.HTTPConnection(*self.address, timeout=10)) as connection:
            connection.request("GET", f"{self.prefix}/{path}")
            answer = connection.getresponse()
            return answer.status, answer.read()

    def pull(self) -> bytes:
        assert self.ask("manifests/1")[0] == 200
        status, body = self.ask(f"blobs/{DIGEST}")
        assert status == 200
        return body

    def close(self) -> None:
        """However the test went."""
        self._process.kill()
        self._process.communicate()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> tuple[int, str]:
        self._process.send_signal(signal.SIGTERM)
        _, err = self._process.communicate(timeout=20)
        return self._process.returncode, err


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        push(origin)
        yield origin


@pytest.fixture
def agent(origin: Origin, tmp_path: Path) -> Iterator[Agent]:
    with contextlib.closing(Agent(tmp_path / "store", origin, DESCRIPTORS)) as agent:
        yield agent


def test_with_64_descriptors_an_agent_pulls_and_outlives_more_connections_than_it_can_hold(
    agent: Agent,
) -> None:
    assert agent.pull() == LAYER
    with contextlib.ExitStack() as stack:
        for _ in range(2 * DESCRIPTORS):
            stack.enter_context(agent.connect())
        time.sleep(1.0)
        assert agent.running
    began = time.monotonic()
    assert agent.pull() == LAYER
    assert time.monotonic() - began < 3
    status, err = agent.end()
    assert status == 0
    assert len(err.splitlines()) < LOG_LINES_MAX


def test_more_connections_to_health_and_metrics_than_it_has_descriptors_do_not_flood_its_log(
    agent: Agent,
) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(2 * DESCRIPTORS):
            stack.enter_context(agent.connect(agent.control))
        time.sleep(2.5)
        assert agent.running
    assert agent.pull() == LAYER
    status, err = agent.end()
    assert status == 0
    assert "no more connections are accepted for the moment" in err
    assert len(err.splitlines()) < LOG_LINES_MAX


def test_a_pull_that_finds_no_descriptor_is_an_error_or_right_and_the_next_one_is_right(agent: Agent) -> None:
    assert agent.ask("manifests/1")[0] == 200
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(DESCRIPTORS):  # each is answered and kept open, until one is not accepted any more
            sock = stack.enter_context(agent.connect())
            sock.settimeout(0.5)
            sock.sendall(f"GET {agent.prefix}/blobs/{DIGEST} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n".encode())
            try:
                answer = sock.recv(4096)
            except (TimeoutError, ConnectionError):
                break
            held.append(answer.split()[1])
        assert set(held) <= {b"206", b"500", b"502", b"503"}
        assert held.count(b"206") > DESCRIPTORS // 4
    assert agent.pull() == LAYER
    assert agent.end()[0] == 0
