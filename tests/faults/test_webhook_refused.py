"""Row 73 of FAULTS.md: another admission refuses every rewritten pod, and says so to nobody but whoever sent it.

The webhook is a process with a Lease that follows pods; the refusals are the test's, which lets pods come to exist or not.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.lab.apiserver import ApiServer, running
from hack.lab.process import wait_until
from tests.webhook_lab import LOCAL, RunningWebhook, applied, container, pod, review
from webhook.breaker.refusals import UNSEEN_SECONDS
from webhook.pods import DECISION

PODS = "/api/v1/namespaces/shop/pods"
RETRY_SECONDS = 0.25


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with running() as server:
        yield server


@pytest.fixture
def webhook(api: ApiServer, tmp_path: Path) -> Iterator[RunningWebhook]:
    environment = {"KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig"))}
    with RunningWebhook(tmp_path, "--lease", "darner-system/darner-webhook", environment=environment) as process:
        wait_until(lambda: api.asked("GET /api/v1/pods?labelSelector=darner.dev%2Frewritten%3Dtrue&watch"))
        yield process


def of(kind: str, name: str) -> dict[str, Any]:
    owner = {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": f"uid-{name}", "controller": True}
    return {"generateName": f"{name}-", "ownerReferences": [owner]}


def sent(webhook: RunningWebhook, metadata: dict[str, Any], **request: Any) -> dict[str, Any]:
    """The pod as it would come to exist, if nothing refused it."""
    made = pod(container("app", "nginx:1"), metadata={"name": "", **metadata})
    return applied(made, webhook.ask(review(made, **request)))


def is_rewritten(document: dict[str, Any]) -> bool:
    image: str = document["spec"]["containers"][0]["image"]
    return image.startswith(LOCAL)


@pytest.mark.parametrize("kind", ["ReplicaSet", "Job"])
def test_a_workload_under_a_policy_that_refuses_local_names_gets_its_pod_within_seconds(
    api: ApiServer, webhook: RunningWebhook, kind: str
) -> None:
    """FAULTS 73."""
    begun = time.monotonic()
    while is_rewritten(document := sent(webhook, of(kind, "web"))):
        time.sleep(RETRY_SECONDS)
    assert UNSEEN_SECONDS <= time.monotonic() - begun < UNSEEN_SECONDS + 4
    assert document["spec"]["containers"][0]["image"] == "nginx:1"
    assert "never came to exist while rewritten" in document["metadata"]["annotations"][DECISION]
    assert not is_rewritten(sent(webhook, of(kind, "web")))
    assert is_rewritten(sent(webhook, of(kind, "other"))), "nobody else is left alone"
    wait_until(lambda: [path for path in api.objects if "/events/" in path])
    (told,) = (item for path, item in api.objects.items() if "/events/" in path)
    assert (told["reason"], told["involvedObject"]["kind"], told["involvedObject"]["uid"]) == ("DarnerLeftAlone", kind, "uid-web")
    metrics = webhook.get("/metrics")[1]
    assert re.search(r'^darner_webhook_paused\{kind="refused"\} 1.0$', metrics, re.MULTILINE)
    assert re.search(r'^darner_webhook_pauses_total\{kind="refused"\} 1.0$', metrics, re.MULTILINE)
    assert re.search(r'^darner_webhook_left_alone_total\{reason="refused"\} 2.0$', metrics, re.MULTILINE)


def test_a_bare_pod_runs_at_its_second_try_and_a_dry_run_before_it_is_no_try(webhook: RunningWebhook) -> None:
    """FAULTS 73."""
    assert not is_rewritten(sent(webhook, {"name": "web"}, dryRun=True))
    assert is_rewritten(sent(webhook, {"name": "web"}))
    second = sent(webhook, {"name": "web"})
    assert not is_rewritten(second)
    assert "never came to exist" in second["metadata"]["annotations"][DECISION]


def test_a_workload_whose_pods_come_to_exist_goes_on_being_rewritten(api: ApiServer, webhook: RunningWebhook) -> None:
    begun, number = time.monotonic(), 0
    while time.monotonic() - begun < 2 * UNSEEN_SECONDS:
        document = sent(webhook, of("ReplicaSet", "web"))
        assert is_rewritten(document), document["metadata"]["annotations"]
        number += 1
        api.put(f"{PODS}/web-{number:05}", document | {"metadata": document["metadata"] | {"name": f"web-{number:05}"}})
        time.sleep(RETRY_SECONDS)
