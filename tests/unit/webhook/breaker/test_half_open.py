"""What is known to work through the agents, and what is admitted while that is not known; in virtual time."""

from __future__ import annotations

import json
from typing import Any

from tests.threads import between_lines
from tests.webhook_lab import admitted, container, pod
from webhook.admission.policy import Policy
from webhook.admission.readiness import ready_nodes_only
from webhook.admission.rewrite import rewrite_pod
from webhook.breaker.breaker import Breakers
from webhook.breaker.half_open import PROVEN_SECONDS, TRIAL_SECONDS_MAX, Evidence, one_at_a_time, only_with_secret
from webhook.breaker.pauses import KEPT_MAX, Pauses
from webhook.gates import Gate
from webhook.pods import DECISION, ORIGINAL_IMAGES, Owner

NOW = 1_800_000_000.0
PAUSE = 60.0
QUAY = pod(container("a", "quay.io/x/y"))
OPERATOR = Owner("shop", "Cluster", "example.com", "db")
OWNED = pod(
    container("a", "nginx"),
    metadata={"ownerReferences": [{"apiVersion": "example.com/v1", "kind": "Cluster", "name": "db", "controller": True}]},
)


class Replica:
    """Its gate, its clock, and what it knows."""

    def __init__(self, pauses: Pauses) -> None:
        self.now, self.pauses, self.evidence = NOW, pauses, Evidence()
        self.gate = one_at_a_time(lambda: self.pauses, self.evidence, lambda: self.now)

    def rewrites(self, subject: dict[str, Any], seconds: float = 0.0, *before: Gate) -> bool:
        """So many seconds later."""
        self.now += seconds
        return ORIGINAL_IMAGES in admitted(subject, gates=(*before, self.gate))["metadata"].get("annotations", {})


def after_a_pause(failing: bool = True) -> Replica:
    """A replica at the moment at which the pause of quay.io, or of an owner, is over."""
    breakers = Breakers()
    for number in range(5):
        if failing:
            breakers.failed("quay.io", str(number), NOW - PAUSE)
        else:
            at = NOW - PAUSE - (4 - number) * 10
            breakers.deleted(OPERATOR, at - 5, at, at)
    return Replica(breakers.pauses)


def test_after_a_pause_one_pod_tries_the_registry_and_the_others_are_left_alone() -> None:
    replica = after_a_pause()
    assert [replica.rewrites(QUAY) for _ in range(10)] == [True] + 9 * [False]
    left = admitted(QUAY, gates=(replica.gate,))["metadata"]["annotations"]
    assert left == {DECISION: "containers/a: pulls from quay.io through the agents kept failing, and another pod tries it first"}
    assert replica.rewrites(pod(container("a", "nginx")))


def test_a_pod_with_several_images_of_the_registry_tries_it_with_all_of_them() -> None:
    subject = pod(container("a", "quay.io/x/y"), container("b", "quay.io/x/z"))
    noted = admitted(subject, gates=(after_a_pause().gate,))["metadata"]["annotations"][ORIGINAL_IMAGES]
    assert set(json.loads(noted)["containers"]) == {"a", "b"}


def test_a_pull_that_succeeds_lets_all_others_through() -> None:
    replica = after_a_pause()
    assert replica.rewrites(QUAY)
    replica.evidence.saw_pulled("quay.io", NOW - PAUSE)  # before the pause was over
    assert not replica.rewrites(QUAY, 5)
    replica.evidence.saw_pulled("quay.io", NOW + 4)
    assert all(replica.rewrites(QUAY) for _ in range(10))


def test_a_pull_that_fails_begins_the_next_pause_and_after_it_one_pod_tries_again() -> None:
    breakers = Breakers(after_a_pause().pauses)
    replica = Replica(breakers.pauses)
    assert replica.rewrites(QUAY)
    tripped = breakers.failed("quay.io", "the one", NOW + 5)
    assert tripped
    assert tripped.seconds == 2 * PAUSE
    assert [replica.rewrites(QUAY, 5 + 2 * PAUSE), replica.rewrites(QUAY)] == [True, False]


def test_a_pod_of_which_nothing_is_heard_keeps_the_others_waiting_for_a_while_only() -> None:
    replica = after_a_pause()
    assert replica.rewrites(QUAY)
    assert not replica.rewrites(QUAY, TRIAL_SECONDS_MAX - 1)
    assert [replica.rewrites(QUAY, 1), replica.rewrites(QUAY)] == [True, False]


