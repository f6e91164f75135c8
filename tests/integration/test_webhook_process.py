"""The webhook as a process: HTTPS with a certificate that it made itself, health, metrics, and how it begins and ends."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.webhook_lab import LOCAL, RunningWebhook, applied, container, image_volume, originals, pod, review


def shop() -> dict[str, Any]:
    return pod(
        *(container(name, f"quay.io/shop/{name}:1") for name in ("web", "api", "jobs")),
        initContainers=[container("migrate", "shop/migrate"), container("proxy", "envoy", restartPolicy="Always")],
        volumes=[image_volume("model", "ghcr.io/shop/model")],
    )


def test_a_pod_is_rewritten_over_https_with_the_webhooks_own_authority_verified(tmp_path: Path) -> None:
    with RunningWebhook(tmp_path) as webhook:
        once = applied(shop(), webhook.ask(review(shop())))
        assert [item["image"] for item in once["spec"]["containers"]] == [
            LOCAL + f"quay.io/shop/{name}:1" for name in ("web", "api", "jobs")
        ]
        assert once["spec"]["volumes"][0]["image"]["reference"] == LOCAL + "ghcr.io/shop/model"
        assert originals(once)["initContainers"] == {"migrate": "shop/migrate", "proxy": "envoy"}
        assert "patch" not in webhook.ask(review(once))


def test_a_client_that_does_not_know_the_authority_is_not_served(tmp_path: Path) -> None:
    with RunningWebhook(tmp_path) as webhook, pytest.raises(ssl.SSLCertVerificationError):
        webhook.post(b"{}", context=ssl.create_default_context())


def test_health_readiness_and_metrics_are_on_the_other_listener(tmp_path: Path) -> None:
    with RunningWebhook(tmp_path) as webhook:
        assert webhook.get("/healthz") == (200, "ok\n")
        assert webhook.get("/readyz") == (200, "ok\n")
        webhook.ask(review(shop()))
        webhook.ask(review(pod(container("a", "nginx", imagePullPolicy="Never"))))
        webhook.post(b"")
        status, metrics = webhook.get("/metrics")
        assert status == 200
        for line in (
            'darner_webhook_admissions_total{outcome="rewritten"} 1.0',
            'darner_webhook_admissions_total{outcome="unchanged"} 1.0',
            'darner_webhook_admissions_total{outcome="bad-request"} 1.0',
            'darner_webhook_admissions_total{outcome="failed"} 0.0',
            'darner_webhook_left_alone_total{reason="never-pulled"} 1.0',
            "darner_webhook_rewritten_images_total 6.0",
        ):
            assert line in metrics.splitlines()


def test_it_says_one_line_when_it_is_ready_and_ends_well_on_sigterm(tmp_path: Path) -> None:
    with RunningWebhook(tmp_path) as webhook:
        assert re.fullmatch(r"darner webhook ready: .+\n", webhook.process.printed())
        assert webhook.process.stop() == 0
        assert "Traceback" not in webhook.process.err.read_text()


def test_it_ends_well_on_sigterm_while_api_servers_keep_their_connections(tmp_path: Path) -> None:
    with RunningWebhook(tmp_path) as webhook:
        host, port = webhook.address.rsplit(":", 1)
        with (
            socket.create_connection((host, int(port))) as plain,
            webhook.context().wrap_socket(plain, server_hostname=host) as tls,
        ):
            tls.sendall(b"POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
            assert tls.recv(64).startswith(b"HTTP/1.1 400")
            began = time.monotonic()
            assert webhook.process.stop() == 0
            assert time.monotonic() - began < 5


def test_a_restart_serves_the_certificate_that_was_made_before(tmp_path: Path) -> None:
    with RunningWebhook(tmp_path) as webhook:
        before = (webhook.certificates / "tls.crt").read_bytes()
        assert webhook.process.stop() == 0
    with RunningWebhook(tmp_path) as webhook:
        assert (webhook.certificates / "tls.crt").read_bytes() == before
        assert webhook.ask(review(shop()))["patch"]


def served_certificate(webhook: RunningWebhook) -> bytes:
    host, port = webhook.address.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as plain, webhook.context().wrap_socket(plain, server_hostname=host) as tls:
        certificate = tls.getpeercert(binary_form=True)
        assert certificate
        return certificate


def test_the_certificate_is_renewed_under_load_without_a_restart_or_a_failed_request(tmp_path: Path) -> None:
    flags = ("--certificate-life", "3s", "--certificate-interval", "100ms")
    with RunningWebhook(tmp_path, *flags) as webhook:
        seen, answers, over = {served_certificate(webhook)}, [], threading.Event()

        def ask() -> None:
            while not over.is_set():
                answers.append("patch" in webhook.ask(review(shop())))

        asking = [threading.Thread(target=ask) for _ in range(2)]
        for thread in asking:
            thread.start()
        deadline = time.monotonic() + 15
        while len(seen) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
            seen.add(served_certificate(webhook))
        over.set()
        for thread in asking:
            thread.join()
        assert len(seen) >= 3
        assert len(answers) > 20
        assert all(answers)


def test_a_certificate_that_is_replaced_in_its_directory_is_served_without_a_restart(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with RunningWebhook(one, "--certificate-interval", "100ms") as webhook:
        before = served_certificate(webhook)
        with RunningWebhook(two) as other:
            files = {path.name: path.read_bytes() for path in other.certificates.iterdir()}
        expected = ssl.PEM_cert_to_DER_cert(files["tls.crt"].decode())
        deadline = time.monotonic() + 60
        served = before
        while served != expected and time.monotonic() < deadline:
            # Who looks while only some are written finds keys that do not belong together, and makes others: then once more.
            for name, content in files.items():
                if (webhook.certificates / name).read_bytes() != content:
                    (webhook.certificates / name).write_bytes(content)
            time.sleep(0.05)
            # Until it is loaded, the old certificate does not verify by the new authority.
            with contextlib.suppress(ssl.SSLError):
                served = served_certificate(webhook)
        assert served == expected


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DARNER_", "KUBE"))}
    argv = [sys.executable, "-m", "webhook", *flags]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, env=environment)


@pytest.mark.parametrize(("flag", "port"), [("--listen", "admission port"), ("--http-listen", "health port")])
def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path, flag: str, port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = {"--listen": "127.0.0.1:0", "--http-listen": "127.0.0.1:0", flag: address}
        ended = run("--certificate-dir", str(tmp_path), *(word for pair in flags.items() for word in pair))
    assert ended.returncode == 1
    assert ended.stderr == f"darner webhook: the {port} cannot listen on {address}: Address already in use\n"
    assert ended.stdout == ""


def test_sigterm_ends_it_while_it_waits_for_a_port_that_a_connection_has(tmp_path: Path) -> None:
    """FAULTS 74."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        address = f"127.0.0.1:{client.getsockname()[1]}"
        argv = [
            sys.executable,
            "-m",
            "webhook",
            "--certificate-dir",
            str(tmp_path),
            "--http-listen",
            address,
            "--listen",
            "127.0.0.1:0",
        ]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stderr
            assert f"the health port waits for {address}" in waiting.stderr.readline()
            waiting.terminate()
            assert waiting.wait(20) == 0
            assert waiting.stderr.read() == ""


