"""Runs at origins, one rule at a time: who is granted the pieces that nobody has, and what becomes of those that do not come."""

from __future__ import annotations

from random import Random

import pytest

from agent.swarm.messages import (
    DELIVERED,
    RUN_FAILED,
    RUN_NO_RANGES,
    RUN_REFUSED,
    RUN_TOO_MANY,
    RUN_WHOLE,
    SEED,
)
from hack.simulate.books import check_the_books
from supernode.scheduler.events import (
    Closed,
    Command,
    Ended,
    Event,
    Fetched,
    GrantPieces,
    GrantRun,
    HeadTime,
    HoldsAll,
    HoldsNone,
    Joined,
    Left,
    Located,
    Made,
    MayFetch,
    Opened,
    Overdue,
    Quarantined,
    Released,
    Reported,
    RunOver,
    Seeded,
    Tick,
)
from supernode.scheduler.limits import Limits
from supernode.scheduler.machine import Scheduler
from supernode.scheduler.origins import OriginLink
from tests.scheduler import views

TASK = 7
A, B, C, D = 1, 2, 3, 4
HUB, QUAY = 11, 12
"""Registries."""
MIB = 1 << 20
LIMITS = Limits(runs_ahead=0)
"""So that a node is granted one run, and the next when all of that is here."""


class Fetchers:
    """A scheduler, nodes that may ask an origin for a blob that nobody has, and what they were granted there."""

    def __init__(self, *nodes: int, pieces: int = 64, limits: Limits = LIMITS, zones: bool = False, new: bool = False) -> None:
        """The blob is known since a while, unless it is to be `new`: then its first piece goes before all."""
        self.now = 100.0
        self.scheduler = Scheduler(Random(1), limits)
        self.runs: list[GrantRun] = []
        """In the order in which they were granted."""
        self.grants: list[tuple[int, int, int]] = []
        """Pieces from other nodes: (node, piece, source)."""
        self.tell(Made(TASK, pieces, 0, MIB))
        for _ in () if new else limits.head_times(pieces):
            self.tell(HeadTime(TASK))
        for node in nodes:
            self.tell(Joined(node, f"zone-{node}" if zones else "", 0))
            self.open(node)

    def tell(self, event: Event) -> list[Command]:
        commands = self.scheduler.handle(event, self.now)
        self.runs += [command for command in commands if isinstance(command, GrantRun)]
        for command in commands:
            if isinstance(command, GrantPieces):
                self.grants += [(command.node, piece, source) for piece, source, _ in command.pieces]
        check_the_books(self.scheduler)
        return commands

    def open(self, node: int, want: int = 0, have: int = 0, readers: tuple[int, ...] = ()) -> None:
        self.tell(Opened(node, TASK, have, readers, want))

    def may_fetch(self, *nodes: int, origin: int = HUB, denied: int = 0) -> None:
        for node in nodes:
            self.tell(MayFetch(node, TASK, origin, denied))

    def bring(self, node: int, *pieces: int, after: float = 0.1) -> None:
        self.now += after
        self.tell(Fetched(node, TASK, sum(1 << piece for piece in pieces)))

    def end(self, node: int, outcome: int, pause: float = 0.0) -> None:
        """The first of its runs that has not ended."""
        first = self.scheduler.swarms[TASK].members[node].runs[0].first
        self.tell(RunOver(node, TASK, first, outcome, pause))

    def carry_out(self, node: int, after: float = 0.1) -> None:
        """A node brings all that is left of its first run."""
        run = self.scheduler.swarms[TASK].members[node].runs[0]
        for piece in range(run.first, run.end):
            if run.left >> piece & 1:
                self.bring(node, piece, after=after)
        self.end(node, RUN_WHOLE)

    def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.tell(Tick())

    @property
    def link(self) -> OriginLink:
        return self.scheduler.origins[HUB]

    @property
    def unclaimed(self) -> int:
        return self.scheduler.swarms[TASK].unclaimed

    def of(self, node: int) -> list[tuple[int, int]]:
        return [(run.first, run.end) for run in self.runs if run.node == node]


# Who is granted what.


