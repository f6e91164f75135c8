"""What is asked of a cluster, and which facts become of the answers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agent.values.reference import to_local
from cli.doctor.gather import CONFIGURATIONS, SOME_IMAGE, Gatherer, channel_of, probe
from cli.errors import CommandError
from cli.labels import COMPONENT
from cli.release import Installation
from tests.unit.cli.doctor.conftest import NAMESPACE, TableCluster, admitted, denied
from webhook.admission.rewrite import DRY_RUN
from webhook.kube.api import ApiAnswer
from webhook.pods import ORIGINAL_IMAGES

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
LABEL = "darner.dev/inject"
CONFIGURATION = {
    "webhooks": [
        {
            "clientConfig": {"caBundle": "x", "service": {"namespace": NAMESPACE, "name": "darner-webhook", "port": 443}},
            "namespaceSelector": {"matchExpressions": [{"key": LABEL, "operator": "In", "values": ["enabled"]}]},
        }
    ]
}

TOLD: dict[str, Any] = {
    "addresses": {"a": ["10.0.0.1"]},
    "answered": {"a": ""},
    "clock": 0.0,
    "disk": {"bytes": 10, "free": 5},
    "settings": {"DARNER_STORE_QUOTA": "20%"},
    "state": {"pulls": []},
    "metrics": ["x 1"],
}


def workload(component: str) -> dict[str, Any]:
    template = {"metadata": {"labels": {COMPONENT: component}}, "spec": {"containers": []}}
    metadata = {"name": f"darner-{component}", "labels": {COMPONENT: component}}
    return {"metadata": metadata, "spec": {"template": template, "selector": {"matchLabels": {COMPONENT: component}}}}


def pod(name: str, component: str, **spec: Any) -> dict[str, Any]:
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {COMPONENT: component}}
    return {"metadata": metadata, "spec": {"nodeName": "n0", **spec}, "status": status}


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


def rewriting(where: str, shown: dict[str, Any]) -> ApiAnswer:
    """As a webhook that is reached answers."""
    if shown["metadata"].get("annotations", {}).get(DRY_RUN) == "rewrite":
        shown = {**shown, "metadata": {**shown["metadata"], "annotations": {ORIGINAL_IMAGES: "{}"}}}
    return admitted(where, shown)


@pytest.fixture
def gatherer(cluster: TableCluster) -> Gatherer:
    workloads = {component: workload(component) for component in ("agent", "supernode", "webhook")}
    cluster.lists |= {
        "/api/v1/namespaces": [
            namespace("shop", **{LABEL: "enabled"}),
            namespace("other"),
            {**namespace("going", **{LABEL: "enabled"}), "status": {"phase": "Terminating"}},
        ],
        CONFIGURATIONS: [CONFIGURATION],
        PODS: [pod("darner-agent-a", "agent"), pod("darner-supernode-0", "supernode", subdomain="darner-supernode")],
    }
    cluster.admission = rewriting
    return Gatherer(cluster.access, NAMESPACE, Installation(cluster.access, NAMESPACE, "darner", workloads))


def test_a_pod_of_each_component_and_one_of_each_namespace_that_has_opted_in_are_tried_and_none_is_made(
    cluster: TableCluster, gatherer: Gatherer
) -> None:
    facts = gatherer.facts()
    assert [(trial.component, trial.refused) for trial in facts.pod_trials] == [("agent", ""), ("supernode", ""), ("webhook", "")]
    assert [(trial.namespace, trial.image, trial.refused) for trial in facts.rewrite_trials] == [("shop", SOME_IMAGE, "")]
    assert facts.webhook_unreached is None, "nobody asks for what has been shown"
    assert facts.unread == {}
    posts = [line for line in cluster.asked if line.startswith("POST")]
    assert posts
    assert all(line.endswith("?dry") for line in posts)


def test_a_namespace_is_tried_with_an_image_that_runs_there_as_its_author_wrote_it(
    cluster: TableCluster, gatherer: Gatherer
) -> None:
    noted = {ORIGINAL_IMAGES: '{"containers":{"app":"reg.test/app:1"}}'}
    spec = {"containers": [{"name": "app", "image": to_local("reg.test/app:1")}]}
    cluster.lists["/api/v1/namespaces/shop/pods"] = [{"metadata": {"annotations": noted}, "spec": spec}]
    assert [trial.image for trial in gatherer.facts().rewrite_trials] == ["reg.test/app:1"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ApiAnswer(405, {}), ""),
        (ApiAnswer(503, {"message": "dial tcp 10.0.0.1:10250: i/o timeout"}), "dial tcp 10.0.0.1:10250: i/o timeout"),
        (ApiAnswer(503, {}), "nobody answers there"),
    ],
)
def test_where_no_word_of_the_webhook_comes_back_the_api_server_says_what_fails(
    cluster: TableCluster, gatherer: Gatherer, answer: ApiAnswer, words: str
) -> None:
    cluster.admission, cluster.proxied = admitted, answer
    assert gatherer.facts().webhook_unreached == words
    path = f"/api/v1/namespaces/{NAMESPACE}/services/https:darner-webhook:443/proxy/mutate"
    assert f"GET {path}" in cluster.asked


def test_a_pod_that_is_refused_is_tried_under_its_own_name_too(cluster: TableCluster, gatherer: Gatherer) -> None:
    def policy(where: str, shown: dict[str, Any]) -> ApiAnswer:
        asks = DRY_RUN in shown["metadata"].get("annotations", {})
        return denied("denied by a policy", 422) if asks else admitted(where, shown)

    cluster.admission = policy
    (trial,) = gatherer.facts().rewrite_trials
    assert (trial.refused, trial.refused_plainly, trial.admitted) == ("denied by a policy", "", None)


def test_what_may_not_be_done_is_noted_and_the_rest_is_found_out(cluster: TableCluster, gatherer: Gatherer) -> None:
    cluster.forbidden = {"/api/v1/nodes", "/api/v1/pods"}
    cluster.admission = lambda where, _: denied(f'User "x" cannot create resource "pods" in the namespace "{where}"')
    facts = gatherer.facts()
    assert set(facts.unread) >= {"nodes", "pods", "what becomes of a pod in shop", "whether pods of the agent are admitted"}
    assert facts.pods
    assert facts.clock_ahead_seconds is None


def test_a_supernode_with_a_volume_of_its_own_is_tried_as_its_controller_would_make_it(
    cluster: TableCluster, gatherer: Gatherer
) -> None:
    assert gatherer.installation
    gatherer.installation.workloads["supernode"]["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "store"}}]
    tried: list[dict[str, Any]] = []

    def admission(where: str, shown: dict[str, Any]) -> ApiAnswer:
        tried.append(shown)
        return rewriting(where, shown)

    cluster.admission = admission
    gatherer.facts()
    (supernode,) = [item for item in tried if item["metadata"].get("generateName") == "darner-supernode-"]
    assert supernode["spec"]["volumes"] == [{"name": "store", "emptyDir": {}}]


def test_before_the_installation_a_new_namespace_is_what_default_is(cluster: TableCluster) -> None:
    cluster.admission = lambda where, shown: (
        denied("violates PodSecurity") if "generateName" in shown["metadata"] else admitted(where, shown)
    )
    cluster.objects["/api/v1/namespaces/default"] = namespace("default")
    facts = Gatherer(cluster.access, "new").facts()
    assert not facts.installed
    assert [(item.namespace, item.elsewhere, item.refused) for item in facts.pod_trials] == [
        ("new", True, "violates PodSecurity")
    ]
    assert "POST /api/v1/namespaces/default/pods?dry" in cluster.asked
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    cluster.objects["/api/v1/namespaces/default"] = {"metadata": {"labels": labels}}
    facts = Gatherer(cluster.access, "new").facts()
    assert facts.pod_trials == []
    assert "whether agents are admitted in new" in facts.unread


def test_a_namespace_that_has_just_been_made_refuses_nobody(cluster: TableCluster) -> None:
    words = 'pods "x" is forbidden: error looking up service account new/default: serviceaccount "default" not found'
    cluster.admission = lambda where, shown: denied(words) if shown["kind"] == "Pod" else admitted(where, shown)
    facts = Gatherer(cluster.access, NAMESPACE).facts()
    assert facts.pod_trials == []
    assert facts.unread == {"whether pods of the agent are admitted": f"{NAMESPACE} has just been made; try again"}


def test_a_probe_tells_what_a_pod_sees_and_asks_for_the_channels_by_name(cluster: TableCluster, gatherer: Gatherer) -> None:
    cluster.probe = TOLD | {"clock": time.time() + 100}
    seen = gatherer.facts().probes[0]
    assert (seen.pod, seen.node, seen.component, seen.trouble) == ("darner-agent-a", "n0", "agent", "")
    assert seen.clock_ahead_seconds == pytest.approx(100, abs=30)
    assert (seen.disk_bytes, seen.disk_free_bytes, seen.metrics) == (10, 5, ["x 1"])
    channel = f"darner-supernode-0.darner-supernode.{NAMESPACE}.svc:65004"
    assert f"EXEC {NAMESPACE}/darner-agent-a {channel}" in cluster.asked


@pytest.mark.parametrize("answer", [CommandError("it went away"), {}, {"clock": "late"}, {**TOLD, "disk": 3}])
def test_a_probe_that_tells_nothing_of_use_breaks_nothing(cluster: TableCluster, answer: Any) -> None:
    cluster.probe = answer
    seen = probe(cluster.access, pod("darner-agent-a", "agent"))
    assert seen.addresses == {}
    assert seen.trouble


def test_a_channel_is_named_so_that_every_search_list_completes_it() -> None:
    assert channel_of(pod("s-0", "supernode", subdomain="s")) == f"s-0.s.{NAMESPACE}.svc:65004"
