"""Who may ask for admissions, and how much of it: client certificates over real TLS, and limits of one address.

Health is on a listener of its own, and for whoever asks.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from hack.lab.process import wait_until
from tests.origins import Authority
from tests.webhook_lab import RunningWebhook, container, pod, review
from webhook.admission.http import BODY_BYTES_MAX
from webhook.admission.load import BYTES_MAX, BYTES_PER_ADDRESS_MAX, REQUESTS_PER_ADDRESS_MAX, Load
from webhook.errors import Busy

NAME = "kube-apiserver"
QUESTION = review(pod(container("a", "nginx")))
FAILED = (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)
"""What a caller hears who is turned away; in TLS 1.3 only when it asks."""


class Front:
    """An authority of API servers' client certificates, and a webhook that knows it."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory, "front")
        self.file = directory / "clients.pem"
        self.file.write_text(self.authority.file.read_text())
        flags = ("--client-ca-file", str(self.file), "--client-names", f"another,{NAME}", "--certificate-interval", "200ms")
        self.webhook = RunningWebhook(directory, *flags)
        self._directory = directory

    def context(self, authority: Authority | None, name: str = NAME) -> ssl.SSLContext:
        """That of a caller who shows a certificate of this authority, or none."""
        context = self.webhook.context()
        if authority:
            file = self._directory / f"{name}.pem"
            file.write_bytes(b"".join(authority.certificate(name)))
            context.load_cert_chain(file)
        return context

    def is_answered(self, authority: Authority | None, name: str = NAME) -> bool:
        try:
            status, answered = self.webhook.post(json.dumps(QUESTION).encode(), context=self.context(authority, name))
        except FAILED:
            return False
        return status == 200 and "patch" in answered["response"]


def test_only_who_shows_an_api_servers_certificate_is_answered_and_health_is_for_whoever_asks(tmp_path: Path) -> None:
    front = Front(tmp_path)
    with front.webhook:
        assert front.is_answered(front.authority)
        assert not front.is_answered(None)
        assert not front.is_answered(Authority(tmp_path, "strangers"))
        assert not front.is_answered(front.authority, "kubelet")
        assert front.is_answered(front.authority, "another")
        assert front.webhook.get("/readyz") == (200, "ok\n")
        assert front.webhook.get("/healthz") == (200, "ok\n")
        said = front.webhook.process.err.read_text()
        assert "may not ask for admissions: its certificate is for ['kubelet']" in said
        assert "Traceback" not in said


def test_an_authority_that_follows_another_is_trusted_without_a_restart_and_a_file_that_is_gone_changes_nothing(
    tmp_path: Path,
) -> None:
    front, successor = Front(tmp_path), Authority(tmp_path, "successor")
    with front.webhook:
        assert not front.is_answered(successor)
        front.file.write_text(front.authority.file.read_text() + successor.file.read_text())
        wait_until(lambda: front.is_answered(successor), 30)
        front.file.unlink()
        wait_until(lambda: "those of before are trusted on" in front.webhook.process.err.read_text(), 30)
        assert front.is_answered(successor)
        assert front.is_answered(front.authority)
        assert not front.is_answered(None)


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_without_a_good_file_it_says_so_in_one_line_and_does_not_begin(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_text(content)
    argv = [sys.executable, "-m", "webhook", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    argv += ["--certificate-dir", str(tmp_path / "own"), "--client-ca-file", str(file), "--client-names", NAME]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    said = ended.stderr.splitlines()[-1]
    assert said.startswith(f"darner webhook: the authorities of API servers in {file} cannot be loaded: ")
    assert "Traceback" not in ended.stderr


def test_bodies_of_one_address_take_so_much_memory_and_no_more_and_others_are_answered(tmp_path: Path) -> None:
    with RunningWebhook(tmp_path) as webhook, ExitStack() as held:
        host, port = webhook.address.rsplit(":", 1)
        head = f"POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY_BYTES_MAX}\r\n\r\n".encode()
        waiting: list[ssl.SSLSocket] = []
        for _ in range(BYTES_PER_ADDRESS_MAX // BODY_BYTES_MAX + 2):
            plain = held.enter_context(socket.create_connection((host, int(port))))
            waiting.append(held.enter_context(webhook.context().wrap_socket(plain, server_hostname=host)))
            waiting[-1].settimeout(20)
            waiting[-1].sendall(head + b" " * (BODY_BYTES_MAX - 1))
        answers = [connection.recv(1 << 16) for connection in waiting]
        assert any(answer.startswith(b"HTTP/1.1 429 ") for answer in answers)
        other = http.client.HTTPSConnection(
            webhook.address, timeout=20, context=webhook.context(), source_address=("127.0.0.2", 0)
        )
        with closing(other):
            other.request("POST", "/mutate", json.dumps(QUESTION))
            assert json.loads(other.getresponse().read())["response"]["patch"]
        assert webhook.ask(QUESTION)["patch"], "and what had been taken is given back"


def test_what_is_under_way_is_counted_by_address_and_in_all_and_nothing_stays_of_it() -> None:
    load = Load()
    with ExitStack() as under_way:
        for _ in range(REQUESTS_PER_ADDRESS_MAX):
            under_way.enter_context(load.question("10.0.0.1"))
        with pytest.raises(Busy, match="questions of this address"):
            under_way.enter_context(load.question("10.0.0.1"))
        under_way.enter_context(load.question("10.0.0.2")).grow(BYTES_PER_ADDRESS_MAX)
        third = under_way.enter_context(load.question("10.0.0.3"))
        with pytest.raises(Busy, match="as much memory as they may"):
            third.grow(BYTES_MAX - BYTES_PER_ADDRESS_MAX + 1)
        third.grow(BYTES_MAX - BYTES_PER_ADDRESS_MAX)
    with load.question("10.0.0.1") as share:
        share.grow(BYTES_PER_ADDRESS_MAX)
    assert not load._bytes
    assert not load._requests