def test_what_the_supernode_alone_has_is_granted_at_an_origin_only_when_it_is_overdue() -> None:
    swarm = Fetchers(A, B)
    for piece in range(64):
        swarm.tell(Seeded(TASK, piece))
    swarm.may_fetch(A, B)
    assert swarm.runs == []
    swarm.tell(Overdue(TASK))
    assert {run.node for run in swarm.runs} == {A, B}
    assert swarm.unclaimed == 0


def test_an_overdue_piece_comes_from_the_supernode_or_an_origin_and_not_from_both() -> None:
    swarm = Fetchers(A, B)
    for piece in range(64):
        swarm.tell(Seeded(TASK, piece))
    swarm.open(A, want=4)
    swarm.may_fetch(A, B)
    swarm.tell(Overdue(TASK))
    swarm.open(B, want=8)
    by_supernode = {piece for _, piece, source in swarm.grants if source == SEED}
    at_origin = {piece for run in swarm.runs for piece in range(run.first, run.end)}
    assert by_supernode
    assert at_origin
    assert not by_supernode & at_origin


def test_a_node_that_may_ask_an_origin_is_granted_the_blobs_beginning() -> None:
    swarm = Fetchers(A)
    assert swarm.runs == []
    swarm.may_fetch(A)
    assert swarm.of(A) == [(0, LIMITS.run_pieces_min)]


def test_a_run_begins_where_a_reader_waits() -> None:
    swarm = Fetchers(A)
    swarm.open(A, readers=(40,))
    swarm.may_fetch(A)
    assert swarm.of(A)[0][0] == 40


def test_each_piece_is_granted_at_an_origin_to_one_node() -> None:
    swarm = Fetchers(A, B, C)
    swarm.may_fetch(A, B, C)
    granted = [piece for run in swarm.runs for piece in range(run.first, run.end)]
    assert len(granted) == len(set(granted)) == 3 * LIMITS.run_pieces_min


def test_the_first_piece_of_a_new_blob_has_the_origin_to_itself_and_then_the_links_of_those_that_wait_for_it() -> None:
    swarm = Fetchers(A, B, C, new=True)
    for node in (A, B, C):
        swarm.open(node, want=1, readers=(0,))
    swarm.may_fetch(A, B, C)
    assert [run.node for run in swarm.runs] == [A]
    swarm.bring(A, 0, after=0.05)
    assert [run.node for run in swarm.runs] == [A]
    first = next(node for node, piece, source in swarm.grants if (piece, source) == (0, A))
    swarm.now += 0.05
    swarm.tell(Reported(first, TASK, ((0, A, 0.05, DELIVERED),), 1, ()))
    assert [run.node for run in swarm.runs] == [A, first]
    swarm.tell(HeadTime(TASK))
    assert [run.node for run in swarm.runs] == [A, first]
    swarm.tell(HeadTime(TASK))
    assert sorted(run.node for run in swarm.runs) == [A, B, C]


def test_if_it_does_not_come_at_once_the_others_do_not_wait() -> None:
    swarm = Fetchers(A, B, C, new=True)
    swarm.may_fetch(A, B, C)
    swarm.tell(HeadTime(TASK))
    assert sorted(run.node for run in swarm.runs) == [A, B, C]


def test_nor_where_the_registry_is_known_to_carry_more_nor_for_a_small_blob() -> None:
    swarm = Fetchers(A, B, new=True)
    swarm.may_fetch(A)
    swarm.link.slots = LIMITS.origin_slots_min + 1
    swarm.may_fetch(B)
    assert sorted(run.node for run in swarm.runs) == [A, B]
    swarm = Fetchers(A, B, pieces=LIMITS.head_pieces_min - 1, new=True)
    swarm.may_fetch(A, B)
    assert sorted(run.node for run in swarm.runs) == [A, B]


def test_nor_where_the_node_that_asked_first_is_gone() -> None:
    swarm = Fetchers(A, B, new=True)
    swarm.may_fetch(A, B)
    swarm.tell(Left(A))
    assert [run.node for run in swarm.runs] == [A, B]


def test_where_many_wait_for_the_first_piece_those_that_have_it_are_not_waited_for() -> None:
    nodes = range(1, LIMITS.head_takers_max + 2)
    swarm = Fetchers(*nodes, new=True)
    swarm.may_fetch(*nodes)
    asking = swarm.runs[0].node
    assert [run.node for run in swarm.runs] == [asking]
    swarm.bring(asking, 0, after=0.05)
    assert len(swarm.runs) == LIMITS.origin_slots_min


