"""Which image names of a pod are rewritten, to what, and in words why the others are not.

Pure: a pod as the API server sends it goes in, an `Outcome` comes out, and the pod is never changed. It decides about names
alone, and asks the gates that it is given whether now is the time; how a decision becomes a patch is
`webhook.admission.review`'s, and what a name looks like is `agent.values.reference`'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from agent.values.reference import InvalidReference, Reference, is_local, to_local
from webhook.admission.policy import Policy

INJECT = "darner.dev/inject"
ORIGINAL_IMAGES = "darner.dev/original-images"
DECISION = "darner.dev/decision"
REWRITTEN = "darner.dev/rewritten"
"""Label, so that whoever looks after rewritten pods need not look at all others."""
RELEASE = "darner.dev/release"
"""Label of rewritten pods and derived secrets: whose they are, where several releases are in one cluster."""
MIRROR_POD = "kubernetes.io/config.mirror"
OPERATING_SYSTEM = "kubernetes.io/os"

CONTAINER_KINDS = ("initContainers", "containers", "ephemeralContainers")
VOLUMES = "volumes"
EVERY_KIND = (*CONTAINER_KINDS, VOLUMES)

ANNOTATIONS_BYTES_MAX = 256 * 1024
"""The API server's own limit on all annotations of an object, names and values (apimachinery, TotalAnnotationSizeLimitB)."""

Pod = Mapping[str, Any]


def rewritten_by(release: str) -> str:
    """The label selector of a release's rewritten pods; of everybody's, if it has no name."""
    return of_release(f"{REWRITTEN}=true", release)


def of_release(selector: str, release: str) -> str:
    """What a label selector finds, if it is this release's; all of it, if that has no name."""
    return f"{selector},{RELEASE}={release}" if release else selector


class Reason(StrEnum):
    """Why an image or a whole pod was left alone, as metrics name it."""

    EXCLUDED_NAMESPACE = "excluded-namespace"
    OPTED_OUT = "opted-out"
    MIRROR_POD = "mirror-pod"
    WINDOWS = "windows"
    DRY_RUN = "dry-run"
    NOT_A_POD = "not-a-pod"
    NO_IMAGE = "no-image"
    NEVER_PULLED = "never-pulled"
    ALREADY_LOCAL = "already-local"
    EXCLUDED_IMAGE = "excluded-image"
    NOT_A_NAME = "not-a-name"
    TOO_LARGE = "too-large"
    AGENT_NOT_READY = "agent-not-ready"
    AGENTS_UNKNOWN = "agents-unknown"
    NO_PULL_SECRET = "no-pull-secret"  # noqa: S105 (a reason, not a password)
    REGISTRY_FAILING = "registry-failing"
    OWNER_DELETES = "owner-deletes"
    EXCLUDED_OWNER = "excluded-owner"
    NOT_PROVEN = "not-proven"


SURPRISING = frozenset({Reason.NOT_A_POD, Reason.NOT_A_NAME, Reason.TOO_LARGE})
"""Nobody asked for these; whoever made the pod gets a warning."""


@dataclass(frozen=True)
class Place:
    """Where a pod names an image: a container of some kind, or an image volume."""

    kind: str
    name: str
    pointer: str
    """Of the image, as RFC 6901 writes it."""
    image: str | None
    """None: the place names none, perhaps yet."""
    never_pulled: bool

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def where(self) -> str:
        """For messages and logs: names are not validated yet when a webhook sees them."""
        return str(self) if len(self.name) <= 63 and self.name.isprintable() else ascii(str(self)[:80])


@dataclass(frozen=True)
class Rewrite:
    place: Place
    original: str
    local: str
    registry: str
    """That the original is pulled from."""


@dataclass(frozen=True)
class Left:
    """An image that stays as it is, or with `where` of `pod` all of them."""

    where: str
    reason: Reason
    words: str

    def __str__(self) -> str:
        return f"{self.where}: {self.words}"


