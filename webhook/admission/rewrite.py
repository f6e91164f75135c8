"""Which image names of a pod are rewritten, to which names, and in words why the others are not.

Pure: a pod as the API server sends it goes in, a `Verdict` comes out, and the pod is never changed. It decides about names
alone, and asks the gates that it is given whether now is the time; how a decision becomes a patch is
`webhook.admission.review`'s, and what a name looks like is `agent.values.reference`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.values.reference import InvalidReference, Reference, from_local, is_local, to_local
from webhook.admission.policy import Policy
from webhook.gates import Gate, LeftAlone, Reason, Rewrite
from webhook.kube.api import mapping_at, text_at
from webhook.pods import (
    DECISION,
    EVERY_KIND,
    ORIGINAL_IMAGES,
    RELEASE,
    REWRITTEN,
    ImagePlace,
    Pod,
    original_images,
    original_images_text,
    places,
)

INJECT = "darner.dev/inject"
DRY_RUN = "darner.dev/dry-run"
"""Annotation: with `rewrite`, a dry run is shown what would become of the pod. Others, such as `kubectl diff`, compare."""
MIRROR_POD = "kubernetes.io/config.mirror"
OPERATING_SYSTEM = "kubernetes.io/os"

ANNOTATIONS_BYTES_MAX = 256 * 1024
"""The API server's own limit on all annotations of an object, names and values (apimachinery, TotalAnnotationSizeLimitB)."""

SURPRISING = frozenset({Reason.NOT_A_POD, Reason.NOT_A_NAME, Reason.TOO_LARGE})
"""Nobody asked for these; the author of the pod gets a warning."""


@dataclass(frozen=True)
class Verdict:
    """What to do with a pod. Without rewrites nothing is to be done."""

    rewrites: tuple[Rewrite, ...] = ()
    left: tuple[LeftAlone, ...] = ()
    annotations: Mapping[str, str | None] = field(default_factory=dict)
    """The annotations that are to change; None: removed."""
    labels: Mapping[str, str] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()
    """Names that the pod is to be given besides its own."""

    @property
    def decision(self) -> str:
        """The reasons, in words, for every image that was not rewritten."""
        return "; ".join(map(str, self.left))

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(str(left) for left in self.left if left.reason in SURPRISING)


def rewrite_pod(pod: Pod, namespace: str, policy: Policy, gates: Sequence[Gate] = ()) -> Verdict:
    """What to do with a pod that is being created.

    A pod that was made from another one comes with local names, and with none or some of that one's metadata. Those names tell
    their originals, so it is noted and labelled like a rewritten one, also where nothing is to be rewritten: a pull that fails
    could not be taken back otherwise.
    """
    whole = _whole_pod(pod, namespace, policy)
    verdict = Verdict(left=(whole,)) if whole else _decide(pod, namespace, tuple(places(pod, EVERY_KIND)), policy, gates)
    if not verdict.rewrites:  # or else they are noted already
        noted = _noted(pod, ())
        if not noted or (whole and whole.reason is Reason.MIRROR_POD):
            return verdict
        if noted != original_images(pod):
            verdict = _annotated(pod, verdict, {DECISION: verdict.decision or None, ORIGINAL_IMAGES: original_images_text(noted)})
    labels = {REWRITTEN: "true"} | ({RELEASE: policy.release} if policy.release else {})
    return replace(verdict, labels=labels)


def rewrite_ephemeral_containers(pod: Pod, before: Pod, namespace: str, policy: Policy, gates: Sequence[Gate] = ()) -> Verdict:
    """What to do with the ephemeral containers that a pod is being given; nothing else of a pod may change after its creation."""
    whole = _whole_pod(pod, namespace, policy)
    if whole:
        return Verdict(left=(whole,))
    present = {place.name for place in places(before, ("ephemeralContainers",))}
    added = tuple(place for place in places(pod, ("ephemeralContainers",)) if place.name not in present)
    verdict = _decide(pod, namespace, added, policy, gates)
    # What was decided when the pod was created stays. (API servers of today drop an update's annotations; its containers count.)
    return replace(verdict, annotations={name: text for name, text in verdict.annotations.items() if name == ORIGINAL_IMAGES})


def narrowed(pod: Pod, verdict: Verdict, refused: Sequence[LeftAlone]) -> Verdict:
    """The verdict without what is refused after it was made (`pod`: all of it)."""
    names = {item.where for item in refused}
    kept = tuple(item for item in verdict.rewrites if not names & {"pod", item.place.where})
    noted = _noted(pod, kept)
    narrower = replace(verdict, rewrites=kept, left=(*verdict.left, *refused), labels=verdict.labels if noted else {})
    said = {DECISION: narrower.decision} if DECISION in verdict.annotations else {}
    return _annotated(pod, narrower, {**said, **({ORIGINAL_IMAGES: original_images_text(noted)} if noted else {})})


