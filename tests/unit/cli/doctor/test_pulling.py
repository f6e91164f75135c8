"""`--pull`, carried out: its pods are gone afterwards, whatever happened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from agent.values.reference import to_local
from cli.doctor import pulling
from cli.doctor.finding import Severity
from cli.doctor.gather import Gatherer
from cli.doctor.pulling import Puller
from cli.errors import CommandError
from cli.labels import COMPONENT
from cli.release import Installation
from tests.unit.cli.doctor.conftest import NAMESPACE, TableCluster, admitted, denied
from webhook.kube.api import ApiAnswer

IMAGE = "reg.test/app:1"


class PullingCluster(TableCluster):
    """Where pods are made and looked at; each look is the next state of `states`."""

    states: Iterator[dict[str, Any]]

    def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        if "/pods/darner-doctor-" not in path:
            return super().get(path, query)
        found = next(self.states)
        if isinstance(found.get("raise"), BaseException):
            raise found["raise"]
        return found


def looks(state: dict[str, Any], image: str = to_local(IMAGE)) -> dict[str, Any]:
    return {"spec": {"containers": [{"image": image}]}, "status": {"containerStatuses": [{"state": state}]}}


PULLED = looks({"running": {}})
FAILED = looks({"waiting": {"reason": "ErrImagePull", "message": "app:1: not found"}})


@pytest.fixture
def cluster() -> PullingCluster:
    cluster = PullingCluster()
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    agents = [
        {"metadata": {"name": f"a-{node}", "namespace": NAMESPACE, "labels": {COMPONENT: "agent"}}, "spec": {"nodeName": node}}
        | {"status": ready}
        for node in ("n0", "n1")
    ]
    cluster.lists = {
        "/api/v1/nodes": [{"metadata": {"name": "n0"}}, {"metadata": {"name": "n1"}}],
        f"/api/v1/namespaces/{NAMESPACE}/pods": agents,
    }
    metrics = ['darner_received_bytes_total{source="peer"} 5.0']
    nothing: dict[str, Any] = {"addresses": {}, "answered": {}, "settings": {}, "state": None}
    cluster.probe = {**nothing, "clock": 0.0, "disk": {"bytes": 1, "free": 1}, "metrics": metrics}
    return cluster


def puller(cluster: TableCluster, seconds: float = 300) -> Puller:
    agent = {"spec": {"selector": {"matchLabels": {"a": "b"}}}}
    installation = Installation(cluster.access, NAMESPACE, "darner", {"agent": agent})
    return Puller(Gatherer(cluster.access, NAMESPACE, installation), installation, "shop", seconds)


def pods(cluster: TableCluster, method: str) -> int:
    return len([line for line in cluster.asked if line.startswith(f"{method} /api/v1/namespaces/shop/pods")])


def test_two_nodes_pull_one_after_the_other_and_their_pods_go(cluster: PullingCluster) -> None:
    cluster.states = iter([PULLED, PULLED])
    found = list(puller(cluster).findings(IMAGE))
    assert [item.what.split()[0] for item in found[:2]] == ["n0", "n1"]
    assert (pods(cluster, "POST"), pods(cluster, "DELETE")) == (2, 2)
    order = [line.split()[0] for line in cluster.asked if line.startswith(("POST", "DELETE"))]
    assert order == ["POST", "DELETE", "POST", "DELETE"]


def test_a_pull_that_fails_is_told_and_no_second_one_is_tried(cluster: PullingCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "FAILURE_SECONDS", 0.0)
    monkeypatch.setattr(pulling, "LOOK_SECONDS", 0.01)
    cluster.states = iter([FAILED] * 1000)
    found = list(puller(cluster).findings(IMAGE))
    assert [item.what for item in found] == ["n0 cannot pull reg.test/app:1: app:1: not found"]
    assert (pods(cluster, "POST"), pods(cluster, "DELETE")) == (1, 1)


def test_a_pod_that_is_given_its_original_name_meanwhile_says_so(cluster: PullingCluster) -> None:
    cluster.states = iter([FAILED, looks({"running": {}}, IMAGE), PULLED])
    (first, *_) = puller(cluster).findings(IMAGE)
    assert (first.severity, "without Darner" in first.what) == (Severity.PROBLEM, True)


def test_a_pod_that_nobody_can_run_is_given_up_in_time(cluster: PullingCluster) -> None:
    cluster.states = iter([looks({"waiting": {"reason": "ContainerCreating"}})] * 1000)
    found = list(puller(cluster, seconds=0).findings(IMAGE))
    assert found[0].severity is Severity.PROBLEM
    assert pods(cluster, "DELETE") == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CommandError("the API server is gone")])
def test_the_pod_goes_also_when_the_look_at_it_breaks_off(cluster: PullingCluster, error: BaseException) -> None:
    cluster.states = iter([{"raise": error}])
    with pytest.raises(type(error)):
        list(puller(cluster).findings(IMAGE))
    assert (pods(cluster, "POST"), pods(cluster, "DELETE")) == (1, 1)


def test_a_pod_that_is_not_admitted_is_an_error_in_the_api_servers_words(cluster: PullingCluster) -> None:
    cluster.admission = lambda _where, _pod: denied("exceeded quota")
    with pytest.raises(CommandError, match="exceeded quota"):
        list(puller(cluster).findings(IMAGE))


def test_a_pod_that_cannot_be_removed_is_named(cluster: PullingCluster) -> None:
    asked = cluster.ask

    def ask(method: str, path: str, *more: Any, **named: Any) -> ApiAnswer:
        return denied("no right to delete") if method == "DELETE" else asked(method, path, *more, **named)

    cluster.states = iter([PULLED])
    cluster.ask = ask  # type: ignore[method-assign]
    cluster.admission = admitted
    with pytest.raises(CommandError, match="kubectl delete pod -n shop darner-doctor-"):
        list(puller(cluster).findings(IMAGE))


def test_without_an_agents_word_nothing_is_proven(cluster: PullingCluster) -> None:
    cluster.probe = CommandError("exec is forbidden")
    with pytest.raises(CommandError, match="cannot be asked what it received: exec is forbidden"):
        list(puller(cluster).findings(IMAGE))
    assert pods(cluster, "POST") == 0