@dataclass(frozen=True)
class Outcome:
    """What to do with a pod. Without rewrites nothing is to be done."""

    rewrites: tuple[Rewrite, ...] = ()
    left: tuple[Left, ...] = ()
    annotations: Mapping[str, str | None] = field(default_factory=dict)
    """Those that are to change; None: removed."""
    labels: Mapping[str, str] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()
    """Names that the pod is to be given besides its own."""

    @property
    def decision(self) -> str:
        """In words why what was not rewritten was not."""
        return "; ".join(map(str, self.left))

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(str(left) for left in self.left if left.reason in SURPRISING)


Gate = Callable[[str, Pod, Sequence[Rewrite]], Iterable[Left]]
"""Asked about a namespace's pod and what would be rewritten; tells which of that (`pod`: all) stays this time, and why."""


def rewrite_pod(pod: Pod, namespace: str, policy: Policy, gates: Sequence[Gate] = ()) -> Outcome:
    """What to do with a pod that is being created."""
    whole = _whole_pod(pod, namespace, policy)
    if whole:
        return Outcome(left=(whole,))
    outcome = _decide(pod, namespace, tuple(places(pod, EVERY_KIND)), policy, gates)
    labels = {REWRITTEN: "true"} | ({RELEASE: policy.release} if policy.release else {})
    return replace(outcome, labels=labels) if outcome.rewrites else outcome


def rewrite_ephemeral_containers(pod: Pod, before: Pod, namespace: str, policy: Policy, gates: Sequence[Gate] = ()) -> Outcome:
    """What to do with the ephemeral containers that a pod is being given; nothing else of a pod may change after its creation."""
    whole = _whole_pod(pod, namespace, policy)
    if whole:
        return Outcome(left=(whole,))
    present = {place.name for place in places(before, ("ephemeralContainers",))}
    added = tuple(place for place in places(pod, ("ephemeralContainers",)) if place.name not in present)
    outcome = _decide(pod, namespace, added, policy, gates)
    # What was decided when the pod was created stays. (API servers of today drop an update's annotations; its containers count.)
    return replace(outcome, annotations={name: text for name, text in outcome.annotations.items() if name == ORIGINAL_IMAGES})


def places(pod: Pod, kinds: tuple[str, ...]) -> Iterator[Place]:
    """Every place of these kinds in the pod, whether it names an image or not."""
    spec = mapping_at(pod, "spec")
    for kind in kinds:
        items = spec.get(kind)
        for index, item in enumerate(items if isinstance(items, list) else ()):
            if not isinstance(item, Mapping) or (kind == VOLUMES and not isinstance(item.get("image"), Mapping)):
                continue
            holder, key, policy = (
                (item["image"], "reference", "pullPolicy") if kind == VOLUMES else (item, "image", "imagePullPolicy")
            )
            pointer = f"/spec/{kind}/{index}/image" + ("/reference" if kind == VOLUMES else "")
            image = holder.get(key)
            yield Place(
                kind, text_at(item, "name"), pointer, image if isinstance(image, str) else None, holder.get(policy) == "Never"
            )


def pull_secrets(pod: Pod) -> tuple[str, ...]:
    """The names of the pod's pull secrets, each once; its service account's are among them before a webhook sees the pod."""
    items = mapping_at(pod, "spec").get("imagePullSecrets")
    names = (text_at(item, "name") for item in (items if isinstance(items, list) else ()) if isinstance(item, Mapping))
    return tuple(dict.fromkeys(name for name in names if name))


def _whole_pod(pod: Pod, namespace: str, policy: Policy) -> Left | None:
    """Why the whole pod is left alone, if it is."""
    metadata, spec = mapping_at(pod, "metadata"), mapping_at(pod, "spec")
    labels, annotations = mapping_at(metadata, "labels"), mapping_at(metadata, "annotations")
    if namespace in policy.excluded_namespaces:
        return Left("pod", Reason.EXCLUDED_NAMESPACE, f"namespace {namespace} is excluded")
    if "disabled" in (labels.get(INJECT), annotations.get(INJECT)):
        return Left("pod", Reason.OPTED_OUT, f"it says {INJECT}: disabled")
    if MIRROR_POD in annotations:
        # The kubelet runs it from a file of its own; the API server only shows a copy, and a changed copy is deleted.
        return Left("pod", Reason.MIRROR_POD, "it mirrors a static pod, which its kubelet reads from a file")
    systems = (text_at(mapping_at(spec, "os"), "name"), text_at(mapping_at(spec, "nodeSelector"), OPERATING_SYSTEM))
    if "windows" in systems:
        return Left("pod", Reason.WINDOWS, "it is for a Windows node, and no agent runs there")
    return None


