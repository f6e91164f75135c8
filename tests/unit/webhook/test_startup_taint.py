"""The startup taint (FAULTS 78): a node loses it when its agent is ready, and not before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonpatch
import pytest

from webhook.errors import Unreachable
from webhook.kube.api import ApiAnswer
from webhook.kube.nodes import SINGLE_MAX
from webhook.startup_taint import TAINT, StartupTaint

STARTUP = {"key": TAINT, "effect": "NoSchedule"}
OTHER = {"key": "example.com/other", "effect": "NoExecute"}


class Nodes:
    """An API server that has nodes."""

    def __init__(self, **taints: list[dict[str, str]]) -> None:
        self.nodes = {
            name: {"metadata": {"name": name}, "spec": {"taints": list(items)} if items else {}} for name, items in taints.items()
        }
        self.asked: list[str] = []
        self.refusal = 0

    def ask(self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None, **_: Any) -> ApiAnswer:
        self.asked.append(f"{method} {path}")
        name = path.removeprefix("/api/v1/nodes").strip("/")
        if self.refusal and method == "PATCH":
            return ApiAnswer(self.refusal, {})
        if not name:
            names = sorted(self.nodes)
            begin = int((query or {}).get("continue") or 0)
            end = begin + int((query or {})["limit"])
            more = {"continue": str(end)} if end < len(names) else {}
            return ApiAnswer(200, {"items": [self.nodes[name] for name in names[begin:end]], "metadata": more})
        if name not in self.nodes:
            return ApiAnswer(404, {})
        if method == "PATCH":
            self.nodes[name] = jsonpatch.apply_patch(self.nodes[name], body)
        return ApiAnswer(200, self.nodes[name])

    def tainted(self) -> set[str]:
        return {name for name, node in self.nodes.items() if STARTUP in node["spec"].get("taints", [])}


def controller(nodes: Nodes, ready: set[str]) -> StartupTaint:
    return StartupTaint(nodes, lambda: frozenset(ready), lambda: True)  # type: ignore[arg-type]


def test_a_node_loses_the_taint_when_its_agent_is_ready_and_keeps_all_others() -> None:
    """FAULTS 78."""
    nodes = Nodes(n1=[OTHER, STARTUP], n2=[STARTUP], n3=[])
    ready: set[str] = set()
    taint = controller(nodes, ready)
    taint.look()
    assert nodes.tainted() == {"n1", "n2"}
    ready |= {"n1", "n3"}
    taint.look()
    assert nodes.tainted() == {"n2"}
    assert nodes.nodes["n1"]["spec"]["taints"] == [OTHER]
    ready.add("n2")
    taint.look()
    assert nodes.tainted() == set()


def test_a_node_is_looked_at_once_until_its_agent_was_not_ready_in_between() -> None:
    nodes, ready = Nodes(n1=[]), {"n1"}
    taint = controller(nodes, ready)
    for _ in range(3):
        taint.look()
    assert nodes.asked == ["GET /api/v1/nodes/n1"]
    ready.clear()
    taint.look()
    nodes.nodes["n1"]["spec"] = {"taints": [STARTUP]}  # it was made anew under its name
    ready.add("n1")
    taint.look()
    assert nodes.tainted() == set()


def test_a_new_leader_looks_at_thousands_of_nodes_in_pages() -> None:
    names = [f"n{number:04}" for number in range(10 * SINGLE_MAX)]
    nodes = Nodes(**{name: [STARTUP] if name.endswith("7") else [] for name in names})
    controller(nodes, set(names)).look()
    assert nodes.tainted() == set()
    assert len([request for request in nodes.asked if request.startswith("GET")]) == 5


@pytest.mark.parametrize("status", [409, 422])
def test_a_node_that_somebody_else_changes_meanwhile_is_looked_at_again(status: int) -> None:
    nodes = Nodes(n1=[STARTUP])
    taint = controller(nodes, {"n1"})
    nodes.refusal = status
    taint.look()
    nodes.refusal = 0
    taint.look()
    assert nodes.tainted() == set()


def test_a_node_that_is_gone_is_no_trouble_and_a_refusal_is_told() -> None:
    nodes = Nodes(n1=[STARTUP])
    taint = controller(nodes, {"n0", "n1"})
    nodes.refusal = 403
    with pytest.raises(Unreachable, match="403 about the taints of node n1"):
        taint.look()
