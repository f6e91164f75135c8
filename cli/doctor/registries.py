"""Checks of other people's pods that wait for an image: registries that want a credential that the pod does not bring. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from agent.values.reference import InvalidReference, Reference, from_local, is_local
from cli.doctor.facts import Facts
from cli.doctor.finding import Finding, fine, problem, some
from cli.doctor.workloads import shown, statuses
from cli.pods import NOT_PULLED, name_of
from webhook.kube.api import Object, mapping_at, text_at
from webhook.pods import pull_secrets
from webhook.revert.causes import Cause, cause_of


def credentials(facts: Facts) -> Iterator[Finding]:
    """Registries that refuse waiting pods, by what the kubelet says of them."""
    refused: dict[tuple[str, bool], list[str]] = {}
    words: dict[tuple[str, bool], str] = {}
    for pod in facts.waiting:
        for status in statuses(pod):
            said = _refusal(status)
            if said:
                key = _registry(text_at(status, "image")), bool(pull_secrets(pod))
                refused.setdefault(key, []).append(f"{text_at(mapping_at(pod, 'metadata'), 'namespace')}/{name_of(pod)}")
                words[key] = said
    for (registry, has_secret), pods in sorted(refused.items()):
        if has_secret:
            what = f"{registry} refuses {some(pods)}, whose pull secrets have no valid credential for it"
            remedy = f"write one for {registry} into a pull secret of the pod: kubectl create secret docker-registry"
        else:
            what = f"{registry} refuses {some(pods)}, which bring no pull secret"
            remedy = (
                "give the pod or its service account imagePullSecrets; where the nodes have an identity at the registry, set "
                "agent.credentialProvider as the kubelet has it"
            )
        yield problem(f"{what}: {shown(words[registry, has_secret])}", remedy, "a-registry-refuses-a-pull")
    if not refused and "pods" not in facts.unread:
        yield fine("no pod waits for an image that a registry refuses it")


def _refusal(status: Object) -> str:
    waiting = mapping_at(mapping_at(status, "state"), "waiting")
    words = text_at(waiting, "message")
    return words if text_at(waiting, "reason") in NOT_PULLED and cause_of(words) in (Cause.DENIED, Cause.FORBIDDEN) else ""


def _registry(image: str) -> str:
    try:
        return Reference.parse(from_local(image) if is_local(image) else image).registry
    except InvalidReference:
        return image
