"""`darner warm` and `darner cool`, as they are typed: what they make, tell and leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.cluster import ClusterAccess
from cli.errors import ClusterUnreachable, ExitCode
from cli.warm import progress, warming
from tests.swarm import wait_until
from tests.unit.cli.typed import Typed
from tests.unit.cli.warm.conftest import SHOP, Document, Kubelets
from webhook.kube.api import ApiAnswer

NOT_FOUND = {"waiting": {"reason": "ErrImagePull", "message": "app:1: not found"}}
CREATING = {"waiting": {"reason": "ContainerCreating"}}
DARNER = Path(sys.executable).parent / "darner"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(progress, "FAILURE_SECONDS", 0.03)


def left(kubelets: Kubelets) -> list[str]:
    return [path for kind in ("pods", "configmaps", "daemonsets") for path in kubelets.paths(kind)]


def deployment(kubelets: Kubelets, **spec: Any) -> None:
    containers = [{"name": "web", "image": "web:1"}, {"name": "side", "image": "side:1"}]
    path = "/apis/apps/v1/namespaces/shop/deployments/web"
    kubelets.put(path, {"spec": {"template": {"spec": {"containers": containers, **spec}}}})


def created(kubelets: Kubelets) -> list[Document]:
    """The pods, as they were asked for."""
    with kubelets.lock:
        return [document for _, kind, path, document in kubelets.events if kind == "ADDED" and path.startswith(f"{SHOP}/pods/")]


def test_each_node_pulls_each_image_and_nothing_is_left(kubelets: Kubelets, typed: Typed) -> None:
    status, shown, said = typed("warm", "app:1", "db:1", "-n", "shop")
    assert (status, said) == (ExitCode.FINE, "")
    assert shown.splitlines()[-1] == "4 pulled, on 2 nodes"
    assert {tuple(line.split()[:3]) for line in shown.splitlines()[:-1]} == {
        (node, image, "pulled") for node in ("n0", "n1") for image in ("app:1", "db:1")
    }
    assert left(kubelets) == []


def test_programs_are_told_everything(kubelets: Kubelets, typed: Typed) -> None:
    kubelets.states["n1", "app:1"] = NOT_FOUND
    kubelets.put("/api/v1/nodes/n2", {"metadata": {"labels": {"kubernetes.io/os": "linux"}}, "status": {}})
    status, shown, _ = typed("warm", "app:1", "-n", "shop", "-o", "json")
    document = json.loads(shown)
    assert status == ExitCode.PROBLEM
    assert {(item["node"], item["state"], item["why"]) for item in document["images"]} == {
        ("n0", "pulled", ""),
        ("n1", "failed", "app:1: not found"),
    }
    assert (document["kept"], document["leftOut"]) == (None, {"n2": "it is not ready"})


def test_a_failure_is_told_in_the_kubelets_words_and_its_pod_is_removed_too(kubelets: Kubelets, typed: Typed) -> None:
    kubelets.states["n1", "app:1"] = NOT_FOUND
    status, shown, _ = typed("warm", "app:1", "-n", "shop")
    assert (status, "n1  app:1  failed: app:1: not found" in shown, "1 of 2 failed" in shown) == (ExitCode.PROBLEM, True, True)
    assert left(kubelets) == []


def test_pods_are_admitted_where_pod_security_is_restricted_and_hold_the_workloads_rights(
    kubelets: Kubelets, typed: Typed
) -> None:
    deployment(kubelets, serviceAccountName="shop", imagePullSecrets=[{"name": "key"}], nodeSelector={"pool": "n1"})
    status, _, said = typed("warm", "--workload", "deploy/web", "-n", "shop")
    assert (status, said) == (ExitCode.FINE, "")
    (pod,) = created(kubelets)
    spec = pod["spec"]
    assert (spec["serviceAccountName"], spec["imagePullSecrets"]) == ("shop", [{"name": "key"}])
    assert [container["image"] for container in spec["containers"]] == ["web:1", "side:1"]
    for container in spec["containers"]:
        assert container["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "imagePullPolicy" not in container
    assert [set(volume) for volume in spec["volumes"]] == [{"name", "configMap"}]


def test_a_namespace_alone_means_all_of_its_images(kubelets: Kubelets, typed: Typed) -> None:
    deployment(kubelets)
    for resource in ("statefulsets", "daemonsets"):
        assert kubelets.paths(resource) == []
    kubelets.refusals = {"GET /apis/batch/v1": 403}
    status, _, said = typed("warm", "-n", "shop")
    assert (status, "Kubernetes does not allow it" in said) == (ExitCode.PROBLEM, True)
    kubelets.refusals = {}
    kubelets.put("/apis/batch/v1/namespaces/shop/cronjobs/night", {"spec": {}})
    status, shown, said = typed("warm", "-n", "shop")
    assert (status, said) == (ExitCode.FINE, "")
    assert shown.splitlines()[-1] == "4 pulled, on 2 nodes"


def test_so_many_nodes_pull_at_a_time(kubelets: Kubelets, typed: Typed) -> None:
    for number in range(2, 6):
        node = json.loads(json.dumps(kubelets.objects["/api/v1/nodes/n0"]))
        node["metadata"] = {"name": f"n{number}", "labels": node["metadata"]["labels"]}
        kubelets.put(f"/api/v1/nodes/n{number}", node)
    assert typed("warm", "app:1", "-n", "shop", "--parallel", "2")[0] == ExitCode.FINE
    assert (len(created(kubelets)), kubelets.most_at_once) == (6, 2)


def test_only_the_selected_nodes_pull_and_without_any_it_is_said_why(kubelets: Kubelets, typed: Typed) -> None:
    status, shown, _ = typed("warm", "app:1", "-n", "shop", "--nodes", "pool=n1")
    assert (status, shown.splitlines()[-1]) == (ExitCode.FINE, "1 pulled, on 1 node")
    status, _, said = typed("warm", "app:1", "-n", "shop", "--zone", "nowhere")
    assert (status, "no node can be made warm: none has these labels" in said) == (ExitCode.PROBLEM, True)


def test_when_its_time_is_over_it_ends_with_4_and_nothing_is_left(kubelets: Kubelets, typed: Typed) -> None:
    kubelets.states["n0", "app:1"] = CREATING
    status, shown, _ = typed("warm", "app:1", "-n", "shop", "--timeout", "300ms")
    assert (status, "there was no time left for it" in shown) == (ExitCode.TIMED_OUT, True)
    assert left(kubelets) == []


def test_nodes_whose_turn_did_not_come_in_time_are_named_too(kubelets: Kubelets, typed: Typed) -> None:
    kubelets.states["n0", "app:1"] = CREATING
    status, shown, _ = typed("warm", "app:1", "-n", "shop", "--timeout", "300ms", "--parallel", "1")
    assert status == ExitCode.TIMED_OUT
    assert [line.split()[0] for line in shown.splitlines() if "there was no time left for it" in line] == ["n0", "n1"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_ends_it_nothing_is_left(kubelets: Kubelets, number: signal.Signals) -> None:
    kubelets.states["n0", "app:1"] = CREATING
    command = [DARNER, "warm", "app:1", "-n", "shop"]
    with subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        wait_until(lambda: kubelets.paths("pods"), 30)
        running.send_signal(number)
        assert running.wait(30) == ExitCode.INTERRUPTED
        assert running.stderr
        assert running.stderr.read() == b""
    assert left(kubelets) == []


def test_pods_that_are_not_admitted_are_an_error_in_the_api_servers_words(kubelets: Kubelets, typed: Typed) -> None:
    kubelets.refusals = {f"POST {SHOP}/pods": 403}
    status, _, said = typed("warm", "app:1", "-n", "shop")
    assert (status, "Kubernetes does not allow it" in said, said.count("\n")) == (ExitCode.PROBLEM, True, 1)
    assert left(kubelets) == []


def test_what_cannot_be_removed_is_named_with_the_command_that_does(kubelets: Kubelets, typed: Typed) -> None:
    kubelets.refusals = {f"DELETE {SHOP}/pods": 403}
    status, _, said = typed("warm", "app:1", "-n", "shop")
    assert (status, "kubectl delete -n shop pods/darner-warm-" in said) == (ExitCode.PROBLEM, True)
    assert kubelets.paths("configmaps") == []


def test_what_is_kept_is_a_daemonset_which_is_listed_and_can_be_removed(kubelets: Kubelets, typed: Typed) -> None:
    assert typed("warm", "app:1", "-n", "shop", "--keep", "--wait")[0] == ExitCode.FINE
    assert typed("warm", "app:1", "-n", "shop", "--keep")[0] == ExitCode.FINE
    assert [path.rpartition("-")[2] for path in kubelets.paths("daemonsets")] == ["amd64", "arm64"]
    for path in kubelets.paths("daemonsets"):
        spec = kubelets.objects[path]["spec"]
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    status, shown, _ = typed("list", "warm", "-o", "json")
    (row,) = json.loads(shown)
    assert (status, row["images"]) == (ExitCode.FINE, ["app:1"])
    assert typed("cool", row["name"])[0] == ExitCode.FINE
    assert kubelets.paths("daemonsets") + kubelets.paths("configmaps") == []
    status, _, said = typed("cool", row["name"])
    assert (status, f"nothing is kept as {row['name']}" in said) == (ExitCode.PROBLEM, True)


@pytest.mark.parametrize("refused", ["/apis/apps/v1/namespaces/shop/daemonsets", f"{SHOP}/configmaps"])
def test_where_not_all_of_what_is_kept_is_allowed_nothing_is_left(kubelets: Kubelets, typed: Typed, refused: str) -> None:
    kubelets.refusals = {f"POST {refused}": 403}
    status, _, said = typed("warm", "app:1", "-n", "shop", "--keep")
    assert (status, "Kubernetes does not allow it" in said) == (ExitCode.PROBLEM, True)
    assert kubelets.paths("daemonsets") + kubelets.paths("configmaps") == []


def test_a_cluster_that_goes_away_is_told_with_what_stays_in_it(
    kubelets: Kubelets, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ClusterAccess.ask

    def ask(self: ClusterAccess, method: str, path: str, *more: Any, **named: Any) -> ApiAnswer:
        if method == "DELETE":
            raise ClusterUnreachable("the cluster does not answer")
        return asked(self, method, path, *more, **named)

    monkeypatch.setattr(ClusterAccess, "ask", ask)
    status, _, said = typed("warm", "app:1", "-n", "shop")
    assert (status, said.count("\n")) == (ExitCode.PROBLEM, 1)
    assert "kubectl delete -n shop pods/darner-warm-" in said
    assert " configmaps/darner-warm-" in said


def test_nodes_that_are_still_to_come_can_be_kept_warm(kubelets: Kubelets, typed: Typed) -> None:
    status, _, said = typed("warm", "app:1", "-n", "shop", "--keep", "--nodes", "pool=gpu,kind!=old")
    assert (status, said) == (ExitCode.FINE, "")
    spec = kubelets.objects[kubelets.paths("daemonsets")[0]]["spec"]["template"]["spec"]
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {"key": "pool", "operator": "In", "values": ["gpu"]} in term["matchExpressions"]
    assert {"key": "kind", "operator": "NotIn", "values": ["old"]} in term["matchExpressions"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["warm"], "nothing is to be warm; write IMAGE..."),
        (["warm", "a b"], "'a b' names no image"),
        (["warm", "app:1", "--workload", "deploy/web"], "write either IMAGE... or --workload"),
        (["warm", "--workload", "web"], "write deploy/NAME"),
        (["warm", "app:1", "--nodes", "a in b"], "--nodes:"),
        (["warm", "app:1", "--timeout", "soon"], "--timeout"),
        (["warm", "app:1", "--parallel", "0"], "--parallel"),
        (["warm", "app:1", "--parallel", "9", "--keep"], "--keep has all nodes pull at once"),
        (["cool", "web"], "write NAMESPACE/NAME"),
    ],
)
def test_what_is_typed_wrong_is_told_in_one_line_and_makes_nothing(
    kubelets: Kubelets, typed: Typed, argv: list[str], words: str
) -> None:
    status, _, said = typed(*argv)
    assert (status, words in said, said.count("\n")) == (ExitCode.USAGE, True, 1), said
    assert kubelets.asked("POST") == []
