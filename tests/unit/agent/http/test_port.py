"""A port that a connection happens to have is waited for; one that somebody listens on is told at once (FAULTS 74)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from agent.http import port as port_module
from agent.http.server import bind
from agent.values.address import Address
from agent.values.errors import UsageError

TAKEN = "Address already in use"
WAITS = "the server waits for"


@contextlib.contextmanager
def outgoing(host: str = "127.0.0.1") -> Iterator[tuple[socket.socket, socket.socket, int]]:
    """A connection of somebody else: its own end, the other end, and the port that it happens to have."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server, socket.socket(family) as client:
        client.bind((host, 0))
        client.connect(server.getsockname())
        other, _ = server.accept()
        with other:
            yield client, other, client.getsockname()[1]


def reset(sock: socket.socket) -> None:
    """Close it so that nothing of it is left, TIME_WAIT included."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_the_port_of_an_outgoing_connection_is_listened_on_as_soon_as_that_has_ended(
    host: str, everywhere: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """FAULTS 74."""
    where = {"127.0.0.1": "0.0.0.0", "::1": "::"}[host] if everywhere else host
    with outgoing(host) as (client, _, port):
        ends = threading.Timer(0.6, lambda: reset(client))
        ends.start()
        began = time.monotonic()
        with bind(Address(where, port), "server") as listening:
            assert listening.getsockname()[:2] == (where, port)
        assert time.monotonic() - began >= 0.5
        ends.join()
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"{WAITS} {Address(where, port)}, which a connection of somebody else has at the moment"
    ], "said once"


def test_a_connection_that_has_ended_keeps_its_port_in_time_wait_and_after_a_minute_that_is_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 74."""
    assert port_module.WAIT_SECONDS_MAX > 60, "TIME_WAIT is over then"
    monkeypatch.setattr(port_module, "WAIT_SECONDS_MAX", 0.5)
    with outgoing() as (client, other, port):
        client.close()
        assert other.recv(1) == b""
        other.close()
        began = time.monotonic()
        with pytest.raises(UsageError, match=rf"^the server cannot listen on 127\.0\.0\.1:{port}: {TAKEN}$"):
            bind(Address("127.0.0.1", port), "server")
    assert 0.5 <= time.monotonic() - began < 5
    assert WAITS in caplog.text


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::1", "::1"), ("::", "::1")],
)
def test_a_port_that_somebody_listens_on_is_told_at_once(theirs: str, ours: str, caplog: pytest.LogCaptureFixture) -> None:
    family = socket.AF_INET6 if ":" in theirs else socket.AF_INET
    with socket.create_server((theirs, 0), family=family) as taken:
        began = time.monotonic()
        with pytest.raises(UsageError, match=TAKEN):
            bind(Address(ours, taken.getsockname()[1]), "server")
    assert time.monotonic() - began < 5
    assert WAITS not in caplog.text


def test_who_begins_to_listen_while_the_port_is_waited_for_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "RETRY_SECONDS", 1.0)
    with outgoing() as (client, _, port):

        def take() -> None:
            reset(client)
            listening.append(socket.create_server(("127.0.0.1", port)))

        listening: list[socket.socket] = []
        taking = threading.Timer(0.3, take)
        taking.start()
        with pytest.raises(UsageError, match=TAKEN):
            bind(Address("127.0.0.1", port), "server")
        taking.join()
        listening[0].close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_that_waits_for_its_port(number: int) -> None:
    with outgoing() as (_, _, port):
        script = (
            "import logging, sys; logging.basicConfig(level='INFO'); from agent.http.server import bind; "
            f"from agent.values.address import Address; bind(Address('127.0.0.1', {port}), 'server')"
        )
        argv = [sys.executable, "-c", script]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stderr
            assert WAITS in waiting.stderr.readline()
            waiting.send_signal(number)
            assert waiting.wait(20) == 0
            assert waiting.stderr.read() == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_is_accepted_sends_at_once_also_in_an_event_loop(host: str) -> None:
    """Without it each answer in two packets, a webhook's or a supernode's, came 40 ms late."""

    async def accepted() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        sock = bind(Address(host, 0), "server")
        async with await asyncio.start_server(connected, sock=sock):
            with socket.create_connection(sock.getsockname()[:2]):
                return await found

    assert asyncio.run(accepted()) == 1
