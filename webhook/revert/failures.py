"""Which containers of a pod get the image back that their author wrote, and why: the promise to be never worse than without us.

Pure. A pod with its status goes in; out come the pulls by a local name that have failed, as far as their containers can be
given their original names, and the patch that does it. From then on the kubelet does what it would have done without Darner.
A container that runs is never in it, and neither is an image of which nobody knows certainly what it was before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.values.reference import InvalidReference, Reference, from_local, is_local
from webhook.kube.api import mapping_at, mappings_at, text_at
from webhook.pods import CONTAINER_KINDS, DECISION, MUTABLE_KINDS, VOLUMES, ImagePlace, Pod, original_images, places
from webhook.revert.causes import Cause, cause_of, shortened

FAILED_PULL = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "SignatureValidationFailed", "InvalidImageName"}
)
"""Reasons for which a container waits (kubelet, pkg/kubelet/images/types.go)."""
STATUSES = {
    "initContainers": "initContainerStatuses",
    "containers": "containerStatuses",
    "ephemeralContainers": "ephemeralContainerStatuses",
}
DECISION_LENGTH_MAX = 4096


Statuses = Mapping[str, Mapping[str, Any]]
"""The status of each container by its place, as `kind/name`. A function that takes a pod's looks for them itself without."""


@dataclass(frozen=True)
class FailedPull:
    """A place whose image could not be pulled by its local name."""

    place: ImagePlace
    original: str
    registry: str
    repository: str
    cause: Cause
    words: str
    """The kubelet's, which carry the runtime's, which carry the agent's."""
    foreseen: bool = False
    """The pull has not been tried: the pod has not come to this container yet."""


@dataclass(frozen=True)
class Failures:
    back: tuple[FailedPull, ...] = ()
    """These get their original image."""
    stuck: tuple[FailedPull, ...] = ()
    """These cannot: an ephemeral container, or an image volume."""


def failed_pulls(pod: Pod, statuses: Statuses | None = None) -> Failures:
    """The pulls that have failed in a pod, by its status."""
    statuses = statuses or statuses_of(pod)
    if not any(_wait(status) in FAILED_PULL for status in statuses.values()):
        return Failures()  # Nearly all pods that are ever looked at, and of these nothing more needs to be known.
    originals = original_images(pod)
    volumes = [place for place in places(pod, (VOLUMES,)) if place.image and is_local(place.image)]
    back: list[FailedPull] = []
    stuck: dict[str, FailedPull] = {}
    for place in places(pod, CONTAINER_KINDS):
        waiting = mapping_at(mapping_at(statuses.get(str(place), {}), "state"), "waiting")
        if text_at(waiting, "reason") not in FAILED_PULL:
            continue
        message = text_at(waiting, "message")
        if cause_of(message) is Cause.HELD_BACK:
            continue
        # A container waits for the images of its volumes too, and by the same reasons; only the message says whose it is.
        volume = next((item for item in volumes if item.image and item.image in message), None)
        if volume and not (place.image and place.image in message):
            stuck.setdefault(str(volume), _failed(volume, originals.get(str(volume)) or _original(volume.image), waiting))
        elif place.kind not in MUTABLE_KINDS and place.image and is_local(place.image):
            stuck[str(place)] = _failed(place, originals.get(str(place)) or _original(place.image), waiting)
        elif place.kind in MUTABLE_KINDS and str(place) in originals:
            back.append(_failed(place, originals[str(place)], waiting))
    return Failures((*back, *_foreseen(pod, back, originals, statuses)), tuple(stuck.values()))


def _foreseen(pod: Pod, failed: Sequence[FailedPull], originals: Mapping[str, str], statuses: Statuses) -> Iterator[FailedPull]:
    """Behind an init container whose pull has failed, those that would fail like it.

    They cannot have begun, so this touches no container that runs; and each would cost the pod ten seconds or more, because a
    kubelet whose pull is in back-off looks at the pod again only after that (seen with 1.36).
    """
    first = next((pull for pull in failed if pull.place.kind == "initContainers"), None)
    behind = False
    for place in places(pod, MUTABLE_KINDS):
        if first is None or not behind:
            behind = behind or (first is not None and place == first.place)
            continue
        state = mapping_at(statuses.get(str(place), {}), "state")
        begun = state and text_at(mapping_at(state, "waiting"), "reason") != "PodInitializing"
        if str(place) in originals and not begun:
            pull = _failed(place, originals[str(place)], {"message": f"like that of {first.place.where}"})
            alike = place.image == first.place.image or (first.cause.registry_is_in_doubt and pull.registry == first.registry)
            if alike or first.cause is Cause.AGENT_UNREACHABLE:
                yield replace(pull, cause=first.cause, foreseen=True)


def waiting(pod: Pod) -> tuple[FailedPull, ...]:
    """Every container that does not run and has a local name, whether its pull has failed or not: for when Darner leaves."""
    originals, statuses = original_images(pod), statuses_of(pod)
    if text_at(mapping_at(pod, "status"), "phase") in ("Succeeded", "Failed"):
        return ()
    found: list[FailedPull] = []
    for place in places(pod, MUTABLE_KINDS):
        state = mapping_at(statuses.get(str(place), {}), "state")
        if str(place) in originals and "running" not in state and "terminated" not in state:
            found.append(_failed(place, originals[str(place)], mapping_at(state, "waiting")))
    return tuple(found)