def test_all_of_a_blob_comes_from_the_origin_once() -> None:
    swarm = Fetchers(A, B, C)
    swarm.may_fetch(A, B, C)
    done = 0
    while done < len(swarm.runs):
        swarm.carry_out(swarm.runs[done].node)
        done += 1
    granted = [piece for run in swarm.runs for piece in range(run.first, run.end)]
    assert sorted(granted) == list(range(64))
    assert (swarm.unclaimed, swarm.link.busy) == (0, 0)


def test_no_more_nodes_ask_a_registry_at_once_than_its_slots() -> None:
    nodes = range(1, LIMITS.origin_slots_min + 4)
    swarm = Fetchers(*nodes)
    swarm.may_fetch(*nodes)
    assert len(swarm.runs) == LIMITS.origin_slots_min == swarm.link.busy


def test_two_registries_of_one_blob_have_slots_of_their_own_and_each_node_asks_its_own() -> None:
    nodes = range(1, 2 * LIMITS.origin_slots_min + 1)
    swarm = Fetchers(*nodes)
    swarm.may_fetch(*list(nodes)[::2])
    swarm.may_fetch(*list(nodes)[1::2], origin=QUAY)
    assert sorted(run.node for run in swarm.runs) == list(nodes)
    assert [swarm.scheduler.origins[origin].busy for origin in (HUB, QUAY)] == [LIMITS.origin_slots_min] * 2


def test_what_the_supernode_or_a_node_has_is_not_asked_for_at_an_origin() -> None:
    swarm = Fetchers(A, B, pieces=4)
    swarm.tell(Seeded(TASK, 0))
    swarm.open(B, have=0b0110)
    swarm.may_fetch(A)
    assert swarm.of(A) == [(3, 4)]


def test_while_a_node_holds_the_blob_nothing_is_asked_for_and_when_it_holds_it_no_longer_all_is() -> None:
    swarm = Fetchers(A)
    swarm.tell(Joined(B, "", 0))
    swarm.tell(HoldsAll(B, TASK))
    swarm.may_fetch(A)
    assert swarm.runs == []
    swarm.tell(HoldsNone(B, TASK))
    assert swarm.of(A) == [(0, LIMITS.run_pieces_min)]


def test_of_several_the_node_that_is_getting_nothing_is_granted_the_run() -> None:
    for idle in (A, B, C):
        swarm = Fetchers(A, B, C, limits=Limits(origin_slots_min=1, origin_slots_max=1, runs_ahead=0))
        for node in (A, B, C):
            swarm.tell(Seeded(TASK, 60 + node))
            if node != idle:
                swarm.tell(Reported(node, TASK, (), 1, ()))
        swarm.may_fetch(D)  # nobody: so that the others are there when the slot is free
        for node in (A, B, C):
            swarm.scheduler.swarms[TASK].fetchers.add(swarm.scheduler.swarms[TASK].members[node])
            swarm.scheduler.swarms[TASK].members[node].origin = HUB
        swarm.may_fetch(idle)
        assert [run.node for run in swarm.runs] == [idle]


def test_a_node_that_is_near_the_end_of_its_run_is_granted_the_next_and_no_third() -> None:
    swarm = Fetchers(A, limits=Limits(runs_ahead=1))
    swarm.may_fetch(A)
    assert swarm.of(A) == [(0, 2)]
    swarm.bring(A, 0)
    assert swarm.of(A)[1][0] == 2
    swarm.bring(A, 1)
    assert len(swarm.runs) == 2
    swarm.end(A, RUN_WHOLE)
    assert swarm.link.busy == 1, "one node asks, however many runs it has"


def test_denied_pieces_are_granted_to_others_alone() -> None:
    swarm = Fetchers(A, B, pieces=8)
    swarm.may_fetch(A, denied=0b1111)
    assert swarm.of(A) == [(4, 6)]
    swarm.may_fetch(B)
    assert swarm.of(B) == [(0, 2)]
    for node in (A, B):
        swarm.carry_out(node)
    assert all(first >= 4 for first, _ in swarm.of(A))


def test_a_node_that_may_have_nothing_that_is_left_is_granted_nothing() -> None:
    swarm = Fetchers(A, pieces=4)
    swarm.may_fetch(A, denied=0b1111)
    assert swarm.runs == []


