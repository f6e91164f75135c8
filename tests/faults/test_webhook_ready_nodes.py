"""Pods are rewritten only where an agent is ready to serve them; see row 8 of FAULTS.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.lab.apiserver import ApiServer, running
from hack.lab.process import wait_until
from tests.webhook_lab import LOCAL, RunningWebhook, applied, container, pod, review
from webhook.pods import DECISION

SLICES = "/apis/discovery.k8s.io/v1/namespaces/darner-system/endpointslices"
NODES = "/api/v1/nodes"
STARTUP = {"key": "darner.dev/agent-not-ready", "effect": "NoSchedule"}


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with running() as server:
        yield server


@pytest.fixture
def webhook(api: ApiServer, tmp_path: Path) -> Iterator[RunningWebhook]:
    agents(api, n1=True, n2=True, n3=False)
    with started(api, tmp_path) as process:
        wait_until(lambda: process.get("/readyz")[0] == 200)
        yield process
        assert process.process.stop() == 0


def started(api: ApiServer, directory: Path, *flags: str) -> RunningWebhook:
    environment = {"KUBECONFIG": str(api.kubeconfig(directory / "kubeconfig"))}
    return RunningWebhook(directory, "--agent-service", "darner-system/darner-agent", *flags, environment=environment)


def agents(api: ApiServer, family: str = "IPv4", **ready: bool) -> None:
    """What the EndpointSlice of the agents' Service says now."""
    labels = {"kubernetes.io/service-name": "darner-agent"}
    endpoints = [{"nodeName": node, "addresses": ["a"], "conditions": {"ready": value}} for node, value in ready.items()]
    name = f"darner-agent-{family.lower()}"
    api.put(f"{SLICES}/{name}", {"metadata": {"name": name, "labels": labels}, "addressType": family, "endpoints": endpoints})


def decision(webhook: RunningWebhook, **spec: Any) -> str | None:
    """Why the pod is left alone; None if it is rewritten."""
    subject = pod(container("a", "nginx"), **spec)
    after = applied(subject, webhook.ask(review(subject)))
    if after["spec"]["containers"][0]["image"].startswith(LOCAL):
        return None
    said: str = after["metadata"].pop("annotations")[DECISION]
    assert after == subject
    return said


def gauge(webhook: RunningWebhook, sample: str) -> float:
    found = re.search(rf"^{re.escape(sample)} (\S+)$", webhook.get("/metrics")[1], re.MULTILINE)
    assert found
    return float(found[1])


def test_a_pod_bound_to_a_node_without_a_ready_agent_is_admitted_as_it_is(webhook: RunningWebhook) -> None:
    assert decision(webhook, nodeName="n1") is None
    assert decision(webhook, nodeName="n3") == "pod: it is bound to node n3, which has no agent that is ready"
    assert decision(webhook, nodeName="n9") == "pod: it is bound to node n9, which has no agent that is ready"
    assert decision(webhook) is None


def test_while_most_agents_are_not_ready_pods_are_admitted_as_they_are(api: ApiServer, webhook: RunningWebhook) -> None:
    agents(api, n1=True, n2=False, n3=False)
    said = "pod: agents are ready on 1 of 3 nodes, and it takes more than 50 %"
    wait_until(lambda: decision(webhook) == said, 5)
    assert decision(webhook, nodeName="n1") is None
    assert gauge(webhook, 'darner_webhook_agents{state="ready"}') == 1
    assert gauge(webhook, 'darner_webhook_agents{state="not-ready"}') == 2
    assert gauge(webhook, 'darner_webhook_left_alone_total{reason="agent-not-ready"}') >= 1


def test_an_agent_that_comes_back_is_counted_on_within_a_moment(api: ApiServer, webhook: RunningWebhook) -> None:
    assert decision(webhook, nodeName="n3") is not None
    agents(api, n1=True, n2=True, n3=True)
    wait_until(lambda: decision(webhook, nodeName="n3") is None, 5)


def test_an_agent_with_an_address_of_each_family_is_one_agent(api: ApiServer, webhook: RunningWebhook) -> None:
    agents(api, "IPv6", n1=True, n2=True, n3=False, n4=True)
    wait_until(lambda: gauge(webhook, 'darner_webhook_agents{state="ready"}') == 3, 5)
    assert gauge(webhook, 'darner_webhook_agents{state="not-ready"}') == 1


def test_a_release_without_any_agent_rewrites_nothing(api: ApiServer, webhook: RunningWebhook) -> None:
    api.remove(f"{SLICES}/darner-agent-ipv4")
    wait_until(lambda: decision(webhook) == "pod: agents are ready on 0 of 0 nodes, and it takes more than 50 %", 5)


def test_slices_of_another_service_are_not_taken_for_the_agents(api: ApiServer, tmp_path: Path) -> None:
    agents(api, n1=True)
    api.objects[f"{SLICES}/darner-agent-ipv4"]["metadata"]["labels"]["kubernetes.io/service-name"] = "darner-supernode"
    with started(api, tmp_path) as process:
        wait_until(lambda: process.get("/readyz")[0] == 200)
        assert decision(process, nodeName="n1") == "pod: it is bound to node n1, which has no agent that is ready"


