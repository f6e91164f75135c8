"""Which nodes are made warm, and what is said of the others."""

from __future__ import annotations

from typing import Any

import pytest

from cli.errors import WrongUsage
from cli.warm.nodes import chosen, demands, tolerant

GPU = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


def node(
    name: str, ready: str = "True", arch: str = "amd64", labels: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    system = {"kubernetes.io/os": "linux", "kubernetes.io/arch": arch}
    conditions = [{"type": "Ready", "status": ready}]
    return {"metadata": {"name": name, "labels": system | (labels or {})}, "spec": spec, "status": {"conditions": conditions}}


def test_all_nodes_that_take_pods_are_taken_and_the_others_are_left_out_with_the_reason() -> None:
    choice = chosen(
        [
            node("a"),
            node("b", arch="arm64"),
            node("away", ready="Unknown"),
            node("closed", unschedulable=True),
            node("gpu", taints=[GPU]),
            node("soft", taints=[GPU | {"effect": "PreferNoSchedule"}]),
            node("old", arch="mips"),
            node("windows", labels={"kubernetes.io/os": "windows"}),
        ],
        demands("", ""),
        {},
    )
    assert choice.taken == {"a": "amd64", "b": "arm64", "soft": "amd64"}
    assert choice.left_out == {
        "away": "it is not ready",
        "closed": "it is cordoned",
        "gpu": "it has the taint gpu; --nodes SELECTOR overlooks those that nodes are meant to keep",
        "old": "its architecture, mips, is none of amd64, arm64",
    }


def test_nodes_are_selected_by_labels_by_zone_and_by_what_the_pods_themselves_demand() -> None:
    zone = "topology.kubernetes.io/zone"
    nodes = [
        node("a", labels={"pool": "spot", zone: "z1"}),
        node("b", labels={"pool": "batch", zone: "z2"}),
        node("c", labels={"disk": "fast"}),
    ]
    assert set(chosen(nodes, demands("pool in (spot,batch)", ""), {}).taken) == {"a", "b"}
    assert set(chosen(nodes, demands("pool", "z2"), {}).taken) == {"b"}
    assert set(chosen(nodes, demands("", ""), {"nodeSelector": {"disk": "fast"}}).taken) == {"c"}


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "value": "yes"}, True),
        ({"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "gpu", "value": "yes", "effect": "NoExecute"}, False),
    ],
)
def test_a_taint_is_tolerated_as_kubernetes_sees_it(toleration: dict[str, Any], tolerated: bool) -> None:
    choice = chosen([node("a", taints=[GPU])], demands("", ""), {"tolerations": [toleration]})
    assert bool(choice.taken) is tolerated


def test_taints_of_selected_nodes_are_tolerated_but_not_those_of_nodes_that_are_still_starting() -> None:
    starting = [{"key": key, "effect": "NoSchedule"} for key in ("darner.dev/agent-not-ready", "node.kubernetes.io/not-ready")]
    nodes = [node("a", labels={"pool": "gpu"}, taints=[GPU, *starting]), node("b", taints=[GPU | {"key": "other"}])]
    mine = {"key": "mine", "operator": "Exists"}
    like = tolerant(nodes, demands("pool=gpu", ""), {"tolerations": [mine]})
    assert like == {"tolerations": [mine, {"key": "gpu", "operator": "Exists"}]}
    assert "darner.dev/agent-not-ready" in chosen(nodes, demands("pool=gpu", ""), like).left_out["a"]
    assert tolerant(nodes, demands("pool=none", ""), {}) == {}


def test_what_is_no_selector_is_wrong_usage() -> None:
    with pytest.raises(WrongUsage, match=r"--nodes: .*write it as for kubectl"):
        demands("pool in spot", "")