def test_a_quarantined_node_is_granted_no_run_and_what_it_was_getting_goes_to_others() -> None:
    swarm = Fetchers(A, B, pieces=2)
    swarm.tell(Quarantined(B))
    swarm.may_fetch(B)
    assert swarm.runs == []
    swarm.may_fetch(A)
    swarm.tell(Quarantined(A))
    swarm.tell(Released(B))
    swarm.tick()
    assert swarm.of(B) == [(0, 2)]


def test_what_a_node_gets_that_is_then_found_at_its_address_need_not_be_got_by_others() -> None:
    swarm = Fetchers(B, pieces=2)
    swarm.tell(Joined(A, "", 0, located=False))
    swarm.open(A)
    swarm.may_fetch(A)
    assert swarm.of(A) == [(0, 2)]
    swarm.tell(Located(A))
    swarm.may_fetch(B)
    assert swarm.of(B) == []


def test_a_node_in_no_swarm_or_one_that_only_holds_may_not_fetch() -> None:
    swarm = Fetchers(A)
    swarm.tell(Joined(B, "", 0))
    swarm.tell(HoldsAll(B, TASK))
    swarm.tell(HoldsNone(B, TASK))
    before = views(swarm.scheduler)
    for event in (MayFetch(B, TASK, HUB), MayFetch(A, 99, HUB), MayFetch(99, TASK, HUB), MayFetch(SEED, TASK, HUB)):
        assert swarm.tell(event) == []
    assert views(swarm.scheduler) == before


# How long a run is.


def run_length(rate_mib: float, pieces: int, missing: int, others_mib: float = 0.0) -> int:
    """Of a node to which so many MiB come in a second, in pieces of one; so many to others that asked the same registry."""
    scheduler, link = Scheduler(Random(1), LIMITS), OriginLink(HUB, LIMITS)
    scheduler.handle(Made(1, pieces, 0, MIB), 0.0)
    swarm = scheduler.swarms[1]
    if others_mib:
        link.came(swarm, 1, 1 / others_mib, 1, 0.0, 0.0)
    return link.run_length(swarm, missing, rate_mib * MIB)


def test_a_run_is_short_while_nobody_knows_how_much_comes_to_its_node() -> None:
    assert run_length(0.0, 1000, 1000) == LIMITS.run_pieces_min


def test_a_run_is_one_piece_where_that_takes_as_long_as_a_run_should() -> None:
    assert run_length(1.9, 1000, 1000) == run_length(0.1, 1000, 1000) == 1
    assert run_length(2.0, 1000, 1000) == 2
    # Of a node of which nothing is known, what came to others from there says it.
    assert run_length(0.0, 1000, 1000, others_mib=0.5) == 1
    assert run_length(0.0, 1000, 1000, others_mib=20.0) == LIMITS.run_pieces_min
    assert run_length(20.0, 1000, 1000, others_mib=0.5) == 20


def test_a_run_is_what_comes_in_a_second_or_a_share_of_what_is_left_so_that_all_end_together() -> None:
    assert run_length(20.0, 1000, 1000) == 20
    assert run_length(20.0, 1000, 80) == 80 // (2 * LIMITS.origin_slots_min)
    assert run_length(20.0, 1000, 3) == LIMITS.run_pieces_min


def test_a_run_is_never_longer_than_the_limit_in_bytes() -> None:
    assert run_length(5000.0, 10_000, 10_000) * MIB == LIMITS.run_bytes_max


# How a run ends.


def test_what_did_not_come_of_a_run_is_granted_anew() -> None:
    swarm = Fetchers(A, B, pieces=2)
    swarm.may_fetch(A, B)
    assert swarm.of(A) == [(0, 2)]
    swarm.bring(A, 0)
    swarm.end(A, RUN_REFUSED)
    assert swarm.of(B) == [(1, 2)]


@pytest.mark.parametrize(("outcome", "tries"), [(RUN_FAILED, LIMITS.run_failures_max), (RUN_REFUSED, 1)])
def test_a_node_whose_runs_fail_again_and_again_or_are_refused_is_granted_no_more(outcome: int, tries: int) -> None:
    swarm = Fetchers(A)
    swarm.may_fetch(A)
    for number in range(tries):
        assert len(swarm.runs) == number + 1
        swarm.end(A, outcome)
    swarm.tick()
    assert len(swarm.runs) == tries
    assert (len(swarm.scheduler.swarms[TASK].fetchers), swarm.link.busy) == (0, 0)


