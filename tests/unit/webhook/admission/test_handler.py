"""From a question to a verdict: pull secrets, and what is left alone for want of one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.webhook_lab import LOCAL, applied, container, originals, pod, review
from webhook.admission.handler import Judge
from webhook.admission.policy import Policy
from webhook.admission.review import answer, read
from webhook.admission.rewrite import DRY_RUN
from webhook.errors import NotDerived, Obstacle
from webhook.gates import LeftAlone, Reason, Rewrite
from webhook.pods import DECISION, ORIGINAL_IMAGES, Pod

PRIVATE = "reg.example.com"


async def derived(_namespace: str, names: Sequence[str], registries: frozenset[str]) -> Mapping[str, frozenset[str]]:
    return {f"darner-{name}": frozenset({PRIVATE}) & registries for name in names if PRIVATE in registries}


async def not_derived(_namespace: str, _names: Sequence[str], _registries: frozenset[str]) -> Mapping[str, frozenset[str]]:
    raise NotDerived(Obstacle.LATE, "late")


def without_secret(rewrites: Sequence[Rewrite], covered: frozenset[str]) -> Iterator[LeftAlone]:
    yield from (
        LeftAlone(item.place.where, Reason.NODE_CREDENTIAL, "refused")
        for item in rewrites
        if item.registry == PRIVATE and item.registry not in covered
    )


def judged(judge: Judge, subject: dict[str, Any], **request: Any) -> dict[str, Any]:
    admission = read(json.dumps(review(subject, **request)).encode())
    return applied(subject, answer(admission, asyncio.run(judge.verdict(admission)))["response"])


def with_images(**more: Any) -> dict[str, Any]:
    return pod(container("a", f"{PRIVATE}/a:1"), container("b", "nginx"), **more)


def test_an_image_that_only_the_nodes_can_pull_stays_and_the_others_are_rewritten() -> None:
    """FAULTS 60."""
    after = judged(Judge(Policy(), (), derived, without_secret), with_images())
    assert [item["image"] for item in after["spec"]["containers"]] == [f"{PRIVATE}/a:1", LOCAL + "docker.io/library/nginx"]
    assert originals(after) == {"containers": {"b": "nginx"}}
    assert after["metadata"]["annotations"][DECISION] == "containers/a: refused"


def test_a_pod_of_which_nothing_is_left_to_rewrite_has_the_reason_alone() -> None:
    """FAULTS 60."""
    subject = pod(container("a", f"{PRIVATE}/a:1"))
    after = judged(Judge(Policy(), (), derived, without_secret), subject)
    assert after["metadata"].pop("annotations") == {DECISION: "containers/a: refused"}
    assert after == subject


def test_a_pod_with_a_pull_secret_that_fits_goes_on_being_rewritten() -> None:
    """FAULTS 60."""
    after = judged(Judge(Policy(), (), derived, without_secret), with_images(imagePullSecrets=[{"name": "mine"}]))
    assert set(originals(after)["containers"]) == {"a", "b"}
    assert after["spec"]["imagePullSecrets"] == [{"name": "mine"}, {"name": "darner-mine"}]


def test_gates_are_asked_once_about_a_pod_whose_secrets_cannot_be_used() -> None:
    asked: list[str] = []

    def gate(namespace: str, _pod: Pod, rewrites: Sequence[Rewrite]) -> Iterator[LeftAlone]:
        asked.append(namespace)
        yield LeftAlone(rewrites[1].place.where, Reason.REGISTRY_FAILING, "not now")

    after = judged(Judge(Policy(), (gate,), not_derived, without_secret), with_images(imagePullSecrets=[{"name": "mine"}]))
    assert asked == ["shop"]
    assert ORIGINAL_IMAGES not in after["metadata"]["annotations"]
    assert after["metadata"]["annotations"][DECISION] == (
        "containers/b: not now; pod: its pull secrets cannot be used at the node's agent: late"
    )
    assert "labels" not in after["metadata"]


def test_a_dry_run_that_asks_is_shown_what_would_become_of_it_and_nobody_remembers_it() -> None:
    told: list[str] = []

    def trial(namespace: str, _pod: Pod, rewrites: Sequence[Rewrite]) -> Iterator[LeftAlone]:
        told.append(namespace)
        yield from (LeftAlone(item.place.where, Reason.REGISTRY_FAILING, "another pod tries it first") for item in rewrites)

    def gate(_namespace: str, _pod: Pod, rewrites: Sequence[Rewrite]) -> Iterator[LeftAlone]:
        yield LeftAlone(rewrites[0].place.where, Reason.AGENT_NOT_READY, "no agent")

    judge = Judge(Policy(), (trial, gate), not_derived, without_secret, lambda namespace, _: told.append(namespace), (trial,))
    subject = with_images(imagePullSecrets=[{"name": "mine"}])
    assert judged(judge, subject, dryRun=True) == subject, "without a word in its annotations it compares, as kubectl diff does"
    subject["metadata"]["annotations"] = {DRY_RUN: "rewrite"}
    after = judged(judge, subject, dryRun=True)
    assert [item["image"] for item in after["spec"]["containers"]] == [f"{PRIVATE}/a:1", LOCAL + "docker.io/library/nginx"]
    assert after["metadata"]["annotations"][DECISION] == "containers/a: no agent"
    assert after["spec"]["imagePullSecrets"] == [{"name": "mine"}], "no secret is made for it"
    assert told == []


def test_a_dry_run_that_asks_is_told_also_what_a_pod_would_not_bear() -> None:
    """Otherwise nobody could tell an excluded image from a webhook that did not answer."""
    subject = pod(container("a", "nginx", imagePullPolicy="Never"))
    assert judged(Judge(Policy()), subject) == subject
    subject["metadata"]["annotations"] = {DRY_RUN: "rewrite"}
    after = judged(Judge(Policy()), subject, dryRun=True)
    assert after["metadata"]["annotations"][DECISION].startswith("containers/a: its image is never pulled")
    assert after["spec"] == subject["spec"]
