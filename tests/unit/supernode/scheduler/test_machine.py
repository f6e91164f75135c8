"""The scheduler, one rule at a time: a few nodes, events with given times, and the commands that have to follow."""

from __future__ import annotations

from random import Random

import pytest

from agent.swarm.messages import CORRUPT, DELIVERED, MISSING, SEED, STALLED, UNREACHABLE
from supernode.scheduler.copies import FEW
from supernode.scheduler.events import (
    Closed,
    Command,
    Ended,
    Event,
    GrantPieces,
    HoldsAll,
    HoldsNone,
    Joined,
    KeepWaiting,
    Left,
    Located,
    Made,
    Moved,
    Opened,
    Quarantined,
    Released,
    Reported,
    Seeded,
    Tick,
)
from supernode.scheduler.limits import Limits
from supernode.scheduler.machine import Scheduler
from tests.scheduler import SwarmView, views

TASK = 7
A, B, C, D = 1, 2, 3, 4
Granted = tuple[int, int, int, int]


class Swarm:
    """A scheduler and its virtual time, with shorter words for the events."""

    def __init__(self, *nodes: int, pieces: int = 8, seeded: int | None = None, limits: Limits | None = None) -> None:
        self.now = 100.0
        self.everything = (1 << pieces) - 1
        self.scheduler = Scheduler(Random(1), limits or Limits())
        for node in nodes:
            self.tell(Joined(node, "", 0))
        self.tell(Made(TASK, pieces, self.everything if seeded is None else seeded))

    def tell(self, event: Event) -> list[Command]:
        return self.scheduler.handle(event, self.now)

    def open(self, node: int, want: int = 4, have: int = 0, readers: tuple[int, ...] = ()) -> list[Command]:
        return self.tell(Opened(node, TASK, have, readers, want))

    def report(self, node: int, *done: tuple[int, int, int], want: int = 0, seconds: float = 0.1) -> list[Command]:
        lines = tuple((piece, source, seconds, verdict) for piece, source, verdict in done)
        return self.tell(Reported(node, TASK, lines, want, ()))

    def here(self, node: int, *pieces: int, want: int = 0) -> list[Command]:
        """These came from A, which tells nothing of how fast that is."""
        return self.report(node, *((piece, A, DELIVERED) for piece in pieces), want=want, seconds=0.0)

    def get_some(self, seconds: float, every: float) -> None:
        """B gets pieces from A, one after the other: each takes so long, and one comes after such a time."""
        (piece,) = pieces_of(self.open(B, want=1), B)
        for _ in range(30):
            self.now += every
            (piece,) = pieces_of(self.report(B, (piece, A, DELIVERED), want=1, seconds=seconds), B)

    def tick(self, seconds: float = 1.0) -> list[Command]:
        self.now += seconds
        return self.tell(Tick())

    @property
    def view(self) -> SwarmView:
        return SwarmView.of(self.scheduler.swarms[TASK])

    def busy(self, number: int) -> int:
        return self.scheduler.nodes[number].busy

    def barred(self, number: int) -> bool:
        return self.scheduler.nodes[number].barred


def granted(commands: list[Command]) -> list[Granted]:
    """Every granted piece as (node, piece, source, alternative)."""
    return [(command.node, *piece) for command in commands if isinstance(command, GrantPieces) for piece in command.pieces]


def pieces_of(commands: list[Command], node: int) -> list[int]:
    return [piece for taker, piece, _, _ in granted(commands) if taker == node]


# From the supernode.


def test_a_lone_node_gets_from_the_supernode_what_it_wants_and_no_more() -> None:
    swarm = Swarm(A)
    assert len(granted(swarm.open(A, want=3))) == 3
    assert {source for _, _, source, _ in granted(swarm.report(A, want=1))} == {SEED}


def test_the_supernode_sends_no_more_at_once_than_its_slots() -> None:
    swarm = Swarm(A, B, pieces=32)
    commands = swarm.open(A, want=16) + swarm.open(B, want=16)
    assert len(granted(commands)) == Limits().seed_slots_min == swarm.busy(SEED)


def test_nothing_is_granted_before_the_supernode_has_it() -> None:
    swarm = Swarm(A, seeded=0)
    assert swarm.open(A) == []
    assert granted(swarm.tell(Seeded(TASK, 5))) == [(A, 5, SEED, SEED)]


def test_what_a_node_says_it_has_is_not_offered_to_others_before_the_supernode_has_it() -> None:
    swarm = Swarm(A, B, seeded=0)
    swarm.open(A, have=0b1, want=0)
    assert swarm.open(B) == []
    assert granted(swarm.tell(Seeded(TASK, 0))) == [(B, 0, A, SEED)]


def test_each_piece_leaves_the_supernode_once_while_others_are_wanted() -> None:
    swarm = Swarm(A, B, C, pieces=4)
    commands = [command for node in (A, B, C) for command in swarm.open(node, want=4)]
    from_seed = [piece for _, piece, source, _ in granted(commands) if source == SEED]
    assert sorted(from_seed) == sorted(set(from_seed)) == [0, 1, 2, 3]


def test_a_piece_with_which_a_reader_begins_has_its_sources_link_to_itself_and_is_passed_on_at_once() -> None:
    swarm = Swarm(A, B, C, D, pieces=Limits().head_pieces_min, seeded=0b11)
    swarm.open(A, have=0b11, want=0)
    assert [grant[:3] for grant in granted(swarm.open(B, readers=(0,)))] == [(B, 0, A)]
    assert swarm.open(C, readers=(0,)) == []
    assert swarm.open(D, readers=(0,)) == []
    sent = [grant[1:3] for grant in granted(swarm.report(B, (0, A, DELIVERED)))]
    assert sorted(sent) == [(0, A), (0, B)]
    assert swarm.busy(A) == swarm.busy(B) == 1