def _whole_pod(pod: Pod, namespace: str, policy: Policy) -> LeftAlone | None:
    """Why the whole pod is left alone, if it is."""
    metadata, spec = mapping_at(pod, "metadata"), mapping_at(pod, "spec")
    labels, annotations = mapping_at(metadata, "labels"), mapping_at(metadata, "annotations")
    if namespace in policy.excluded_namespaces:
        return LeftAlone("pod", Reason.EXCLUDED_NAMESPACE, f"namespace {namespace} is excluded")
    if "disabled" in (labels.get(INJECT), annotations.get(INJECT)):
        return LeftAlone("pod", Reason.OPTED_OUT, f"it says {INJECT}: disabled")
    if MIRROR_POD in annotations:
        # The kubelet runs it from a file of its own; the API server only shows a copy, and a changed copy is deleted.
        return LeftAlone("pod", Reason.MIRROR_POD, "it mirrors a static pod, which its kubelet reads from a file")
    systems = (text_at(mapping_at(spec, "os"), "name"), text_at(mapping_at(spec, "nodeSelector"), OPERATING_SYSTEM))
    if "windows" in systems:
        return LeftAlone("pod", Reason.WINDOWS, "it is for a Windows node, and no agent runs there")
    return None


def _decide(pod: Pod, namespace: str, candidates: tuple[ImagePlace, ...], policy: Policy, gates: Sequence[Gate]) -> Verdict:
    originals = original_images(pod)
    decided = [_decide_place(place, policy) for place in candidates if str(place) not in originals]
    rewrites = [item for item in decided if isinstance(item, Rewrite)]
    left = [item for item in decided if isinstance(item, LeftAlone)]
    if not rewrites:
        return Verdict(left=tuple(left))
    for gate in gates:
        refused = list(gate(namespace, pod, rewrites)) if rewrites else []
        if refused:
            left += refused
            names = {item.where for item in refused}
            rewrites = [] if "pod" in names else [item for item in rewrites if item.place.where not in names]
    verdict = Verdict(tuple(rewrites), tuple(left))
    # Also when every image had to stay this time: the reason is then found on the pod.
    annotations: dict[str, str | None] = {DECISION: verdict.decision or None}
    if rewrites:
        annotations[ORIGINAL_IMAGES] = original_images_text(_noted(pod, rewrites))
    return _annotated(pod, verdict, annotations)


def _noted(pod: Pod, rewrites: Sequence[Rewrite]) -> dict[str, str]:
    """The originals of all places that have, or are to have, a local name: as their author wrote them, or as the name tells."""
    named: dict[str, str] = {}
    for place in places(pod, EVERY_KIND):
        if place.image and is_local(place.image) and not place.never_pulled:
            try:
                original = from_local(place.image)
                if to_local(original) == place.image:
                    named[str(place)] = original
            except InvalidReference:
                continue
    return named | original_images(pod) | {str(item.place): item.original for item in rewrites}


def _annotated(pod: Pod, verdict: Verdict, annotations: Mapping[str, str | None]) -> Verdict:
    if _annotation_bytes(pod, annotations) > ANNOTATIONS_BYTES_MAX:
        return Verdict(left=(LeftAlone("pod", Reason.TOO_LARGE, "its annotations have no room for the original images"),))
    return replace(verdict, annotations=annotations)


def _decide_place(place: ImagePlace, policy: Policy) -> Rewrite | LeftAlone:
    if place.image is None:
        return LeftAlone(place.where, Reason.NO_IMAGE, "it names no image")
    if place.never_pulled:
        words = "its image is never pulled, so it has to be on the node under its own name"
        return LeftAlone(place.where, Reason.NEVER_PULLED, words)
    if is_local(place.image):
        return LeftAlone(place.where, Reason.ALREADY_LOCAL, "its image is already named at the node's agent")
    try:
        reference = Reference.parse(place.image)
        if not policy.admits(reference):
            return LeftAlone(place.where, Reason.EXCLUDED_IMAGE, f"{reference.registry}/{reference.repository} is excluded")
        return Rewrite(place, place.image, reference.local, reference.registry, reference.repository)
    except InvalidReference as refused:
        return LeftAlone(place.where, Reason.NOT_A_NAME, f"its image is left as it is: {refused}")


def _annotation_bytes(pod: Pod, changed: Mapping[str, str | None]) -> int:
    annotations = {**mapping_at(mapping_at(pod, "metadata"), "annotations"), **changed}
    return sum(len(f"{name}{value}".encode("utf-8", "surrogatepass")) for name, value in annotations.items() if value is not None)
