"""Who is alive and who is in quarantine, in given times."""

from __future__ import annotations

import pytest

from agent.swarm.messages import CORRUPT, MISSING, STALLED, UNREACHABLE
from supernode.tracker.health import SELF, Health, HealthSettings, Quarantine

SETTINGS = HealthSettings()
SECONDS = SETTINGS.quarantine_seconds


def with_nodes(count: int, settings: HealthSettings = SETTINGS) -> Health:
    """A health with nodes "node-1" and so on, heard at time 0."""
    health = Health(settings)
    for number in range(1, count + 1):
        health.heard(f"node-{number}", 0.0)
    return health


def fail(health: Health, name: str, *reporters: str, verdict: int = STALLED, now: float = 1.0) -> list[Quarantine]:
    quarantines = [health.failed(name, reporter, verdict, now) for reporter in reporters]
    return [quarantine for quarantine in quarantines if quarantine]


# Leases.


def test_a_node_that_is_not_heard_for_the_lease_time_expires_once() -> None:
    health = with_nodes(2)
    health.heard("node-2", 20.0)
    assert health.tick(29.9) == ([], [])
    assert health.tick(30.0) == (["node-1"], [])
    assert health.tick(31.0) == ([], [])
    assert health.tick(50.0) == (["node-2"], [])


def test_a_node_that_left_does_not_expire_and_one_that_is_back_does() -> None:
    health = with_nodes(1)
    health.left("node-1", 10.0)
    assert health.tick(100.0) == ([], [])
    health.heard("node-1", 100.0)
    assert health.tick(130.0) == (["node-1"], [])


def test_a_jump_back_in_time_expires_nobody() -> None:
    health = with_nodes(1)
    assert health.tick(-1000.0) == ([], [])


# Failures.


def test_a_single_failure_is_nothing() -> None:
    assert fail(with_nodes(3), "node-1", "node-2") == []


def test_failures_at_several_takers_within_the_quarantine_time_end_in_quarantine_with_a_reason() -> None:
    health = with_nodes(4)
    (quarantine,) = fail(health, "node-1", "node-2", "node-2", "node-2", "node-3", "node-3")
    assert quarantine == Quarantine("node-1", "stalled for 2 nodes within 30 s", 1.0, 1.0 + SECONDS)
    assert health.quarantine("node-1") == quarantine
    assert health.quarantines == [quarantine]


def test_the_reason_names_all_that_happened() -> None:
    health = with_nodes(4)
    fail(health, "node-1", "node-2", "node-2", verdict=UNREACHABLE)
    (quarantine,) = fail(health, "node-1", "node-3", "node-3", "node-3")
    assert quarantine.reason == "could not be reached and stalled for 2 nodes within 30 s"


def test_failures_that_are_spread_over_more_time_are_nothing() -> None:
    health = with_nodes(9)
    for number in range(2, 10):
        assert fail(health, "node-1", f"node-{number}", now=number * SECONDS * 0.5) == []


def test_a_missing_piece_weighs_little() -> None:
    health = with_nodes(4)
    reporters = ("node-2", "node-3") * 12
    assert fail(health, "node-1", *reporters, verdict=MISSING) == []
    assert len(fail(health, "node-1", *reporters[:2], verdict=MISSING)) == 1


def test_a_busy_source_may_fail_sometimes() -> None:
    health = with_nodes(4)
    for _ in range(1000):
        health.delivered("node-1", 1.0)
    assert fail(health, "node-1", *("node-2", "node-3", "node-4") * 3) == []


def test_one_taker_alone_brings_nobody_into_quarantine_by_failures() -> None:
    health = with_nodes(4)
    assert fail(health, "node-1", *["node-2"] * 1000) == []
    assert fail(health, "node-1", "node-3") == []  # nor does it need but one word of another
    assert len(fail(health, "node-1", "node-3")) == 1


# Wrong bytes.


def test_one_wrong_piece_is_enough() -> None:
    (quarantine,) = fail(with_nodes(4), "node-1", "node-2", verdict=CORRUPT)
    assert quarantine.reason == "sent wrong bytes to node-2"


def test_a_node_in_quarantine_is_not_quarantined_again() -> None:
    health = with_nodes(4)
    assert len(fail(health, "node-1", "node-2", "node-3", "node-2", verdict=CORRUPT)) == 1


def test_one_accuser_alone_holds_only_a_few_peers() -> None:
    for nodes, held in ((2, 1), (8, 2), (16, 3), (1000, 3)):
        health = with_nodes(nodes)
        for number in range(2, nodes + 1):
            fail(health, f"node-{number}", "node-1", verdict=CORRUPT)
        assert len(health.quarantines) == held


def test_a_second_witness_is_believed_where_the_first_was_not() -> None:
    health = with_nodes(1000)
    for number in range(2, 10):
        fail(health, f"node-{number}", "node-1", verdict=CORRUPT)
    assert health.quarantine("node-9") is None
    (quarantine,) = fail(health, "node-9", "node-500", verdict=CORRUPT)
    assert quarantine.reason == "sent wrong bytes to node-1, node-500"


