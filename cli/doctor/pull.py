"""`darner doctor --pull IMAGE`: which two nodes pull it, when each has done so, and what their bytes prove. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.values.reference import InvalidReference, Reference, is_local
from cli.doctor.finding import Finding, fine, problem, warning
from cli.doctor.workloads import component_of, shown, statuses
from cli.pods import LEAST_RESOURCES, RESTRICTED, has_its_image, is_ready, name_of, node_of, pull_failure
from webhook.kube.api import Object, mapping_at, mappings_at, text_at
from webhook.pods import DECISION

SOURCES = ("peer", "supernode", "origin", "store", "containerd")
SYMPTOM = "nothing-comes-from-other-nodes"
_RECEIVED = re.compile(r'^darner_(?:agent_)?received_bytes_total\{source="([a-z]+)"\} (\S+)$')


@dataclass(frozen=True)
class NodePull:
    """What became of the pod on one node."""

    node: str
    seconds: float = 0.0
    received: Mapping[str, int] = field(default_factory=dict)
    """Bytes by source, between the pod's beginning and its end."""
    failed: str = ""
    """Why it was not pulled, in words."""
    kept_its_name: str = ""
    """Why it was not pulled through the agent, in words."""

    @property
    def total(self) -> int:
        return sum(self.received.values())


def two_nodes(nodes: Sequence[Object], agents: Iterable[Object], image: str) -> list[str]:
    """Two that have an agent that is ready and take pods, if there are so many: those first whose runtime has not the image."""
    ready = {node_of(pod) for pod in agents if component_of(pod) == "agent" and is_ready(pod)}
    takes_pods = [node for node in nodes if name_of(node) in ready and not mapping_at(node, "spec").get("unschedulable")]
    having = _having(takes_pods, image)
    return sorted(map(name_of, takes_pods), key=lambda name: (name in having, name))[:2]


def probe_pod(name: str, namespace: str, image: str, node: str = "") -> dict[str, Any]:
    """A pod that the restricted Pod Security Standard and a quota of requests and limits admit, and that ends soon."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    container = {"name": "probe", "image": image, "resources": LEAST_RESOURCES, "securityContext": RESTRICTED}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/created-by": "darner-doctor"}},
        "spec": {
            "containers": [container],
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 600,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            **({"affinity": affinity, "tolerations": [{"operator": "Exists"}]} if node else {}),
        },
    }


def kept_its_name(pod: Object) -> str:
    """Why the pod is not pulled through an agent; empty where it is. A pod that was put back has that name too."""
    images = [text_at(item, "image") for item in mappings_at(mapping_at(pod, "spec"), "containers")]
    if any(map(is_local, images)):
        return ""
    return text_at(mapping_at(mapping_at(pod, "metadata"), "annotations"), DECISION) or "the webhook did not answer"


def pulled(pod: Object) -> bool:
    """Whether its image is on the node."""
    return any(map(has_its_image, statuses(pod)))


def failure(pod: Object) -> str:
    """Why its image cannot be pulled, if the kubelet says so."""
    return next(filter(None, map(pull_failure, statuses(pod))), "")


def received_in(metrics: Iterable[str]) -> dict[str, int]:
    """By source, from the lines of an agent's metrics."""
    matches = (_RECEIVED.match(line) for line in metrics)
    return {match[1]: int(float(match[2])) for match in matches if match}


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What came in between. An agent that was restarted counts from nothing."""
    return {source: count - (before.get(source, 0) if count >= before.get(source, 0) else 0) for source, count in after.items()}


def judgement(image: str, pulls: Sequence[NodePull]) -> Iterator[Finding]:
    """What two pulls, one after the other, say of the path."""
    for pull in pulls:
        if pull.failed:
            what = f"{pull.node} cannot pull {image}: {shown(pull.failed)}"
            yield problem(
                what, "see whether the image is there under this name, and whether it takes a pull secret", "a-pull-fails"
            )
        elif pull.kept_its_name:
            what = f"{pull.node} pulled {image} without Darner: {shown(pull.kept_its_name)}"
            yield problem(what, "see what the other findings say of the webhook and of this namespace", "a-pod-keeps-its-names")
        else:
            yield fine(f"{pull.node} pulled {image} in {pull.seconds:.1f} s: {told(pull.received)}")
    if any(pull.failed or pull.kept_its_name for pull in pulls):
        return
    if len(pulls) == 2:
        yield _of_second(image, *pulls)
    else:
        what = "there are no two nodes with an agent that is ready, so nothing was shown about bytes between nodes"
        yield warning(what, "add a node, or see why agents are not ready", SYMPTOM)


def _of_second(image: str, first: NodePull, second: NodePull) -> Finding:
    if peers := second.received.get("peer", 0):
        return fine(f"{second.node} got {shown_bytes(peers)} from other nodes, {100 * peers // second.total} % of what it took")
    if not second.total:
        what = f"{second.node} took no byte: its container runtime had {image} already"
        return warning(what, "take an image that no node has, such as one with another tag", SYMPTOM)
    if second.received.get("store", 0) + second.received.get("containerd", 0) == second.total:
        what = f"{second.node} took every byte from its own disk, where its agent had {image} already"
        return warning(what, "take an image that no node has, such as one with another tag", SYMPTOM)
    what = f"{second.node} got nothing of {image} from {first.node}, but {told(second.received)}"
    return problem(what, "let nodes reach TCP port 65002 of each other", SYMPTOM)


def told(received: Mapping[str, int]) -> str:
    """`1.2 MiB from peer, 0.3 MiB from origin`, the most first."""
    largest = sorted(received.items(), key=lambda item: -item[1])
    return ", ".join(f"{shown_bytes(count)} from {source}" for source, count in largest if count) or "nothing"


def shown_bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _having(nodes: Sequence[Object], image: str) -> frozenset[str]:
    """The nodes whose kubelet lists the image. It lists fifty at most, so that another may have it too."""
    try:
        reference = Reference.parse(image)
    except InvalidReference:
        return frozenset()
    wanted = {str(reference), reference.local, f"{reference.registry}/{reference.repository}:{reference.tag or 'latest'}"}
    return frozenset(
        name_of(node)
        for node in nodes
        for item in mappings_at(mapping_at(node, "status"), "images")
        if wanted & {name for name in item.get("names") or () if isinstance(name, str)}
    )
