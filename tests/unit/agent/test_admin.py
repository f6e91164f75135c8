"""The ASGI surfaces: health, readiness and metrics, and limits on whoever asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from socket import create_connection
from unittest.mock import MagicMock

import pytest

from agent.admin import HEALTH_LIMITS, AcceptComplaints, ControlServer, SurfaceLimits, application, forget_route, state_route
from agent.values.address import Address
from tests.endpoint import threads_and_descriptors, wait_until


class Served:
    reason: str | None = ""

    def __init__(self, limits: SurfaceLimits = HEALTH_LIMITS) -> None:
        self.forgotten: list[tuple[str, str, str]] = []
        app = application(lambda: self.reason, forget_route(self.forget), state_route(lambda: {"node": "n1"}))
        self.server = ControlServer(app, Address("127.0.0.1", 0), limits)
        self.address = self.server.surface.address
        self.server.start()
        wait_until(lambda: self.server.surface.started)

    @property
    def connections(self) -> int:
        return len(self.server.surface.server_state.connections)

    def forget(self, registry: str, repository: str, tag: str) -> int:
        self.forgotten.append((registry, repository, tag))
        return 2

    def ask(self, path: str, method: str = "GET", source: str = "127.0.0.1", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(*self.address, timeout=5, source_address=(source, 0))
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


@contextlib.contextmanager
def served(**limits: object) -> Iterator[Served]:
    served = Served(replace(HEALTH_LIMITS, **limits))  # type: ignore[arg-type]
    yield served
    served.server.stop()


@pytest.fixture
def surface() -> Iterator[Served]:
    with served() as surface:
        yield surface


def test_it_is_alive_whether_it_is_ready_or_not(surface: Served) -> None:
    assert surface.ask("/readyz") == (200, "ok\n")
    surface.reason = "the tracker does not run"
    assert surface.ask("/readyz") == (503, "the tracker does not run\n")
    assert surface.ask("/healthz") == (200, "ok\n")


def test_metrics_name_every_source_before_anything_was_received(surface: Served) -> None:
    status, text = surface.ask("/metrics")
    assert status == 200
    for source in ("store", "peer", "supernode", "origin"):
        assert f'darner_agent_received_bytes_total{{source="{source}"}}' in text


def test_there_is_no_page_that_describes_it_to_strangers(surface: Served) -> None:
    assert {surface.ask(path)[0] for path in ("/", "/docs", "/redoc", "/openapi.json")} == {404}


def test_the_state_is_told_to_this_machine_alone(surface: Served) -> None:
    assert surface.ask("/api/v1/state") == (200, '{"node":"n1"}')
    status, words = surface.ask("/api/v1/state", source="127.0.0.2")
    assert (status, "n1" in words) == (403, False)
    assert surface.ask("/api/v1/state", "POST")[0] == 405


@pytest.mark.parametrize(
    ("host", "status"), [("localhost:65003", 200), ("[::1]:65003", 200), ("10.0.0.7", 200), ("evil.example", 403)]
)
def test_a_page_of_the_internet_that_takes_the_address_of_this_machine_reads_no_state(
    surface: Served, host: str, status: int
) -> None:
    assert surface.ask("/api/v1/state", Host=host)[0] == status


FORGET = "/api/v1/forget?image="


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("nginx", ("docker.io", "library/nginx", "latest")),
        ("reg.test:5000/a/b:1.2", ("reg.test:5000", "a/b", "1.2")),
    ],
)
def test_a_process_of_the_same_machine_has_a_tag_forgotten(surface: Served, image: str, name: tuple[str, str, str]) -> None:
    status, words = surface.ask(FORGET + image, "POST")
    assert (status, surface.forgotten) == (200, [name])
    assert words.startswith("2 answers about ")


@pytest.mark.parametrize("headers", [{}, {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}])
def test_nobody_with_another_address_has_anything_forgotten(surface: Served, headers: dict[str, str]) -> None:
    """127.0.0.2 stands for another machine here: an address that is not the one that is listened to."""
    assert surface.ask(FORGET + "nginx", "POST", "127.0.0.2", **headers)[0] == 403
    assert surface.forgotten == []


@pytest.mark.parametrize("image", ["", "UPPER", "nginx@sha256:" + "0" * 64, "nginx:1@sha256:" + "0" * 64, "%00"])
def test_what_names_no_tag_is_refused_and_nothing_is_forgotten(surface: Served, image: str) -> None:
    status, words = surface.ask(FORGET + image, "POST")
    assert (status, surface.forgotten) == (400, [])
    assert words.strip().isprintable()


def test_nothing_is_forgotten_by_looking(surface: Served) -> None:
    assert surface.ask(FORGET + "nginx")[0] == 405
    assert surface.forgotten == []


@pytest.mark.parametrize(
    ("said", "then", "status"),
    [
        (b"", b"GET \x00\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET \x00\r\n\r\n", b"400"),
        (b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\n", b"405"),
    ],
    ids=["alone", "after another", "as the body of one that was answered"],
)
def test_what_is_no_request_is_refused_at_most_and_costs_no_traceback(
    surface: Served, caplog: pytest.LogCaptureFixture, said: bytes, then: bytes, status: bytes
) -> None:
    with create_connection(surface.address, 5) as sock:
        sock.sendall(said)
        answered = b""
        while said and not answered:
            answered = sock.recv(1000)
        sock.sendall(then)
        answered += until_closed(sock.recv)
    assert answered.rpartition(b"HTTP/1.1 ")[2][:3] == status
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("words", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /"])
def test_silence_is_ended_and_a_connection_does_not_live_for_ever(words: bytes) -> None:
    with served(head_seconds_max=0.2, connection_seconds_max=0.5) as surface:
        began = time.monotonic()
        with create_connection(surface.address, 5) as sock:
            sock.sendall(words)
            until_closed(sock.recv)
        assert time.monotonic() - began < 2


def test_a_head_that_comes_bit_by_bit_is_ended_in_its_time_although_something_was_asked_before() -> None:
    with served(head_seconds_max=0.5, connection_seconds_max=None, idle_seconds_max=30) as surface:
        with create_connection(surface.address, 5) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answered = b""
            while not answered.endswith(b"ok\n"):
                answered += sock.recv(1000)
            time.sleep(0.7)  # a connection that waits between two requests is not silent
            began = time.monotonic()
            sock.settimeout(0.05)
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < began + 5:
                    sock.sendall(b"G")
                    with contextlib.suppress(TimeoutError):
                        assert sock.recv(1000) == b""
                        break
        assert 0.3 < time.monotonic() - began < 3


def until_closed(recv: Callable[[int], bytes]) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := recv(1000):
            received += data
    return received


def test_one_address_does_not_keep_the_kubelet_out(surface: Served) -> None:
    most = HEALTH_LIMITS.connections_per_address_max
    with contextlib.ExitStack() as stack:
        for _ in range(most):
            stack.enter_context(create_connection(surface.address, 5))
        wait_until(lambda: surface.connections == most)
        with create_connection(surface.address, 5) as refused:
            until_closed(refused.recv)
        assert asked_from("127.0.0.2", surface) == 200
    wait_until(lambda: not surface.connections)
    assert surface.ask("/healthz") == (200, "ok\n")


def test_beyond_the_limit_on_all_connections_the_new_ones_are_turned_away_and_the_others_are_served() -> None:
    with served(connections_max=3, connections_per_address_max=2) as surface:
        first = http.client.HTTPConnection(*surface.address, timeout=5)
        with contextlib.closing(first), contextlib.ExitStack() as stack:
            first.connect()
            for host in ("127.0.0.2", "127.0.0.3"):
                stack.enter_context(create_connection(surface.address, 5, (host, 0)))
            wait_until(lambda: surface.connections == 3)
            with create_connection(surface.address, 5, ("127.0.0.4", 0)) as refused:
                until_closed(refused.recv)
            first.request("GET", "/healthz")
            assert first.getresponse().status == 200


def asked_from(host: str, surface: Served) -> int:
    connection = http.client.HTTPConnection(*surface.address, timeout=5, source_address=(host, 0))
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        return connection.getresponse().status


def test_a_loop_without_descriptors_says_so_once_and_says_everything_else_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    async def said() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(AcceptComplaints())
        for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM) * 100:
            loop.call_exception_handler({"message": "accept", "exception": OSError(number, "no room")})
        loop.call_exception_handler({"message": "a task failed", "exception": OSError(errno.EIO, "broken")})

    with caplog.at_level(logging.INFO):
        asyncio.run(said())
    assert [record.getMessage() for record in caplog.records] == [
        "no more connections are accepted for the moment: no room",
        "a task failed",
    ]


def test_a_listener_that_is_closed_while_there_are_no_descriptors_says_nothing_more(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio listens anew a second after each failure to accept, on a socket that may be closed by then."""
    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.05)

    async def closed_too_early() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(AcceptComplaints())
        listener = MagicMock()
        listener.accept.side_effect = OSError(errno.EMFILE, "no room")
        with open(os.devnull) as some:
            listener.fileno.return_value = some.fileno()
            loop._accept_connection(asyncio.Protocol, listener, backlog=100)  # type: ignore[attr-defined]
        listener.fileno.return_value = -1
        await asyncio.sleep(0.2)

    with caplog.at_level(logging.INFO):
        asyncio.run(closed_too_early())
    assert [record.getMessage() for record in caplog.records] == ["no more connections are accepted for the moment: no room"]


def test_a_stop_ends_its_thread_and_frees_its_port() -> None:
    before = threads_and_descriptors()
    surface = Served()
    assert surface.ask("/healthz")[0] == 200
    surface.server.stop()
    with pytest.raises(ConnectionRefusedError):
        create_connection(surface.address, 5)
    assert threads_and_descriptors()[0] <= before[0] + 1, "one more is the pool's that answered"