def test_a_piece_that_comes_makes_up_for_runs_that_failed() -> None:
    swarm = Fetchers(A)
    swarm.may_fetch(A)
    for piece in range(2 * LIMITS.run_failures_max):
        swarm.bring(A, swarm.runs[-1].first)
        while swarm.scheduler.swarms[TASK].members[A].runs and piece == swarm.runs[-1].first:
            swarm.end(A, RUN_FAILED)
    assert len(swarm.scheduler.swarms[TASK].fetchers) == 1


def test_a_node_that_failed_is_asked_after_one_that_did_not() -> None:
    swarm = Fetchers(A, B, pieces=2)
    swarm.may_fetch(A, B)
    swarm.end(A, RUN_FAILED)
    assert swarm.of(B) == [(0, 2)]


def test_a_node_that_ends_a_run_well_without_its_pieces_is_not_granted_them_again() -> None:
    """It has them, from an earlier time, and cannot name them."""
    swarm = Fetchers(A, pieces=4)
    swarm.may_fetch(A)
    swarm.end(A, RUN_WHOLE)
    assert swarm.of(A) == [(0, 2), (2, 4)]
    swarm.carry_out(A)
    swarm.tick()
    assert swarm.of(A) == [(0, 2), (2, 4)]
    swarm.tell(Joined(B, "", 0))
    swarm.open(B)
    swarm.may_fetch(B)
    assert swarm.of(B) == [(0, 2)]


def test_a_registry_without_ranges_is_asked_by_one_node_for_all_that_is_left() -> None:
    swarm = Fetchers(A, B, C)
    swarm.may_fetch(A, B, C)
    for node in (A, B, C):
        swarm.end(node, RUN_NO_RANGES)
    assert [run.end - run.first for run in swarm.runs] == [2, 2, 2, 64]
    whole = swarm.runs[-1].node
    for piece in range(3):
        swarm.bring(whole, piece)
    swarm.tell(Left(whole))
    assert (swarm.runs[-1].first, swarm.runs[-1].end) == (0, 64), "what it had brought is gone with it"


def test_without_ranges_a_run_goes_on_to_the_blobs_end_though_others_have_a_part_of_it() -> None:
    swarm = Fetchers(A, B, pieces=8)
    swarm.open(B, have=0b00110000)
    swarm.may_fetch(A)
    swarm.end(A, RUN_NO_RANGES)
    assert swarm.of(A)[-1] == (0, 8), "a part that ends before the end could not be asked for, again and again"


def test_a_run_to_the_blobs_end_that_fails_for_want_of_ranges_counts_as_a_failure() -> None:
    swarm = Fetchers(A, pieces=2)
    swarm.may_fetch(A)
    for _ in range(LIMITS.run_failures_max):
        swarm.end(A, RUN_NO_RANGES)
    assert len(swarm.runs) == LIMITS.run_failures_max


# Too many connections, and pauses.


def test_a_429_leaves_one_connection_fewer() -> None:
    nodes = range(1, LIMITS.origin_slots_min + 3)
    swarm = Fetchers(*nodes)
    swarm.may_fetch(*nodes)
    before = len(swarm.runs)
    swarm.end(swarm.runs[0].node, RUN_TOO_MANY)
    assert len(swarm.runs) == before, "it is not asked again at once"
    assert swarm.link.slots == swarm.link.slots_max == swarm.link.busy == LIMITS.origin_slots_min - 1


def test_a_registry_is_left_alone_for_as_long_as_it_says() -> None:
    swarm = Fetchers(A, B)
    swarm.may_fetch(A)
    swarm.end(A, RUN_TOO_MANY, pause=20.0)
    swarm.may_fetch(B)
    swarm.tick(19.0)
    assert len(swarm.runs) == 1
    swarm.tick(1.5)
    assert len(swarm.runs) == 2


