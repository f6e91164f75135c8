"""Images that nobody can put back: where they are rewritten, and in which words they are left alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.webhook_lab import admitted, container, image_volume, pod, respond, review
from webhook.admission.immutable import ImmutableImages, proven_only
from webhook.admission.policy import Policy
from webhook.admission.readiness import Agents
from webhook.breaker.half_open import Evidence
from webhook.pods import DECISION, ORIGINAL_IMAGES

NOW = 1_800_000_000.0
BOTH = Agents(frozenset({"n0", "n1"}), frozenset({"n0", "n1"}))
ONE = Agents(frozenset({"n0", "n1"}), frozenset({"n0"}))
MODEL = pod(container("a", "nginx"), volumes=[image_volume("model", "ghcr.io/x/model")])


def proven(*registries: str) -> Evidence:
    return Evidence(dict.fromkeys(registries, NOW - 1))


def volumes_rewritten(
    evidence: Evidence,
    subject: dict[str, Any] = MODEL,
    agents: Agents | None = BOTH,
    when: ImmutableImages = ImmutableImages.PROVEN,
) -> bool:
    gate = proven_only(evidence.proves, lambda: agents, when, lambda: NOW)
    noted = json.loads(admitted(subject, gates=(gate,))["metadata"]["annotations"][ORIGINAL_IMAGES])
    assert noted["containers"] == {"a": "nginx"}, "containers can be given their images back"
    return "volumes" in noted


def test_an_image_volume_is_rewritten_where_its_registry_has_been_pulled_from() -> None:
    assert volumes_rewritten(proven("ghcr.io"))
    assert volumes_rewritten(proven("ghcr.io"), agents=None)
    assert not volumes_rewritten(proven("docker.io"))


def test_an_image_volume_is_left_alone_with_words_when_its_pull_might_fail_by_us() -> None:
    gate = proven_only(Evidence().proves, lambda: BOTH, ImmutableImages.PROVEN, lambda: NOW)
    assert admitted(MODEL, gates=(gate,))["metadata"]["annotations"][DECISION] == (
        "volumes/model: nobody could put its image back, and no image of ghcr.io was pulled through an agent in the last 24 h, "
        "or a later pull failed"
    )


def test_an_image_volume_is_rewritten_only_if_an_agent_is_ready_wherever_the_pod_may_come() -> None:
    assert not volumes_rewritten(proven("ghcr.io"), agents=ONE)
    here, there = ({**MODEL, "spec": MODEL["spec"] | {"nodeName": node}} for node in ("n0", "n1"))
    assert volumes_rewritten(proven("ghcr.io"), here, ONE)
    assert not volumes_rewritten(proven("ghcr.io"), there, ONE)


@pytest.mark.parametrize(("when", "expected"), [(ImmutableImages.ALWAYS, True), (ImmutableImages.NEVER, False)])
def test_an_operator_may_have_them_rewritten_always_or_never(when: ImmutableImages, expected: bool) -> None:
    for evidence in (Evidence(), proven("ghcr.io")):
        assert volumes_rewritten(evidence, when=when) is expected


@pytest.mark.parametrize("known", [True, False])
def test_an_ephemeral_container_is_rewritten_where_its_registry_has_been_pulled_from(known: bool) -> None:
    evidence = proven("ghcr.io") if known else Evidence()
    before = pod(container("a", "nginx"), nodeName="n0")
    subject = pod(container("a", "nginx"), nodeName="n0", ephemeralContainers=[container("debug", "ghcr.io/x/tools")])
    gates = (proven_only(evidence.proves, lambda: ONE, ImmutableImages.PROVEN, lambda: NOW),)
    question = review(subject, "UPDATE", subResource="ephemeralcontainers", oldObject=before)
    assert ("patch" in respond(question, Policy(), gates)) is known
