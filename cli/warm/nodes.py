"""Which nodes are to be warm: those that the options select and that would take the pods, and why others are left out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cli.errors import WrongUsage
from cli.labels import labels_of, unmet
from cli.pods import is_ready, name_of
from cli.warm.program import PROGRAMS
from webhook.admission.selectors import Requirement, selector
from webhook.kube.api import Object, mapping_at, mappings_at, text_at

ARCHITECTURE, ZONE = "kubernetes.io/arch", "topology.kubernetes.io/zone"
_LINUX = Requirement("kubernetes.io/os", "In", frozenset({"linux"}))
_KEEPS_PODS_AWAY = ("NoSchedule", "NoExecute")
_STARTING = "node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "darner.dev/"
"""Prefixes of taints that nodes lose once they can take pods: Kubernetes' own, and the agents' (docs/install.md)."""


@dataclass
class Choice:
    taken: dict[str, str] = field(default_factory=dict)
    """The architecture of each node, by its name."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why, by the name of the node."""


def demands(nodes: str, zone: str) -> list[dict[str, Any]]:
    """Of a node's labels, as node affinity writes them. Raises WrongUsage."""
    try:
        requirements = [_LINUX, *selector(nodes).requirements]
    except ValueError as error:
        raise WrongUsage(f"--nodes: {error}") from None
    if zone:
        requirements.append(Requirement(ZONE, "In", frozenset({zone})))
    return [
        {"key": item.key, "operator": item.operator, **({"values": sorted(item.values)} if item.values else {})}
        for item in requirements
    ]


def tolerant(nodes: Iterable[Object], expressions: Sequence[Mapping[str, Any]], like: Mapping[str, Any]) -> Mapping[str, Any]:
    """`like`, with tolerations for the taints of the selected nodes, which whoever selected them means."""
    wanted = {"matchExpressions": list(expressions)}
    selected = [node for node in nodes if not unmet(wanted, labels_of(node))]
    keys = {text_at(taint, "key") for node in selected for taint in mappings_at(mapping_at(node, "spec"), "taints")}
    added = [{"key": key, "operator": "Exists"} for key in sorted(keys) if not key.startswith(_STARTING)]
    return {**like, "tolerations": [*mappings_at(like, "tolerations"), *added]} if added else like


def chosen(nodes: Iterable[Object], expressions: Sequence[Mapping[str, Any]], like: Mapping[str, Any]) -> Choice:
    """`like`: node selector and tolerations of the pods."""
    wanted = {"matchExpressions": list(expressions), "matchLabels": mapping_at(like, "nodeSelector")}
    choice = Choice()
    for node in nodes:
        labels = labels_of(node)
        if unmet(wanted, labels):
            continue
        architecture = labels.get(ARCHITECTURE, "without a name")
        if why := _takes_no_pod(node, list(mappings_at(like, "tolerations"))):
            choice.left_out[name_of(node)] = why
        elif architecture not in PROGRAMS:
            choice.left_out[name_of(node)] = f"its architecture, {architecture}, is none of {', '.join(PROGRAMS)}"
        else:
            choice.taken[name_of(node)] = architecture
    return choice


def _takes_no_pod(node: Object, tolerations: Sequence[Mapping[str, Any]]) -> str:
    if not is_ready(node):
        return "it is not ready"
    spec = mapping_at(node, "spec")
    if spec.get("unschedulable"):
        return "it is cordoned"
    for taint in mappings_at(spec, "taints"):
        if text_at(taint, "effect") in _KEEPS_PODS_AWAY and not any(_tolerates(item, taint) for item in tolerations):
            return f"it has the taint {text_at(taint, 'key')}; --nodes SELECTOR overlooks those that nodes are meant to keep"
    return ""


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """core/v1, Toleration.ToleratesTaint."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    exists = toleration.get("operator") == "Exists"
    return exists or (bool(toleration.get("key")) and text_at(toleration, "value") == text_at(taint, "value"))
