"""A pod, as far as Darner reads it: where it names images, what they were before, whose it is, and its pull secrets.

Pure, and below everything that decides about pods: a pod as the API server sends it goes in, values come out, and nothing here
knows why they are asked for. A pod that a webhook sees is not validated yet, so nothing is taken for granted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from agent.values.reference import InvalidReference, is_local, to_local
from webhook.kube.api import mapping_at, mappings_at, text_at

ORIGINAL_IMAGES = "darner.dev/original-images"
"""Annotation: the images that were rewritten, by kind and name, as their author wrote them."""
DECISION = "darner.dev/decision"
"""Annotation: in words why images were left alone, or put back."""
REWRITTEN = "darner.dev/rewritten"
"""Label, so that nobody who follows rewritten pods need look at all others."""
RELEASE = "darner.dev/release"
"""Label of rewritten pods and derived secrets: whose they are, where several releases are in one cluster."""

CONTAINER_KINDS = ("initContainers", "containers", "ephemeralContainers")
VOLUMES = "volumes"
EVERY_KIND = (*CONTAINER_KINDS, VOLUMES)
MUTABLE_KINDS = ("initContainers", "containers")
"""In these places Kubernetes lets an image be changed once it is there (validation.ValidatePodUpdate)."""
IMMUTABLE_KINDS = ("ephemeralContainers", VOLUMES)
"""These places keep the image that they were made with."""
OWNER_LENGTH_MAX = 600

Pod = Mapping[str, Any]


def rewritten_by(release: str) -> str:
    """The label selector of a release's rewritten pods; of every release's, if it has no name."""
    return of_release(f"{REWRITTEN}=true", release)


def of_release(selector: str, release: str) -> str:
    """The selector, narrowed to what is this release's; as it is, if the release has no name."""
    return f"{selector},{RELEASE}={release}" if release else selector


class ImagePlace(NamedTuple):
    """Where a pod names an image: a container of some kind, or an image volume."""

    kind: str
    name: str
    pointer: str
    """The path of the image in the pod, as RFC 6901 writes it."""
    image: str | None
    """None: the place names none, perhaps yet."""
    never_pulled: bool

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def where(self) -> str:
        """For messages and logs: names are not validated yet when a webhook sees them."""
        return str(self) if len(self.name) <= 63 and self.name.isprintable() else ascii(str(self)[:80])


class Owner(NamedTuple):
    """The object that a pod belongs to, in the pod's namespace."""

    namespace: str
    kind: str
    group: str
    name: str

    def __str__(self) -> str:
        kind = f"{self.kind}.{self.group}" if self.group else self.kind
        return f"{self.namespace}/{kind}/{self.name}"[:OWNER_LENGTH_MAX]


def places(pod: Pod, kinds: tuple[str, ...]) -> Iterator[ImagePlace]:
    """Every place of these kinds in the pod, whether it names an image or not."""
    spec = mapping_at(pod, "spec")
    for kind in kinds:
        items = spec.get(kind)
        for index, item in enumerate(items if isinstance(items, list) else ()):
            if not isinstance(item, dict) or (kind == VOLUMES and not isinstance(item.get("image"), dict)):
                continue
            holder, key, policy = (
                (item["image"], "reference", "pullPolicy") if kind == VOLUMES else (item, "image", "imagePullPolicy")
            )
            pointer = f"/spec/{kind}/{index}/image" + ("/reference" if kind == VOLUMES else "")
            image = holder.get(key)
            yield ImagePlace(
                kind, text_at(item, "name"), pointer, image if isinstance(image, str) else None, holder.get(policy) == "Never"
            )


def original_images(pod: Pod) -> dict[str, str]:
    """The originals that an earlier pass has noted, as far as it is true: of each place whose image is its local name now."""
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


def original_images_text(originals: Mapping[str, str]) -> str:
    """`{"containers": {"app": "nginx:1.27"}, ...}`, the same text for the same images."""
    nested: dict[str, dict[str, str]] = {}
    for place, image in originals.items():
        kind, _, name = place.partition("/")
        nested.setdefault(kind, {})[name] = image
    return json.dumps(nested, sort_keys=True, separators=(",", ":"))


def pull_secrets(pod: Pod) -> tuple[str, ...]:
    """The names of the pod's pull secrets, each once; its service account's are among them before a webhook sees the pod."""
    names = (text_at(item, "name") for item in mappings_at(mapping_at(pod, "spec"), "imagePullSecrets"))
    return tuple(dict.fromkeys(name for name in names if name))


def owners(pod: Pod, namespace: str) -> tuple[Owner, ...]:
    """Every owner, the controller first."""
    found = sorted(_owner_references(pod), key=lambda item: item.get("controller") is not True)
    return tuple(_owner(item, namespace) for item in found)


def controller_of(pod: Pod, namespace: str) -> Owner | None:
    """The owner that makes the pod anew when it is gone."""
    found = next((item for item in _owner_references(pod) if item.get("controller") is True), None)
    return _owner(found, namespace) if found else None


def _owner(reference: Mapping[str, Any], namespace: str) -> Owner:
    group = text_at(reference, "apiVersion").rpartition("/")[0]
    return Owner(namespace, text_at(reference, "kind"), group, text_at(reference, "name"))


def _owner_references(pod: Pod) -> list[Mapping[str, Any]]:
    return mappings_at(mapping_at(pod, "metadata"), "ownerReferences")