def test_a_registry_that_has_too_much_of_one_node_is_left_alone_for_a_moment() -> None:
    swarm = Fetchers(A)
    swarm.may_fetch(A)
    swarm.end(A, RUN_TOO_MANY)
    assert len(swarm.runs) == 1
    swarm.tick(LIMITS.origin_pause_seconds / 2)
    assert len(swarm.runs) == 1
    swarm.tick(LIMITS.origin_pause_seconds)
    assert len(swarm.runs) == 2
    assert swarm.link.slots == 1


def test_one_registrys_pause_is_not_anothers() -> None:
    swarm = Fetchers(A, B)
    swarm.may_fetch(A)
    swarm.end(A, RUN_TOO_MANY, pause=20.0)
    swarm.may_fetch(B, origin=QUAY)
    assert swarm.of(B) == [(0, 2)]


# Late runs.


def test_a_run_that_does_not_begin_in_time_may_be_granted_to_others() -> None:
    swarm = Fetchers(A, B, pieces=2)
    swarm.may_fetch(A, B)
    swarm.tick(LIMITS.run_begin_seconds - 0.1)
    assert swarm.of(B) == []
    swarm.tick(0.2)
    assert swarm.of(B) == [(0, 2)]


def test_a_run_that_stands_still_is_granted_to_others_sooner_than_one_that_has_not_begun() -> None:
    swarm = Fetchers(A, B, pieces=2)
    swarm.may_fetch(A, B)
    swarm.bring(A, 0)
    swarm.tick(LIMITS.run_patience_seconds + 0.1)
    assert swarm.of(B) == [(1, 2)]


def test_a_run_is_not_late_while_it_takes_no_longer_than_the_swarms_pieces_do() -> None:
    swarm = Fetchers(A, B, pieces=4)
    swarm.tell(Seeded(TASK, 3))
    swarm.tell(Reported(B, TASK, (), 1, ()))
    swarm.tell(Reported(B, TASK, ((3, SEED, 2.0, DELIVERED),), 0, ()))
    swarm.may_fetch(A)
    swarm.bring(A, 0)
    before = len(swarm.runs)
    swarm.may_fetch(B)
    after = len(swarm.runs)
    swarm.tick(LIMITS.run_patience * 2.0 - 1.0)
    assert len(swarm.runs) == after
    assert before


def test_a_run_that_stands_still_is_not_granted_to_its_own_node_again() -> None:
    swarm = Fetchers(A, pieces=2)
    swarm.may_fetch(A)
    for _ in range(5):
        swarm.tick(LIMITS.run_begin_seconds)
    assert len(swarm.runs) == 1


def test_a_late_run_that_goes_on_keeps_what_nobody_else_was_granted() -> None:
    swarm = Fetchers(A, B, pieces=64)
    swarm.may_fetch(A)
    swarm.tick(LIMITS.run_begin_seconds)
    assert swarm.unclaimed == (1 << 64) - 1
    swarm.bring(A, 0)
    swarm.may_fetch(B)
    assert swarm.of(B)[0][0] != 1


@pytest.mark.parametrize("outcome", [RUN_FAILED, RUN_WHOLE])
def test_the_end_of_a_late_run_leaves_to_others_what_they_were_granted_in_its_place(outcome: int) -> None:
    swarm = Fetchers(A, B, C, pieces=2)
    swarm.may_fetch(A, B, C)
    swarm.tick(LIMITS.run_begin_seconds)
    second = swarm.runs[-1].node
    assert second != A
    swarm.end(A, outcome)
    assert [run.node for run in swarm.runs] == [A, second], "no third is sent for the same pieces"


def test_a_run_that_is_ahead_is_not_late_before_it_has_begun() -> None:
    swarm = Fetchers(A)
    swarm.may_fetch(A)
    swarm.bring(A, 0)
    swarm.tick(1.0)
    swarm.bring(A, 1)
    swarm.end(A, RUN_WHOLE)
    swarm.tick(LIMITS.run_begin_seconds - 0.1)
    assert not swarm.scheduler.swarms[TASK].members[A].runs[0].stalled


# Slow nodes.


def fetch_at(swarm: Fetchers, node: int, seconds: float) -> None:
    """A node brings the next piece of its run in that time."""
    run = swarm.scheduler.swarms[TASK].members[node].runs[0]
    piece = next(piece for piece in range(run.first, run.end) if run.left >> piece & 1)
    run.since = swarm.now - seconds
    swarm.bring(node, piece, after=0.0)


