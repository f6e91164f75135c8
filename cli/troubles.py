"""Why a pod of Darner is not ready, in words, from the pod and the events of its workload. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cli.pods import NOT_PULLED, is_ready
from webhook.kube.api import Object, mapping_at, mappings_at, text_at

WORDS_MAX = 300
"""Characters of what Kubernetes says, in a line of ours."""


def trouble(pod: Object, last_words: str = "") -> str | None:
    """Nothing for a Ready pod. `last_words` is the last line that its container logged."""
    if is_ready(pod):
        return None
    if text_at(mapping_at(pod, "metadata"), "deletionTimestamp"):
        return "it is ending"
    status = mapping_at(pod, "status")
    for container in (*mappings_at(status, "initContainerStatuses"), *mappings_at(status, "containerStatuses")):
        if words := _of_container(container, last_words):
            return words
    unscheduled = _condition(status, "PodScheduled")
    if text_at(unscheduled, "status") == "False":
        return f"no node takes it: {short(text_at(unscheduled, 'message'))}"
    if text_at(status, "phase") == "Failed":
        return f"it was ended: {short(text_at(status, 'message') or text_at(status, 'reason'))}"
    if text_at(status, "phase") == "Pending":
        return "it is being started"
    return _with("it runs and is not ready yet", last_words)


def crashed(pod: Object) -> bool:
    """Whether a container has ended, so that its last words are those of its run before."""
    states = [mapping_at(item, "state") for item in mappings_at(mapping_at(pod, "status"), "containerStatuses")]
    return any(text_at(mapping_at(state, "waiting"), "reason") == "CrashLoopBackOff" for state in states)


def refusals(events: Iterable[Object]) -> list[str]:
    """Why pods could not even be made, the newest reason first, each once. Pod Security's says what the namespace lacks."""
    ordered = sorted(events, key=_when, reverse=True)
    said = [short(text_at(event, "message")) for event in ordered if text_at(event, "reason") == "FailedCreate"]
    return [_explained(words) for words in dict.fromkeys(_without_pod(words) for words in said)]


def short(words: str) -> str:
    line = " ".join(words.split())
    return line if len(line) <= WORDS_MAX else f"{line[: WORDS_MAX - 3]}..."


def _of_container(container: Mapping[str, Any], last_words: str) -> str | None:
    state = mapping_at(container, "state")
    waiting = mapping_at(state, "waiting")
    reason = text_at(waiting, "reason")
    if reason in NOT_PULLED:
        return f"its image {text_at(container, 'image')} cannot be pulled: {short(text_at(waiting, 'message') or reason)}"
    ended = mapping_at(state, "terminated") or mapping_at(mapping_at(container, "lastState"), "terminated")
    if reason == "CrashLoopBackOff" or mapping_at(state, "terminated"):
        how = f"{text_at(ended, 'reason') or 'ended'}, status {ended.get('exitCode', '?')}"
        return _with(f"it ends again and again ({how})", last_words or text_at(ended, "message"))
    if reason and reason not in ("ContainerCreating", "PodInitializing"):
        return f"it cannot start ({reason}): {short(text_at(waiting, 'message'))}"
    return None


def _with(words: str, last_words: str) -> str:
    return f"{words}; its last words: {short(last_words)}" if last_words.strip() else words


def _without_pod(words: str) -> str:
    """The pod's made-up name differs from try to try, and the reason does not."""
    prefix, found, rest = words.partition(" is forbidden: ")
    return rest if found and "pods " in prefix else words


def _explained(words: str) -> str:
    if "violates PodSecurity" in words:
        label = "kubectl label namespace NAMESPACE pod-security.kubernetes.io/enforce=privileged"
        return f"Pod Security refuses it ({words}); agents are on the host's network: {label}"
    return words


def _condition(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return next((item for item in mappings_at(status, "conditions") if item.get("type") == name), {})


def _when(event: Object) -> str:
    """ISO times in UTC, which order as texts."""
    created = text_at(mapping_at(event, "metadata"), "creationTimestamp")
    return text_at(event, "lastTimestamp") or text_at(event, "eventTime") or created