def test_a_setting_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    for flags in ((), ("--certificate-dir", str(tmp_path), "--listen", "8443"), ("--unknown", "x")):
        ended = run(*flags)
        assert ended.returncode == 1
        assert re.fullmatch(r"darner webhook: .+\n", ended.stderr)


def test_a_secret_without_a_cluster_is_told_in_one_line() -> None:
    ended = run("--certificate-secret", "darner-system/darner-webhook", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    assert ended.returncode == 1
    assert re.fullmatch(r"darner webhook: there is no cluster .+ set KUBECONFIG\n", ended.stderr)


def test_a_certificate_that_does_not_fit_its_key_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("nonsense")
    ended = run("--certificate-dir", str(tmp_path), "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    assert ended.returncode == 1
    assert re.fullmatch(r"darner webhook: tls.crt and tls.key .+\n", ended.stderr)


def test_it_runs_without_the_kubernetes_client_when_no_object_of_a_cluster_is_named(tmp_path: Path) -> None:
    (tmp_path / "hidden" / "kubernetes").mkdir(parents=True)
    (tmp_path / "hidden" / "kubernetes" / "__init__.py").write_text("raise ImportError('this test has no kubernetes')\n")
    with RunningWebhook(tmp_path, environment={"PYTHONPATH": str(tmp_path / "hidden")}) as webhook:
        assert webhook.ask(review(shop()))["patch"]
