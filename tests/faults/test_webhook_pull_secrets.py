"""A pod whose pull secret cannot be derived in time is admitted as it is, with the reason on it; see row 7 of FAULTS.md."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.lab.apiserver import ApiServer, running
from hack.lab.process import wait_until
from tests.pull_secrets import LOGIN, PASSWORD, derived, found_for, path_of, put
from tests.webhook_lab import LOCAL, RunningWebhook, applied, container, pod, review
from webhook.pods import DECISION, ORIGINAL_IMAGES

IMAGE = "reg.example.com/team/app:1"
REASON = "pod: its pull secrets cannot be used at the node's agent: "


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with running() as server:
        yield server


@pytest.fixture
def webhook(api: ApiServer, tmp_path: Path) -> Iterator[RunningWebhook]:
    environment = {"KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig"))}
    flags = ("--pull-secrets", "true", "--pull-secret-deadline", "700ms", "--log-level", "debug")
    with RunningWebhook(tmp_path, *flags, environment=environment) as process:
        yield process
        words = process.process.err.read_text() + process.process.printed() + process.get("/metrics")[1]
        assert PASSWORD not in words
        assert LOGIN not in words
        assert process.process.stop() == 0


def private(*secrets: str, image: str = IMAGE, **more: Any) -> dict[str, Any]:
    return pod(container("app", image), imagePullSecrets=[{"name": name} for name in secrets or ("registry",)], **more)


def admitted(webhook: RunningWebhook, subject: dict[str, Any], **request: Any) -> dict[str, Any]:
    return applied(subject, webhook.ask(review(subject, **request)))


def secrets_of(subject: dict[str, Any]) -> list[str]:
    return [item["name"] for item in subject["spec"]["imagePullSecrets"]]


def count(webhook: RunningWebhook, sample: str) -> float:
    found = re.search(rf"^{re.escape(sample)} (\S+)$", webhook.get("/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else 0.0


def assert_unchanged(webhook: RunningWebhook, subject: dict[str, Any], words: str, cause: str) -> None:
    failures = f'darner_webhook_derived_secret_failures_total{{cause="{cause}"}}'
    left = 'darner_webhook_left_alone_total{reason="no-pull-secret"}'
    before = count(webhook, failures), count(webhook, left)
    after = admitted(webhook, subject)
    assert after["metadata"].pop("annotations") == {DECISION: REASON + words}
    assert after == subject
    assert (count(webhook, failures), count(webhook, left)) == (before[0] + 1, before[1] + 1)


def test_a_private_image_is_rewritten_with_a_pull_secret_that_the_kubelet_finds_for_it(
    api: ApiServer, webhook: RunningWebhook
) -> None:
    put(api, "reg.example.com")
    after = admitted(webhook, private())
    assert after["spec"]["containers"][0]["image"] == LOCAL + IMAGE
    assert secrets_of(after) == ["registry", "darner-registry"]
    assert found_for(derived(api), IMAGE) == [LOGIN]


def test_a_second_pass_changes_nothing(api: ApiServer, webhook: RunningWebhook) -> None:
    put(api, "reg.example.com")
    once = admitted(webhook, private())
    assert "patch" not in webhook.ask(review(once))
    once["spec"]["containers"].append(container("sidecar", "reg.example.com/sidecar"))
    twice = admitted(webhook, once)
    assert secrets_of(twice) == ["registry", "darner-registry"]
    assert twice["spec"]["containers"][1]["image"] == LOCAL + "reg.example.com/sidecar"


def test_a_pod_whose_secrets_concern_other_registries_is_rewritten_without_another(
    api: ApiServer, webhook: RunningWebhook
) -> None:
    put(api, "quay.io")
    after = admitted(webhook, private("registry", "missing"))
    assert after["spec"]["containers"][0]["image"] == LOCAL + IMAGE
    assert secrets_of(after) == ["registry", "missing"]
    assert path_of("darner-registry") not in api.objects


def test_a_dry_run_and_a_pod_that_is_left_alone_make_no_secret(api: ApiServer, webhook: RunningWebhook) -> None:
    put(api, "reg.example.com")
    webhook.ask(review(private(), dryRun=True))
    webhook.ask(review(private(metadata={"labels": {"darner.dev/inject": "disabled"}})))
    webhook.ask(review(private(), operation="DELETE"))
    assert path_of("darner-registry") not in api.objects
    assert api.asked("GET /api/v1/namespaces") == []


def test_an_api_server_that_is_late_leaves_the_pod_as_it_is_within_the_deadline(api: ApiServer, webhook: RunningWebhook) -> None:
    put(api, "reg.example.com")
    api.delay_seconds = 1.5
    begun = time.monotonic()
    assert_unchanged(webhook, private(), "the API server did not answer about its Secrets within 0.7 s", "late")
    assert time.monotonic() - begun < 1.5
    api.delay_seconds = 0.0
    wait_until(lambda: secrets_of(admitted(webhook, private())) == ["registry", "darner-registry"], 10)


def test_an_api_server_that_is_late_holds_up_no_pod_without_pull_secrets(api: ApiServer, webhook: RunningWebhook) -> None:
    put(api, "reg.example.com")
    api.delay_seconds = 1.5

    def seconds_beside_one_that_waits() -> float:
        waiting = threading.Thread(target=webhook.ask, args=(review(private()),))
        waiting.start()
        time.sleep(0.1)
        begun = time.monotonic()
        assert admitted(webhook, pod(container("app", "nginx")))["spec"]["containers"][0]["image"].startswith(LOCAL)
        took = time.monotonic() - begun
        waiting.join()
        return took

    assert min(seconds_beside_one_that_waits() for _ in range(5)) < 0.4, "the best of five: a busy machine has other work too"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_forbidden_secret_leaves_the_pod_as_it_is(api: ApiServer, webhook: RunningWebhook, method: str) -> None:
    put(api, "reg.example.com")
    name = "registry" if method == "GET" else "darner-registry"
    api.refusals[f"{method} /api/v1/namespaces"] = 403
    assert_unchanged(webhook, private(), f"the API server answered 403 about the Secret {name}", "refused")


def test_a_conflict_that_does_not_end_leaves_the_pod_as_it_is(api: ApiServer, webhook: RunningWebhook) -> None:
    put(api, "reg.example.com")
    api.refusals["POST"] = 409
    words = "the Secret darner-registry was changed by others 4 times in a row"
    assert_unchanged(webhook, private(), words, "conflict")


def test_a_foreign_secret_of_that_name_is_not_overwritten_and_the_pod_stays_as_it_is(
    api: ApiServer, webhook: RunningWebhook
) -> None:
    put(api, "reg.example.com")
    before = put(api, "quay.io", name="darner-registry")
    words = "there is a Secret darner-registry that is not Darner's, and it is left as it is"
    assert_unchanged(webhook, private(), words, "foreign")
    assert derived(api) == before


def test_without_an_api_server_the_pod_stays_as_it_is(api: ApiServer, webhook: RunningWebhook, tmp_path: Path) -> None:
    put(api, "reg.example.com")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    (tmp_path / "alone").mkdir()
    kubeconfig = tmp_path / "alone" / "kubeconfig"
    kubeconfig.write_text((tmp_path / "kubeconfig").read_text().replace(str(api.server_port), str(port)))
    environment = {"KUBECONFIG": str(kubeconfig)}
    with RunningWebhook(tmp_path / "alone", "--pull-secrets", "true", environment=environment) as alone:
        assert_unchanged(alone, private(), "the API server did not answer about its Secrets", "unreachable")
        assert admitted(alone, pod(container("app", "nginx")))["metadata"]["annotations"].keys() == {ORIGINAL_IMAGES}
        assert alone.process.stop() == 0


def test_a_rollout_of_many_pods_looks_once(api: ApiServer, webhook: RunningWebhook) -> None:
    put(api, "reg.example.com")
    for _ in range(50):
        assert secrets_of(admitted(webhook, private())) == ["registry", "darner-registry"]
    assert len(api.asked("GET /api/v1/namespaces")) <= 4


def test_a_changed_secret_is_followed_without_another_pod(api: ApiServer, webhook: RunningWebhook) -> None:
    put(api, "reg.example.com")
    admitted(webhook, private())
    put(api, "reg.example.com", login="bmV3")
    wait_until(lambda: found_for(derived(api), IMAGE) == ["bmV3"], 5)


def test_an_ephemeral_container_is_rewritten_only_when_its_pod_has_the_secret_already(
    api: ApiServer, webhook: RunningWebhook
) -> None:
    put(api, "reg.example.com")
    for before, rewritten in ((private(), False), (admitted(webhook, private()), True)):
        given = {**before, "spec": {**before["spec"], "ephemeralContainers": [container("debug", "reg.example.com/tools")]}}
        update = {"operation": "UPDATE", "subResource": "ephemeralcontainers", "oldObject": before}
        response = webhook.ask(review(given, **update))
        assert ("patch" in response) == rewritten
        assert rewritten or "cannot be given one any more" in response["auditAnnotations"]["decision"]


def test_names_that_lead_elsewhere_are_never_asked_about(api: ApiServer, webhook: RunningWebhook) -> None:
    put(api, "reg.example.com")
    after = admitted(webhook, private("../../kube-system/secrets/token", "a/b", "A", "x" * 300))
    assert after["spec"]["containers"][0]["image"] == LOCAL + IMAGE
    assert api.asked("GET /api/v1/namespaces") == []
