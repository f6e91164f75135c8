"""Which images are to be warm, and with what rights and on which nodes a pod of theirs would pull them. Pure.

A pod template says all of it: its images, its service account and pull secrets, its node selector and tolerations.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agent.values.reference import InvalidReference, Reference, from_local, is_local
from cli.errors import WrongUsage
from webhook.kube.api import Object, mapping_at
from webhook.pods import EVERY_KIND, places

IMAGES_IN_POD_MAX = 50
TAKEN_OVER = ("serviceAccountName", "imagePullSecrets", "nodeSelector", "tolerations", "runtimeClassName")
"""Fields of a pod that say how and where its images are pulled. Some runtime classes unpack images in another way."""


class WorkloadKind(NamedTuple):
    api: str
    resource: str


_APPS, _BATCH = "/apis/apps/v1", "/apis/batch/v1"
_KINDS = {
    ("deploy", "deployment", "deployments"): WorkloadKind(_APPS, "deployments"),
    ("sts", "statefulset", "statefulsets"): WorkloadKind(_APPS, "statefulsets"),
    ("ds", "daemonset", "daemonsets"): WorkloadKind(_APPS, "daemonsets"),
    ("rs", "replicaset", "replicasets"): WorkloadKind(_APPS, "replicasets"),
    ("cj", "cronjob", "cronjobs"): WorkloadKind(_BATCH, "cronjobs"),
    ("job", "jobs"): WorkloadKind(_BATCH, "jobs"),
    ("po", "pod", "pods"): WorkloadKind("/api/v1", "pods"),
}
OF_A_NAMESPACE = ("deploy", "sts", "ds", "cj")
"""What makes a namespace's pods, where all of its images are wanted. What these make in turn has the same templates."""


@dataclass(frozen=True)
class Batch:
    """Images that one pod on each node has."""

    images: tuple[str, ...]
    like: Mapping[str, Any] = field(default_factory=dict)
    """The fields of TAKEN_OVER, of the pods that will need the images."""


def named(images: Sequence[str]) -> list[Batch]:
    """Raises WrongUsage for what is no name of an image."""
    for image in images:
        try:
            Reference.parse(image)
        except InvalidReference as error:
            raise WrongUsage(f"{image!r} names no image: {error}") from None
    return _batches(images, {})


def of_templates(templates: Iterable[Object]) -> list[Batch]:
    """Those that are pulled alike are in one batch."""
    alike: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
    for template in templates:
        spec = mapping_at(template, "spec")
        like = {name: spec[name] for name in TAKEN_OVER if spec.get(name)}
        _, images = alike.setdefault(json.dumps(like, sort_keys=True), (like, []))
        found = (place for place in places(template, EVERY_KIND) if place.image and not place.never_pulled)
        images += [_original(place.image) for place in found if place.image]
    return [batch for like, images in alike.values() for batch in _batches(images, like)]


def workload_path(namespace: str, written: str) -> str:
    """Of `deploy/NAME` and its like. Raises WrongUsage."""
    kind, _, name = written.partition("/")
    found = next((found for words, found in _KINDS.items() if kind.lower() in words), None)
    if found is None or not name or "/" in name:
        kinds = ", ".join(words[1] for words in _KINDS)
        raise WrongUsage(f"--workload {written!r} names no workload; write deploy/NAME, or another of {kinds}")
    return f"{found.api}/namespaces/{namespace}/{found.resource}/{name}"


def workload_lists(namespace: str) -> list[str]:
    return [workload_path(namespace, f"{kind}/all").rpartition("/")[0] for kind in OF_A_NAMESPACE]


def template_of(workload: Object) -> Object:
    """What its pods are made from; a pod is its own."""
    spec = mapping_at(workload, "spec")
    spec_of_job = mapping_at(mapping_at(spec, "jobTemplate"), "spec") or spec
    return mapping_at(spec_of_job, "template") or workload


def _batches(images: Iterable[str], like: Mapping[str, Any]) -> list[Batch]:
    once = list(dict.fromkeys(images))
    starts = range(0, len(once), IMAGES_IN_POD_MAX)
    return [Batch(tuple(once[start : start + IMAGES_IN_POD_MAX]), like) for start in starts]


def _original(image: str) -> str:
    return from_local(image) if is_local(image) else image
