"""Row 46: what is not HTTP/1.1 on the registry port is told so in HTTP/1.1, at once.

containerd 2 greets in TLS, several times a pull, and goes on to plain HTTP only when the answer begins with `HTTP/`.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from hack.lab import Lab
from hack.lab.darner import REGISTRY_PORT, Agent

ANSWERED_SECONDS_MAX = 0.05
TRIES = 9
LOG_BYTES_MAX = 4096


def client_hello() -> bytes:
    """The first bytes of a real TLS client."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="registry.example").do_handshake()
    return outgoing.read()


GREETINGS = {
    "TLS ClientHello": client_hello(),
    "first byte of a TLS record": b"\x16",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "PROXY line": b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 65001\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "PROXY version 2": b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/0.9": b"GET /v2/\r\n",
    "lower case": b"get /v2/ http/1.1\r\n\r\n",
    "zeros": bytes(512),
    "garbage": bytes(range(255, -1, -1)) * 64,
}


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with Lab() as lab:
        yield Agent(lab.loopback("node"))
        print(lab.last_words())  # noqa: T201 (pytest shows it with a test that fails)


def greet(agent: Agent, greeting: bytes) -> tuple[bytes, float]:
    """The whole answer, and the seconds until the port had closed its side."""
    with agent.host.connect(agent.host.port(REGISTRY_PORT), timeout_seconds=5) as connection:
        began = time.monotonic()
        connection.sendall(greeting)
        answer = b""
        while part := connection.recv(4096):
            answer += part
        return answer, time.monotonic() - began


@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS.keys())
def test_what_is_not_http_is_answered_400_in_http_and_closed_at_once(agent: Agent, greeting: bytes) -> None:
    tries = [greet(agent, greeting) for _ in range(TRIES)]
    assert all(answer.startswith(b"HTTP/1.1 400 ") for answer, _ in tries)
    assert sorted(seconds for _, seconds in tries)[TRIES // 2] < ANSWERED_SECONDS_MAX, (
        "the median: this machine has other work too"
    )


def test_a_tls_client_is_told_in_words_that_openssl_understands(agent: Agent) -> None:
    connection = agent.host.connect(agent.host.port(REGISTRY_PORT))
    with connection, pytest.raises(ssl.SSLError, match=r"(?i)http_request|wrong_version_number"):
        ssl.create_default_context().wrap_socket(connection, server_hostname="127.0.0.1")


def test_a_request_after_a_hundred_greetings_is_answered_and_the_log_is_not_flooded(agent: Agent) -> None:
    before = agent.process.err.stat().st_size
    for _ in range(100):
        greet(agent, GREETINGS["TLS ClientHello"])
    answer, _ = greet(agent, b"GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert agent.process.err.stat().st_size - before < LOG_BYTES_MAX


def test_a_greeting_that_is_reset_at_once_leaves_no_connection_open(agent: Agent) -> None:
    port = agent.host.port(REGISTRY_PORT)
    for _ in range(20):
        connection = agent.host.connect(port)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.sendall(GREETINGS["TLS ClientHello"])
        connection.close()
    answer, _ = greet(agent, b"GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    established = [
        line for line in agent.host.run(["ss", "-Htn", f"sport = :{port}"]).splitlines() if not line.startswith("TIME")
    ]
    assert established == []
