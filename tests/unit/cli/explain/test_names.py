"""Why the images of a pod have the names that they have."""

from __future__ import annotations

import json
from typing import Any

from agent.values.reference import to_local
from cli.explain.names import NameStory, Rules, name_stories
from webhook.admission.policy import Policy
from webhook.pods import DECISION, ORIGINAL_IMAGES

OPTED_IN = {"darner.dev/inject": "enabled"}
CONFIGURATION = {
    "webhooks": [
        {
            "namespaceSelector": {
                "matchExpressions": [
                    {"key": "darner.dev/inject", "operator": "In", "values": ["enabled"]},
                    {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]},
                ]
            },
            "objectSelector": {"matchExpressions": [{"key": "darner.dev/inject", "operator": "NotIn", "values": ["disabled"]}]},
        }
    ]
}


def stories(
    *images: str, labels: Any = None, annotations: Any = None, namespace: Any = None, policy: Policy | None = None
) -> list[NameStory]:
    metadata = {"labels": labels or {}, "annotations": annotations or {}, "creationTimestamp": "2026-01-01T00:00:00Z"}
    spec = {"containers": [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]}
    shop = {"metadata": {"name": "shop", "labels": OPTED_IN if namespace is None else namespace}}
    return list(name_stories({"metadata": metadata, "spec": spec}, shop, Rules(CONFIGURATION, policy or Policy())))


def why(*images: str, **more: Any) -> str:
    (story,) = stories(*images, **more)
    assert not story.rewritten
    return story.why


def test_a_rewritten_image_tells_its_original() -> None:
    noted = {ORIGINAL_IMAGES: json.dumps({"containers": {"c0": "nginx:1"}})}
    (story,) = stories(to_local("nginx:1"), annotations=noted)
    assert story == NameStory("containers/c0", to_local("nginx:1"), "nginx:1", True, "")


def test_a_local_name_that_nobody_noted_tells_its_original_too() -> None:
    (story,) = stories(to_local("reg.test:5000/a:1"))
    assert story.original == "reg.test:5000/a:1"
    assert "its author wrote the local name" in story.why


def test_a_decision_is_told_for_the_container_that_it_is_about() -> None:
    decision = "containers/c0: registry reg.test is paused; containers/c1: its image is never pulled"
    first, second = stories("reg.test/a", "reg.test/b", annotations={DECISION: decision})
    assert (first.why, second.why) == ("registry reg.test is paused", "its image is never pulled")
    assert why("reg.test/a", annotations={DECISION: "pod: it says so"}) == "it says so"


def test_a_namespace_that_has_not_opted_in_is_told_with_what_is_missing() -> None:
    assert why("nginx", namespace={}) == (
        "namespace shop has not opted in: its labels do not meet darner.dev/inject in (enabled)"
    )


def test_a_pod_that_stays_out_by_its_label_or_its_annotation() -> None:
    stays_out = {"darner.dev/inject": "disabled"}
    assert "its labels do not meet darner.dev/inject notin (disabled)" in why("nginx", labels=stays_out)
    assert why("nginx", annotations=stays_out) == "it says darner.dev/inject: disabled"


def test_an_image_that_the_operator_excludes() -> None:
    assert why("nginx", policy=Policy(excluded_namespaces=frozenset({"shop"}))) == "namespace shop is excluded"


def test_a_pod_that_nobody_was_asked_about_says_that_it_would_be_rewritten_now() -> None:
    assert why("nginx").startswith("it would be rewritten now; when it was made (2026-01-01T00:00:00Z)")


def test_without_a_webhook_there_is_no_rule() -> None:
    pod = {"spec": {"containers": [{"name": "c", "image": "nginx"}]}}
    for rules, words in ((None, "no webhook of Darner is known"), (Rules(None, Policy()), "no MutatingWebhookConfiguration")):
        (story,) = name_stories(pod, {}, rules)
        assert words in story.why