def all_but_the_run_of_b() -> Fetchers:
    """One of two nodes has brought all that the other was not granted."""
    swarm = Fetchers(A, B, pieces=14)
    swarm.may_fetch(A, B)
    while swarm.unclaimed or swarm.scheduler.swarms[TASK].members[A].runs:
        run = swarm.scheduler.swarms[TASK].members[A].runs[0]
        fetch_at(swarm, A, 0.01)
        if not run.left:
            swarm.end(A, RUN_WHOLE)
    return swarm


def test_a_slow_node_is_granted_runs_only_where_there_is_no_other() -> None:
    swarm = Fetchers(A, B)
    swarm.may_fetch(A, B)
    for _ in range(12):
        fetch_at(swarm, A, 0.01)
        if not swarm.scheduler.swarms[TASK].members[A].runs[0].left:
            swarm.end(A, RUN_WHOLE)
    fetch_at(swarm, B, 10.0)
    assert swarm.link.is_slow(swarm.scheduler.nodes[B].origin_rate)
    granted = len(swarm.of(B))
    fetch_at(swarm, B, 10.0)
    swarm.end(B, RUN_WHOLE)
    assert len(swarm.of(B)) == granted
    swarm.tell(Left(A))
    assert len(swarm.of(B)) == granted + 1, "now there is nobody else"


def test_what_a_slow_node_was_granted_goes_to_others_when_nothing_else_is_left() -> None:
    swarm = all_but_the_run_of_b()
    fetch_at(swarm, B, 10.0)
    granted = len(swarm.of(A))
    swarm.tick(0.1)
    assert len(swarm.of(A)) == granted, "it may be about to come"
    swarm.tick(LIMITS.run_end_seconds)
    assert swarm.of(A)[-1] == (swarm.of(B)[0][1] - 1, swarm.of(B)[0][1])


def test_a_slow_node_that_is_nearly_done_keeps_what_it_was_granted_though_it_stands_still_for_a_moment() -> None:
    """What is left of it would come sooner than from anybody else: on a busy machine every node stands still now and then."""
    swarm = all_but_the_run_of_b()
    fetch_at(swarm, B, 0.9 * LIMITS.run_end_seconds)
    assert swarm.link.is_slow(swarm.scheduler.nodes[B].origin_rate)
    granted = len(swarm.of(A))
    swarm.tick(LIMITS.run_end_seconds)
    assert len(swarm.of(A)) == granted


# What is brought.


def test_what_a_node_brings_others_are_granted_from_it() -> None:
    swarm = Fetchers(A, B)
    swarm.open(B, want=4)
    swarm.may_fetch(A)
    assert swarm.grants == []
    swarm.bring(A, 0)
    assert swarm.grants == [(B, 0, A)]


def test_what_a_node_names_is_known_though_it_takes_part_no_more_and_is_granted_when_it_says_that_it_holds_all() -> None:
    """A holder that had asked for the blob itself, and gave that up while it named the pieces."""
    swarm = Fetchers(A, B, pieces=4)
    swarm.open(B, want=4)
    swarm.tell(Closed(A, TASK))
    swarm.bring(A, 0, 1, 2, 3)
    assert swarm.grants == []
    swarm.tell(HoldsAll(A, TASK))
    assert {piece for node, piece, source in swarm.grants if (node, source) == (B, A)}


def test_what_a_quarantined_node_brings_is_granted_to_nobody() -> None:
    swarm = Fetchers(A, B)
    swarm.open(B, want=4)
    swarm.tell(Quarantined(A))
    swarm.bring(A, 0)
    assert swarm.grants == []


def test_in_zones_what_one_node_brings_crosses_into_each_other_zone_once() -> None:
    swarm = Fetchers(A, B, C, zones=True)
    for node in (B, C):
        swarm.open(node, want=4)
    swarm.may_fetch(A)
    swarm.bring(A, 0)
    assert sorted(swarm.grants) == [(B, 0, A), (C, 0, A)]
    assert len([run for run in swarm.runs if run.first <= 0 < run.end]) == 1


def test_a_piece_that_was_not_granted_and_is_brought_all_the_same_is_not_asked_for_any_more() -> None:
    swarm = Fetchers(A, B, pieces=4)
    swarm.bring(B, 0, 1)
    swarm.may_fetch(A)
    assert swarm.of(A) == [(2, 4)]