def test_a_clock_that_is_set_back_keeps_nobody_waiting_for_that_time_to_come_again() -> None:
    replica = after_a_pause()
    replica.now += 3000
    assert [replica.rewrites(QUAY), replica.rewrites(QUAY)] == [True, False]
    assert [replica.rewrites(QUAY, -2000), replica.rewrites(QUAY)] == [True, False]


def test_a_pod_that_another_gate_refuses_tries_nothing() -> None:
    replica = after_a_pause()
    assert not replica.rewrites(QUAY, 0, ready_nodes_only(lambda: None, 50))
    assert replica.rewrites(QUAY)


def test_of_an_owner_one_pod_is_tried_and_when_it_has_lived_all_are() -> None:
    replica = after_a_pause(failing=False)
    assert [replica.rewrites(OWNED) for _ in range(3)] == [True, False, False]
    assert not replica.rewrites(OWNED, 59)
    assert [replica.rewrites(OWNED, 1), replica.rewrites(OWNED), replica.rewrites(OWNED)] == [True, True, True]


def test_what_is_known_is_bounded() -> None:
    evidence = Evidence()
    for number in range(2 * KEPT_MAX):
        evidence.saw_pulled(f"r{number}", NOW)
        evidence.saw_failing(f"r{number}", NOW)
    assert len(evidence.pulled) == len(evidence.failed) == KEPT_MAX
    evidence.saw_pulled("", NOW)
    assert "" not in evidence.pulled


def test_a_registry_is_proven_by_a_pull_of_today_that_no_failure_came_after() -> None:
    evidence = Evidence()
    assert not evidence.proves("r", NOW)
    evidence.saw_pulled("r", NOW - 10)
    evidence.saw_pulled("r", NOW - 1000)
    assert evidence.proves("r", NOW)
    assert not evidence.proves("other", NOW)
    assert not evidence.proves("r", NOW + PROVEN_SECONDS)
    evidence.saw_failing("r", NOW - 5)
    assert not evidence.proves("r", NOW)
    evidence.saw_pulled("r", NOW - 1)
    assert evidence.proves("r", NOW)


def test_a_reader_in_another_thread_never_takes_a_registry_that_fails_for_proven() -> None:
    evidence = Evidence()
    evidence.saw_pulled("r", NOW - 2)
    evidence.saw_failing("r", NOW - 1)
    looks = between_lines(lambda: evidence.saw_failing("r", NOW), lambda: evidence.proves("r", NOW))
    assert not any(looks), "for a moment there was no failure, and an image that nobody can put back was rewritten"


def kept_by_secret(pauses: Pauses, now: float, *images: str, covered: tuple[str, ...] = ()) -> list[list[str]]:
    """The places that are left alone, of two pods one after the other."""
    gate = only_with_secret(lambda: pauses, lambda: now)
    rewrites = rewrite_pod(pod(*(container(image, image) for image in images)), "shop", Policy()).rewrites
    return [[item.where.partition("/")[2] for item in gate(rewrites, frozenset(covered))] for _ in range(2)]


def without_credential(whole: bool) -> Pauses:
    breakers = Breakers()
    for number in range(3):
        breakers.refused("r.io", "team/app", str(number), whole, NOW)
    return breakers.pauses


def test_pods_without_a_secret_that_fits_are_left_alone_and_the_others_rewritten() -> None:
    """FAULTS 60."""
    images = ("r.io/team/app", "r.io/team/other", "quay.io/x/y")
    whole, one = without_credential(True), without_credential(False)
    assert kept_by_secret(whole, NOW, *images) == [["r.io/team/app", "r.io/team/other"]] * 2
    assert kept_by_secret(whole, NOW, *images, covered=("quay.io",)) == [["r.io/team/app", "r.io/team/other"]] * 2
    assert kept_by_secret(whole, NOW, *images, covered=("r.io",)) == [[], []]
    assert kept_by_secret(one, NOW, *images) == [["r.io/team/app"]] * 2


def test_after_the_pause_one_pod_without_a_secret_tries_with_all_its_images() -> None:
    """FAULTS 60."""
    later = NOW + 6 * 3600
    assert kept_by_secret(without_credential(True), later, "r.io/team/app", "r.io/team/other") == [
        [],
        ["r.io/team/app", "r.io/team/other"],
    ]