def stuck(pod: Pod) -> tuple[str, ...]:
    """The image volumes of a pod of which nothing has been started: it may wait for them, and nobody can change them."""
    statuses = statuses_of(pod).values()
    if any(state in mapping_at(status, "state") for status in statuses for state in ("running", "terminated")):
        return ()
    originals = original_images(pod)
    return tuple(f"{place.where} {originals[str(place)]}" for place in places(pod, (VOLUMES,)) if str(place) in originals)


def running(pod: Pod) -> tuple[str, ...]:
    """The containers that run under a local name, and keep it."""
    originals, statuses = original_images(pod), statuses_of(pod)
    return tuple(
        place.where
        for place in places(pod, MUTABLE_KINDS)
        if str(place) in originals and "running" in mapping_at(statuses.get(str(place), {}), "state")
    )


def patch(pod: Pod, pulls: Sequence[FailedPull], because: str = "") -> list[dict[str, Any]]:
    """One JSON Patch for all of them, which applies to exactly the pod that was looked at.

    Its version is tested because that is what tells whether a container still waits: a status that has changed since is a new
    version, and the API server refuses the patch.
    """
    metadata = mapping_at(pod, "metadata")
    operations: list[dict[str, Any]] = [
        {"op": "test", "path": "/metadata/uid", "value": text_at(metadata, "uid")},
        {"op": "test", "path": "/metadata/resourceVersion", "value": text_at(metadata, "resourceVersion")},
    ]
    for pull in pulls:
        operations += [
            {"op": "test", "path": pull.place.pointer, "value": pull.place.image},
            {"op": "replace", "path": pull.place.pointer, "value": pull.original},
        ]
    said = [f"{pull.place.where}: it has its original image back, because {because or _failure(pull)}" for pull in pulls]
    present = text_at(mapping_at(metadata, "annotations"), DECISION)
    text = "; ".join(filter(None, (present, *said)))[:DECISION_LENGTH_MAX]
    # There are annotations: the original images are among them, or nothing could be put back.
    operations.append({"op": "add", "path": "/metadata/annotations/" + DECISION.replace("/", "~1"), "value": text})
    return operations


def held_back(pod: Pod, statuses: Statuses | None = None) -> frozenset[str]:
    """The places whose pull the kubelet has not begun yet, because it begins so many a second."""
    statuses = statuses or statuses_of(pod)
    failing = {place: status for place, status in statuses.items() if _wait(status) in FAILED_PULL}
    words = {place: text_at(status["state"]["waiting"], "message") for place, status in failing.items()}
    return frozenset(place for place, said in words.items() if cause_of(said) is Cause.HELD_BACK)


def started_as_written(pod: Pod, statuses: Statuses | None = None) -> frozenset[str]:
    """The places whose container was started under another name than a local one."""
    statuses = statuses or statuses_of(pod)
    return frozenset(
        str(place)
        for place in places(pod, MUTABLE_KINDS)
        if place.image and not is_local(place.image) and _started(statuses.get(str(place), {}))
    )


def pulled(pod: Pod, statuses: Statuses | None = None) -> Iterator[tuple[str, str, str]]:
    """Registry and repository of each image that was pulled by its local name, with the time when a container was started."""
    statuses = statuses or statuses_of(pod)
    started = {place: _started(status) for place, status in statuses.items() if text_at(status, "imageID")}
    for place, original in (original_images(pod) if started else {}).items():
        # Volumes are there before the first container is started.
        if place in started or place.startswith(f"{VOLUMES}/"):
            yield *_name_of(original), started.get(place, max(started.values()))


def _wait(status: Mapping[str, Any]) -> str:
    """For what the container waits, if it does."""
    return text_at(mapping_at(mapping_at(status, "state"), "waiting"), "reason")


def _started(status: Mapping[str, Any]) -> str:
    """The time when a container was started, in RFC 3339; empty: it is not told."""
    states = mapping_at(status, "state")
    return max(text_at(mapping_at(states, state), "startedAt") for state in ("running", "terminated"))


def _failure(pull: FailedPull) -> str:
    return f"its pull through the agent {'would fail' if pull.foreseen else 'failed'} ({pull.cause})"


def _failed(place: ImagePlace, original: str, waiting: Mapping[str, Any]) -> FailedPull:
    words = text_at(waiting, "message") or text_at(waiting, "reason")
    return FailedPull(place, original, *_name_of(original), cause_of(words), shortened(words))


def _name_of(image: str) -> tuple[str, str]:
    """Its registry and its repository; empty where it has none."""
    try:
        reference = Reference.parse(image)
    except InvalidReference:
        return "", ""
    return reference.registry, reference.repository


def _original(image: str | None) -> str:
    try:
        return from_local(image or "")
    except InvalidReference:
        return image or ""


def statuses_of(pod: Pod) -> Statuses:
    status = mapping_at(pod, "status")
    return {f"{kind}/{text_at(item, 'name')}": item for kind, field in STATUSES.items() for item in mappings_at(status, field)}
