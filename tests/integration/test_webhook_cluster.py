"""The webhook and the API server, whose part a small server on loopback plays: Secrets with resource versions, and a caBundle.

The real API server has its turn in the tests of the cluster; here it is late, refuses, and is asked by many at once.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.lab.apiserver import ApiServer, running
from hack.lab.process import wait_until
from tests.webhook_lab import RunningWebhook, container, pod, review
from webhook.certificates.stores import SecretStore, settle
from webhook.certificates.trust import trust
from webhook.errors import Unreachable
from webhook.kube.api import ObjectName
from webhook.kube.client import Cluster
from webhook.server import with_swarm_key

SECRETS = "/api/v1/namespaces/darner-system/secrets"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with running() as server:
        yield server


@pytest.fixture
def cluster(api: ApiServer, tmp_path: Path) -> Cluster:
    return Cluster({"KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig"))})


def configuration(*names: str) -> dict[str, Any]:
    service = {"name": "darner-webhook", "namespace": "darner-system", "path": "/mutate"}
    webhooks = [
        {"name": name, "admissionReviewVersions": ["v1"], "sideEffects": "NoneOnDryRun", "clientConfig": {"service": service}}
        for name in names
    ]
    return {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "darner"}, "webhooks": webhooks}


def webhook(api: ApiServer, directory: Path, *flags: str) -> RunningWebhook:
    directory.mkdir()
    environment = {"KUBECONFIG": str(api.kubeconfig(directory / "kubeconfig"))}
    secret = ("--certificate-secret", "darner-system/darner-webhook", "--certificate-interval", "200ms")
    return RunningWebhook(directory, *secret, *flags, environment=environment)


def test_a_secret_is_made_kept_and_replaced_as_every_store_does(api: ApiServer, cluster: Cluster) -> None:
    store = SecretStore(cluster, ObjectName("darner-system", "one"))
    assert store.read() is None
    assert store.write({"a": b"\x00\xff"}, None)
    assert not store.write({"a": b"2"}, None)
    before = store.read()
    assert before.files == {"a": b"\x00\xff"}
    assert store.write({"a": b"3"}, before.version)
    assert not store.write({"a": b"4"}, before.version)
    assert api.secret("one") == {"a": b"3"}
    assert api.objects[f"{SECRETS}/one"]["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "darner-webhook"


def test_a_secret_that_is_deleted_between_is_made_again(api: ApiServer, cluster: Cluster) -> None:
    store = SecretStore(cluster, ObjectName("darner-system", "one"))
    assert store.write({"a": b"1"}, None)
    version = store.read().version
    del api.objects[f"{SECRETS}/one"]
    assert not store.write({"a": b"2"}, version)
    assert settle(store, lambda files: files or {"a": b"3"}) == {"a": b"3"}


def test_a_secret_that_somebody_else_made_keeps_its_type_and_labels(api: ApiServer, cluster: Cluster) -> None:
    metadata = {"name": "one", "namespace": "darner-system", "labels": {"team": "a"}}
    api.put(f"{SECRETS}/one", {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata})
    store = SecretStore(cluster, ObjectName("darner-system", "one"))
    assert settle(store, lambda files: files or {"tls.crt": b"1"}) == {"tls.crt": b"1"}
    kept = api.objects[f"{SECRETS}/one"]
    assert (kept["type"], kept["metadata"]["labels"]) == ("kubernetes.io/tls", {"team": "a"})


def test_the_swarms_key_is_made_once_and_then_kept(api: ApiServer, cluster: Cluster) -> None:
    keys = [settle(SecretStore(cluster, ObjectName("darner-system", "swarm")), with_swarm_key)["key"] for _ in range(2)]
    assert keys[0] == keys[1] == api.secret("swarm")["key"]
    assert re.fullmatch(rb"[0-9a-f]{64}", keys[0])


def test_the_api_server_of_its_own_cluster_is_asked_past_any_proxy(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_a_pod(client_configuration: Any) -> None:
        client_configuration.host = f"http://127.0.0.1:{api.server_port}"

    monkeypatch.setattr("webhook.kube.client.config.load_incluster_config", in_a_pod)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert SecretStore(Cluster({}), ObjectName("darner-system", "one")).read() is None


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_refusal_is_told_with_the_object_that_it_is_about(api: ApiServer, cluster: Cluster, status: int) -> None:
    api.refusal = status
    store = SecretStore(cluster, ObjectName("darner-system", "one"))
    for attempt in (store.read, lambda: store.write({}, None), lambda: store.write({}, "1")):
        with pytest.raises(Unreachable, match=f"answered {status} .* the Secret darner-system/one"):
            attempt()
    with pytest.raises(Unreachable, match="the MutatingWebhookConfiguration darner"):
        trust(cluster, "darner", b"pem")


def test_trust_is_written_into_every_webhook_of_the_configuration_and_only_when_it_differs(
    api: ApiServer, cluster: Cluster
) -> None:
    path = f"{CONFIGURATIONS}/darner"
    api.put(path, configuration("pods.darner.dev", "ephemeral.darner.dev"))
    trust(cluster, "darner", b"pem")
    bundles = [item["clientConfig"]["caBundle"] for item in api.objects[path]["webhooks"]]
    assert [base64.b64decode(bundle) for bundle in bundles] == [b"pem", b"pem"]
    trust(cluster, "darner", b"pem")
    assert [request for request in api.requests if request.startswith("PATCH")] == [f"PATCH {path}"]


def test_two_replicas_that_start_at_once_serve_one_authority_which_the_cluster_trusts(api: ApiServer, tmp_path: Path) -> None:
    path = f"{CONFIGURATIONS}/darner"
    api.put(path, configuration("pods.darner.dev"))
    flags = ("--webhook-configuration", "darner", "--swarm-secret", "darner-system/swarm")
    first, second = (webhook(api, tmp_path / name, *flags) for name in ("first", "second"))
    with first, second:
        for replica in (first, second):
            wait_until(lambda replica=replica: replica.get("/readyz")[0] == 200)
        authority = api.secret("darner-webhook")["ca.crt"]
        assert base64.b64decode(api.objects[path]["webhooks"][0]["clientConfig"]["caBundle"]) == authority
        assert authority.count(b"BEGIN CERTIFICATE") == 1
        for replica in (first, second):
            replica.certificates.mkdir()
            (replica.certificates / "ca.crt").write_bytes(authority)
            assert replica.ask(review(pod(container("a", "nginx"))))["patch"]
        assert len(api.secret("swarm")["key"]) == 64


def test_a_ca_bundle_that_somebody_resets_is_repaired(api: ApiServer, tmp_path: Path) -> None:
    path = f"{CONFIGURATIONS}/darner"
    api.put(path, configuration("pods.darner.dev"))
    with webhook(api, tmp_path / "one", "--webhook-configuration", "darner"):
        wait_until(lambda: "caBundle" in api.objects[path]["webhooks"][0]["clientConfig"])
        with api.lock:
            api.put(path, configuration("pods.darner.dev"))
        wait_until(lambda: "caBundle" in api.objects[path]["webhooks"][0]["clientConfig"])


def test_an_api_server_that_is_late_is_waited_for(api: ApiServer, tmp_path: Path) -> None:
    api.refusal = 503
    threading.Timer(3, setattr, (api, "refusal", 0)).start()
    with webhook(api, tmp_path / "one", "--webhook-configuration", "darner") as late:
        status, words = late.get("/readyz")
        assert (status, words) == (503, "the cluster does not trust the certificate yet\n")
        with api.lock:
            api.put(f"{CONFIGURATIONS}/darner", configuration("pods.darner.dev"))
        wait_until(lambda: late.get("/readyz")[0] == 200)
        assert late.process.stop() == 0
