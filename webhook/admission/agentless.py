"""Nodes on which no agent can run: other systems than Linux, Fargate, virtual kubelets, and pools that the operator excludes.

Pure, and from the pod alone: such nodes are in no EndpointSlice, and there may be none of them yet. A pod that may come to one
of them is left alone; one that names its nodes is judged by the agents of those (`webhook.admission.readiness`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from webhook.admission.readiness import bound_nodes
from webhook.admission.selectors import Selector, demands_of, selector
from webhook.gates import Gate, LeftAlone, Reason, Rewrite
from webhook.kube.api import mapping_at, mappings_at, text_at
from webhook.pods import Pod

FARGATE_PROFILE, FARGATE_SCHEDULER = "eks.amazonaws.com/fargate-profile", "fargate-scheduler"
"""EKS's own webhook gives a pod this label and this scheduler; its name begins with 0500, so it has its turn before us."""
PLACES = tuple(
    (selector(text), words)
    for text, words in (
        ("kubernetes.io/os notin (linux)", "nodes of another system than Linux"),
        ("beta.kubernetes.io/os notin (linux)", "nodes of another system than Linux"),
        ("node.kubernetes.io/windows-build", "Windows nodes"),
        ("eks.amazonaws.com/compute-type=fargate", "Fargate"),
        ("type=virtual-kubelet", "a virtual kubelet"),
    )
)
TAINTS = {
    "virtual-kubelet.io/provider": "a virtual kubelet",
    "azure.com/aci": "a virtual kubelet",
    "eks.amazonaws.com/compute-type": "Fargate",
}
"""Such nodes have these, so whoever tolerates one by its name means them."""


def no_agent_there(excluded: Selector | None) -> Gate:
    """The gate; `excluded` selects the pools that have no agents."""
    places = (*PLACES, *([(excluded, f"nodes that are excluded ({excluded.text})")] if excluded else ()))

    def gate(_namespace: str, pod: Pod, _rewrites: Sequence[Rewrite]) -> Iterator[LeftAlone]:
        where = None if bound_nodes(pod) else _where(pod, places)
        if where:
            yield LeftAlone("pod", Reason.NO_AGENT_THERE, f"it may come to {where}, where no agent runs")

    return gate


def _where(pod: Pod, places: Sequence[tuple[Selector, str]]) -> str | None:
    spec = mapping_at(pod, "spec")
    labels = mapping_at(mapping_at(pod, "metadata"), "labels")
    if FARGATE_PROFILE in labels or text_at(spec, "schedulerName") == FARGATE_SCHEDULER:
        return "Fargate"
    for demands in demands_of(pod):
        for place, words in places:
            if place.has_to_hold(demands):
                return words
    for toleration in mappings_at(spec, "tolerations"):
        if text_at(toleration, "key") in TAINTS:
            return TAINTS[text_at(toleration, "key")]
    return None
