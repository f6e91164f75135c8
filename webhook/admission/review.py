"""The API server's question and our answer: AdmissionReview in, AdmissionReview with a JSON Patch out.

Pure. It knows the protocol (admission.k8s.io/v1, RFC 6902) and which requests concern us; what becomes of a pod's images is
`webhook.admission.rewrite`'s. Every answer allows: Darner never stands between a pod and the cluster.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jsonpatch import JsonPatch, JsonPointer

from webhook.admission.policy import Policy
from webhook.admission.rewrite import DRY_RUN, Verdict, rewrite_ephemeral_containers, rewrite_pod
from webhook.errors import BadReview
from webhook.gates import Gate, LeftAlone, Reason
from webhook.kube.api import mapping_at, parsed, text_at
from webhook.pods import Pod, pull_secrets

API_VERSION = "admission.k8s.io/v1"
WARNINGS_MAX = 8
WARNING_LENGTH_MAX = 256
"""Characters; the API server cuts longer ones off when there are many (apiserver, filters/warning.go)."""
POINTERS_KEPT_MAX = 512
"""All pods have their images and annotations at the same few places."""

Operation = dict[str, Any]


@dataclass(frozen=True)
class Admission:
    """The API server's question about one object."""

    uid: str
    operation: str
    kind: str
    subresource: str
    namespace: str
    dry_run: bool
    pod: Pod
    before: Pod
    """The pod as it is, for an UPDATE."""


class _Pointer(JsonPointer):
    """As jsonpatch asks for one in each operation; the same path is taken apart once."""

    def __init__(self, path: str) -> None:
        self.parts = _parts(path)


@lru_cache(POINTERS_KEPT_MAX)
def _parts(path: str) -> list[str]:
    parts: list[str] = JsonPointer(path).parts
    return parts


def read(body: bytes) -> Admission:
    """The question in a request's body. Raises BadReview."""
    try:
        document = parsed(body)
    except (ValueError, RecursionError):
        raise BadReview("the body is not JSON; send an AdmissionReview") from None
    if not isinstance(document, dict) or document.get("kind") != "AdmissionReview" or document.get("apiVersion") != API_VERSION:
        raise BadReview(f"the body is not an AdmissionReview of {API_VERSION}")
    request = document.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str) or not request["uid"]:
        raise BadReview("the AdmissionReview has no request with a uid")
    pod = mapping_at(request, "object")
    return Admission(
        uid=request["uid"],
        operation=text_at(request, "operation"),
        kind=text_at(mapping_at(request, "kind"), "kind") or text_at(pod, "kind"),
        subresource=text_at(request, "subResource"),
        namespace=text_at(request, "namespace"),
        dry_run=request.get("dryRun") is True,
        pod=pod,
        before=mapping_at(request, "oldObject"),
    )


def decide(admission: Admission, policy: Policy, gates: Sequence[Gate] = ()) -> Verdict:
    """What to do with the object in question: nothing, unless it is a pod that is being created or given ephemeral containers."""
    if admission.kind != "Pod":
        return _unasked("only pods are rewritten; the webhook's configuration should name pods alone")
    question = (admission.operation, admission.subresource)
    if question not in (("CREATE", ""), ("UPDATE", "ephemeralcontainers")):
        return Verdict()
    if not admission.pod:
        return _unasked("the request carries no pod")
    if admission.dry_run and mapping_at(mapping_at(admission.pod, "metadata"), "annotations").get(DRY_RUN) != "rewrite":
        return Verdict(left=(LeftAlone("pod", Reason.DRY_RUN, "a dry run is shown the pod under its own names"),))
    if question[0] == "CREATE":
        return rewrite_pod(admission.pod, admission.namespace, policy, gates)
    return rewrite_ephemeral_containers(admission.pod, admission.before, admission.namespace, policy, gates)


def answer(admission: Admission, verdict: Verdict) -> dict[str, Any]:
    """The AdmissionReview that tells the API server."""
    response: dict[str, Any] = {"uid": admission.uid, "allowed": True}
    # Made of our operations, and not by comparing two pods: only those test what they replace. An operation that is none is
    # refused here, and the pod admitted as it is, rather than by the API server.
    operations = JsonPatch(patch(admission.pod, verdict), pointer_cls=_Pointer)
    if operations:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(operations.to_string().encode()).decode()}
    if verdict.warnings:
        response["warnings"] = _warnings(verdict.warnings)
    if verdict.decision:
        # In the audit log too, because a pod of which nothing was to be rewritten stays as it is, without an annotation of ours.
        response["auditAnnotations"] = {"decision": verdict.decision}
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}


def unchanged(admission: Admission, warning: str) -> dict[str, Any]:
    """The answer when our own part has failed: the pod as it is, and a word about it."""
    response = {"uid": admission.uid, "allowed": True, "warnings": _warnings((warning,))}
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}


def patch(pod: Pod, verdict: Verdict) -> list[Operation]:
    """JSON Patch operations; each replacement tests first that it replaces what the decision was about."""
    operations: list[Operation] = []
    for item in verdict.rewrites:
        operations += _replacement(item.place.pointer, item.original, item.local)
    operations += [
        {"op": "add", "path": "/spec/imagePullSecrets/-", "value": {"name": name}}
        for name in verdict.pull_secrets
        if name not in pull_secrets(pod)
    ]
    changed = {"annotations": verdict.annotations, "labels": verdict.labels}
    if any(changed.values()) and not isinstance(pod.get("metadata"), Mapping):
        operations.append({"op": "add", "path": "/metadata", "value": {}})
    for field, entries in changed.items():
        operations += _entry_operations(f"/metadata/{field}", mapping_at(mapping_at(pod, "metadata"), field), entries)
    return operations


def _entry_operations(pointer: str, present: Mapping[str, str], changed: Mapping[str, str | None]) -> list[Operation]:
    """For a map of texts, such as the annotations; None: the entry is removed."""
    wanted = {name: value for name, value in changed.items() if value is not None}
    if wanted and not present:
        return [{"op": "add", "path": pointer, "value": wanted}]
    operations: list[Operation] = []
    for name, value in changed.items():
        entry = f"{pointer}/" + name.replace("~", "~0").replace("/", "~1")
        if value == present.get(name):
            continue
        if name not in present:
            operations.append({"op": "add", "path": entry, "value": value})
        elif value is None:
            operations += [{"op": "test", "path": entry, "value": present[name]}, {"op": "remove", "path": entry}]
        else:
            operations += _replacement(entry, present[name], value)
    return operations


def _replacement(pointer: str, old: str, new: str) -> list[Operation]:
    return [{"op": "test", "path": pointer, "value": old}, {"op": "replace", "path": pointer, "value": new}]


def _unasked(words: str) -> Verdict:
    return Verdict(left=(LeftAlone("pod", Reason.NOT_A_POD, words),))


def _warnings(warnings: Sequence[str]) -> list[str]:
    shown = [f"darner: {warning}"[:WARNING_LENGTH_MAX] for warning in warnings[:WARNINGS_MAX]]
    return shown + ([f"darner: {len(warnings) - WARNINGS_MAX} more like these"] if len(warnings) > WARNINGS_MAX else [])