def test_until_it_is_known_which_agents_are_ready_the_webhook_is_not_and_leaves_pods_alone(
    api: ApiServer, tmp_path: Path
) -> None:
    agents(api, n1=True)
    api.refusals[f"GET {SLICES}"] = 403
    with started(api, tmp_path) as process:
        assert process.get("/readyz") == (503, "it is not known yet which agents are ready\n")
        assert decision(process) == "pod: it is not known at the moment which nodes' agents are ready"
        assert gauge(process, "darner_webhook_agents_view_age_seconds") == float("inf")
        assert gauge(process, 'darner_webhook_left_alone_total{reason="agents-unknown"}') == 1
        api.refusals.clear()
        wait_until(lambda: process.get("/readyz")[0] == 200, 10)
        assert decision(process) is None


def test_when_the_api_server_falls_silent_the_view_is_soon_not_believed_and_believed_again_afterwards(
    api: ApiServer, tmp_path: Path
) -> None:
    agents(api, n1=True)
    with started(api, tmp_path, "--agent-view-age", "20s") as process:
        wait_until(lambda: process.get("/readyz")[0] == 200)
        with api.lock:
            api.silent = True
            api.refusals[f"GET {SLICES}?label"] = 500
            agents(api, n1=False)
        assert decision(process) is None
        unknown = "pod: it is not known at the moment which nodes' agents are ready"
        wait_until(lambda: decision(process) == unknown, 40)
        assert process.get("/readyz")[0] == 200
        with api.lock:
            api.silent = False
            api.refusals.clear()
        wait_until(lambda: decision(process) == "pod: agents are ready on 0 of 1 nodes, and it takes more than 50 %", 20)


def node(api: ApiServer, name: str, **labels: str) -> None:
    api.put(f"{NODES}/{name}", {"metadata": {"name": name, "labels": labels}, "spec": {"taints": [STARTUP]}})


def test_excluded_nodes_count_as_nodes_whose_agent_is_not_ready(api: ApiServer, tmp_path: Path) -> None:
    """FAULTS 71: a pool without agents, to which any pod may come."""
    agents(api, n1=True, n2=True)
    node(api, "n1", pool="web")
    node(api, "s1", pool="spot")
    with started(api, tmp_path, "--exclude-nodes", "pool=spot") as process:
        wait_until(lambda: process.get("/readyz")[0] == 200)
        assert decision(process) is None
        assert decision(process, nodeName="s1") == "pod: it is bound to node s1, which has no agent that is ready"
        words = "pod: it may come to nodes that are excluded (pool=spot), where no agent runs"
        assert decision(process, nodeSelector={"pool": "spot"}) == words
        node(api, "s2", pool="spot")
        wait_until(lambda: decision(process) == "pod: agents are ready on 2 of 4 nodes, and it takes more than 50 %", 5)
        assert gauge(process, 'darner_webhook_agents{state="excluded"}') == 2
        assert gauge(process, 'darner_webhook_agents{state="not-ready"}') == 0, "nobody is to be called about these"
        assert decision(process, nodeName="n1") is None
        api.remove(f"{NODES}/s2")
        wait_until(lambda: decision(process) is None, 5)


def test_while_nobody_knows_which_nodes_are_excluded_pods_are_left_alone(api: ApiServer, tmp_path: Path) -> None:
    agents(api, n1=True)
    api.refusals[f"GET {NODES}"] = 403
    with started(api, tmp_path, "--exclude-nodes", "pool=spot") as process:
        assert process.get("/readyz")[0] == 503
        assert decision(process) == "pod: it is not known at the moment which nodes' agents are ready"


def test_a_new_node_loses_the_startup_taint_when_its_agent_is_ready(api: ApiServer, tmp_path: Path) -> None:
    """FAULTS 78."""
    agents(api, n1=True, n2=False)
    for name in ("n1", "n2"):
        node(api, name)
    with started(api, tmp_path, "--lease", "darner-system/darner-webhook", "--startup-taint", "true") as process:
        wait_until(lambda: not api.objects[f"{NODES}/n1"]["spec"]["taints"])
        assert api.objects[f"{NODES}/n2"]["spec"]["taints"] == [STARTUP]
        agents(api, n1=True, n2=True)
        wait_until(lambda: not api.objects[f"{NODES}/n2"]["spec"]["taints"], 5)
        wait_until(lambda: gauge(process, "darner_webhook_startup_taints_total") == 2, 5)


def test_pods_are_left_alone_on_nodes_whose_runtime_does_not_pull_from_an_agent(api: ApiServer, tmp_path: Path) -> None:
    agents(api, n1=True, n2=True, n3=True)
    for name, runtime in (("n1", "containerd://2.2.9"), ("n2", "containerd://1.6.20"), ("n3", "cri-o://1.35.0")):
        node(api, name)
        api.objects[f"{NODES}/{name}"]["status"] = {"nodeInfo": {"containerRuntimeVersion": runtime}}
    with started(api, tmp_path, "--node-runtimes", "true") as process:
        words = "pod: the container runtime of node n3 does not pull from an agent as it is (docs/runtimes.md)"
        wait_until(lambda: decision(process, nodeName="n3") == words, 5)
        assert decision(process, nodeName="n1") is None
        assert decision(process) is None
        assert gauge(process, 'darner_webhook_agents{state="not-ready"}') == 0
