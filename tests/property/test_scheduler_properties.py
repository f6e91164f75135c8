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

from agent.swarm.messages import (
    CORRUPT,
    DELIVERED,
    MISSING,
    RUN_FAILED,
    RUN_NO_RANGES,
    RUN_REFUSED,
    RUN_TOO_MANY,
    RUN_WHOLE,
    SEED,
    STALLED,
    UNREACHABLE,
)
from hack.simulate.books import check_the_books
from supernode.scheduler.events import (
    COMMANDS_AFTER,
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
    KeepWaiting,
    Left,
    Located,
    Made,
    MayFetch,
    Moved,
    Opened,
    Overdue,
    Quarantined,
    Released,
    Reported,
    RunOver,
    Seeded,
    Stopped,
    Tick,
)
from supernode.scheduler.limits import Limits
from supernode.scheduler.machine import Scheduler
from supernode.scheduler.matching import shuns
from tests.scheduler import views

LIMITS = Limits(
    upload_slots_min=2,
    upload_slots_max=3,
    seed_slots_min=2,
    seed_slots_max=3,
    zones_max=3,
    in_flight_max=8,
    want_max=6,
    head_pieces_min=4,
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
class Run:
    first: int
    end: int
    left: set[int]


@dataclass
class Taker:
    """What the model knows of a node in a swarm."""

    have: set[int] = field(default_factory=set)
    offered: set[int] = field(default_factory=set)
    open: bool = False
    want: int = 0
    flights: dict[int, Flight] = field(default_factory=dict)
    origin: int = 0
    """The registry that it may ask; 0 for none."""
    denied: int = 0
    runs: list[Run] = field(default_factory=list)


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.scheduler = Scheduler(Random(5), LIMITS)
        self.pieces: dict[int, int] = {}
        self.seeded: dict[int, set[int]] = {}
        self.overdue: set[int] = set()
        """Tasks of which the supernode sends too slowly what it has."""
        self.named: dict[int, set[int]] = {}
        """What nodes have brought from their origins."""
        self.takers: dict[tuple[int, int], Taker] = {}
        self.nodes: list[int] = []
        self.slots = {SEED: LIMITS.seed_slots_max}
        self.quarantined: set[int] = set()
        self.unlocated: set[int] = set()
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
            elif isinstance(command, GrantRun):
                self.run_granted(command)
            else:
                assert isinstance(command, KeepWaiting)
                assert self.takers[command.node, command.task].want > 0
        return commands

    def granted(self, node: int, task: int, piece: int, source: int, alternative: int) -> None:
        taker = self.takers[node, task]
        assert taker.open
        assert piece in self.seeded[task] | self.named[task]
        assert piece not in taker.have
        earlier = taker.flights.get(piece)
        assert earlier is None or self.now - earlier.since >= LIMITS.grant_seconds_max
        taker.want -= 1
        assert taker.want >= 0
        assert source != node != alternative
        for giver in (source, alternative):
            if giver != SEED:
                assert giver in self.nodes
                assert giver not in self.quarantined | self.unlocated
                assert piece in self.takers[giver, task].offered
        taker.flights[piece] = Flight(source, alternative, self.now)
        assert len(taker.flights) <= LIMITS.in_flight_max

    def run_granted(self, grant: GrantRun) -> None:
        taker, link = self.takers[grant.node, grant.task], self.scheduler.origins
        assert taker.open
        assert taker.origin, "it may ask an origin"
        assert grant.node not in self.quarantined
        assert 0 <= grant.first < grant.end <= self.pieces[grant.task]
        assert len(taker.runs) <= 1, "one run, and one ahead"
        pieces = set(range(grant.first, grant.end))
        if link[taker.origin].is_whole:
            assert grant.end == self.pieces[grant.task]
        else:
            assert not any(taker.denied >> piece & 1 for piece in pieces)
            members = self.scheduler.swarms[grant.task].members
            shown = [
                number for number, _ in self.members(grant.task) if not self.is_barred(number) and not members[number].on_trial
            ]
            here = set().union(*(self.takers[number, grant.task].offered for number in shown))
            prompt = self.seeded[grant.task] if grant.task not in self.overdue else set()
            assert not pieces & (prompt | here), "nobody has it, but a supernode that is too slow"
        assert self.now >= link[taker.origin].pause_until
        taker.runs.append(Run(grant.first, grant.end, pieces))

    def members(self, task: int) -> list[tuple[int, Taker]]:
        return [(node, taker) for (node, number), taker in self.takers.items() if number == task]

    def is_barred(self, node: int) -> bool:
        return self.scheduler.nodes[node].barred

    def taker(self, which: int, need_open: bool = False) -> tuple[int, int, Taker] | None:
        known = [(node, task, taker) for (node, task), taker in self.takers.items() if taker.open or not need_open]
        return known[which % len(known)] if known else None

    def end(self, node: int, task: int, keep: bool) -> None:
        taker = self.takers[node, task]
        if keep:
            taker.open, taker.want, taker.origin, taker.denied = False, 0, 0, 0
            taker.flights.clear()
            taker.runs.clear()
        else:
            del self.takers[node, task]

    # Steps.

    @initialize(nodes=st.integers(2, 5), pieces=st.integers(1, 12), seeded=small, holders=st.integers(0, 3))
    def begin(self, nodes: int, pieces: int, seeded: int, holders: int) -> None:
        """A swarm under way: without it most of the steps that are thought of have nothing to do."""
        for number in range(nodes):
            self.join("x" if number % 2 else "", 0, located=True)
        self.make(pieces, seeded | (1 << pieces) - 1 if seeded % 3 else seeded)
        for number in range(nodes):
            self.open(number, 0, (1 << pieces) - 1 if number < holders else 0, 4, [0])
        for number in range(nodes if seeded % 2 else 0):
            self.may_fetch(number, 1 + number % 2, 0)

    @precondition(lambda self: len(self.nodes) < 7)
    @rule(zone=st.sampled_from(("", "x", "y", "z")), slots=st.integers(0, 4), located=st.booleans())
    def join(self, zone: str, slots: int, located: bool) -> None:
        number = next(self.numbers)
        self.nodes.append(number)
        self.slots[number] = min(slots or LIMITS.upload_slots_max, LIMITS.upload_slots_max)
        if not located:
            self.unlocated.add(number)
        assert self.tell(Joined(number, zone, slots, located)) == []

    @precondition(lambda self: self.nodes)
    @rule(which=small, zone=st.sampled_from(("", "x", "y", "z")))
    def move(self, which: int, zone: str) -> None:
        assert self.tell(Moved(self.nodes[which % len(self.nodes)], zone)) == []

    @precondition(lambda self: len(self.pieces) < 3)
    @rule(pieces=st.integers(0, 12), seeded=small)
    def make(self, pieces: int, seeded: int) -> None:
        task = next(self.numbers)
        self.pieces[task] = pieces
        self.seeded[task] = {piece for piece in range(pieces) if seeded >> piece & 1}
        self.named[task] = set()
        assert self.tell(Made(task, pieces, seeded)) == []

    @precondition(lambda self: self.pieces)
    @rule(which=small, piece=small)
    def seed(self, which: int, piece: int) -> None:
        task = list(self.pieces)[which % len(self.pieces)]
        if self.pieces[task]:
            self.seeded[task].add(piece % self.pieces[task])
            self.tell(Seeded(task, piece % self.pieces[task]))

    @precondition(lambda self: self.pieces)
    @rule(which=small)
    def be_overdue(self, which: int) -> None:
        task = list(self.pieces)[which % len(self.pieces)]
        self.overdue.add(task)
        self.tell(Overdue(task))

    @precondition(lambda self: self.pieces)
    @rule(which=small)
    def stop(self, which: int) -> None:
        assert self.tell(Stopped(list(self.pieces)[which % len(self.pieces)])) == []

    @precondition(lambda self: self.pieces)
    @rule(which=small)
    def have_no_more_time_for_heads(self, which: int) -> None:
        self.tell(HeadTime(list(self.pieces)[which % len(self.pieces)]))

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

    @precondition(lambda self: self.taker(0, need_open=True))
    @rule(which=small, origin=st.integers(1, 2), denied=st.sampled_from((0, 0, 0b101)))
    def may_fetch(self, which: int, origin: int, denied: int) -> None:
        found = self.taker(which, need_open=True)
        if found is None:
            return
        node, task, taker = found
        if origin != taker.origin:
            taker.runs.clear()
        taker.origin, taker.denied = origin, denied
        self.tell(MayFetch(node, task, origin, denied))

    @precondition(lambda self: any(taker.runs for taker in self.takers.values()))
    @rule(which=small, count=st.integers(1, 3))
    def bring(self, which: int, count: int) -> None:
        """The next pieces of a run."""
        node, task, taker = self.runner(which)
        self.brought(node, task, taker, set(sorted(taker.runs[0].left)[:count]))

    def runner(self, which: int) -> tuple[int, int, Taker]:
        running = [(node, task, taker) for (node, task), taker in self.takers.items() if taker.runs]
        return running[which % len(running)]

    def brought(self, node: int, task: int, taker: Taker, pieces: set[int]) -> None:
        for run in taker.runs:
            run.left -= pieces
        taker.have |= pieces
        taker.offered |= pieces
        self.named[task] |= pieces
        self.tell(Fetched(node, task, sum(1 << piece for piece in pieces)))

    @precondition(lambda self: self.taker(0))
    @rule(which=small, pieces=small)
    def bring_anything(self, which: int, pieces: int) -> None:
        """A node beside the swarm, or one that describes what it holds, brings what it was not granted."""
        found = self.taker(which)
        if found:
            node, task, taker = found
            self.brought(node, task, taker, {piece for piece in range(self.pieces[task]) if pieces >> piece & 1})

    @precondition(lambda self: any(taker.runs for taker in self.takers.values()))
    @rule(
        which=small,
        outcome=st.sampled_from((RUN_WHOLE, RUN_WHOLE, RUN_FAILED, RUN_REFUSED, RUN_TOO_MANY, RUN_NO_RANGES)),
        pause=st.sampled_from((0.0, 0.0, 3.0)),
    )
    def end_run(self, which: int, outcome: int, pause: float) -> None:
        node, task, taker = self.runner(which)
        run = taker.runs.pop(0)
        if outcome == RUN_WHOLE:
            taker.denied |= sum(1 << piece for piece in run.left)
        self.tell(RunOver(node, task, run.first, outcome, pause))

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
        readers = (choice % self.pieces[task],) if choice % 2 else ()
        self.last_report = Reported(node, task, tuple(done), window, readers)
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
        if taker is None or not taker.open:
            return
        member = self.scheduler.swarms[report.task].members[report.node]
        if (member.flights or member.want) and not pieces & taker.flights.keys() and pieces <= taker.have:
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
    @rule(which=small, how=st.sampled_from(("leave", "quarantine", "release", "locate")))
    def change(self, which: int, how: str) -> None:
        node = self.nodes[which % len(self.nodes)]
        if how == "leave":
            self.nodes.remove(node)
            self.quarantined.discard(node)
            self.unlocated.discard(node)
            for number, task in list(self.takers):
                if number == node:
                    self.end(node, task, keep=False)
            self.tell(Left(node))
        elif how == "quarantine":
            self.quarantined.add(node)
            self.tell(Quarantined(node))
        elif how == "locate":
            self.unlocated.discard(node)
            self.tell(Located(node))
        else:
            self.quarantined.discard(node)
            self.tell(Released(node))

    @precondition(lambda self: self.pieces)
    @rule(which=small)
    def finish(self, which: int) -> None:
        task = list(self.pieces)[which % len(self.pieces)]
        del self.pieces[task], self.seeded[task], self.named[task]
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
            assert self.tell(MayFetch(node, task, 1, 0)) == []
            assert self.tell(Fetched(node, task, 1 << max(piece, 0))) == []
            assert self.tell(RunOver(node, task, piece, verdict)) == []

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
        for node in list(self.unlocated):
            self.unlocated.discard(node)
            self.tell(Located(node))
        for _ in range(60):
            for (node, task), taker in list(self.takers.items()):
                self.carry_out_runs(node, task, taker)
                if taker.open:
                    done = tuple((piece, flight.source, 0.2, DELIVERED) for piece, flight in taker.flights.items())
                    for piece, *_ in done:
                        self.book(task, taker, piece, SEED, DELIVERED)
                    taker.want = LIMITS.want_max
                    self.tell(Reported(node, task, done, LIMITS.want_max, ()))
            self.tick(1.0)
        self.nothing_is_left_to_do()

    def carry_out_runs(self, node: int, task: int, taker: Taker) -> None:
        while taker.runs:
            self.brought(node, task, taker, set(taker.runs[0].left))
            run = taker.runs.pop(0)
            self.tell(RunOver(node, task, run.first, RUN_WHOLE))

    def nothing_is_left_to_do(self) -> None:
        for task, swarm in self.scheduler.swarms.items():
            assert not swarm.runs, "every run is over"
            for fetcher in swarm.fetchers.some(0.0, len(swarm.fetchers)):
                lacks = swarm.unclaimed & ~(fetcher.denied | fetcher.have)
                assert not lacks, "whoever may fetch has fetched what nobody had"
            for node, taker in self.members(task):
                there = swarm.seeded
                for holder in swarm.holders.some(0.0, len(swarm.holders)):
                    if not shuns(swarm.members[node], holder.node.number, self.now):  # for wrong bytes, that is for ever
                        there |= holder.offered & swarm.known
                assert not taker.open or {piece for piece in range(swarm.count) if there >> piece & 1} <= taker.have


TestTheScheduler = Model.TestCase
TestTheScheduler.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
