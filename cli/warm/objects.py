"""What is made in the cluster: a ConfigMap with the program, and pods, or DaemonSets, whose containers have the images. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from cli.pods import LEAST_RESOURCES, RESTRICTED
from cli.warm.nodes import ARCHITECTURE
from cli.warm.program import PROGRAMS
from cli.warm.wanted import Batch
from webhook.kube.api import Object, mapping_at, mappings_at, text_at

NAME = "darner.dev/warm"
"""Label: which call of the command all of it is of."""
BATCH = "darner.dev/warm-batch"
"""Label of pods: the number of their batch."""
IMAGES = "darner.dev/warm-images"
"""Annotation of DaemonSets: their images, in lines."""
MOUNTED_AT, PROGRAM_NAME = "/darner.dev", "wait"


def object_name_of(name: str) -> str:
    return f"darner-warm-{name}"


def labels(name: str) -> dict[str, str]:
    return {NAME: name, "app.kubernetes.io/created-by": "darner-warm"}


def config_map(name: str) -> dict[str, Any]:
    """With the program for every architecture."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": object_name_of(name), "labels": labels(name)},
        "binaryData": {architecture: base64.b64encode(content).decode() for architecture, content in PROGRAMS.items()},
        "immutable": True,
    }


def pod(name: str, pod_name: str, number: int, batch: Batch, node: str, architecture: str, seconds_max: float) -> dict[str, Any]:
    """For one node, made for it by the scheduler's rules. It ends by itself when whoever made it was killed."""
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    spec = _pod_spec(name, batch, architecture, {"matchFields": [field]})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod_name, "labels": {**labels(name), BATCH: str(number)}},
        "spec": {**spec, "restartPolicy": "Never", "activeDeadlineSeconds": int(seconds_max) + 60},
    }


def owned_by(config_map: Object) -> dict[str, Any]:
    """Of a pod, which then goes with the ConfigMap. It is no controller: nobody makes the pod anew."""
    metadata = mapping_at(config_map, "metadata")
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": text_at(metadata, "name"), "uid": text_at(metadata, "uid")}


def daemon_set(
    name: str, number: int, batch: Batch, architecture: str, expressions: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    of_architecture = {"key": ARCHITECTURE, "operator": "In", "values": [architecture]}
    on_pods = {**labels(name), BATCH: str(number)}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": f"{object_name_of(name)}-{number}-{architecture}",
            "labels": labels(name),
            "annotations": {IMAGES: "\n".join(batch.images)},
        },
        "spec": {
            "selector": {"matchLabels": {**on_pods, ARCHITECTURE: architecture}},
            # Nothing is gained by warming one node after the other.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {
                "metadata": {"labels": {**on_pods, ARCHITECTURE: architecture}},
                "spec": _pod_spec(name, batch, architecture, {"matchExpressions": [*expressions, of_architecture]}),
            },
        },
    }


def _pod_spec(name: str, batch: Batch, architecture: str, term: Mapping[str, Any]) -> dict[str, Any]:
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    program = {"key": architecture, "path": PROGRAM_NAME, "mode": 0o555}
    return {
        **batch.like,
        "containers": [_container(number, image) for number, image in enumerate(batch.images)],
        "volumes": [{"name": "program", "configMap": {"name": object_name_of(name), "items": [program]}}],
        "affinity": affinity,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,  # the program hears no signal
    }


def _container(number: int, image: str) -> dict[str, Any]:
    """Without a pull policy, so that it is the one that pods have who name none."""
    return {
        "name": f"image-{number}",
        "image": image,
        "command": [f"{MOUNTED_AT}/{PROGRAM_NAME}"],
        "workingDir": "/",
        "resources": LEAST_RESOURCES,
        "securityContext": {**RESTRICTED, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "program", "mountPath": MOUNTED_AT, "readOnly": True}],
    }


def node_wanted_by(pod: Object) -> str:
    """Also while the scheduler has not bound it: ours and a DaemonSet's controller name the node in its affinity."""
    affinity = mapping_at(mapping_at(mapping_at(pod, "spec"), "affinity"), "nodeAffinity")
    terms = mappings_at(mapping_at(affinity, "requiredDuringSchedulingIgnoredDuringExecution"), "nodeSelectorTerms")
    for term in terms:
        for field in mappings_at(term, "matchFields"):
            if text_at(field, "key") == "metadata.name":
                return str(next(iter(field.get("values") or ()), ""))
    return ""
