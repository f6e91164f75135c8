"""Rows 34 and 48 to 50 at the webhook: silent connections, few descriptors, an IPv6-only node, and names that mislead."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import socket
import ssl
import time
from pathlib import Path

import pytest

from agent.admin import TLS_SECONDS_MAX
from hack.lab.process import wait_until
from tests.webhook_lab import RunningWebhook, container, image_volume, pod, review
from webhook.server import ADMISSION_LIMITS

HEAD_SECONDS_MAX = ADMISSION_LIMITS.head_seconds_max
DESCRIPTORS = 64
LOG_LINES_MAX = 20
MISLEADING = "web\r\n2026-01-01 CRITICAL darner: all is lost\x1b[31m\x00\u202e"


@pytest.mark.parametrize("listener", ["address", "http_address"])
def test_with_64_descriptors_it_outlives_more_connections_than_it_can_hold_and_answers_afterwards(
    tmp_path: Path, listener: str
) -> None:
    question = review(pod(container("a", "nginx")))
    with RunningWebhook(tmp_path) as webhook:
        resource.prlimit(webhook.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        host, port = getattr(webhook, listener).rsplit(":", 1)
        descriptors = Path(f"/proc/{webhook.process.pid}/fd")
        with contextlib.ExitStack() as held:
            for _ in range(2 * DESCRIPTORS):
                held.enter_context(socket.create_connection((host, int(port)), 5))
            wait_until(lambda: len(list(descriptors.iterdir())) >= DESCRIPTORS - 1)
        assert webhook.ask(question)["patch"]
        assert webhook.process.running
        assert len(webhook.process.err.read_text().splitlines()) <= LOG_LINES_MAX
        assert webhook.process.stop() == 0


def test_a_connection_that_is_silent_or_sends_a_head_bit_by_bit_is_closed_in_time(tmp_path: Path) -> None:
    with RunningWebhook(tmp_path) as webhook, contextlib.ExitStack() as held:
        silent, half, drops, after = (held.enter_context(connected(webhook)) for _ in range(4))
        half.sendall(b"POST /mutate HTTP/1.1\r\nHost: a")
        after.sendall(b"POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
        assert after.recv(1 << 16).startswith(b"HTTP/1.1 400")
        begun = time.monotonic()
        after.sendall(b"P")
        while time.monotonic() < begun + HEAD_SECONDS_MAX - 1:
            drops.sendall(b"P")
            time.sleep(0.5)
        for connection in (silent, half, drops, after):
            connection.settimeout(HEAD_SECONDS_MAX)
            assert ended(connection)
        assert webhook.ask(review(pod(container("a", "nginx"))))["patch"]
        assert "Traceback" not in webhook.process.err.read_text()


@pytest.mark.parametrize("said", ["", "160301", "1603010200010001fc0303"])
def test_a_tls_handshake_that_does_not_begin_or_stops_half_way_is_closed_in_time(tmp_path: Path, said: str) -> None:
    """Row 34. TLS leaves a minute for it where nobody says otherwise."""
    assert TLS_SECONDS_MAX <= 5
    with RunningWebhook(tmp_path) as webhook:
        host, port = webhook.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), 5) as sock:
            sock.sendall(bytes.fromhex(said))
            assert webhook.ask(review(pod(container("a", "nginx"))))["patch"]
            sock.settimeout(6 * TLS_SECONDS_MAX)
            with contextlib.suppress(ConnectionError):
                assert sock.recv(1 << 16) == b""


def test_an_api_server_has_hundreds_of_connections_and_one_address_does_not_keep_the_others_out(tmp_path: Path) -> None:
    question = json.dumps(review(pod(container("a", "nginx")))).encode()
    with RunningWebhook(tmp_path) as webhook, contextlib.ExitStack() as held:
        connections = []
        for _ in range(ADMISSION_LIMITS.connections_per_address_max):
            connections.append(http.client.HTTPSConnection(webhook.address, timeout=20, context=webhook.context()))
            held.enter_context(contextlib.closing(connections[-1]))
            asked(connections[-1], question)
        with connected(webhook) as one_too_many:
            assert ended(one_too_many)
        other = http.client.HTTPSConnection(
            webhook.address, timeout=20, context=webhook.context(), source_address=("127.0.0.2", 0)
        )
        with contextlib.closing(other):
            asked(other, question)
        for connection in connections:
            used = connection.sock
            asked(connection, question)
            assert connection.sock is used
        memory = Path(f"/proc/{webhook.process.pid}/status").read_text()
        assert int(memory.split("VmRSS:")[1].split()[0]) < 256 << 10, "KiB, the limit in the chart"


def asked(connection: http.client.HTTPSConnection, question: bytes) -> None:
    connection.request("POST", "/mutate", question)
    assert json.loads(connection.getresponse().read())["response"]["patch"]


def test_a_connection_that_is_kept_is_not_closed_between_two_questions(tmp_path: Path) -> None:
    question = json.dumps(review(pod(container("a", "nginx")))).encode()
    with RunningWebhook(tmp_path) as webhook:
        connection = http.client.HTTPSConnection(webhook.address, timeout=20, context=webhook.context())
        with contextlib.closing(connection):
            for pause in (0.0, HEAD_SECONDS_MAX + 1, 0.0):
                time.sleep(pause)
                connection.request("POST", "/mutate", question)
                used = connection.sock
                assert json.loads(connection.getresponse().read())["response"]["patch"]
                assert connection.sock is used


def connected(webhook: RunningWebhook) -> ssl.SSLSocket:
    host, port = webhook.address.rsplit(":", 1)
    plain = socket.create_connection((host, int(port)), 5)
    return webhook.context().wrap_socket(plain, server_hostname=host)


def ended(connection: ssl.SSLSocket) -> bool:
    """Whether the other side has closed it, with or without a word."""
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except (ConnectionError, ssl.SSLEOFError):
        return True
    return True


def test_on_a_node_with_ipv6_alone_it_listens_there(tmp_path: Path) -> None:
    with RunningWebhook(tmp_path, "--listen", "[::1]:0", "--http-listen", "[::1]:0") as webhook:
        assert webhook.address.startswith("[::1]:")
        assert webhook.ask(review(pod(container("a", "nginx"))))["patch"]


def test_names_that_are_made_to_mislead_come_into_the_log_on_one_line_and_into_no_metric(tmp_path: Path) -> None:
    subject = pod(
        container(MISLEADING, "nginx"),
        container("b", MISLEADING),
        metadata={"name": MISLEADING, "namespace": MISLEADING},
        volumes=[image_volume(MISLEADING, "A/" + MISLEADING)],
    )
    with RunningWebhook(tmp_path, "--log-level", "debug") as webhook:
        response = webhook.ask(review(subject, namespace=MISLEADING, name=MISLEADING))
        assert response["patch"]
        metrics = webhook.get("/metrics")[1]
        assert webhook.process.stop() == 0
        log = webhook.process.err.read_text()
    assert "images rewritten" in log
    for text in (log, metrics, *response["warnings"], response["auditAnnotations"]["decision"]):
        assert not {character for character in text if not character.isprintable()} - {"\n"}
    assert not [line for line in log.splitlines() if line.startswith("2026-01-01 CRITICAL")]
    assert "all is lost" not in metrics
    assert not [line for line in (*response["warnings"], response["auditAnnotations"]["decision"]) if "\n" in line]
