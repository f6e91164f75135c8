"""Ready nodes only: what EndpointSlices say, which nodes a pod is bound to, and whether it may count on an agent."""

from __future__ import annotations

from typing import Any

import pytest

from tests.webhook_lab import admitted, container, pod
from webhook.admission.readiness import Agents, agents_of, bound_nodes, ready_nodes_only, together
from webhook.gates import Reason
from webhook.pods import DECISION, ORIGINAL_IMAGES


def endpoint(node: str | None, **conditions: bool | None) -> dict[str, Any]:
    return {"addresses": ["10.0.0.1"], "conditions": conditions} | ({"nodeName": node} if node else {})


def affinity(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


def names(key: str, *values: str, operator: str = "In") -> dict[str, Any]:
    field = "matchFields" if key == "metadata.name" else "matchExpressions"
    return {field: [{"key": key, "operator": operator, "values": list(values)}]}


AGENTS = Agents(nodes=frozenset({"n1", "n2", "n3"}), ready=frozenset({"n1", "n2"}))


def decided(agents: Agents | None, ready_percent: int = 50, **spec: Any) -> str | None:
    """Why the pod is left alone; None if it is rewritten."""
    after = admitted(pod(container("a", "nginx"), **spec), gates=(ready_nodes_only(lambda: agents, ready_percent),))
    annotations = after["metadata"]["annotations"]
    assert (ORIGINAL_IMAGES in annotations) != (DECISION in annotations)
    return annotations.get(DECISION)


def test_a_slice_tells_which_nodes_have_an_agent_and_which_of_them_are_ready() -> None:
    endpoints = [
        endpoint("n1", ready=True),
        endpoint("n2", ready=False, serving=True),
        endpoint("n3"),
        endpoint(None, ready=True),
    ]
    assert agents_of({"endpoints": endpoints}) == Agents(frozenset({"n1", "n2", "n3"}), frozenset({"n1", "n3"}))


@pytest.mark.parametrize("endpoints", [None, [], "none", [None, 7, {}, {"nodeName": 7}, {"nodeName": ""}]])
def test_a_slice_without_a_node_tells_of_none(endpoints: Any) -> None:
    assert agents_of({"endpoints": endpoints}) == Agents()


def test_a_condition_that_is_null_means_ready() -> None:
    assert agents_of({"endpoints": [endpoint("n1", ready=None)]}).ready == {"n1"}


def test_a_node_with_an_old_agent_that_leaves_and_a_new_one_that_is_ready_is_ready() -> None:
    old, new = agents_of({"endpoints": [endpoint("n1", ready=False)]}), agents_of({"endpoints": [endpoint("n1", ready=True)]})
    assert together([old, new]) == together([new, old]) == Agents(frozenset({"n1"}), frozenset({"n1"}))
    assert together([]) == Agents()


def test_a_pod_that_names_no_node_is_bound_to_none() -> None:
    assert bound_nodes(pod()) is None
    assert bound_nodes(pod(nodeSelector={"disk": "ssd"}, affinity={"podAntiAffinity": {}})) is None
    assert bound_nodes({}) is None


def test_a_pod_is_bound_by_its_node_name_by_the_hostname_that_it_selects_and_by_node_affinity() -> None:
    assert bound_nodes(pod(nodeName="n1")) == {"n1"}
    assert bound_nodes(pod(nodeSelector={"kubernetes.io/hostname": "n2"})) == {"n2"}
    assert bound_nodes(pod(affinity=affinity(names("metadata.name", "n3")))) == {"n3"}
    assert bound_nodes(pod(affinity=affinity(names("kubernetes.io/hostname", "n1", "n2")))) == {"n1", "n2"}
    assert bound_nodes(pod(affinity=affinity(names("metadata.name", "n1"), names("metadata.name", "n2")))) == {"n1", "n2"}


def test_an_affinity_that_leaves_a_way_to_other_nodes_binds_to_none() -> None:
    assert bound_nodes(pod(affinity=affinity(names("metadata.name", "n1"), names("zone", "a")))) is None
    assert bound_nodes(pod(affinity=affinity(names("metadata.name", "n1", operator="NotIn")))) is None


@pytest.mark.parametrize(
    "terms", [None, "x", [None], [{"matchFields": "x"}], [{"matchFields": [None, {"key": "metadata.name"}]}]]
)
def test_a_malformed_affinity_binds_to_none(terms: Any) -> None:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    assert bound_nodes(pod(affinity={"nodeAffinity": required})) is None


def test_a_pod_bound_to_a_node_is_rewritten_when_that_nodes_agent_is_ready_whatever_the_others_are() -> None:
    assert decided(Agents(AGENTS.nodes, frozenset({"n1"})), nodeName="n1") is None


def test_a_daemonsets_pod_for_a_node_whose_agent_is_not_ready_is_left_alone() -> None:
    said = decided(AGENTS, affinity=affinity(names("metadata.name", "n3")))
    assert said == "pod: it is bound to node n3, which has no agent that is ready"


def test_a_pod_bound_to_a_node_without_an_agent_is_left_alone() -> None:
    assert decided(AGENTS, nodeName="n9") == "pod: it is bound to node n9, which has no agent that is ready"


def test_a_pod_that_names_several_nodes_is_judged_by_those() -> None:
    either = affinity(names("kubernetes.io/hostname", "n3", "n4", "n1"))
    assert decided(AGENTS, affinity=either) == "pod: agents are ready on 1 of 3 nodes that it names, and it takes more than 50 %"
    assert decided(AGENTS, ready_percent=33, affinity=either) is None
    assert decided(AGENTS, affinity=affinity(names("kubernetes.io/hostname"))) is not None


def test_other_pods_are_rewritten_only_while_more_than_half_of_the_agents_are_ready() -> None:
    four = frozenset({"n1", "n2", "n3", "n4"})
    assert decided(AGENTS) is None
    assert decided(Agents(four, frozenset({"n1", "n2", "n3"}))) is None
    assert decided(Agents(four, frozenset({"n1", "n2"}))) == (
        "pod: agents are ready on 2 of 4 nodes, and it takes more than 50 %"
    )


def test_a_pod_is_left_alone_whose_nodes_have_runtimes_that_do_not_pull_from_an_agent() -> None:
    agents = Agents(frozenset({"n1", "n2", "n3"}), frozenset({"n2", "n3"}), refusing=frozenset({"n1"}))
    assert decided(agents, nodeName="n1") == (
        "pod: the container runtime of node n1 does not pull from an agent as it is (docs/runtimes.md)"
    )
    assert decided(agents, nodeName="n2") is None
    assert decided(agents) is None
    most = Agents(agents.nodes, frozenset({"n3"}), refusing=frozenset({"n1", "n2"}))
    assert decided(most) == "pod: agents are ready on 1 of 3 nodes, and it takes more than 50 %"


def test_without_any_agent_every_pod_is_left_alone_however_low_the_bound() -> None:
    assert decided(Agents(), ready_percent=0) == "pod: agents are ready on 0 of 0 nodes, and it takes more than 0 %"


def test_while_nobody_knows_which_agents_are_ready_every_pod_is_left_alone() -> None:
    assert decided(None, nodeName="n1") == "pod: it is not known at the moment which nodes' agents are ready"


def test_a_refusal_is_counted_by_its_reason() -> None:
    gate = ready_nodes_only(lambda: AGENTS, 50)
    assert [left.reason for left in gate("shop", pod(nodeName="n3"), ())] == [Reason.AGENT_NOT_READY]
    assert [left.reason for left in ready_nodes_only(lambda: None, 50)("shop", pod(), ())] == [Reason.AGENTS_UNKNOWN]


def test_a_node_name_that_no_api_server_accepts_is_shown_harmlessly() -> None:
    said = decided(AGENTS, nodeName="a\r\n\x1b[31m" * 100)
    assert said
    assert said.isprintable()
    assert len(said) < 300
