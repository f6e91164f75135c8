"""Which nodes have an agent that is ready, and whether a pod may count on one.

Pure: EndpointSlices of the agents' Service go in, a view and a gate come out. How old a view may be, and how it is kept, is
its caller's business; a gate without a view lets nothing pass, because a pod under its own names runs on every node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from webhook.gates import Gate, LeftAlone, Reason, Rewrite
from webhook.kube.api import mapping_at, text_at
from webhook.pods import Pod

HOSTNAME = "kubernetes.io/hostname"


@dataclass(frozen=True)
class Agents:
    """The nodes that have an agent, and those of them whose agent can serve a pull now."""

    nodes: frozenset[str] = frozenset()
    ready: frozenset[str] = frozenset()
    """Some of `nodes`."""
    refusing: frozenset[str] = frozenset()
    """Nodes whose container runtime does not pull from an agent. None of them is in `ready`."""


def agents_of(endpoint_slice: Mapping[str, Any]) -> Agents:
    """The agents in one EndpointSlice of their Service (discovery.k8s.io/v1)."""
    nodes: set[str] = set()
    ready: set[str] = set()
    endpoints = endpoint_slice.get("endpoints")
    for endpoint in endpoints if isinstance(endpoints, list) else ():
        node = text_at(endpoint, "nodeName") if isinstance(endpoint, Mapping) else ""
        if node:
            nodes.add(node)
            # "nil should be interpreted as true" (EndpointConditions.ready)
            if mapping_at(endpoint, "conditions").get("ready") in (True, None):
                ready.add(node)
    return Agents(frozenset(nodes), frozenset(ready))


def together(views: Iterable[Agents]) -> Agents:
    """A node may be in two slices, with an address of each family, or with an old and a new agent; one that is ready suffices."""
    seen = tuple(views)
    return Agents(frozenset().union(*(view.nodes for view in seen)), frozenset().union(*(view.ready for view in seen)))


def ready_nodes_only(agents: Callable[[], Agents | None], ready_percent: int) -> Gate:
    """The gate; `agents` is the view of this moment, None while there is none that can be trusted."""

    def gate(_namespace: str, pod: Pod, _rewrites: Sequence[Rewrite]) -> Iterator[LeftAlone]:
        refused = _refusal(pod, agents(), ready_percent)
        if refused:
            yield refused

    return gate


def _refusal(pod: Pod, agents: Agents | None, ready_percent: int) -> LeftAlone | None:
    if agents is None:
        return LeftAlone("pod", Reason.AGENTS_UNKNOWN, "it is not known at the moment which nodes' agents are ready")
    bound = bound_nodes(pod)
    nodes = agents.nodes if bound is None else bound
    # Most pods name no node, and then nothing is gone through: there may be ten thousand.
    ready = len(agents.ready if bound is None else bound & agents.ready)
    if ready * 100 > len(nodes) * ready_percent:
        return None
    if bound and bound <= agents.refusing:
        words = f"the container runtime of node {_shown(min(bound))} does not pull from an agent as it is (docs/runtimes.md)"
        return LeftAlone("pod", Reason.NO_AGENT_THERE, words)
    if bound is not None and len(bound) == 1:
        return LeftAlone("pod", Reason.AGENT_NOT_READY, f"it is bound to node {_shown(*bound)}, which has no agent that is ready")
    which = "nodes" if bound is None else "nodes that it names"
    words = f"agents are ready on {ready} of {len(nodes)} {which}, and it takes more than {ready_percent} %"
    return LeftAlone("pod", Reason.AGENT_NOT_READY, words)


def _shown(name: str) -> str:
    """The name as a message may carry it: nothing of a pod is validated yet when a webhook sees it."""
    return name if len(name) <= 253 and name.isascii() and name.isprintable() else ascii(name[:80])


def bound_nodes(pod: Pod) -> frozenset[str] | None:
    """The only nodes on which the pod can run, as far as it names them itself; None: it names none.

    By `nodeName`, by a node affinity for the field `metadata.name`, as the DaemonSet controller's, or by the label
    kubernetes.io/hostname, which is taken for the node's name.
    """
    spec = mapping_at(pod, "spec")
    if text_at(spec, "nodeName"):
        return frozenset({text_at(spec, "nodeName")})
    selected = text_at(mapping_at(spec, "nodeSelector"), HOSTNAME)
    if selected:
        return frozenset({selected})
    required = mapping_at(
        mapping_at(mapping_at(spec, "affinity"), "nodeAffinity"), "requiredDuringSchedulingIgnoredDuringExecution"
    )
    terms = required.get("nodeSelectorTerms")
    # One term has to hold, so a single one that names no node leaves them all open.
    named = [_nodes_of_term(term) for term in (terms if isinstance(terms, list) else ())]
    known = [names for names in named if names is not None]
    return frozenset().union(*known) if known and len(known) == len(named) else None


def _nodes_of_term(term: Any) -> frozenset[str] | None:
    """All of a term's requirements have to hold; any that names nodes bounds it."""
    for requirements, key in (("matchFields", "metadata.name"), ("matchExpressions", HOSTNAME)):
        items = term.get(requirements) if isinstance(term, Mapping) else None
        for item in items if isinstance(items, list) else ():
            if isinstance(item, Mapping) and (item.get("key"), item.get("operator")) == (key, "In"):
                values = item.get("values")
                return frozenset(value for value in (values if isinstance(values, list) else ()) if isinstance(value, str))
    return None