def test_it_goes_before_pieces_that_are_rarer() -> None:
    swarm = Swarm(A, B, C, pieces=Limits().head_pieces_min, seeded=0b111)
    swarm.open(A, have=0b110, want=0)
    swarm.open(B, have=0b100, want=0)
    assert granted(swarm.open(C, want=1, readers=(2,)))[0][1] == 2


def test_of_a_small_blob_all_is_there_soon_and_nothing_waits() -> None:
    swarm = Swarm(A, B, C, pieces=Limits().head_pieces_min - 1, seeded=0b11)
    swarm.open(A, have=0b11, want=0)
    assert [grant[:3] for grant in granted(swarm.open(B, want=1, readers=(0,)))] == [(B, 0, A)]
    assert [grant[:3] for grant in granted(swarm.open(C, want=1, readers=(0,)))] == [(C, 0, A)]


def test_a_new_piece_goes_to_the_node_that_has_least() -> None:
    for least in (A, B, C):
        swarm = Swarm(A, B, C, seeded=0)
        for node in (A, B, C):
            swarm.open(node, have=0b1 if node == least else 0b11, want=1)
        assert granted(swarm.tell(Seeded(TASK, 6))) == [(least, 6, SEED, SEED)]


def test_a_new_piece_goes_to_a_node_that_is_getting_nothing() -> None:
    swarm = Swarm(A, B, seeded=0)
    swarm.open(A, want=2)
    swarm.tell(Seeded(TASK, 0))
    swarm.open(B, have=0b11110, want=1)
    assert granted(swarm.tell(Seeded(TASK, 6))) == [(B, 6, SEED, SEED)]


def test_of_many_that_wait_the_one_to_which_fewest_pieces_are_on_their_way_gets_the_next() -> None:
    others = range(10, 60)
    for idle in (10, 30, 59):
        limits = Limits(seed_slots_min=64, seed_slots_max=64, link_share=64.0)
        swarm = Swarm(*others, pieces=64, seeded=(1 << 49) - 1, limits=limits)
        for node in others:
            if node != idle:
                swarm.open(node, want=1)
                swarm.report(node, want=0)
        for node in others:
            swarm.open(node, want=1)
        assert (swarm.view.in_flight, swarm.view.parked) == (49, 50)
        assert [node for node, *_ in granted(swarm.tell(Seeded(TASK, 60)))] == [idle]


def test_the_supernode_repeats_a_piece_only_for_who_has_nobody_else() -> None:
    swarm = Swarm(A, B)
    swarm.tell(HoldsAll(A, TASK))
    sources = [source for _, _, source, _ in granted(swarm.open(B, want=8))]
    assert sources == [A] * Limits().upload_slots_min


def test_the_supernode_takes_over_what_its_only_holder_takes_away() -> None:
    swarm = Swarm(A, B, pieces=1)
    swarm.open(A, want=1)
    swarm.report(A, (0, SEED, DELIVERED))
    assert granted(swarm.open(B, want=1)) == [(B, 0, A, SEED)]
    assert granted(swarm.tell(Left(A))) == []  # B may have got it; it says so itself
    assert granted(swarm.report(B, (0, A, UNREACHABLE), want=1)) == []  # and turns to the supernode by itself
    assert granted(swarm.report(B, (0, SEED, UNREACHABLE), want=1)) == []
    assert granted(swarm.tick(Limits().retry_seconds + 1)) == [(B, 0, SEED, SEED)]


# From peers.


def test_a_peer_passes_on_what_it_has_got() -> None:
    swarm = Swarm(A, B, pieces=2, seeded=0b1)
    swarm.open(A, want=1)
    assert swarm.open(B, want=1) == []  # while the blob arrives, the supernode repeats nothing
    assert granted(swarm.report(A, (0, SEED, DELIVERED))) == [(B, 0, A, SEED)]


def test_a_source_is_never_above_its_slots_and_a_slot_that_is_freed_goes_to_who_waits() -> None:
    swarm = Swarm(A, B, C, pieces=64, seeded=(1 << 63) - 1)
    swarm.open(A, have=(1 << 63) - 1, want=0)
    flying = pieces_of(swarm.open(B, want=8), B)
    assert swarm.busy(A) == Limits().upload_slots_min == len(flying)
    assert swarm.open(C, want=8) == []
    given = granted(swarm.report(B, (flying[0], A, DELIVERED)))
    assert given[0][0] == C
    assert swarm.busy(A) == Limits().upload_slots_min


def test_a_node_that_wills_fewer_slots_is_asked_for_no_more() -> None:
    swarm = Swarm(pieces=16)
    swarm.tell(Joined(A, "", 1))
    swarm.tell(Joined(B, "", 0))
    swarm.tell(HoldsAll(A, TASK))
    swarm.open(B, want=8)
    assert swarm.busy(A) == 1


@pytest.mark.parametrize(
    ("piece_seconds", "messages_seconds", "slots"),
    [(0.02, 0.5, Limits().upload_slots_max), (0.02, 0.0, Limits().upload_slots_min), (0.02, 0.02, 5), (2.0, 0.02, 3)],
)
def test_a_source_has_slots_for_what_it_could_send_while_messages_go_to_and_fro(
    piece_seconds: float, messages_seconds: float, slots: int
) -> None:
    swarm = Swarm(A, B, pieces=256)
    swarm.tell(HoldsAll(A, TASK))
    swarm.get_some(seconds=piece_seconds, every=piece_seconds + messages_seconds)
    assert swarm.scheduler.nodes[A].slots == slots


def test_a_source_whose_link_is_in_full_use_begins_nothing_more_though_it_has_slots() -> None:
    swarm = Swarm(A, B, C, D, pieces=64)
    swarm.tell(HoldsAll(A, TASK))
    (first,) = pieces_of(swarm.open(B, want=1), B)
    assert len(pieces_of(swarm.open(C, want=1), C)) == 1
    assert [source for _, _, source, _ in granted(swarm.open(D, want=1))] == [SEED], "a third would make all of them late"
    assert swarm.busy(A) == 2 < Limits().upload_slots_min
    assert [source for _, _, source, _ in granted(swarm.report(B, (first, A, DELIVERED), want=1))] == [A]


