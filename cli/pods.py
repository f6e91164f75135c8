"""A pod's name and state, as every command reads them. Pure."""

from __future__ import annotations

from webhook.kube.api import Object, mapping_at, text_at

NOT_PULLED = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ImageInspectError",
        "InvalidImageName",
        "ErrImageNeverPull",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
"""The kubelet's words for a container that waits for its image in vain (pkg/kubelet/images/types.go)."""
BEFORE_PULL = frozenset({"", "ContainerCreating", "PodInitializing"})
"""And for one whose turn has not come."""
NEVER_SEEN = "ContainerStatusUnknown"
"""The kubelet's word for a container of a pod that was ended before it was there."""
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""A container's security context that the restricted Pod Security Standard admits, whatever user its image names."""
LEAST_RESOURCES = {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}}
"""For a container that does next to nothing, where a quota asks for requests and limits."""


def name_of(item: Object) -> str:
    return text_at(mapping_at(item, "metadata"), "name")


def node_of(pod: Object) -> str:
    """Where it runs; "" while no node has taken it."""
    return text_at(mapping_at(pod, "spec"), "nodeName")


def is_ready(pod: Object) -> bool:
    conditions = mapping_at(pod, "status").get("conditions") or ()
    ready = any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)
    return ready and not text_at(mapping_at(pod, "metadata"), "deletionTimestamp")


def has_its_image(status: Object) -> bool:
    """Whether the image of a container, by its status, is on the node; that it then runs, or runs well, is not asked."""
    state = mapping_at(status, "state")
    if "terminated" in state:
        return text_at(mapping_at(state, "terminated"), "reason") != NEVER_SEEN
    reason = text_at(mapping_at(state, "waiting"), "reason")
    return "running" in state or reason not in BEFORE_PULL | NOT_PULLED


def pull_failure(status: Object) -> str:
    """Why the image of a container cannot be pulled, in the kubelet's words; "" if it does not say so."""
    waiting = mapping_at(mapping_at(status, "state"), "waiting")
    reason = text_at(waiting, "reason")
    return (text_at(waiting, "message") or reason) if reason in NOT_PULLED else ""