def test_a_witness_to_the_same_liar_gives_the_first_accuser_its_word_back() -> None:
    health = with_nodes(1000)
    for number in range(2, 5):
        fail(health, f"node-{number}", "node-1", "node-500", verdict=CORRUPT)
    assert len(fail(health, "node-9", "node-1", verdict=CORRUPT)) == 1


def test_an_accuser_s_word_is_good_again_when_its_quarantines_are_over() -> None:
    health = with_nodes(1000)
    for number in range(2, 6):
        fail(health, f"node-{number}", "node-1", verdict=CORRUPT)
    health.tick(1.0 + SECONDS)
    assert len(fail(health, "node-6", "node-1", verdict=CORRUPT, now=2.0 + SECONDS)) == 1


# Time and memory.


def test_a_quarantine_ends_after_its_time() -> None:
    health = with_nodes(4)
    fail(health, "node-1", "node-2", verdict=CORRUPT)
    health.left("node-1", 2.0)
    assert "node-1" not in health.tick(SECONDS)[1]
    assert "node-1" in health.tick(1.0 + SECONDS)[1]
    assert health.quarantine("node-1") is None


def test_each_quarantine_is_twice_as_long_up_to_an_hour() -> None:
    health = with_nodes(4)
    now, lengths = 1.0, []
    for _ in range(9):
        (quarantine,) = fail(health, "node-1", "node-2", verdict=CORRUPT, now=now)
        lengths.append(quarantine.until - now)
        now = quarantine.until
        health.tick(now)
    assert lengths == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_a_clean_hour_forgives_one_step() -> None:
    health = with_nodes(4)
    for now in (0.0, 100.0):
        fail(health, "node-1", "node-2", verdict=CORRUPT, now=now)
        health.tick(now + 60.0)
    health.tick(160.0 + SETTINGS.forgive_seconds)
    (quarantine,) = fail(health, "node-1", "node-2", verdict=CORRUPT, now=4000.0)
    assert quarantine.until - quarantine.since == 60.0


def test_leaving_and_coming_back_wipes_nothing_off_the_slate() -> None:
    health = with_nodes(4)
    fail(health, "node-1", "node-2", verdict=CORRUPT)
    health.left("node-1", 2.0)
    health.heard("node-1", 3.0)
    assert health.quarantine("node-1")
    health.tick(40.0)
    (quarantine,) = fail(health, "node-1", "node-2", verdict=CORRUPT, now=41.0)
    assert quarantine.until - quarantine.since == 60.0


def test_an_unknown_node_is_in_no_quarantine() -> None:
    health = Health(SETTINGS)
    assert health.quarantine("nobody") is None
    health.left("nobody", 0.0)
    assert health.tick(1e9) == ([], [])


def test_names_are_not_remembered_without_end_and_the_slate_outlives_the_clean() -> None:
    health = with_nodes(100, HealthSettings(records_max=10))
    fail(health, "node-1", "node-2", verdict=CORRUPT)
    for number in range(1, 101):
        health.left(f"node-{number}", float(number))
    health.tick(2.0)
    assert health.quarantine("node-1")
    assert len(health._records) == 10


def test_witnesses_of_one_peer_are_not_remembered_without_end() -> None:
    health = with_nodes(2, HealthSettings(witnesses_max=4, failures_max=100))
    assert fail(health, "node-1", *(f"taker-{number}" for number in range(200))) == []


# Takers that accuse others.


