"""The control surface: health, readiness and metrics, and limits on whoever asks for them."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator
from socket import create_connection

import pytest

from agent import admin
from agent.admin import CONNECTIONS_PER_ADDRESS_MAX, ControlServer, application
from agent.values.address import Address
from tests.endpoint import threads_and_descriptors, wait_until


class Surface:
    reason = ""

    def __init__(self) -> None:
        self.server = ControlServer(application(lambda: self.reason), Address("127.0.0.1", 0))
        self.address: tuple[str, int] = self.server._sock.getsockname()
        self.server.start()
        wait_until(lambda: self.server._server.started)

    def ask(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(*self.address, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


@pytest.fixture
def surface() -> Iterator[Surface]:
    surface = Surface()
    yield surface
    surface.server.stop()


def test_it_is_alive_whether_it_is_ready_or_not(surface: Surface) -> None:
    assert surface.ask("/readyz") == (200, "ok\n")
    surface.reason = "the tracker does not run"
    assert surface.ask("/readyz") == (503, "the tracker does not run\n")
    assert surface.ask("/healthz") == (200, "ok\n")


def test_metrics_name_every_source_before_anything_was_received(surface: Surface) -> None:
    status, text = surface.ask("/metrics")
    assert status == 200
    for source in ("store", "peer", "supernode", "origin"):
        assert f'darner_received_bytes_total{{source="{source}"}}' in text


def test_there_is_no_page_that_describes_it_to_strangers(surface: Surface) -> None:
    assert {surface.ask(path)[0] for path in ("/", "/docs", "/redoc", "/openapi.json")} == {404}


def test_silence_is_ended_and_a_connection_does_not_live_for_ever(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "HEAD_SECONDS_MAX", 0.2)
    monkeypatch.setattr(admin, "CONNECTION_SECONDS_MAX", 0.5)
    for words in (b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /"):
        began = time.monotonic()
        with create_connection(surface.address, 5) as sock, contextlib.suppress(ConnectionResetError):
            sock.sendall(words)
            while sock.recv(1000):
                continue
        assert time.monotonic() - began < 2


def test_one_address_does_not_keep_the_kubelet_out(surface: Surface) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS_PER_ADDRESS_MAX):
            stack.enter_context(create_connection(surface.address, 5))
        wait_until(lambda: len(surface.server._server.server_state.connections) == CONNECTIONS_PER_ADDRESS_MAX)
        with create_connection(surface.address, 5) as refused, contextlib.suppress(ConnectionResetError):
            assert refused.recv(1) == b""
        kubelet = http.client.HTTPConnection(*surface.address, timeout=5, source_address=("127.0.0.2", 0))
        with contextlib.closing(kubelet):
            kubelet.request("GET", "/healthz")
            assert kubelet.getresponse().status == 200
    wait_until(lambda: not surface.server._server.server_state.connections)
    assert surface.ask("/healthz") == (200, "ok\n")


def test_a_stop_ends_its_thread_and_frees_its_port() -> None:
    before = threads_and_descriptors()
    surface = Surface()
    assert surface.ask("/healthz")[0] == 200
    surface.server.stop()
    with pytest.raises(ConnectionRefusedError):
        create_connection(surface.address, 5)
    assert threads_and_descriptors()[0] <= before[0] + 1, "one more is the pool's that answered"