def test_a_source_has_room_for_whoever_shares_its_own_link_among_several() -> None:
    swarm = Swarm(A, B, C, pieces=64)
    swarm.tell(HoldsAll(A, TASK))
    assert len(pieces_of(swarm.open(B, want=2), B)) == 2
    assert len(pieces_of(swarm.open(C, want=1), C)) == 1
    assert swarm.busy(A) == Limits().upload_slots_min


# Several in one request.


def beside_slow_messages(*takers: int, pieces: int = 64, together: int = 4) -> Swarm:
    """A holds all, and messages are so slow against its pieces that it gives so many together."""
    swarm = Swarm(A, *takers, pieces=pieces, seeded=0)
    swarm.tell(HoldsAll(A, TASK))
    swarm.scheduler.swarms[TASK].known = swarm.everything
    node = swarm.scheduler.nodes[A]
    node.slots, node.together, node.full = node.slots_max, together, float(node.slots_max)
    for taker in takers:
        swarm.scheduler.nodes[taker].together, swarm.scheduler.nodes[taker].window = together, Limits().in_flight_max
    return swarm


def blocks(pieces: list[int], together: int = 4) -> set[int]:
    """The blocks of which all these pieces are; they have to be whole ones, each from its first piece on."""
    firsts = pieces[::together]
    assert pieces == [piece for first in firsts for piece in range(first, first + together)]
    assert all(first % together == 0 for first in firsts)
    return {first // together for first in firsts}


@pytest.mark.parametrize(("messages_seconds", "together"), [(0.0, 1), (0.03, 1), (0.04, 2), (0.5, 4)])
def test_where_messages_are_slow_against_pieces_a_source_gives_several_together(messages_seconds: float, together: int) -> None:
    swarm = Swarm(A, B, pieces=256)
    swarm.tell(HoldsAll(A, TASK))
    swarm.get_some(seconds=0.02, every=0.02 + messages_seconds)
    assert swarm.scheduler.nodes[A].together == together


def test_a_source_that_wills_few_slots_gives_no_more_together_than_fit() -> None:
    swarm = Swarm(B, pieces=256)
    swarm.tell(Joined(A, "", 1))
    swarm.tell(HoldsAll(A, TASK))
    swarm.get_some(seconds=0.02, every=1.0)
    assert swarm.scheduler.nodes[A].together == 1


def test_what_is_given_together_are_pieces_that_follow_each_other() -> None:
    swarm = beside_slow_messages(B)
    assert len(blocks(pieces_of(swarm.open(B, want=16), B))) == 4
    assert swarm.busy(A) == 16


def test_a_taker_waits_for_more_until_it_takes_as_many_unless_little_is_on_its_way_or_missing() -> None:
    swarm = beside_slow_messages(B)
    first = pieces_of(swarm.open(B, want=8), B)
    assert len(first) == 8
    assert swarm.here(B, first[0], want=1) == []
    assert swarm.view.parked == 1
    more = pieces_of(swarm.here(B, *first[1:4], want=4), B)
    assert len(blocks(more)) == 1
    assert len(pieces_of(swarm.here(B, *first[4:], more[0], want=1), B)) == 1, "three are on their way"
    assert len(pieces_of(beside_slow_messages(B, pieces=3).open(B, want=1), B)) == 1


def test_a_source_gives_nothing_before_it_has_room_for_so_many() -> None:
    swarm = beside_slow_messages(B, C)
    first = pieces_of(swarm.open(B, want=16), B)
    assert len(first) == swarm.busy(A) == 16
    assert swarm.open(C, want=8) == []
    assert pieces_of(swarm.here(B, *first[:3]), C) == []
    assert len(blocks(pieces_of(swarm.here(B, first[3]), C))) == 1


def test_part_of_a_block_is_waited_for_while_anything_is_on_its_way() -> None:
    swarm = beside_slow_messages(B, C)
    swarm.tell(HoldsNone(A, TASK))
    swarm.open(A, have=0b0111_0000_1111, want=0)
    assert blocks(pieces_of(swarm.open(B, want=16), B)) == {0}
    assert swarm.here(B, 0, 1, 2, want=16) == []
    assert sorted(pieces_of(swarm.here(B, 3, want=16), B)) == [8, 9, 10]
    assert sorted(pieces_of(swarm.open(C, want=16, have=0b1000_0000_1111), C)) == [8, 9, 10], "all that it lacks of it"


def test_no_more_is_given_together_than_a_source_may_have_to_have_of_a_block() -> None:
    swarm = Swarm(B, pieces=256, limits=Limits(upload_slots_max=1000))
    swarm.tell(Joined(A, "", 1000))
    swarm.tell(HoldsAll(A, TASK))
    swarm.get_some(seconds=0.001, every=0.5)
    assert swarm.scheduler.nodes[A].slots > 64
    assert swarm.scheduler.nodes[A].together == Limits().together_max


def test_a_node_that_has_some_pieces_of_each_block_keeps_the_supernode_from_giving_none() -> None:
    swarm = Swarm(A, B, pieces=64)
    swarm.open(A, have=int("0001" * 16, 2), want=0)
    seed, swarm.scheduler.nodes[B].window = swarm.scheduler.nodes[SEED], Limits().in_flight_max
    seed.slots, seed.together, seed.full = 16, 4, 16.0
    given = granted(swarm.open(B, want=16))
    assert len(given) >= 12
    assert {source for _, piece, source, _ in given if piece % 4} == {SEED}


def test_who_does_not_ask_stands_behind_all_that_do() -> None:
    swarm = beside_slow_messages(*range(B, B + 11))
    source = swarm.scheduler.nodes[A]
    source.slots = source.slots_max = 200
    source.full = 200.0
    for taker in range(B, B + 10):
        first = pieces_of(swarm.open(taker, want=4), taker)
        assert swarm.here(taker, want=1) == []
        assert len(first) == 4
    last = B + 10
    source.slots = source.busy
    assert pieces_of(swarm.open(last, want=16), last) == []
    source.slots = 200
    assert len(pieces_of(swarm.tell(HoldsAll(A, TASK)), last)) == 16


def test_a_head_is_not_waited_for_until_its_block_is_there() -> None:
    swarm = Swarm(A, B, C, pieces=64, seeded=0)
    swarm.scheduler.swarms[TASK].known = swarm.everything
    swarm.open(A, have=0b1_1111_0000, want=0)
    for node in (A, B):
        swarm.scheduler.nodes[node].slots, swarm.scheduler.nodes[node].together = 16, 4
    swarm.scheduler.nodes[A].full = 16.0
    swarm.open(B, want=4)
    swarm.open(C, have=0b1, want=0)
    assert pieces_of(swarm.open(B, want=16, readers=(0,)), B) == []
    assert swarm.report(B, want=16) == []
    swarm.tell(Reported(B, TASK, ((4, A, 0.01, DELIVERED),), 16, (0,)))
    flights = swarm.scheduler.swarms[TASK].members[B].flights
    assert {piece for piece, flight in flights.items() if flight.source.number == C} == {0}


def test_a_piece_that_came_from_elsewhere_tells_nothing_of_its_source() -> None:
    swarm = Swarm(A, B, pieces=64)
    swarm.tell(HoldsAll(A, TASK))
    flying = pieces_of(swarm.open(B, want=3), B)
    for _ in range(20):
        flying += pieces_of(swarm.report(B, (flying.pop(0), A, DELIVERED), want=1, seconds=0.0), B)
    assert swarm.scheduler.nodes[A].slots == Limits().upload_slots_min


def test_a_whole_blob_from_an_earlier_time_is_a_source_until_it_is_evicted() -> None:
    swarm = Swarm(A, B, pieces=64)
    swarm.tell(HoldsAll(A, TASK))
    assert granted(swarm.open(B, want=1))[0][2] == A
    swarm.tell(HoldsNone(A, TASK))
    assert granted(swarm.report(B, want=1))[0][2] == SEED


# Nodes that say they hold a blob, and from which nothing has come.

CLAIMANTS = range(10, 30)


def with_claimants() -> Swarm:
    swarm = Swarm(A, B, *CLAIMANTS, pieces=128)
    for node in CLAIMANTS:
        swarm.tell(HoldsAll(node, TASK))
    return swarm


def test_where_many_say_that_they_hold_a_blob_the_supernode_sends_it_all_the_same_and_one_of_them_is_tried() -> None:
    """FAULTS 91."""
    swarm = with_claimants()
    sources = [source for _, _, source, _ in granted(swarm.open(A, want=16))]
    assert sources.count(SEED) == Limits().seed_slots_min
    assert len([source for source in sources if source in CLAIMANTS]) == 1
    assert swarm.view.holders == 0


def test_a_node_from_which_a_piece_has_come_is_a_source_as_any_other() -> None:
    """FAULTS 91."""
    swarm = with_claimants()
    ((_, piece, tried, _),) = [grant for grant in granted(swarm.open(A, want=16)) if grant[2] in CLAIMANTS]
    sources = [source for _, _, source, _ in granted(swarm.report(A, (piece, tried, DELIVERED), want=1))]
    assert swarm.view.holders == 2, "and so is the taker"
    sources += [source for _, _, source, _ in granted(swarm.open(B, want=16))]
    assert sources.count(tried) > 1


def test_a_node_that_is_tried_and_sends_nothing_is_not_tried_again_for_a_while_and_another_is() -> None:
    """FAULTS 91."""
    swarm = with_claimants()
    ((_, piece, tried, alternative),) = [grant for grant in granted(swarm.open(A, want=16)) if grant[2] in CLAIMANTS]
    assert alternative not in CLAIMANTS or alternative == tried
    again = swarm.report(A, (piece, tried, STALLED), (piece, alternative, STALLED), want=1)
    assert [source for _, _, source, _ in granted(again) if source in CLAIMANTS] != [tried]


def test_a_blob_that_a_node_lacks_a_piece_of_it_does_not_hold() -> None:
    """FAULTS 91: a whole blob is evicted whole. Else one piece that is said to be missing would make copies of all the others."""
    swarm = with_claimants()
    ((_, piece, tried, alternative),) = [grant for grant in granted(swarm.open(A, want=16)) if grant[2] in CLAIMANTS]
    swarm.report(A, (piece, tried, MISSING), (piece, alternative, MISSING), want=0)
    member = swarm.scheduler.swarms[TASK].members[tried]
    assert (member.offered, member.on_trial) == (0, False)


def test_a_few_are_believed_until_one_of_them_fails() -> None:
    """FAULTS 91."""
    swarm = Swarm(A, B, C, 4, pieces=64)
    for node in (A, C):
        swarm.tell(HoldsAll(node, TASK))
    assert swarm.view.holders == 2
    ((_, piece, source, alternative),) = granted(swarm.open(B, want=1))
    assert source in (A, C)
    swarm.report(B, (piece, source, STALLED), (piece, alternative, STALLED), want=0)
    swarm.tick(60.0)
    assert swarm.scheduler.swarms[TASK].members[source].on_trial


def test_a_node_that_closes_stays_a_source_only_with_the_whole_blob() -> None:
    for have, holders in ((0xFF, 1), (0x7F, 0)):
        swarm = Swarm(A)
        swarm.open(A, have=have, want=0)
        swarm.tell(Closed(A, TASK))
        assert (swarm.view.holders, swarm.view.takers) == (holders, 0)


def test_the_alternative_is_somebody_else_who_has_the_piece() -> None:
    swarm = Swarm(A, B, C)
    swarm.tell(HoldsAll(A, TASK))
    assert granted(swarm.open(B, want=1))[0][2:] == (A, SEED)
    swarm.tell(HoldsAll(C, TASK))
    assert set(granted(swarm.report(B, want=1))[0][2:]) == {A, C}


def test_the_alternative_is_somebody_from_whom_something_is_coming_already_if_they_have_the_piece() -> None:
    others = range(10, 40)
    for first in range(20):
        swarm = Swarm(A, B, *others, pieces=64)
        swarm.tell(HoldsAll(A, TASK))
        swarm.open(B, want=1)
        for node in (A, *others):
            swarm.scheduler.nodes[node].delivered_at = 0.0  # so that each is believed
        for node in others:
            swarm.tell(HoldsAll(node, TASK))
        for _ in range(first):
            swarm.scheduler._random()  # so that the choice is another one each time
        ((_, _, source, alternative),) = granted(swarm.report(B, want=1))
        assert A in (source, alternative)


def test_the_piece_next_to_a_reader_comes_first() -> None:
    for reader in range(8):
        swarm = Swarm(A, limits=Limits(seed_slots_min=1, seed_slots_max=1))
        assert pieces_of(swarm.open(A, want=1, readers=(reader,)), A) == [reader]


def test_the_rarer_of_two_pieces_is_taken_first() -> None:
    swarm = Swarm(A, B, C, pieces=3, seeded=0b11, limits=Limits(rarest_of=16))
    swarm.open(A, have=0b11, want=0)
    assert pieces_of(swarm.open(B, want=1, readers=(0,)), B) == [0]
    assert pieces_of(swarm.open(C, want=1), C) == [1]


# Zones.


def in_zones(limits: Limits | None = None) -> Swarm:
    """A is in zone x, B and C are in zone y; A has all pieces but the last, which has not arrived at the supernode."""
    swarm = Swarm(pieces=16, seeded=0x7FFF, limits=limits)
    for node, zone in ((A, "x"), (B, "y"), (C, "y")):
        swarm.tell(Joined(node, zone, 0))
    swarm.open(A, have=0x7FFF, want=0)
    return swarm


def test_a_piece_crosses_into_a_zone_once() -> None:
    swarm = in_zones()
    crossing = granted(swarm.open(B, want=2))
    assert [source for _, _, source, _ in crossing] == [A, A]
    (another,) = pieces_of(swarm.open(C, want=1), C)
    assert another not in pieces_of(crossing, B)


def test_the_own_zone_is_asked_first() -> None:
    swarm = in_zones()
    swarm.open(B, have=0x7FFF, want=0)
    assert granted(swarm.open(C, want=1))[0][2] == B


def test_whoever_starves_takes_from_another_zone() -> None:
    swarm = in_zones()
    assert granted(swarm.open(C, have=0x7FFE, want=1)) == [(C, 0, A, SEED)]
    assert swarm.open(B, have=0x7FFE, want=1) == []  # its zone is getting the piece already
    assert pieces_of(swarm.tick(0.1), B) == []
    assert pieces_of(swarm.tick(Limits().patience_seconds), B) == [0]


def test_nobody_starves_while_it_waits_no_longer_than_pieces_take() -> None:
    for seconds, starving in ((0.01, True), (0.4, False), (5.0, False)):
        swarm = in_zones(Limits(slot_seconds_min=60.0))
        (piece, *_) = pieces_of(swarm.open(B, want=1), B)
        (crossing,) = pieces_of(swarm.report(B, (piece, A, DELIVERED), want=1, seconds=seconds), B)
        swarm.open(C, have=0x7FFF ^ 1 << crossing, want=1)
        assert (pieces_of(swarm.tick(Limits().patience_seconds), C) == [crossing]) == starving


def test_more_zones_than_the_limit_count_as_none() -> None:
    swarm = Swarm(limits=Limits(zones_max=3))
    for number in range(1, 10):
        swarm.tell(Joined(number, f"zone-{number}", 0))
    assert {node.zone for node in swarm.scheduler.nodes.values()} == {"", "zone-1", "zone-2"}


# Failures.


def test_a_failed_source_is_not_given_again_soon() -> None:
    swarm = Swarm(A, B, C, pieces=3, seeded=0b11)
    swarm.open(A, have=0b11, want=0)
    flying = pieces_of(swarm.open(C, want=1), C)
    swarm.report(C, (flying[0], A, DELIVERED))  # so A is not suspected of being dead
    swarm.tell(Closed(C, TASK))
    ((_, piece, source, alternative),) = granted(swarm.open(B, want=1))
    assert (source, alternative) == (A, SEED)
    assert granted(swarm.report(B, (piece, A, STALLED), (piece, SEED, DELIVERED), want=1)) == []
    assert granted(swarm.tick(0.5)) == []
    assert granted(swarm.tick(Limits().retry_seconds)) == [(B, 1 - piece, A, SEED)]


def test_a_source_whose_pieces_come_late_is_given_again_as_soon_as_one_has_come() -> None:
    """FAULTS 100: a second without a link makes everybody late, and must not keep them from each other for ten."""
    swarm = Swarm(A, B, C, pieces=8)
    swarm.open(A, have=0xFF, want=0)
    flying = pieces_of(swarm.open(C, want=1), C)
    swarm.report(C, (flying[0], A, DELIVERED))  # so pieces are known to take a tenth of a second
    swarm.tell(Closed(C, TASK))
    late = pieces_of(swarm.open(B, want=2), B)
    swarm.tick(Limits().slot_seconds_min + 1)
    assert swarm.barred(A)
    given = granted(swarm.report(B, *((piece, A, DELIVERED) for piece in late), want=1))
    assert [source for _, _, source, _ in given] == [A]


def test_a_source_of_wrong_bytes_stays_away_though_another_piece_of_its_comes_late() -> None:
    swarm = Swarm(A, B, pieces=8)
    swarm.open(A, have=0xFF, want=0)
    wrong, late, *_ = pieces_of(swarm.open(B, want=2), B)
    swarm.report(B, (wrong, A, CORRUPT), (wrong, SEED, DELIVERED))
    swarm.report(B, (late, A, DELIVERED))
    given = granted(swarm.report(B, want=8)) + [line for _ in range(20) for line in granted(swarm.tick(1.0))]
    assert given
    assert all(source != A for _, _, source, _ in given)


def test_a_failed_piece_is_on_its_way_from_the_alternative_and_wanted_again_when_that_fails() -> None:
    swarm = Swarm(A, B, C, pieces=1)
    swarm.tell(HoldsAll(A, TASK))
    assert granted(swarm.open(B, want=1)) == [(B, 0, A, SEED)]
    assert granted(swarm.report(B, (0, A, STALLED), want=1)) == []
    assert (swarm.busy(A), swarm.view.in_flight) == (0, 1)
    assert granted(swarm.report(B, (0, SEED, STALLED), want=1)) == []
    assert granted(swarm.tell(HoldsAll(C, TASK))) == [(B, 0, C, C)]


def test_a_source_of_wrong_bytes_is_never_given_to_that_node_again() -> None:
    swarm = Swarm(A, B, pieces=1)
    swarm.tell(HoldsAll(A, TASK))
    swarm.open(B, want=1)
    swarm.report(B, (0, A, CORRUPT), (0, SEED, STALLED), want=1)
    given = [line for _ in range(100) for line in granted(swarm.tick(60.0))]
    assert given
    assert all(A not in line[2:] for line in given)


def test_a_piece_that_a_holder_lacks_is_not_looked_for_there_again_by_anybody() -> None:
    swarm = Swarm(A, B, C, pieces=1)
    swarm.open(A, have=1, want=0)
    swarm.open(B, want=1)
    swarm.report(B, (0, A, MISSING))
    assert swarm.view.holders == 0
    assert pieces_of(swarm.report(A, want=1), A) == []  # nor is it granted what it never said it lacks


def test_a_stranger_s_complaint_about_a_source_that_it_was_not_given_counts_nothing() -> None:
    swarm = Swarm(A, B, C, pieces=4)
    swarm.open(A, have=0b1111, want=0)
    swarm.open(B, want=1)
    swarm.report(C, (0, A, MISSING), (1, A, STALLED))
    swarm.open(C, want=0)
    swarm.report(C, (0, A, MISSING), (1, A, STALLED), (2, SEED, CORRUPT))
    assert swarm.view.holders == 1
    assert not swarm.barred(A)


def test_a_source_that_falls_silent_is_suspected_and_what_only_it_has_comes_from_the_supernode() -> None:
    swarm = Swarm(A, B, C, pieces=3, seeded=0b11, limits=Limits(upload_slots_min=1))
    swarm.open(A, have=0b11, want=0)
    swarm.open(B, want=1)
    assert swarm.open(C, want=1) == []
    given = granted(swarm.tick(Limits().grant_seconds_max))
    assert swarm.barred(A)
    assert [(node, source) for node, _, source, _ in given] == [(C, SEED)]
    swarm.tick(Limits().retry_seconds)
    assert not swarm.barred(A)


def test_a_source_that_delivers_to_others_is_not_suspected_on_one_taker_s_word() -> None:
    swarm = Swarm(A, B, C, pieces=64)
    swarm.tell(HoldsAll(A, TASK))
    flying = pieces_of(swarm.open(B, want=1), B)
    swarm.report(B, (flying[0], A, DELIVERED))
    (complaint, *_) = pieces_of(swarm.open(C, want=1), C)
    swarm.report(C, (complaint, A, UNREACHABLE))
    assert not swarm.barred(A)


def test_a_quarantined_node_is_no_source_and_may_download() -> None:
    swarm = Swarm(A, B, pieces=16)
    swarm.tell(HoldsAll(A, TASK))
    swarm.tell(Quarantined(A))
    assert {source for _, _, source, _ in granted(swarm.open(B, want=2))} == {SEED}
    swarm.tell(Quarantined(B))
    assert {source for _, _, source, _ in granted(swarm.report(B, want=2))} == {SEED}
    swarm.tell(Released(A))
    assert A in {source for _, _, source, _ in granted(swarm.report(B, want=4))}


def test_a_node_that_was_not_found_at_its_address_is_no_source_until_it_is_and_may_download() -> None:
    swarm = Swarm(B, C, pieces=16)
    swarm.tell(Joined(A, "", 0, located=False))
    swarm.tell(HoldsAll(A, TASK))
    swarm.tell(Released(A))
    assert {source for _, _, source, _ in granted(swarm.open(B, want=2))} == {SEED}
    swarm.tell(Joined(D, "", 0, located=False))
    assert granted(swarm.open(D, want=2))
    swarm.tell(Located(A))
    assert A in {source for _, _, source, _ in granted(swarm.open(C, want=4))}


def test_pieces_that_only_a_quarantined_node_has_are_sent_by_the_supernode_again() -> None:
    swarm = Swarm(A, B, pieces=1)
    swarm.open(A, want=1)
    swarm.report(A, (0, SEED, DELIVERED))
    swarm.tell(Quarantined(A))
    assert granted(swarm.open(B, want=1)) == [(B, 0, SEED, SEED)]


def test_whoever_starves_gets_a_repeat_from_the_supernode_though_the_blob_is_still_arriving() -> None:
    swarm = Swarm(A, B, C, pieces=3, seeded=0b1)
    swarm.open(A, have=0b1, want=0)
    swarm.open(B, want=1)
    assert granted(swarm.report(B, (0, A, CORRUPT), (0, SEED, STALLED), want=1)) == []
    assert granted(swarm.tick(Limits().retry_seconds + 1)) == [(B, 0, SEED, SEED)]


# Waiting and time.


def test_who_waits_is_told_so_while_the_blob_arrives_or_something_moves() -> None:
    swarm = Swarm(A, B, seeded=0)
    swarm.open(A)
    assert swarm.tick() == [KeepWaiting(A, TASK)]
    assert swarm.tick(0.1) == []
    assert swarm.tick() == [KeepWaiting(A, TASK)]


def test_who_waits_is_told_so_every_second_even_when_nothing_moves_for_silence_means_that_the_supernode_is_no_help() -> None:
    swarm = Swarm(A, pieces=1, limits=Limits(seed_slots_min=1, seed_slots_max=1, grant_seconds_max=1000.0))
    swarm.tell(Joined(B, "", 0))
    swarm.open(A, want=1)
    swarm.open(B, want=1)
    assert swarm.tick() == [KeepWaiting(B, TASK)]
    assert swarm.tick(20.0) == [KeepWaiting(B, TASK)]


def test_the_supernode_is_given_again_after_a_moment_which_grows_and_ends_when_a_piece_comes_from_it() -> None:
    """FAULTS 99."""
    swarm = Swarm(A, pieces=4)
    swarm.open(A, want=1)
    limits, pauses = Limits(), []
    for _ in range(4):
        swarm.report(A, *((piece, SEED, UNREACHABLE) for piece in range(4)), want=1)
        waited = 0.0
        while not swarm.tick(0.125) or not swarm.view.in_flight:
            waited += 0.125
        pauses.append(waited + 0.125)
    assert pauses[0] <= 2 * limits.seed_retry_seconds
    assert pauses == sorted(pauses)
    assert pauses[-1] <= limits.retry_seconds


def lose_the_supernode(swarm: Swarm) -> None:
    """Its pieces fail, for one taker after the other."""
    for node in range(50, 50 + Limits().seed_failures_max):
        swarm.tell(Joined(node, "", 0))
        (piece,) = pieces_of(swarm.open(node, want=1), node)
        swarm.report(node, (piece, SEED, UNREACHABLE))
        swarm.tell(Left(node))


def test_a_supernode_whose_pieces_reach_nobody_is_tried_by_one_taker_at_a_time_until_one_comes() -> None:
    swarm = Swarm(A, B, pieces=32)
    lose_the_supernode(swarm)
    ((_, piece, source, _),) = granted(swarm.open(A, want=4) + swarm.open(B, want=4))
    assert source == SEED
    swarm.report(A, (piece, SEED, DELIVERED), want=4)
    assert swarm.busy(SEED) > 1


def test_what_few_have_in_such_a_supernode_s_place_goes_out_before_what_readers_wait_for() -> None:
    common, rare = 0b01, 0b11
    for is_lost, first in ((False, 0), (True, 1)):
        swarm = Swarm(A, B, *range(10, 10 + FEW), pieces=2)
        if is_lost:
            lose_the_supernode(swarm)
        for node in range(10, 10 + FEW):
            swarm.open(node, have=common, want=0)
        swarm.open(A, have=rare, want=0)
        assert pieces_of(swarm.open(B, want=1, readers=(0,)), B) == [first]


def test_a_grant_that_is_never_reported_frees_its_slot_and_is_granted_again() -> None:
    swarm = Swarm(A, pieces=1)
    swarm.open(A, want=1)
    swarm.report(A, want=1)
    assert swarm.tick(Limits().grant_seconds_max) == []  # the supernode failed it: not at once
    assert (swarm.busy(SEED), swarm.view.in_flight) == (0, 0)
    assert granted(swarm.tick(Limits().retry_seconds)) == [(A, 0, SEED, SEED)]


def test_a_lost_grant_that_is_reported_in_the_end_is_believed() -> None:
    swarm = Swarm(A, pieces=1)
    swarm.open(A, want=1)
    swarm.tick(Limits().grant_seconds_max)
    swarm.report(A, (0, SEED, DELIVERED), want=1)
    assert swarm.view.holders == 1
    assert granted(swarm.tick(60.0)) == []


def test_a_lost_grant_that_is_reported_as_a_failure_in_the_end_counts_as_news() -> None:
    swarm = Swarm(A, B, pieces=3, seeded=0b11)
    swarm.open(A, want=2)
    swarm.tick(Limits().grant_seconds_max)
    swarm.tick(Limits().retry_seconds)
    (piece,) = pieces_of(swarm.report(A, want=1), A)
    assert pieces_of(swarm.report(A, (1 - piece, SEED, STALLED), want=1), A) == [1 - piece]


def test_a_taker_that_does_not_report_gives_its_slots_back_long_before_the_grant_is_lost() -> None:
    swarm = Swarm(A, B, pieces=64, limits=Limits(seed_slots_min=2, seed_slots_max=2))
    (first, _) = pieces_of(swarm.open(A, want=2), A)
    swarm.report(A, (first, SEED, DELIVERED), want=1, seconds=0.1)
    swarm.open(B, want=2)
    swarm.tick(Limits().slot_seconds_min + 1)
    assert swarm.view.in_flight > swarm.busy(SEED) > 0
    assert swarm.busy(SEED) <= 2


# Who comes and goes.


def test_a_node_that_leaves_frees_the_slots_that_it_took() -> None:
    swarm = Swarm(A, B, pieces=16)
    swarm.open(A, want=4)
    swarm.open(B, want=1)
    assert granted(swarm.tell(Left(A)))[0][0] == B
    assert list(swarm.scheduler.nodes) == [SEED, B]


def test_what_was_on_its_way_to_a_node_that_closes_goes_to_another() -> None:
    swarm = Swarm(A, B, pieces=2, seeded=0b1)
    swarm.open(A, want=1)
    assert swarm.open(B, want=1) == []
    assert granted(swarm.tell(Closed(A, TASK))) == [(B, 0, SEED, SEED)]


def test_a_node_that_closes_leaves_to_the_supernode_what_it_was_getting_from_a_quarantined_one() -> None:
    swarm = Swarm(A, B, C, pieces=2, seeded=0b1)
    swarm.open(A, have=0b1, want=0)
    swarm.open(B, want=1)
    swarm.tell(Quarantined(A))
    assert swarm.open(C, want=1) == []  # B is getting it
    assert granted(swarm.tell(Closed(B, TASK))) == [(C, 0, SEED, SEED)]


def test_a_swarm_that_ends_frees_the_slots_for_another() -> None:
    swarm = Swarm(A, pieces=16)
    swarm.tell(Made(8, 16, 0xFFFF))
    swarm.open(A, want=4)
    assert swarm.tell(Opened(A, 8, 0, (), 4)) == []
    assert len(granted(swarm.tell(Ended(TASK)))) == 4
    assert list(swarm.scheduler.swarms) == [8]


def test_a_free_slot_serves_every_swarm_that_waits() -> None:
    swarm = Swarm(A, pieces=64)
    swarm.tell(Made(8, 64, (1 << 64) - 1))
    flying = granted(swarm.open(A, want=16))
    swarm.tell(Opened(A, 8, 0, (), 16))
    served = set()
    for _ in range(30):
        _, piece, _, _ = flying.pop(0)
        for command in swarm.report(A, (piece, SEED, DELIVERED), want=12):
            assert isinstance(command, GrantPieces)
            served.add(command.task)
            flying += granted([command]) if command.task == TASK else []
        if not flying:
            break
    assert served == {TASK, 8}


def test_a_node_that_opens_anew_is_believed_what_it_has_now() -> None:
    swarm = Swarm(A, pieces=4)
    swarm.tell(HoldsAll(A, TASK))
    assert len(granted(swarm.open(A, have=0b1, want=4))) == 3


# Nonsense (row 39 of FAULTS.md).


def test_a_replayed_report_changes_nothing() -> None:
    swarm = Swarm(A, B, pieces=32)
    (piece, *_) = pieces_of(swarm.open(A, want=2), A)
    swarm.report(A, (piece, SEED, DELIVERED), want=1)
    before = views(swarm.scheduler)
    assert swarm.report(A, (piece, SEED, DELIVERED), want=1) == []
    assert views(swarm.scheduler) == before


@pytest.mark.parametrize(
    "event",
    [
        Left(99),
        Left(SEED),
        Quarantined(99),
        Quarantined(SEED),
        Released(A),
        Ended(99),
        Seeded(99, 0),
        Seeded(TASK, 8),
        Seeded(TASK, -1),
        Opened(99, TASK, 1, (), 4),
        Opened(SEED, TASK, 1, (), 4),
        Opened(A, 99, 1, (), 4),
        Reported(A, 99, ((0, SEED, 0.1, DELIVERED),), 4, ()),
        Reported(B, TASK, ((0, SEED, 0.1, DELIVERED),), 4, ()),
        Reported(A, TASK, ((8, SEED, 0.1, DELIVERED), (-1, 5, 0.1, STALLED)), 4, ()),
        Reported(A, TASK, ((0, 77, 0.1, CORRUPT),), 4, ()),
        Closed(B, TASK),
        HoldsAll(99, TASK),
        HoldsNone(B, TASK),
        HoldsNone(A, TASK),
        Made(TASK, 3, 0),
        Made(9, -1, 0),
        Made(9, 1 << 20, 0),
        Joined(A, "elsewhere", 1),
    ],
    ids=str,
)
def test_events_that_make_no_sense_change_nothing(event: Event) -> None:
    swarm = Swarm(A, B)
    swarm.open(A, want=4)
    before = views(swarm.scheduler)
    assert swarm.tell(event) == []
    assert views(swarm.scheduler) == before


def test_a_nodes_zone_may_become_known_later_as_far_as_zones_are_told_apart() -> None:
    swarm = Swarm(A, B, limits=Limits(zones_max=2))
    assert swarm.tell(Moved(A, "north")) == []
    assert swarm.tell(Moved(B, "south")) == []
    assert [swarm.scheduler.nodes[node].zone for node in (A, B)] == ["north", ""]
    before = views(swarm.scheduler)
    assert swarm.tell(Moved(99, "north")) == []
    assert swarm.tell(Moved(SEED, "north")) == []
    assert views(swarm.scheduler) == before


def test_what_a_report_claims_beyond_the_limits_is_cut() -> None:
    swarm = Swarm(A, pieces=64, limits=Limits(seed_slots_min=64, seed_slots_max=64, want_max=5, in_flight_max=7, window_min=7))
    assert len(granted(swarm.open(A, want=1 << 39))) == 5
    assert len(granted(swarm.report(A, want=1 << 39))) == 2


def test_a_blob_without_pieces_has_nothing_to_grant() -> None:
    swarm = Swarm(A, pieces=0)
    assert swarm.open(A) == []
    swarm.tell(Closed(A, TASK))
    assert swarm.view.takers == 0


@pytest.mark.parametrize(("offers", "least", "most"), [(0, 4, 16), (1, 1, 1), (5, 4, 5), (99, 4, 16)])
def test_a_supernode_with_a_limited_uplink_sends_no_more_pieces_at_once_than_it_offers(
    offers: int, least: int, most: int
) -> None:
    limits = Limits(upload_slots_max=5).for_seed(offers)
    assert (limits.seed_slots_min, limits.seed_slots_max, limits.upload_slots_max) == (least, most, 5)


def test_the_supernode_s_own_zone_and_slots_can_be_told() -> None:
    swarm = Swarm(A, pieces=64)
    swarm.tell(Joined(SEED, "x", 16))
    assert swarm.scheduler.nodes[SEED].zone == "x"
    swarm.tell(Joined(SEED, "x", 2))
    assert len(granted(swarm.open(A, want=4))) == 2


def test_a_piece_that_did_not_come_to_the_supernode_in_time_is_granted_again_after_a_second() -> None:
    swarm = Swarm(A, pieces=2, seeded=0b1)
    assert [piece for _, piece, *_ in granted(swarm.open(A, want=1))] == [0]
    assert granted(swarm.report(A, (0, SEED, MISSING), want=1)) == []
    assert granted(swarm.tick(Limits().coming_retry_seconds / 2)) == []
    assert [piece for _, piece, *_ in granted(swarm.tick(Limits().coming_retry_seconds))] == [0]
