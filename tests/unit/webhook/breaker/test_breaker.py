"""The two breakers in virtual time: registries that keep failing by us, and owners that do not bear our names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.threads import between_lines
from tests.webhook_lab import admitted, container, pod
from webhook.breaker.breaker import Breakers, Tripped
from webhook.breaker.pauses import KEPT_MAX, PAUSE_SECONDS_MAX, OwnerKind, Pauses, leave_alone, owner_kind, registry_key
from webhook.pods import DECISION, ORIGINAL_IMAGES, Owner

NOW = 1_800_000_000.0
OPERATOR = Owner("shop", "Cluster", "example.com", "db")


def owned(kind: str = "Cluster", version: str = "example.com/v1", name: str = "db", **more: Any) -> dict[str, Any]:
    return {"ownerReferences": [{"apiVersion": version, "kind": kind, "name": name, "uid": "o1", "controller": True, **more}]}


def tripped(breakers: Breakers, now: float, registry: str = "r") -> Tripped | None:
    """By three pods at once."""
    results = [breakers.failed(registry, f"{now}/{number}", now) for number in range(3)]
    return next(filter(None, results), None)


def test_three_pods_whose_pulls_fail_pause_their_registry_and_no_other() -> None:
    breakers = Breakers()
    assert [breakers.failed("r", uid, NOW) for uid in ("1", "2")] == [None, None]
    assert breakers.failed("other", "4", NOW) is None
    assert breakers.failed("r", "3", NOW) == Tripped("registry", "r", 60.0)
    assert breakers.pauses.left_alone("r", None, NOW + 1) == (
        "pulls from r through the agents keep failing, so it is left alone for another 59 s"
    )
    assert breakers.pauses.left_alone("other", OPERATOR, NOW + 1) is None
    assert breakers.pauses.counts(NOW + 1) == {"registry": 1, "owner": 0, "credential": 0}


def test_one_pod_that_fails_again_and_again_is_one() -> None:
    breakers = Breakers()
    assert not any(breakers.failed("r", "1", NOW + second) for second in range(100))


def test_failures_that_lie_far_apart_do_not_add_up() -> None:
    breakers = Breakers()
    assert not any(breakers.failed("r", str(number), NOW + number * 301) for number in range(20))


def test_a_pause_ends_and_after_it_one_failure_begins_the_next_twice_as_long_up_to_an_hour() -> None:
    breakers, now, lengths = Breakers(), NOW, []
    trip = tripped(breakers, now)
    while trip and len(lengths) < 9:
        lengths.append(trip.seconds)
        assert breakers.pauses.left_alone("r", None, now + trip.seconds - 1)
        now += trip.seconds
        assert breakers.pauses.left_alone("r", None, now) is None
        trip = breakers.failed("r", f"trial {now}", now)
    assert lengths == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_a_registry_that_has_been_well_for_an_hour_is_forgiven() -> None:
    breakers = Breakers()
    assert tripped(breakers, NOW)
    later = NOW + 60 + 3600
    assert breakers.failed("r", "x", later) is None
    assert tripped(breakers, later) == Tripped("registry", "r", 60.0)


def test_pods_that_fail_during_a_pause_do_not_make_it_longer() -> None:
    breakers = Breakers()
    assert tripped(breakers, NOW)
    assert tripped(breakers, NOW + 30) is None
    assert breakers.pauses.remaining(registry_key("r"), NOW + 30) == 30


def test_a_reader_in_another_thread_never_sees_a_pause_missing_while_the_next_one_is_begun() -> None:
    breakers, key, end = Breakers(), registry_key("r"), NOW + 60
    assert tripped(breakers, NOW)

    def seen() -> float | None:
        return breakers.pauses.trial_since(key, end) or breakers.pauses.remaining(key, end)

    looks = between_lines(lambda: breakers.failed("r", "x", end), seen)
    assert looks[-1] == 120
    assert all(looks), "for a moment the registry was neither left alone nor on trial, and everything was let through"


def rounds(breakers: Breakers, count: int, life: float = 5.0, start: float = NOW, gap: float = 1.0) -> list[Tripped]:
    found = []
    for _ in range(count):
        found.append(breakers.deleted(OPERATOR, start, start + life, start + life))
        start += life + gap
    return list(filter(None, found))


def test_an_owner_whose_young_pods_are_deleted_one_after_the_other_is_left_alone_after_five() -> None:
    breakers = Breakers()
    assert rounds(breakers, 4) == []
    breakers = Breakers()
    assert rounds(breakers, 5) == [Tripped("owner", "shop/Cluster.example.com/db", 60.0)]
    words = breakers.pauses.left_alone("r", OPERATOR, NOW + 35)
    assert words
    assert words.startswith("pods of Cluster db are deleted again and again soon after they are rewritten")
    assert breakers.pauses.left_alone("r", OPERATOR._replace(name="other"), NOW + 35) is None


def test_fifty_young_pods_that_are_deleted_together_are_one_round() -> None:
    breakers = Breakers()
    together = [breakers.deleted(OPERATOR, NOW + number % 3, NOW + 30 + number % 3, NOW + 33) for number in range(50)]
    assert not any(together)


def test_a_pod_that_was_old_when_it_was_deleted_ends_the_row() -> None:
    breakers = Breakers()
    assert rounds(breakers, 4) == []
    assert breakers.deleted(OPERATOR, NOW, NOW + 61, NOW + 61) is None
    assert rounds(breakers, 4, start=NOW + 70) == []


def test_rounds_that_lie_far_apart_are_no_row() -> None:
    assert rounds(Breakers(), 20, gap=601) == []


def test_what_the_leader_knows_goes_to_the_others_and_to_the_next_leader() -> None:
    breakers = Breakers()
    assert tripped(breakers, NOW)
    follower = Pauses.read(breakers.pauses.text(NOW), NOW + 10)
    assert follower.left_alone("r", None, NOW + 10) == breakers.pauses.left_alone("r", None, NOW + 10)
    assert Breakers(follower).failed("r", "x", NOW + 61) == Tripped("registry", "r", 120.0)


@pytest.mark.parametrize("hours", [-24 * 365, -24, -2])
def test_a_clock_that_is_set_back_ends_a_pause_instead_of_making_it_longer(hours: int) -> None:
    breakers, now = Breakers(), NOW + hours * 3600
    assert tripped(breakers, NOW)
    assert Pauses.read(breakers.pauses.text(NOW), now).left_alone("r", None, now) is None
    assert breakers.pauses.left_alone("r", None, now) is None
    assert tripped(breakers, now)
    assert breakers.pauses.left_alone("r", None, now + 1)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "7", "{", '{"registry r": 1}', '{"registry r": [1]}', '{"registry r": ["a", true]}', "[" * 10_000]
)
def test_a_text_that_no_leader_wrote_pauses_nothing(text: str) -> None:
    assert Pauses.read(text, NOW).left_alone("r", None, NOW) is None


@given(st.integers(-(10**13), 10**13), st.integers(-(10**6), 10**6))
def test_no_clock_and_no_text_can_leave_anything_alone_for_longer_than_an_hour(until: int, times: int) -> None:
    pauses = Pauses.read(json.dumps({"registry r": [until, times]}), NOW)
    assert pauses.remaining(registry_key("r"), NOW) <= PAUSE_SECONDS_MAX
    assert pauses.remaining(registry_key("r"), NOW + PAUSE_SECONDS_MAX) == 0
    pauses, _ = pauses.with_another(registry_key("r"), NOW)
    assert 60 <= pauses.remaining(registry_key("r"), NOW) <= PAUSE_SECONDS_MAX


def refused(breakers: Breakers, now: float, repository: str = "team/app", whole: bool = True) -> Tripped | None:
    """Three pods without a pull secret, one an hour."""
    results = [breakers.refused("r", repository, f"{now}/{hour}", whole, now + hour * 3600) for hour in range(3)]
    return next(filter(None, results), None)


def test_a_registry_that_refuses_three_pods_in_a_day_is_left_alone_for_pods_without_a_secret() -> None:
    """FAULTS 60."""
    breakers = Breakers()
    assert refused(breakers, NOW) == Tripped("credential", "r", 6 * 3600.0)
    assert breakers.pauses.counts(NOW + 7201) == {"registry": 0, "owner": 0, "credential": 1}
    assert breakers.pauses.left_alone("r", None, NOW + 7201) is None, "pods with a secret go on"
    follower = Pauses.read(breakers.pauses.text(NOW + 7201), NOW + 7300)
    assert follower.remaining("credential r", NOW + 7300) == 6 * 3600.0 - 100


def test_where_other_repositories_of_the_registry_are_pulled_only_the_refused_one_is_left_alone() -> None:
    """FAULTS 60."""
    breakers = Breakers()
    assert refused(breakers, NOW, whole=False) == Tripped("credential", "r/team/app", 6 * 3600.0)
    assert breakers.pauses.remaining("credential r", NOW + 7201) == 0


def test_each_pause_for_want_of_a_credential_is_twice_as_long_up_to_a_week() -> None:
    """FAULTS 60."""
    breakers, now, hours = Breakers(), NOW + 7200, []
    trip = refused(breakers, NOW)
    while trip and len(hours) < 7:
        hours.append(trip.seconds / 3600)
        now += trip.seconds
        trip = breakers.refused("r", "team/other", f"trial {now}", False, now)
    assert hours == [6, 12, 24, 48, 96, 168, 168]


def test_a_pull_without_a_secret_after_the_pause_ends_it_and_one_from_before_does_not() -> None:
    """FAULTS 60."""
    breakers = Breakers()
    assert refused(breakers, NOW)
    end = NOW + 7200 + 6 * 3600
    breakers.allowed("r", "team/app", end - 1, end - 1)
    breakers.allowed("r", "team/app", end - 1, end + 1)
    assert breakers.pauses.on_trial("credential r", end + 1)
    breakers.allowed("r", "team/app", end + 2, end + 2)
    assert not breakers.pauses.on_trial("credential r", end + 2)
    assert breakers.refused("r", "team/app", "x", True, end + 3) is None, "it takes three again"


def test_refusals_with_a_pull_that_succeeds_between_them_do_not_add_up() -> None:
    breakers = Breakers()
    for hour in range(10):
        assert breakers.refused("r", "team/app", str(hour), True, NOW + hour * 3600) is None
        if hour % 2:
            breakers.allowed("r", "team/app", NOW + hour * 3600, NOW + hour * 3600)


def test_what_is_remembered_is_bounded() -> None:
    breakers = Breakers()
    for number in range(3 * KEPT_MAX):
        assert tripped(breakers, NOW, f"r{number}")
    assert len(breakers.pauses.entries) == KEPT_MAX
    assert len(breakers.pauses.text(NOW)) < 200_000
    assert breakers.pauses.left_alone(f"r{3 * KEPT_MAX - 1}", None, NOW)


def decided(subject: dict[str, Any], pauses: Pauses | None = None, *excluded: OwnerKind) -> dict[str, Any]:
    gate = leave_alone(lambda: pauses or Pauses(), excluded, lambda: NOW)
    annotations: dict[str, Any] = admitted(subject, gates=(gate,))["metadata"].get("annotations", {})
    return annotations


def test_the_images_of_a_paused_registry_stay_and_the_others_are_rewritten() -> None:
    breakers = Breakers()
    assert tripped(breakers, NOW, "quay.io")
    annotations = decided(pod(container("a", "quay.io/x/y"), container("b", "nginx")), breakers.pauses)
    assert json.loads(annotations[ORIGINAL_IMAGES]) == {"containers": {"b": "nginx"}}
    assert annotations[DECISION] == (
        "containers/a: pulls from quay.io through the agents keep failing, so it is left alone for another 60 s"
    )


def test_a_pod_of_an_owner_that_is_paused_stays_as_it_is() -> None:
    breakers = Breakers()
    assert rounds(breakers, 5, start=NOW - 30)
    annotations = decided(pod(container("a", "nginx"), metadata=owned()), breakers.pauses)
    assert ORIGINAL_IMAGES not in annotations
    assert annotations[DECISION].startswith("pod: pods of Cluster db are deleted")
    assert ORIGINAL_IMAGES in decided(pod(container("a", "nginx"), metadata=owned(name="other")), breakers.pauses)
    assert ORIGINAL_IMAGES in decided(pod(container("a", "nginx"), metadata=owned(controller=False)), breakers.pauses)


def test_an_excluded_kind_of_owner_is_left_alone_in_its_own_group_only() -> None:
    excluded = owner_kind("Cluster.postgresql.cnpg.io")
    left = decided(pod(container("a", "nginx"), metadata=owned(version="postgresql.cnpg.io/v1")), None, excluded)
    assert left == {DECISION: "pod: it belongs to a Cluster of postgresql.cnpg.io, which is excluded"}
    assert ORIGINAL_IMAGES in decided(pod(container("a", "nginx"), metadata=owned()), None, excluded)
    assert ORIGINAL_IMAGES in decided(pod(container("a", "nginx")), None, excluded)


@pytest.mark.parametrize(
    "references", [None, [], "x", [None, 7], [{}], [{"controller": True}], [{"kind": 7, "controller": True}]]
)
def test_owners_that_are_none_are_no_reason(references: Any) -> None:
    assert ORIGINAL_IMAGES in decided(
        pod(container("a", "nginx"), metadata={"ownerReferences": references}), None, OwnerKind("A", "b")
    )


@pytest.mark.parametrize("text", ["", ".", "cluster", "Cluster.", "Cluster.a b", "a/b", "Clu ster.a"])
def test_what_is_no_kind_of_owner_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write KIND"):
        owner_kind(text)
