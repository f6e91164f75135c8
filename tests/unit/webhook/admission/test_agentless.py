"""Where no agent runs (FAULTS 71): pods for such nodes are left alone, with the reason, and all others are not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.webhook_lab import admitted, container, pod
from webhook.admission.agentless import no_agent_there
from webhook.admission.selectors import selector
from webhook.pods import DECISION, ORIGINAL_IMAGES

EXCLUDED = selector("pool in (spot,batch)")


def term(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def affinity(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


def decided(metadata: dict[str, Any] | None = None, **spec: Any) -> str | None:
    """Why the pod is left alone; None if it is rewritten."""
    after = admitted(pod(container("a", "nginx"), metadata=metadata, **spec), gates=(no_agent_there(EXCLUDED),))
    annotations = after["metadata"]["annotations"]
    assert (ORIGINAL_IMAGES in annotations) != (DECISION in annotations)
    return annotations.get(DECISION)


def said(where: str) -> str:
    return f"pod: it may come to {where}, where no agent runs"


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"affinity": affinity(term("kubernetes.io/os", "In", "windows"))}, "nodes of another system than Linux"),
        ({"affinity": affinity(term("kubernetes.io/os", "NotIn", "linux"))}, "nodes of another system than Linux"),
        ({"nodeSelector": {"beta.kubernetes.io/os": "windows"}}, "nodes of another system than Linux"),
        ({"nodeSelector": {"node.kubernetes.io/windows-build": "10.0.20348"}}, "Windows nodes"),
        ({"affinity": affinity(term("node.kubernetes.io/windows-build", "Exists"))}, "Windows nodes"),
    ],
)
def test_a_pod_for_windows_by_affinity_or_build_label_is_left_alone(spec: dict[str, Any], where: str) -> None:
    """FAULTS 71."""
    assert decided(**spec) == said(where)


@pytest.mark.parametrize(
    ("metadata", "spec"),
    [
        ({}, {"nodeSelector": {"eks.amazonaws.com/compute-type": "fargate"}}),
        ({}, {"affinity": affinity(term("eks.amazonaws.com/compute-type", "In", "fargate"))}),
        ({}, {"tolerations": [{"key": "eks.amazonaws.com/compute-type", "operator": "Equal", "value": "fargate"}]}),
        ({}, {"schedulerName": "fargate-scheduler"}),
        ({"labels": {"eks.amazonaws.com/fargate-profile": "jobs"}}, {}),
    ],
)
def test_a_pod_for_fargate_is_left_alone(metadata: dict[str, Any], spec: dict[str, Any]) -> None:
    """FAULTS 71."""
    assert decided(metadata, **spec) == said("Fargate")


@pytest.mark.parametrize(
    "spec",
    [
        {"nodeSelector": {"type": "virtual-kubelet"}},
        {"affinity": affinity(term("type", "In", "virtual-kubelet"))},
        {"affinity": affinity(term("zone", "In", "a"), term("type", "In", "virtual-kubelet"))},
        {"tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]},
    ],
)
def test_a_pod_for_a_virtual_kubelet_or_that_may_overflow_to_one_is_left_alone(spec: dict[str, Any]) -> None:
    """FAULTS 71."""
    assert decided(**spec) == said("a virtual kubelet")


def test_a_pod_for_an_excluded_pool_is_left_alone_though_the_pool_may_have_no_node_yet() -> None:
    """FAULTS 71."""
    words = said("nodes that are excluded (pool in (spot,batch))")
    assert decided(nodeSelector={"pool": "spot"}) == words
    assert decided(affinity=affinity(term("pool", "In", "spot", "batch"))) == words
    assert decided(affinity=affinity(term("pool", "In", "spot"), term("pool", "In", "web"))) == words


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"nodeSelector": {"kubernetes.io/os": "linux", "pool": "web"}},
        {"affinity": affinity(term("kubernetes.io/os", "In", "linux", "windows"))},
        {"affinity": affinity(term("eks.amazonaws.com/compute-type", "NotIn", "fargate"))},
        {"affinity": affinity(term("pool", "In", "spot", "web"))},
        {"tolerations": [{"operator": "Exists"}, {"key": "dedicated", "operator": "Exists"}, None]},
        {"tolerations": "x", "affinity": 7},
    ],
)
def test_all_other_pods_are_rewritten(spec: dict[str, Any]) -> None:
    assert decided(**spec) is None


def test_a_pod_that_names_its_node_is_judged_by_the_agent_there() -> None:
    bound = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
    everything = [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]
    assert decided(affinity=affinity(bound), tolerations=everything) is None