@pytest.mark.parametrize("verdict", [CORRUPT, STALLED, MISSING])
@pytest.mark.parametrize("nodes", [4, 8, 16, 64, 300])
def test_two_that_accuse_all_others_never_have_more_than_a_quarter_out_and_are_not_believed_any_more(
    nodes: int, verdict: int
) -> None:
    """FAULTS 92."""
    health = with_nodes(nodes)
    out_max, now = 0, 1.0
    for _ in range(8):
        for number in range(3, nodes + 1):
            for _ in range(20):
                fail(health, f"node-{number}", "node-1", "node-2", verdict=verdict, now=now)
                out_max = max(out_max, len(health.quarantines))
        now += 1.0
        health.tick(now)
    assert out_max <= max(1, nodes // 4)
    if nodes > 8:  # else they have not accused more than may be true
        assert not health.believes("node-1", now)
        assert not health.believes("node-2", now)
        assert health.quarantines == []
        assert health.believes("node-1", now + SETTINGS.forgive_seconds)


def test_one_whose_own_link_is_broken_accuses_everybody_and_harms_nobody() -> None:
    """FAULTS 92."""
    health = with_nodes(64)
    for number in range(2, 65):
        fail(health, f"node-{number}", *["node-1"] * 5)
    assert not health.believes("node-1", 1.0)
    fail(health, "node-2", "node-3", "node-3")
    assert health.quarantines == [], "what it said counts for nothing"


def test_honest_takers_that_meet_many_liars_are_believed_since_others_meet_them_too() -> None:
    """FAULTS 92: the others have the same to say."""
    health = with_nodes(64, HealthSettings(complaints_max=4))
    for liar in range(50, 64):
        fail(health, f"node-{liar}", "node-1", "node-2", "node-3", verdict=CORRUPT)
    assert all(health.believes(f"node-{number}", 1.0) for number in (1, 2, 3))
    assert len(health.quarantines) == 14


def test_no_more_than_a_quarter_is_out_whoever_accuses_and_the_next_one_when_a_place_is_free() -> None:
    """FAULTS 92: a cluster that cannot tell who lies goes on, as each taker keeps away from whom it caught itself."""
    health = with_nodes(16)
    for number in range(1, 9):
        fail(health, f"node-{number}", f"node-{number + 8}", verdict=CORRUPT)
    assert [quarantine.name for quarantine in health.quarantines] == [f"node-{number}" for number in range(1, 5)]
    health.tick(1.0 + SECONDS)
    assert len(fail(health, "node-8", "node-16", verdict=CORRUPT, now=2.0 + SECONDS)) == 1


def test_when_nodes_leave_no_more_than_a_quarter_of_the_others_stays_out() -> None:
    """FAULTS 92."""
    health = with_nodes(16)
    for number in range(1, 5):
        fail(health, f"node-{number}", f"node-{number + 8}", verdict=CORRUPT, now=float(number))
    for number in range(9, 17):
        health.left(f"node-{number}", 5.0)
    assert health.tick(6.0) == ([], ["node-1", "node-2"])
    assert [quarantine.name for quarantine in health.quarantines] == ["node-3", "node-4"]


def test_complaints_are_forgotten_with_the_time_over_which_they_count() -> None:
    health = with_nodes(16)
    for number in range(2, 17):
        fail(health, f"node-{number}", "node-1", now=number * SECONDS)
        health.tick(number * SECONDS + 1.0)
        for node in range(1, 17):
            health.heard(f"node-{node}", number * SECONDS + 1.0)
    assert health.believes("node-1", 17 * SECONDS)
    health.tick(18 * SECONDS)
    assert not health._complaints


def test_what_a_supernode_has_found_itself_is_believed_however_often() -> None:
    health = with_nodes(64)
    for number in range(1, 30):
        fail(health, f"node-{number}", SELF, verdict=CORRUPT)
    assert health.believes(SELF, 1.0)


def test_an_accusation_that_is_withdrawn_ends_the_quarantine_that_it_alone_was_the_ground_of() -> None:
    health = with_nodes(8)
    fail(health, "node-1", "node-2", verdict=CORRUPT)
    fail(health, "node-3", "node-4", "node-5", verdict=CORRUPT)
    assert not health.withdraw("node-1", "node-8", 2.0), "it has said nothing"
    assert not health.withdraw("node-3", "node-4", 2.0), "another one has said so too"
    assert health.withdraw("node-1", "node-2", 2.0)
    assert [quarantine.name for quarantine in health.quarantines] == ["node-3"]
    (again,) = fail(health, "node-1", "node-2", verdict=CORRUPT, now=3.0)
    assert again.until == 3.0 + SECONDS, "it is no second quarantine"
    health.hold_by_hand("node-1", "its disk", 100.0, 4.0)
    assert not health.withdraw("node-1", "node-2", 4.0), "a person said so"
    assert not health.withdraw("nobody", "node-2", 4.0)


# By hand.


def test_a_person_takes_out_as_many_nodes_as_they_like_for_as_long_as_they_say() -> None:
    health = with_nodes(2)
    for name in ("node-1", "node-2", "not-here"):
        assert health.hold_by_hand(name, "its disk", 100.0, 1.0).until == 101.0
    assert health.tick(20.0) == ([], [])
    for name in ("node-1", "node-2"):
        health.heard(name, 100.0)
    assert health.tick(100.9) == ([], [])
    assert sorted(health.tick(101.0)[1]) == ["node-1", "node-2", "not-here"]
    assert health.quarantines == []


def test_a_person_ends_any_quarantine_and_the_next_judged_one_is_no_longer_for_those_by_hand() -> None:
    health = with_nodes(8)
    health.hold_by_hand("node-1", "its disk", 100.0, 1.0)
    assert health.release("node-1", 2.0)
    assert not health.release("node-1", 2.0)
    (judged,) = [quarantine for _ in range(5) for quarantine in fail(health, "node-1", "node-2", "node-3", now=3.0)]
    assert judged.until - judged.since == SECONDS
    assert health.release("node-1", 4.0)
    assert health.quarantine("node-1") is None


def test_what_a_person_said_outlives_a_taker_that_is_not_believed_any_more() -> None:
    health = with_nodes(8)
    fail(health, "node-1", "node-8")
    health.hold_by_hand("node-1", "its disk", 1000.0, 1.0)
    for number in range(2, 8):
        fail(health, f"node-{number}", "node-8", verdict=CORRUPT, now=2.0)
    assert not health.believes("node-8", 3.0)
    for number in range(1, 9):
        health.heard(f"node-{number}", 29.0)
    health.tick(30.0)
    assert health.quarantine("node-1") is not None
