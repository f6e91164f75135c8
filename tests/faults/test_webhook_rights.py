"""A webhook with rights in some namespaces alone: pods elsewhere keep their names and say why, and nothing is tried there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.lab.apiserver import ApiServer, running
from hack.lab.process import wait_until
from tests.pull_secrets import derived, found_for, put
from tests.webhook_lab import LOCAL, RunningWebhook, applied, container, pod, review
from webhook.pods import DECISION

IMAGE = "reg.example.com/team/app:1"
NO_RIGHTS = "pod: Darner has no rights in namespace elsewhere, and could not help a pod there whose pull fails"


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with running() as server:
        yield server


def test_pods_in_its_namespaces_are_rewritten_with_their_secrets_and_pods_elsewhere_say_why_not(
    api: ApiServer, tmp_path: Path
) -> None:
    api.refusals = {"GET /api/v1/secrets": 403, "GET /api/v1/namespaces/elsewhere/": 403}
    environment = {"KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig"))}
    flags = ("--pull-secrets", "true", "--only-namespaces", "shop,other")
    put(api, "reg.example.com")
    subject = pod(container("app", IMAGE), imagePullSecrets=[{"name": "registry"}])
    with RunningWebhook(tmp_path, *flags, environment=environment) as webhook:
        after = applied(subject, webhook.ask(review(subject)))
        assert after["spec"]["containers"][0]["image"] == LOCAL + IMAGE
        assert {"name": "darner-registry"} in after["spec"]["imagePullSecrets"]
        put(api, "reg.example.com", login="bmV3")
        wait_until(lambda: found_for(derived(api), IMAGE) == ["bmV3"])
        foreign = applied(subject, webhook.ask(review(subject, namespace="elsewhere")))
        assert foreign["spec"] == subject["spec"]
        assert foreign["metadata"]["annotations"] == {DECISION: NO_RIGHTS}
        assert 'darner_webhook_left_alone_total{reason="no-rights"} 1.0' in webhook.get("/metrics")[1].splitlines()
        assert api.asked("GET /api/v1/secrets") == api.asked("GET /api/v1/namespaces/elsewhere/") == []
        assert "cannot follow" not in webhook.process.err.read_text()
