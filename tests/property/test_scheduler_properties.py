"""The scheduler under every order of events that hypothesis thinks of, beside a model of what was granted and to whom.

The model is simple where the scheduler is quick: sets, and what is on its way. After each step the scheduler's books are counted
again from the beginning, and each grant is held against the rules; at the end everybody gets everything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.swarm.messages import CORRUPT, DELIVERED, MISSING, SEED, STALLED, UNREACHABLE
from hack.simulate.books import check_the_books
from supernode.scheduler.events import (
    COMMANDS_AFTER,
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
    Made,
    Opened,
    Quarantined,
    Released,
    Reported,
    Seeded,
    Tick,
)
from supernode.scheduler.limits import Limits
from supernode.scheduler.machine import Scheduler
from tests.scheduler import views

LIMITS = Limits(
    upload_slots_min=2, upload_slots_max=3, seed_slots_min=2, seed_slots_max=3, zones_max=3, in_flight_max=8, want_max=6
)

small = st.integers(0, 1 << 16)
"""Which of several things a step is about: taken modulo their number."""
verdicts = st.sampled_from((DELIVERED, DELIVERED, DELIVERED, UNREACHABLE, STALLED, CORRUPT, MISSING))


@dataclass
class Flight:
    source: int
    alternative: int
    since: float
    turned: bool = False


@dataclass
class Taker:
    """What the model knows of a node in a swarm."""

    have: set[int] = field(default_factory=set)
    offered: set[int] = field(default_factory=set)
    open: bool = False
    want: int = 0
    flights: dict[int, Flight] = field(default_factory=dict)


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.scheduler = Scheduler(Random(5), LIMITS)
        self.pieces: dict[int, int] = {}
        self.seeded: dict[int, set[int]] = {}
        self.takers: dict[tuple[int, int], Taker] = {}
        self.nodes: list[int] = []
        self.slots = {SEED: LIMITS.seed_slots_max}
        self.quarantined: set[int] = set()
        self.numbers = iter(range(1, 10_000))
        self.last_report: Reported | None = None

    # Telling, and holding each answer against the rules.

    def tell(self, event: Event) -> list[Command]:
        commands = self.scheduler.handle(event, self.now)
        for command in commands:
            assert type(command) in COMMANDS_AFTER[type(event)]
            if isinstance(command, GrantPieces):
                for piece, source, alternative in command.pieces:
                    self.granted(command.node, command.task, piece, source, alternative)
            else:
                assert isinstance(command, KeepWaiting)
                assert self.takers[command.node, command.task].want > 0
        return commands

    def granted(self, node: int, task: int, piece: int, source: int, alternative: int) -> None:
        taker = self.takers[node, task]
        assert taker.open
        assert piece in self.seeded[task]
        assert piece not in taker.have
        earlier = taker.flights.get(piece)
        assert earlier is None or self.now - earlier.since >= LIMITS.grant_seconds_max
        taker.want -= 1
        assert taker.want >= 0
        assert source != node != alternative
        for giver in (source, alternative):
            if giver != SEED:
                assert giver in self.nodes
                assert giver not in self.quarantined
                assert piece in self.takers[giver, task].offered
        taker.flights[piece] = Flight(source, alternative, self.now)
        assert len(taker.flights) <= LIMITS.in_flight_max

    def taker(self, which: int, need_open: bool = False) -> tuple[int, int, Taker] | None:
        known = [(node, task, taker) for (node, task), taker in self.takers.items() if taker.open or not need_open]
        return known[which % len(known)] if known else None

    def end(self, node: int, task: int, keep: bool) -> None:
        taker = self.takers[node, task]
        if keep:
            taker.open, taker.want = False, 0
            taker.flights.clear()
        else:
            del self.takers[node, task]

    # Steps.

    @initialize(nodes=st.integers(2, 5), pieces=st.integers(1, 12), seeded=small, holders=st.integers(0, 3))
    def begin(self, nodes: int, pieces: int, seeded: int, holders: int) -> None:
        """A swarm under way: without it most of the steps that are thought of have nothing to do."""
        for number in range(nodes):
            self.join("x" if number % 2 else "", 0)
        self.make(pieces, seeded | (1 << pieces) - 1 if seeded % 3 else seeded)
        for number in range(nodes):
            self.open(number, 0, (1 << pieces) - 1 if number < holders else 0, 4, [0])

    @precondition(lambda self: len(self.nodes) < 7)
    @rule(zone=st.sampled_from(("", "x", "y", "z")), slots=st.integers(0, 4))
    def join(self, zone: str, slots: int) -> None:
        number = next(self.numbers)
        self.nodes.append(number)
        self.slots[number] = min(slots or LIMITS.upload_slots_max, LIMITS.upload_slots_max)
        assert self.tell(Joined(number, zone, slots)) == []

    @precondition(lambda self: len(self.pieces) < 3)
    @rule(pieces=st.integers(0, 12), seeded=small)
    def make(self, pieces: int, seeded: int) -> None:
        task = next(self.numbers)
        self.pieces[task] = pieces
        self.seeded[task] = {piece for piece in range(pieces) if seeded >> piece & 1}
        assert self.tell(Made(task, pieces, seeded)) == []

    @precondition(lambda self: self.pieces)
    @rule(which=small, piece=small)
    def seed(self, which: int, piece: int) -> None:
        task = list(self.pieces)[which % len(self.pieces)]
        if self.pieces[task]:
            self.seeded[task].add(piece % self.pieces[task])
            self.tell(Seeded(task, piece % self.pieces[task]))

    @precondition(lambda self: self.nodes and self.pieces)
    @rule(node=small, which=small, have=small, want=st.integers(0, 8), readers=st.lists(st.integers(0, 14), max_size=3))
    def open(self, node: int, which: int, have: int, want: int, readers: list[int]) -> None:
        number = self.nodes[node % len(self.nodes)]
        task = list(self.pieces)[which % len(self.pieces)]
        taker = self.takers.setdefault((number, task), Taker())
        if not taker.open:
            taker.have, taker.offered = set(), set()
        stated = {piece for piece in range(self.pieces[task]) if have >> piece & 1}
        taker.have |= stated
        taker.offered |= stated
        taker.open = True
        taker.want = min(want, LIMITS.want_max, max(0, LIMITS.in_flight_max - len(taker.flights)))
        self.tell(Opened(number, task, have, tuple(readers), want))

    @precondition(lambda self: any(taker.flights for taker in self.takers.values()))
    @rule(which=small, choice=small, verdicts=st.lists(verdicts, min_size=1, max_size=6), window=st.integers(0, 8))
    def report(self, which: int, choice: int, verdicts: list[int], window: int) -> None:
        busy = [(node, task) for (node, task), taker in self.takers.items() if taker.flights]
        node, task = busy[which % len(busy)]
        taker = self.takers[node, task]
        done = []
        for verdict in verdicts:
            if not taker.flights:
                break
            piece = sorted(taker.flights)[choice % len(taker.flights)]
            flight = taker.flights[piece]
            source = flight.alternative if flight.turned else flight.source
            done.append((piece, source, 0.2, verdict))
            self.book(task, taker, piece, source, verdict)
        taker.want = max(0, min(window, LIMITS.want_max, LIMITS.in_flight_max - len(taker.flights)))
        self.last_report = Reported(node, task, tuple(done), window, ())
        self.tell(self.last_report)

    def book(self, task: int, taker: Taker, piece: int, source: int, verdict: int) -> None:
        flight = taker.flights[piece]
        if verdict == DELIVERED:
            taker.have.add(piece)
            taker.offered.add(piece)
        elif verdict == MISSING and (source, task) in self.takers:
            self.takers[source, task].offered.discard(piece)
        if verdict == DELIVERED or source == flight.alternative:
            del taker.flights[piece]
        else:
            flight.turned, flight.since = True, self.now

    @precondition(lambda self: self.last_report is not None)
    @rule()
    def replay(self) -> None:
        report = self.last_report
        assert report
        taker = self.takers.get((report.node, report.task))
        pieces = {line[0] for line in report.done}
        if taker and taker.open and (taker.flights or taker.want) and not pieces & taker.flights.keys() and pieces <= taker.have:
            before = views(self.scheduler)
            assert self.tell(report) == []
            assert views(self.scheduler) == before

    @precondition(lambda self: self.takers)
    @rule(which=small, how=st.sampled_from(("close", "all", "none")))
    def hold(self, which: int, how: str) -> None:
        found = self.taker(which)
        if found is None:
            return
        node, task, taker = found
        if how == "close":
            if taker.open:
                self.end(node, task, keep=taker.have == set(range(self.pieces[task])))
            self.tell(Closed(node, task))
        elif how == "all":
            self.end(node, task, keep=True)
            taker.have = set(range(self.pieces[task]))
            taker.offered = set(taker.have)
            self.tell(HoldsAll(node, task))
        else:
            if not taker.open:
                self.end(node, task, keep=False)
            self.tell(HoldsNone(node, task))

    @precondition(lambda self: self.nodes)
    @rule(which=small, how=st.sampled_from(("leave", "quarantine", "release")))
    def change(self, which: int, how: str) -> None:
        node = self.nodes[which % len(self.nodes)]
        if how == "leave":
            self.nodes.remove(node)
            self.quarantined.discard(node)
            for number, task in list(self.takers):
                if number == node:
                    self.end(node, task, keep=False)
            self.tell(Left(node))
        elif how == "quarantine":
            self.quarantined.add(node)
            self.tell(Quarantined(node))
        else:
            self.quarantined.discard(node)
            self.tell(Released(node))

    @precondition(lambda self: self.pieces)
    @rule(which=small)
    def finish(self, which: int) -> None:
        task = list(self.pieces)[which % len(self.pieces)]
        del self.pieces[task], self.seeded[task]
        for node, number in list(self.takers):
            if number == task:
                self.end(node, task, keep=False)
        self.tell(Ended(task))

    @rule(seconds=st.sampled_from((0.1, 1.0, 5.0, 40.0)))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Tick())
        for taker in self.takers.values():
            for piece, flight in list(taker.flights.items()):
                if self.now - flight.since >= LIMITS.grant_seconds_max:
                    del taker.flights[piece]  # lost; the node says no more of it

    @rule(node=st.integers(-1, 99), task=st.integers(-1, 99), piece=st.integers(-2, 20), verdict=st.integers(0, 4))
    def nonsense(self, node: int, task: int, piece: int, verdict: int) -> None:
        if (node, task) not in self.takers:
            assert self.tell(Reported(node, task, ((piece, 0, -1.0, verdict),), 9, (-5, 1 << 50))) == []
            assert self.tell(Closed(node, task)) == []
            assert self.tell(HoldsNone(node, task)) == []

    # What always holds.

    @invariant()
    def no_source_is_above_its_slots(self) -> None:
        young: dict[int, int] = {}
        for taker in self.takers.values():
            for flight in taker.flights.values():
                if not flight.turned and self.now - flight.since < LIMITS.slot_seconds_min:
                    young[flight.source] = young.get(flight.source, 0) + 1
        for number, node in self.scheduler.nodes.items():
            assert young.get(number, 0) <= node.busy <= self.slots[number]

    @invariant()
    def the_books_are_right(self) -> None:
        check_the_books(self.scheduler)

    def teardown(self) -> None:
        """Everybody who goes on gets everything that the supernode has."""
        for node in list(self.quarantined):
            self.quarantined.discard(node)
            self.tell(Released(node))
        for _ in range(60):
            for (node, task), taker in self.takers.items():
                if taker.open:
                    done = tuple((piece, flight.source, 0.2, DELIVERED) for piece, flight in taker.flights.items())
                    for piece, *_ in done:
                        self.book(task, taker, piece, SEED, DELIVERED)
                    taker.want = LIMITS.want_max
                    self.tell(Reported(node, task, done, LIMITS.want_max, ()))
            self.tick(1.0)
        for (_, task), taker in self.takers.items():
            assert not taker.open or self.seeded[task] <= taker.have


TestTheScheduler = Model.TestCase
TestTheScheduler.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