def _decide(pod: Pod, namespace: str, candidates: tuple[Place, ...], policy: Policy, gates: Sequence[Gate]) -> Outcome:
    originals = original_images(pod)
    decided = [_decide_place(place, policy) for place in candidates if str(place) not in originals]
    rewrites = [item for item in decided if isinstance(item, Rewrite)]
    left = [item for item in decided if isinstance(item, Left)]
    if not rewrites:
        return Outcome(left=tuple(left))
    for gate in gates:
        refused = list(gate(namespace, pod, rewrites)) if rewrites else []
        left += refused
        names = {item.where for item in refused}
        rewrites = [] if "pod" in names else [item for item in rewrites if item.place.where not in names]
    outcome = Outcome(tuple(rewrites), tuple(left))
    # Also when every rewrite had to stay this time: whoever wonders why finds the reason on the pod.
    annotations: dict[str, str | None] = {DECISION: outcome.decision or None}
    if rewrites:
        originals |= {str(item.place): item.original for item in rewrites}
        annotations[ORIGINAL_IMAGES] = _original_images_text(originals)
    if _annotation_bytes(pod, annotations) > ANNOTATIONS_BYTES_MAX:
        return Outcome(left=(Left("pod", Reason.TOO_LARGE, "its annotations have no room for the original images"),))
    return replace(outcome, annotations=annotations)


def _decide_place(place: Place, policy: Policy) -> Rewrite | Left:
    if place.image is None:
        return Left(place.where, Reason.NO_IMAGE, "it names no image")
    if place.never_pulled:
        return Left(place.where, Reason.NEVER_PULLED, "its image is never pulled, so it has to be on the node under its own name")
    if is_local(place.image):
        return Left(place.where, Reason.ALREADY_LOCAL, "its image is already named at the node's agent")
    try:
        reference = Reference.parse(place.image)
        if not policy.admits(reference):
            return Left(place.where, Reason.EXCLUDED_IMAGE, f"{reference.registry}/{reference.repository} is excluded")
        return Rewrite(place, place.image, reference.local, reference.registry)
    except InvalidReference as refused:
        return Left(place.where, Reason.NOT_A_NAME, f"its image is left as it is: {refused}")


def original_images(pod: Pod) -> dict[str, str]:
    """What an earlier pass has noted, as far as it is true: the original of each place whose present image is its local name."""
    text = text_at(mapping_at(mapping_at(pod, "metadata"), "annotations"), ORIGINAL_IMAGES)
    if not text:
        return {}
    try:
        noted = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    true: dict[str, str] = {}
    for place in places(pod, EVERY_KIND):
        original = text_at(mapping_at(noted, place.kind), place.name)
        try:
            if original and place.image and is_local(place.image) and to_local(original) == place.image:
                true[str(place)] = original
        except InvalidReference:
            continue
    return true


def _original_images_text(originals: Mapping[str, str]) -> str:
    """`{"containers": {"app": "nginx:1.27"}, ...}`, the same text for the same images."""
    nested: dict[str, dict[str, str]] = {}
    for place, image in originals.items():
        kind, _, name = place.partition("/")
        nested.setdefault(kind, {})[name] = image
    return json.dumps(nested, sort_keys=True, separators=(",", ":"))


def _annotation_bytes(pod: Pod, changed: Mapping[str, str | None]) -> int:
    annotations = {**mapping_at(mapping_at(pod, "metadata"), "annotations"), **changed}
    return sum(len(f"{name}{value}".encode("utf-8", "surrogatepass")) for name, value in annotations.items() if value is not None)


def mapping_at(holder: Any, key: str) -> Mapping[str, Any]:
    """The mapping under the key, empty for anything else: what is malformed is the API server's to refuse, not ours."""
    value = holder.get(key) if isinstance(holder, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def text_at(holder: Mapping[str, Any], key: str) -> str:
    value = holder.get(key)
    return value if isinstance(value, str) else ""
