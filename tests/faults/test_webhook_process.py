"""Rows 48 to 50 where they concern the webhook: few descriptors, an IPv6-only node, and names that are made to mislead."""

from __future__ import annotations

import contextlib
import resource
import socket
from pathlib import Path

from hack.lab.process import wait_until
from tests.webhook_lab import RunningWebhook, container, image_volume, pod, review

DESCRIPTORS = 64
LOG_LINES_MAX = 20
MISLEADING = "web\r\n2026-01-01 CRITICAL darner: all is lost\x1b[31m\x00\u202e"


def test_with_64_descriptors_it_outlives_more_connections_than_it_can_hold_and_answers_afterwards(tmp_path: Path) -> None:
    question = review(pod(container("a", "nginx")))
    with RunningWebhook(tmp_path) as webhook:
        resource.prlimit(webhook.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        host, port = webhook.address.rsplit(":", 1)
        descriptors = Path(f"/proc/{webhook.process.pid}/fd")
        with contextlib.ExitStack() as held:
            for _ in range(2 * DESCRIPTORS):
                held.enter_context(socket.create_connection((host, int(port)), 5))
            wait_until(lambda: len(list(descriptors.iterdir())) >= DESCRIPTORS - 1)
        assert webhook.ask(question)["patch"]
        assert webhook.process.running
        assert len(webhook.process.err.read_text().splitlines()) <= LOG_LINES_MAX
        assert webhook.process.stop() == 0


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