def test_a_piece_that_a_node_was_to_get_from_another_and_brings_itself_is_not_lacking_any_more() -> None:
    swarm = Fetchers(A, pieces=1)
    swarm.open(A, want=1)
    swarm.bring(A, 0)
    assert swarm.tell(Seeded(TASK, 0)) == []


# Who goes.


@pytest.mark.parametrize("event", [Left(A), Closed(A, TASK)], ids=str)
def test_a_node_that_goes_frees_its_runs_and_their_slot(event: Event) -> None:
    swarm = Fetchers(A, B, pieces=2, limits=Limits(origin_slots_min=1, origin_slots_max=1, runs_ahead=0))
    swarm.may_fetch(A, B)
    swarm.tell(event)
    assert swarm.of(B) == [(0, 2)]
    assert swarm.link.busy == 1


@pytest.mark.parametrize("brought", [(0, 1), ()], ids=["from there", "from elsewhere"])
def test_a_node_that_has_got_the_whole_blob_keeps_no_slot_of_its_origin(brought: tuple[int, ...]) -> None:
    """Its download ends with the last piece: of the run no more is said."""
    swarm = Fetchers(A, pieces=2)
    swarm.may_fetch(A)
    swarm.bring(A, *brought)
    swarm.tell(HoldsAll(A, TASK))
    assert (swarm.link.busy, swarm.scheduler.nodes[A].fetching, swarm.scheduler.nodes[A].taking) == (0, 0, 0)
    swarm.tell(Closed(A, TASK))
    assert swarm.tell(HoldsNone(A, TASK)) == []


def test_a_node_that_leaves_is_granted_no_run_in_another_swarm_while_it_is_taken_out_of_the_first() -> None:
    swarm = Fetchers(A, limits=Limits(origin_slots_min=1, origin_slots_max=1, runs_ahead=0))
    swarm.tell(Made(8, 4, 0, MIB))
    swarm.may_fetch(A)
    swarm.tell(Opened(A, 8, 0, (), 4))
    swarm.tell(MayFetch(A, 8, HUB))
    assert [run.task for run in swarm.runs] == [TASK]
    assert not [command for command in swarm.tell(Left(A)) if isinstance(command, GrantRun)]


def test_a_node_whose_registry_is_another_now_keeps_no_slot_of_the_first() -> None:
    swarm = Fetchers(A)
    swarm.may_fetch(A)
    swarm.may_fetch(A, origin=QUAY)
    assert [swarm.scheduler.origins[origin].busy for origin in (HUB, QUAY)] == [0, 1]
    assert swarm.of(A) == [(0, 2), (0, 2)]


def test_a_swarm_that_ends_leaves_its_slots_to_another() -> None:
    swarm = Fetchers(A, limits=Limits(origin_slots_min=1, origin_slots_max=1, runs_ahead=0))
    swarm.tell(Made(8, 4, 0, MIB))
    swarm.may_fetch(A)
    swarm.tell(Joined(B, "", 0))
    swarm.tell(Opened(B, 8, 0, (), 4))
    swarm.tell(MayFetch(B, 8, HUB))
    assert [(run.node, run.task) for run in swarm.runs] == [(A, TASK)]
    swarm.tell(Ended(TASK))
    assert [(run.node, run.task) for run in swarm.runs] == [(A, TASK), (B, 8)]


@pytest.mark.parametrize(
    "event",
    [
        Fetched(99, TASK, 1),
        Fetched(A, 99, 1),
        Fetched(A, TASK, 1 << 64),
        RunOver(99, TASK, 0, RUN_WHOLE),
        RunOver(A, 99, 0, RUN_WHOLE),
        RunOver(A, TASK, 5, RUN_FAILED),
        RunOver(A, TASK, -1, RUN_TOO_MANY, 100.0),
        RunOver(B, TASK, 0, RUN_REFUSED),
    ],
    ids=str,
)
def test_events_about_runs_that_make_no_sense_change_nothing(event: Event) -> None:
    swarm = Fetchers(A, B)
    swarm.may_fetch(A)
    before = views(swarm.scheduler), swarm.link.pause_until, swarm.link.busy
    assert swarm.tell(event) == []
    assert (views(swarm.scheduler), swarm.link.pause_until, swarm.link.busy) == before
