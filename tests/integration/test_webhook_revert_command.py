"""`darner revert` against an API server: what it puts back, what it deletes, what it leaves, and how it ends."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.values.errors import UsageError
from hack.lab.apiserver import ApiServer, running
from tests.webhook_lab import LOCAL, admitted, container, image_volume, pod
from webhook.admission.policy import Policy
from webhook.kube.client import Cluster
from webhook.pullsecrets.dockerconfig import derive, derived_name, original_of
from webhook.revert.command import SETTLE_SECONDS, read, run

SECRETS = "/api/v1/namespaces/{}/secrets"
CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/darner"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/darner-system/leases/darner-webhook"
UNINSTALL = (
    "--uninstall", "--webhook-configuration", "darner", "--lease", "darner-system/darner-webhook",
    "--release-secrets", "darner-system/darner-webhook,darner-system/darner-swarm",
)  # fmt: skip


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with running() as server:
        yield server


@pytest.fixture
def cluster(api: ApiServer, tmp_path: Path) -> Cluster:
    return Cluster({"KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig"))})


def reverted(cluster: Cluster, *flags: str, pauses: list[float] | None = None) -> tuple[int, list[str]]:
    output = io.StringIO()
    status = run(cluster, read(flags), output, (pauses if pauses is not None else []).append)
    return status, output.getvalue().splitlines()


def put(api: ApiServer, name: str, namespace: str = "shop", release: str = "", **state: Any) -> str:
    subject = pod(container("app", "nginx:1"), metadata={"name": name, "namespace": namespace, "uid": name})
    document = admitted(subject, Policy(release=release))
    document["status"] = {"phase": "Pending", "containerStatuses": [{"name": "app", "state": state}] if state else []}
    api.put(f"/api/v1/namespaces/{namespace}/pods/{name}", document)
    return f"/api/v1/namespaces/{namespace}/pods/{name}"


def put_derived(api: ApiServer, namespace: str = "shop", release: str = "") -> str:
    auths = json.dumps({"auths": {"quay.io": {"username": "u", "password": "p"}}}).encode()
    path = SECRETS.format(namespace) + "/registry"
    data = {".dockerconfigjson": base64.b64encode(auths).decode()}
    document = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson", "data": data}
    original = original_of(api.put(path, document))
    assert original
    derived = f"{SECRETS.format(namespace)}/{derived_name('registry')}"
    api.put(derived, derive(original, ["quay.io"], release=release))
    return derived


def put_release(api: ApiServer) -> list[str]:
    paths = [CONFIGURATION, LEASE, *(f"{SECRETS.format('darner-system')}/{name}" for name in ("darner-webhook", "darner-swarm"))]
    for path in paths:
        api.put(path, {"metadata": {}})
    return paths


def image_of(api: ApiServer, path: str) -> str:
    image: str = api.objects[path]["spec"]["containers"][0]["image"]
    return image


def test_a_pod_that_was_made_from_another_pod_gets_the_image_back_that_its_local_name_tells(
    api: ApiServer, cluster: Cluster
) -> None:
    """FAULTS 72."""
    copied = pod(container("app", LOCAL + "quay.io/x/y:1"), metadata={"name": "copy", "namespace": "shop", "uid": "copy"})
    api.put("/api/v1/namespaces/shop/pods/copy", admitted(copied))
    assert reverted(cluster) == (0, ["pod shop/copy: has its original images back: containers/app quay.io/x/y:1"])
    assert image_of(api, "/api/v1/namespaces/shop/pods/copy") == "quay.io/x/y:1"


def test_everything_that_does_not_run_gets_its_image_back_and_what_runs_keeps_it(api: ApiServer, cluster: Cluster) -> None:
    unscheduled, waits = put(api, "a"), put(api, "b", "other", waiting={"reason": "ContainerCreating"})
    runs = put(api, "c", running={})
    assert reverted(cluster) == (
        0,
        [
            "pod other/b: has its original images back: containers/app nginx:1",
            "pod shop/a: has its original images back: containers/app nginx:1",
            "pod shop/c: left as it is, because it runs: containers/app",
        ],
    )
    assert image_of(api, unscheduled) == image_of(api, waits) == "nginx:1"
    assert image_of(api, runs).startswith(LOCAL)
    assert reverted(cluster)[1] == ["pod shop/c: left as it is, because it runs: containers/app"]


def test_a_pod_that_waits_for_a_volume_that_nobody_can_change_is_told(api: ApiServer, cluster: Cluster) -> None:
    for name, state in (("waits", {"waiting": {"reason": "ContainerCreating"}}), ("runs", {"running": {}})):
        metadata = {"name": name, "uid": name}
        document = admitted(pod(container("app", "nginx:1"), metadata=metadata, volumes=[image_volume("model", "ghcr.io/x/y")]))
        document["status"] = {"phase": "Pending", "containerStatuses": [{"name": "app", "state": state}]}
        api.put(f"/api/v1/namespaces/shop/pods/{name}", document)
    assert reverted(cluster) == (
        0,
        [
            "pod shop/runs: left as it is, because it runs: containers/app",
            "pod shop/waits: has to be made anew if it stays without volumes/model ghcr.io/x/y: nobody can change a volume",
            "pod shop/waits: has its original images back: containers/app nginx:1",
        ],
    )


def test_one_namespace_is_enough_if_it_is_named(api: ApiServer, cluster: Cluster) -> None:
    here, there = put(api, "a"), put(api, "b", "other")
    assert reverted(cluster, "--namespace", "shop")[0] == 0
    assert (image_of(api, here), image_of(api, there)[: len(LOCAL)]) == ("nginx:1", LOCAL)


def test_an_uninstallation_leaves_nothing_and_begins_with_the_configuration(api: ApiServer, cluster: Cluster) -> None:
    path, derived, release = put(api, "a"), put_derived(api), put_release(api)
    original, pauses = f"{SECRETS.format('shop')}/registry", []
    status, lines = reverted(cluster, *UNINSTALL, pauses=pauses)
    assert (status, pauses) == (0, [SETTLE_SECONDS])
    assert lines[0] == "mutatingwebhookconfiguration darner: deleted"
    assert image_of(api, path) == "nginx:1"
    assert not {derived, *release} & set(api.objects)
    assert original in api.objects
    again, lines = reverted(cluster, *UNINSTALL)
    assert again == 0
    assert {line.rpartition(": ")[2] for line in lines} == {"gone already"}


def test_an_uninstallation_touches_nothing_of_another_release(api: ApiServer, cluster: Cluster) -> None:
    ours, theirs = put(api, "a", release="one.darner"), put(api, "b", release="two.darner")
    our_secret, their_secret = put_derived(api, release="one.darner"), put_derived(api, "other", release="two.darner")
    status, lines = reverted(cluster, "--uninstall", "--release", "one.darner")
    assert status == 0
    assert lines == [
        "pod shop/a: has its original images back: containers/app nginx:1",
        "secret shop/darner-registry: deleted",
    ]
    assert (image_of(api, ours), image_of(api, theirs)) == ("nginx:1", LOCAL + "docker.io/library/nginx:1")
    assert our_secret not in api.objects
    assert their_secret in api.objects
    assert reverted(cluster)[1] == ["pod shop/b: has its original images back: containers/app nginx:1"]


def test_a_secret_that_only_bears_the_labels_of_a_derived_one_is_kept(api: ApiServer, cluster: Cluster) -> None:
    labels = {"app.kubernetes.io/managed-by": "darner", "darner.dev/derived-from": "registry"}
    path = f"{SECRETS.format('shop')}/darner-registry"
    api.put(path, {"metadata": {"labels": labels}})
    assert reverted(cluster, "--uninstall")[0] == 0
    assert path in api.objects


def test_a_dry_run_says_the_same_and_changes_nothing(api: ApiServer, cluster: Cluster) -> None:
    put(api, "a")
    put_derived(api)
    put_release(api)
    before = json.dumps(api.objects, sort_keys=True)
    status, lines = reverted(cluster, *UNINSTALL, "--dry-run")
    assert (status, len(lines)) == (0, 6)
    assert all(": would " in line for line in lines)
    assert json.dumps(api.objects, sort_keys=True) == before
    assert {request.split()[0] for request in api.requests} == {"GET"}


def test_what_cannot_be_done_is_told_and_the_rest_is_done(api: ApiServer, cluster: Cluster) -> None:
    path, derived = put(api, "a"), put_derived(api)
    api.refusals = {f"PATCH {path}": 403, "DELETE /apis/admissionregistration": 403}
    status, lines = reverted(cluster, *UNINSTALL, "--output", "json")
    acts = [json.loads(line) for line in lines]
    assert status == 2
    assert [(act["what"], act["did"]) for act in acts if not act["done"]] == [
        ("mutatingwebhookconfiguration", "not deleted: the API server answered 403"),
        ("pod", "not changed: the API server answered 403"),
    ]
    assert derived not in api.objects


def test_a_list_that_is_refused_keeps_nothing_else_from_being_done(api: ApiServer, cluster: Cluster) -> None:
    derived = put_derived(api)
    api.refusals = {"GET /api/v1/pods": 403}
    status, lines = reverted(cluster, "--uninstall")
    assert status == 2
    assert lines[0] == "pods in the cluster: /api/v1/pods cannot be listed: the API server answered 403"
    assert derived not in api.objects


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--lease", "a/b"), "need --uninstall"),
        (("--uninstall", "--release-secrets", "name"), "write NAMESPACE/NAME"),
        (("--output", "yaml"), "invalid choice"),
        (("--all",), "unrecognized arguments"),
        (("--release", "a/b"), "no value of a label"),
    ],
)
def test_a_flag_that_cannot_be_used_is_told_in_one_line(flags: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(flags)


def test_the_command_prints_what_it_did_and_says_in_one_line_when_no_cluster_answers(api: ApiServer, tmp_path: Path) -> None:
    put(api, "a")
    api.objects["/version"] = {"gitVersion": "v1.36.3"}
    environment = {**os.environ, "KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig"))}
    argv = [sys.executable, "-W", "error", "-m", "webhook.revert.command"]
    ended = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "pod shop/a: has its original images back: containers/app nginx:1\n"
    api.refusal = 503
    ended = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "darner revert: the API server answered 503\n")
