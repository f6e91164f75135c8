"""Why the images of a pod have the names that they have. Pure: it asks the very rules that the webhook goes by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.values.reference import InvalidReference, from_local, is_local
from cli.labels import labels_of, labels_of_namespace, unmet
from webhook.admission.policy import Policy
from webhook.admission.rewrite import rewrite_pod
from webhook.kube.api import Object, mapping_at, mappings_at, text_at
from webhook.pods import DECISION, EVERY_KIND, original_images, places


@dataclass(frozen=True)
class NameStory:
    """Of one container or image volume."""

    where: str
    image: str
    """As it is now."""
    original: str
    """As its author wrote it."""
    rewritten: bool
    why: str
    """In words; empty where there is nothing to say beyond that it is rewritten."""


@dataclass(frozen=True)
class Rules:
    """By which a release's webhook goes."""

    configuration: Object | None
    policy: Policy


def name_stories(pod: Object, namespace: Object, rules: Rules | None) -> Iterator[NameStory]:
    """One for each place of the pod that names an image. `rules` is None where no webhook is installed, or nobody may see it."""
    originals = original_images(pod)
    decision = text_at(mapping_at(mapping_at(pod, "metadata"), "annotations"), DECISION)
    otherwise = decision or _why_unasked(pod, namespace, rules)
    for place in places(pod, EVERY_KIND):
        image = place.image or ""
        if str(place) in originals:
            yield NameStory(str(place), image, originals[str(place)], True, "")
        elif is_local(image):
            why = "its author wrote the local name, or copied the pod from one that has it"
            yield NameStory(str(place), image, _original(image), True, why)
        else:
            yield NameStory(str(place), image, image, False, _of_place(otherwise, place.where))


def _original(image: str) -> str:
    try:
        return from_local(image)
    except InvalidReference:
        return image


def _of_place(words: str, where: str) -> str:
    """A decision is about several places: `containers/a: ...; pod: ...`. Those of this one, if there are any."""
    own = [part.partition(": ")[2] for part in words.split("; ") if part.startswith((f"{where}: ", "pod: "))]
    return "; ".join(own) or words


def _why_unasked(pod: Object, namespace: Object, rules: Rules | None) -> str:
    """Why a pod without a decision on it was left alone."""
    if rules is None:
        return "no webhook of Darner is known here"
    if rules.configuration is None:
        return "no API server asks the webhook: the release has no MutatingWebhookConfiguration"
    names = labels_of_namespace(namespace)
    for webhook in mappings_at(rules.configuration, "webhooks"):
        name = text_at(mapping_at(namespace, "metadata"), "name")
        if missed := unmet(mapping_at(webhook, "namespaceSelector"), names):
            return f"namespace {name} has not opted in: its labels do not meet {', '.join(missed)}"
        if missed := unmet(mapping_at(webhook, "objectSelector"), labels_of(pod)):
            return f"the pod stays out: its labels do not meet {', '.join(missed)}"
    verdict = rewrite_pod(pod, text_at(mapping_at(namespace, "metadata"), "name"), rules.policy)
    if verdict.decision:
        return verdict.decision
    created = text_at(mapping_at(pod, "metadata"), "creationTimestamp")
    return f"it would be rewritten now; when it was made ({created}) the webhook was not asked, or did not answer in time"
