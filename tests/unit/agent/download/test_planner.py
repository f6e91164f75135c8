"""The planner, step by step: which source is asked next, for how long, what is fetched from it and what is reported."""

from __future__ import annotations

import pytest

from agent.download.events import (
    Broken,
    Command,
    Confirm,
    Event,
    Fetch,
    FetchOrigin,
    GiveUp,
    Idle,
    News,
    Order,
    OriginEnded,
    OriginPiece,
    ReadersMoved,
    SizeKnown,
    Superseded,
)
from agent.download.inflight import PUT_OFF_SECONDS_MAX, REPORT_EVERY, REPORT_SECONDS_MAX, WINDOW
from agent.download.planner import (
    CARRIED_MIN,
    EVIDENCE_SECONDS,
    IDLE_SECONDS_MAX,
    LEAVE_SECONDS,
    OPEN_SECONDS_MAX,
    ORIGIN_TRIES_MAX,
    PIECE_SECONDS_MAX,
    REFUSALS_MAX,
    REOPEN_SECONDS,
    STEPS,
    SWARM_TRIES_MAX,
    TURN_SECONDS_MAX,
    Mode,
    Planner,
    Trouble,
)
from agent.swarm import messages
from agent.swarm.messages import (
    BATCH_MAX,
    DELIVERED,
    RUN_FAILED,
    RUN_NO_RANGES,
    RUN_REFUSED,
    RUN_TOO_MANY,
    RUN_WHOLE,
    AskLeave,
    Brought,
    Done,
    Grant,
    Granted,
    Leave,
    Report,
    Run,
    RunEnded,
    Seeding,
    Task,
    TaskFailed,
)
from agent.values.errors import DigestError, OriginError, RangesError
from agent.values.pieces import PIECE_BYTES_MIN, Layout

PIECES = 64
BROKEN = OriginError(502, "the connection broke")
REFUSED = OriginError(404, "no such blob")
FAILED = TaskFailed(0, 1, 502, "the origin refuses", corrupt=False)
SEEDING = Seeding(1)
FAST = 10
"""Milliseconds of a piece that takes hardly longer than a round trip."""


class Download:
    """A planner and the clock it is told. What it says is returned."""

    def __init__(self, swarm: bool = True, held: int = 0, pieces: int = PIECES) -> None:
        self.layout = Layout(pieces * PIECE_BYTES_MIN, PIECE_BYTES_MIN)
        self.planner = Planner()
        self.now = 100.0
        self.task = 0
        self.first = self.planner.start(swarm, self.now)
        self.held = held

    def hear(self, event: Event, after: float = 0.0) -> list[Command]:
        self.now += after
        self.task = event.task if isinstance(event, Task) else self.task
        return self.planner.handle(event, self.now)

    def wait(self) -> tuple[float, list[Command]]:
        """Until the planner's own deadline: how long that was, and what it says then."""
        assert self.planner.deadline is not None
        seconds = self.planner.deadline - self.now
        return round(seconds, 6), self.hear(News.TIME_PASSED, seconds)

    def join(self) -> list[Command]:
        self.hear(SizeKnown(self.layout, self.held))
        return self.hear(opened(1))

    def grant(self, *pieces: int, source: int = 7, alternative: int = 8) -> list[Command]:
        return self.hear(Grant(self.task, [granted(piece, source, alternative) for piece in pieces]))

    def be_fast(self) -> None:
        """Some pieces come so fast that the window grows."""
        for piece in range(PIECES // 2, PIECES // 2 + 12):
            self.grant(piece)
            self.hear(Done(piece, 7, FAST, DELIVERED))


def opened(task: int) -> Task:
    """The supernode's answer: this node takes part."""
    return Task(1, task, PIECES * PIECE_BYTES_MIN, PIECE_BYTES_MIN, {})


def report(*done: Done, window: int = WINDOW, task: int = 1) -> Report:
    return Report(task, list(done), window, [])


def granted(piece: int, source: int = 7, alternative: int = 8) -> Granted:
    return Granted(piece, bytes([piece]) * 32, source, alternative)


def came(piece: int) -> OriginPiece:
    return OriginPiece(piece, bytes([piece]) * 32)


def brought(*pieces: int, task: int = 1) -> Brought:
    return Brought(task, {piece: bytes([piece]) * 32 for piece in pieces})


def fetch(piece: int, source: int = 7) -> Fetch:
    return Fetch(piece, bytes([piece]) * 32, source)


@pytest.fixture
def swarm() -> Download:
    """A download that has just joined a swarm."""
    download = Download()
    download.join()
    return download


@pytest.fixture
def origin() -> Download:
    """A download without a supernode, whose origin has begun to stream."""
    download = Download(swarm=False)
    download.hear(SizeKnown(download.layout, 0))
    return download


def walked(*events: Event | float, swarm: bool = True) -> list[tuple[Mode, Mode]]:
    """The steps that a planner takes as these events happen; a number stands for so many seconds."""
    steps: list[tuple[Mode, Mode]] = []

    class Watched(Planner):
        def _enter(self, mode: Mode, now: float) -> None:
            steps.append((self.mode, mode))
            super()._enter(mode, now)

    now, watched = 0.0, Watched()
    watched.start(swarm, now)
    for event in events:
        now += event if isinstance(event, float) else 0.0
        watched.handle(News.TIME_PASSED if isinstance(event, float) else event, now)
    return steps


# The ladder.


WAIT, OPEN, SWARM, BESIDE, ORIGIN, END = Mode
SIZE = SizeKnown(Layout(PIECE_BYTES_MIN, PIECE_BYTES_MIN), 0)
WALKS = [
    (walked(), [(WAIT, OPEN)]),
    (walked(swarm=False), [(WAIT, ORIGIN)]),
    (walked(News.NO_SWARM, SizeKnown(SIZE.layout, 1)), [(WAIT, OPEN), (OPEN, WAIT), (WAIT, END)]),
    (walked(News.NO_SWARM, REOPEN_SECONDS), [(WAIT, OPEN), (OPEN, WAIT), (WAIT, ORIGIN)]),
    (walked(News.SWARM_LOST, FAILED), [(WAIT, OPEN), (OPEN, OPEN), (OPEN, ORIGIN)]),
    (walked(OPEN_SECONDS_MAX), [(WAIT, OPEN), (OPEN, ORIGIN)]),
    (walked(SIZE, came(0)), [(WAIT, OPEN), (OPEN, END)]),
    (walked(opened(1), News.SWARM_LOST), [(WAIT, OPEN), (OPEN, SWARM), (SWARM, OPEN)]),
    (walked(opened(1), FAILED), [(WAIT, OPEN), (OPEN, SWARM), (SWARM, ORIGIN)]),
    (walked(opened(1), EVIDENCE_SECONDS, OriginEnded(REFUSED)), [(WAIT, OPEN), (OPEN, SWARM), (SWARM, BESIDE), (BESIDE, SWARM)]),
    (walked(opened(1), EVIDENCE_SECONDS, FAILED), [(WAIT, OPEN), (OPEN, SWARM), (SWARM, BESIDE), (BESIDE, ORIGIN)]),
    (walked(opened(1), EVIDENCE_SECONDS, SIZE, came(0)), [(WAIT, OPEN), (OPEN, SWARM), (SWARM, BESIDE), (BESIDE, END)]),
    (walked(opened(1), SIZE, Done(0, 7, 1000, DELIVERED)), [(WAIT, OPEN), (OPEN, SWARM), (SWARM, END)]),
    (walked(News.SWARM_AVAILABLE, opened(1), swarm=False), [(WAIT, ORIGIN), (ORIGIN, SWARM)]),
    (walked(News.SWARM_AVAILABLE, OriginEnded(REFUSED), FAILED, swarm=False), [(WAIT, ORIGIN), (ORIGIN, OPEN), (OPEN, END)]),
    (walked(News.SWARM_AVAILABLE, FAILED, swarm=False), [(WAIT, ORIGIN), (ORIGIN, ORIGIN)]),
    (walked(OriginEnded(REFUSED), swarm=False), [(WAIT, ORIGIN), (ORIGIN, END)]),
]


@pytest.mark.parametrize(("taken", "expected"), WALKS)
def test_a_download_goes_up_and_down_the_ladder(taken: list[tuple[Mode, Mode]], expected: list[tuple[Mode, Mode]]) -> None:
    assert taken == expected


def test_every_step_of_the_table_is_taken_by_something_that_happens() -> None:
    assert {step for _, expected in WALKS for step in expected} == STEPS.keys()


@pytest.mark.parametrize("before", [(), (opened(1),), (News.NO_SWARM,)])
def test_a_node_that_cannot_go_on_gives_up_from_any_mode(before: tuple[Event, ...]) -> None:
    download = Download()
    for event in before:
        download.hear(event)
    assert download.hear(Broken(BROKEN)) == [GiveUp(BROKEN)]
    assert download.planner.mode is Mode.ENDED


def test_a_blob_that_does_not_have_its_digest_is_given_up_and_not_asked_for_elsewhere(swarm: Download) -> None:
    (given_up,) = swarm.hear(TaskFailed(0, 1, 502, "it is another", corrupt=True))
    assert isinstance(given_up, GiveUp)
    assert isinstance(given_up.error, DigestError)
    assert swarm.planner.mode is Mode.ENDED


def test_the_swarm_is_asked_first_and_the_origin_not_at_all() -> None:
    download = Download()
    assert download.first == [Order.OPEN_SWARM]
    assert download.join() == [report()]
    assert download.planner.mode is Mode.SWARM


def test_without_a_supernode_the_origin_is_asked_at_once() -> None:
    assert Download(swarm=False).first == [FetchOrigin(0, None)]


def test_a_swarm_that_fails_goes_to_the_origin_at_once(swarm: Download) -> None:
    assert swarm.hear(FAILED) == [Order.LEAVE_SWARM, FetchOrigin(0, None)]


def test_when_a_supernode_is_lost_the_next_one_is_asked_at_once(swarm: Download) -> None:
    assert swarm.hear(News.SWARM_LOST) == [Order.OPEN_SWARM]
    assert swarm.hear(opened(2)) == [report(task=2)]


def test_a_lost_supernode_is_waited_for_3_s_and_then_the_origin_is_asked(swarm: Download) -> None:
    swarm.hear(News.SWARM_LOST)
    assert swarm.hear(News.NO_SWARM) == []
    assert swarm.planner.mode is Mode.WAITING
    assert swarm.wait() == (REOPEN_SECONDS, [FetchOrigin(0, None)])


def test_a_supernode_that_comes_back_in_time_is_asked_again(swarm: Download) -> None:
    swarm.hear(News.SWARM_LOST)
    swarm.hear(News.NO_SWARM)
    assert swarm.hear(News.SWARM_AVAILABLE, after=REOPEN_SECONDS - 0.1) == [Order.OPEN_SWARM]
    assert swarm.planner.mode is Mode.OPENING


def test_beside_a_supernode_that_says_nothing_the_origin_streams_after_3_s_and_the_answer_is_waited_for() -> None:
    download = Download()
    assert download.wait() == (EVIDENCE_SECONDS, [FetchOrigin(0, None)])
    assert download.planner.trouble is Trouble.SILENT
    assert download.join() == [Order.LEAVE_ORIGIN, report()]
    assert download.planner.trouble is None


def test_a_supernode_that_does_not_answer_is_left_in_time_for_the_runtime() -> None:
    download = Download()
    download.wait()
    assert download.wait() == (OPEN_SECONDS_MAX - EVIDENCE_SECONDS, [Order.LEAVE_SWARM])
    assert download.join() == [], "an answer that comes after the question was given up changes nothing"
    assert download.planner.mode is Mode.ORIGIN


def test_a_supernode_that_waits_for_the_blobs_size_and_says_so_is_waited_for() -> None:
    download = Download()
    for _ in range(int(OPEN_SECONDS_MAX) - 1):
        assert download.hear(Seeding(0, 1), after=1.0) == []
    assert download.planner.mode is Mode.OPENING
    assert download.wait() == (1.0, [Order.LEAVE_SWARM, FetchOrigin(0, None)])


def test_a_supernode_that_was_silent_lately_is_asked_beside_the_origin_at_once() -> None:
    planner = Planner()
    assert planner.start(True, 0.0, is_silent=True) == [Order.OPEN_SWARM, FetchOrigin(0, None)]
    assert planner.handle(opened(1), 1.0)[0] is Order.LEAVE_ORIGIN


def test_a_supernode_that_did_not_get_a_blob_of_that_registry_lately_is_waited_for_3_s_while_the_origin_streams() -> None:
    planner = Planner()
    planner.start(True, 0.0, is_slow=True)
    assert planner.handle(Seeding(0, 1), 2.0) == []
    assert planner.deadline == EVIDENCE_SECONDS
    assert planner.handle(News.TIME_PASSED, EVIDENCE_SECONDS) == [FetchOrigin(0, None)]
    assert planner.trouble is Trouble.SLOW
    assert planner.handle(opened(1), 5.0)[0] is Order.LEAVE_ORIGIN
    assert planner.trouble is None


# The origin beside the swarm.


def fail(download: Download, times: int, verdict: int = messages.UNREACHABLE) -> list[Command]:
    """So many sources fail, one after the other. What is said at last."""
    said: list[Command] = []
    for _ in range(times):
        download.grant(0, alternative=7)
        said = download.hear(Done(0, 7, 0, verdict))
    return said


def test_beside_a_silent_swarm_the_origin_streams_after_3_s_without_asking(swarm: Download) -> None:
    assert swarm.wait() == (EVIDENCE_SECONDS, [FetchOrigin(0, None)])
    assert (swarm.planner.mode, swarm.planner.trouble) == (Mode.BESIDE, Trouble.SILENT)


def test_a_supernode_that_was_silent_is_asked_for_leave_when_it_speaks_again_and_most_nodes_go_back(swarm: Download) -> None:
    """It may have been silent to thousands of nodes, because it had more to do than it could."""
    swarm.wait()
    assert swarm.hear(SEEDING, after=0.5) == [AskLeave(1)]
    assert swarm.hear(SEEDING, after=1.0) == []
    assert swarm.hear(Leave(1, given=False)) == [Order.LEAVE_ORIGIN]
    assert (swarm.planner.mode, swarm.planner.trouble) == (Mode.SWARM, None)


def test_a_few_of_the_nodes_that_a_supernode_was_silent_to_stay_at_the_origin(swarm: Download) -> None:
    swarm.wait()
    swarm.hear(SEEDING, after=0.5)
    assert swarm.hear(Leave(1, given=True)) == []
    assert swarm.planner.mode is Mode.BESIDE
    assert swarm.hear(SEEDING, after=1.0) == []


def test_a_node_that_went_to_the_origin_with_leave_is_not_sent_back(swarm: Download) -> None:
    fail(swarm, REFUSALS_MAX)
    swarm.hear(Leave(1, given=True))
    assert swarm.hear(SEEDING, after=1.0) == []
    assert swarm.hear(Leave(1, given=False)) == [], "the answer to no question"
    assert swarm.planner.mode is Mode.BESIDE


def test_four_refusals_in_a_row_are_evidence_and_leave_is_asked_for(swarm: Download) -> None:
    assert AskLeave(1) not in fail(swarm, REFUSALS_MAX - 1)
    assert AskLeave(1) in fail(swarm, 1)
    assert swarm.planner.trouble is Trouble.FAILING
    assert swarm.hear(Leave(1, given=True)) == [FetchOrigin(0, None)]
    assert swarm.planner.mode is Mode.BESIDE


def test_a_node_that_fails_with_all_that_was_asked_of_it_is_one_source_that_failed(swarm: Download) -> None:
    swarm.grant(*range(2 * REFUSALS_MAX), alternative=7)
    assert not any(AskLeave(1) in swarm.hear(Done(piece, 7, 0, messages.CORRUPT)) for piece in range(2 * REFUSALS_MAX))
    assert AskLeave(1) not in fail(swarm, REFUSALS_MAX - 2)
    assert AskLeave(1) in fail(swarm, 1)


def test_each_of_four_nodes_that_fail_together_is_a_source_that_failed(swarm: Download) -> None:
    pieces = range(1, REFUSALS_MAX + 1)
    for piece in pieces:
        swarm.grant(piece, source=10 + piece, alternative=10 + piece)
    said = [AskLeave(1) in swarm.hear(Done(piece, 10 + piece, 0, messages.MISSING)) for piece in pieces]
    assert said == [False] * (REFUSALS_MAX - 1) + [True]


def test_one_failure_is_evidence_after_3_s_without_a_piece(swarm: Download) -> None:
    swarm.hear(SEEDING, after=2.0)
    fail(swarm, 1)
    swarm.hear(SEEDING, after=2.0)
    swarm.grant(5)
    assert swarm.wait() == (1.0, [AskLeave(1)])


def test_pieces_that_come_slowly_are_no_evidence(swarm: Download) -> None:
    swarm.grant(0, 1)
    assert swarm.hear(SEEDING, after=4 * EVIDENCE_SECONDS) == []
    assert swarm.planner.mode is Mode.SWARM


def test_a_supernode_is_not_silent_while_there_was_nothing_to_say_for_pieces_took_long(swarm: Download) -> None:
    """Seed 366 of tests/simulation."""
    swarm.grant(0)
    said = swarm.hear(Done(0, 7, 3500, DELIVERED), after=EVIDENCE_SECONDS + 0.5)
    assert said == [report(Done(0, 7, 3500, DELIVERED))]
    assert (swarm.planner.mode, swarm.planner.trouble) == (Mode.SWARM, None)
    assert swarm.wait() == (EVIDENCE_SECONDS, [FetchOrigin(1, None)])


def test_pieces_of_which_not_a_byte_comes_for_2_s_are_evidence_before_they_fail(swarm: Download) -> None:
    """FAULTS 56: a black hole for large packets, or a firewall that drops all of them."""
    swarm.grant(0, 1)
    swarm.hear(Idle(swarm.now), after=1.0)
    assert swarm.wait() == (IDLE_SECONDS_MAX - 1.0, [AskLeave(1)])
    assert swarm.planner.trouble is Trouble.FAILING
    assert swarm.hear(Leave(1, given=True)) == [FetchOrigin(0, None)]


def test_silent_pieces_are_asked_for_anew_beside_their_connections_once_and_the_first_that_comes_counts(swarm: Download) -> None:
    """FAULTS 100: what TCP takes to find out that a connection is dead is not waited for."""
    swarm.grant(1, 2)
    assert swarm.hear(Idle(swarm.now), after=1.0) == [fetch(1), fetch(2)]
    assert swarm.hear(Idle(swarm.now)) == []
    assert swarm.hear(Done(2, 7, 1500, DELIVERED)) == [report(Done(2, 7, 1500, DELIVERED))]
    assert swarm.hear(Done(2, 7, 3000, DELIVERED)) == [], "the other one found it here"
    assert swarm.hear(Superseded(1, 7)) == [], "the one that was silent"
    assert swarm.hear(Done(1, 7, 500, DELIVERED)) == [report(Done(1, 7, 500, DELIVERED))]


def test_what_came_at_once_is_reported_at_once(swarm: Download) -> None:
    swarm.grant(0, 1, 2)
    done = [Done(piece, 7, 3500, DELIVERED) for piece in (0, 1, 2)]
    assert swarm.planner.handle_together(done, swarm.now) == [report(*done)]


def test_what_the_supernode_is_still_getting_is_not_asked_for_anew(swarm: Download) -> None:
    swarm.hear(Grant(1, [Granted(1, messages.COMING, messages.SEED, messages.SEED)]))
    assert swarm.hear(Idle(swarm.now), after=1.0) == []


def test_of_two_fetches_of_a_piece_the_first_that_fails_is_nobodys_failure(swarm: Download) -> None:
    swarm.grant(1)
    swarm.hear(Idle(swarm.now), after=1.0)
    assert swarm.hear(Done(1, 7, 3000, messages.STALLED)) == []
    failed = Done(1, 7, 3000, messages.STALLED)
    assert swarm.hear(failed) == [fetch(1, 8), report(failed)]
    for _ in range(REFUSALS_MAX - 2):
        swarm.grant(0, alternative=7)
        swarm.hear(Done(0, 7, 0, messages.UNREACHABLE))
    assert swarm.planner.trouble is None


def test_a_byte_that_comes_ends_the_silence_of_the_pieces(swarm: Download) -> None:
    """FAULTS 100: a second without a link."""
    swarm.grant(0, 1)
    swarm.hear(Idle(swarm.now), after=1.0)
    assert swarm.hear(Idle(None), after=0.9) == []
    assert swarm.hear(SEEDING, after=EVIDENCE_SECONDS) == []
    assert swarm.planner.mode is Mode.SWARM


def test_a_node_that_nothing_is_granted_to_is_not_silent_but_waits_for_its_turn(swarm: Download) -> None:
    swarm.hear(Idle(swarm.now), after=1.0)
    assert swarm.hear(SEEDING, after=IDLE_SECONDS_MAX) == []
    assert swarm.planner.mode is Mode.SWARM


def test_failures_are_forgotten_when_a_piece_comes_and_with_another_swarm(swarm: Download) -> None:
    fail(swarm, REFUSALS_MAX - 1)
    swarm.grant(1)
    swarm.hear(Done(1, 7, 1000, DELIVERED))
    fail(swarm, REFUSALS_MAX - 1)
    swarm.hear(News.SWARM_LOST)
    swarm.hear(opened(1))
    assert AskLeave(1) not in fail(swarm, REFUSALS_MAX - 1)


def test_a_piece_that_the_supernode_did_not_get_in_time_is_no_evidence_against_the_swarm(swarm: Download) -> None:
    coming = Granted(0, messages.COMING, messages.SEED, messages.SEED)
    for _ in range(2 * REFUSALS_MAX):
        swarm.hear(Grant(1, [coming]))
        swarm.hear(Done(0, messages.SEED, 0, messages.MISSING))
    assert swarm.planner.trouble is None


def test_a_supernode_that_does_not_answer_the_question_for_leave_is_not_waited_for(swarm: Download) -> None:
    fail(swarm, REFUSALS_MAX)
    assert swarm.wait() == (LEAVE_SECONDS, [FetchOrigin(0, None)])


def test_a_node_without_leave_asks_again_every_second_and_goes_by_itself_before_the_runtime_gives_up(swarm: Download) -> None:
    fail(swarm, REFUSALS_MAX)
    began = swarm.now
    while swarm.now - began < TURN_SECONDS_MAX - LEAVE_SECONDS:
        assert swarm.hear(Leave(1, given=False)) == []
        assert swarm.wait() == (LEAVE_SECONDS, [AskLeave(1)])
    swarm.hear(Leave(1, given=False))
    assert swarm.wait() == (LEAVE_SECONDS, [FetchOrigin(0, None)])


def test_a_node_that_waits_for_its_turn_asks_for_leave_after_15_s_and_never_goes_without(swarm: Download) -> None:
    waited = 0.0
    asked: list[float] = []
    while swarm.planner.mode is Mode.SWARM:
        waited += 1.0
        if AskLeave(1) in swarm.hear(SEEDING, after=1.0):
            asked.append(waited)
            swarm.hear(Leave(1, given=False))
    assert asked[0] == TURN_SECONDS_MAX
    assert waited == PIECE_SECONDS_MAX
    assert swarm.planner.mode is Mode.ORIGIN


def test_a_swarm_that_grants_pieces_which_never_come_is_left(swarm: Download) -> None:
    swarm.grant(0, 1)
    began = swarm.now
    while swarm.planner.mode is Mode.SWARM:
        swarm.hear(SEEDING, after=0.5)
        swarm.hear(Leave(1, given=False))
    assert swarm.now - began == PIECE_SECONDS_MAX


def test_a_swarm_that_brought_nothing_lately_is_joined_with_the_question_for_leave() -> None:
    download = Download()
    download.hear(News.SWARM_DOUBTED)
    assert download.join() == [report(), AskLeave(1)]
    download.hear(Leave(1, given=True))
    assert download.planner.mode is Mode.BESIDE


@pytest.fixture
def beside(swarm: Download) -> Download:
    """A download that its failing swarm has leave to stream beside."""
    fail(swarm, REFUSALS_MAX)
    assert swarm.hear(Leave(1, given=True)) == [FetchOrigin(0, None)]
    return swarm


def test_what_the_origin_brought_is_named_to_the_swarm_at_once_and_to_the_next_one(beside: Download) -> None:
    assert beside.hear(came(0)) == [brought(0)]
    beside.hear(came(1))
    assert beside.grant(1) == [Confirm(1, bytes([1]) * 32), report(Done(1, 7, 0, DELIVERED))]
    assert beside.hear(News.SWARM_LOST) == [Order.OPEN_SWARM]
    assert beside.planner.mode is Mode.ORIGIN
    assert beside.hear(opened(2)) == [Order.LEAVE_ORIGIN, brought(0, 1, task=2), report(task=2)]


def test_beside_the_stream_pieces_are_still_fetched(beside: Download) -> None:
    assert beside.grant(0, 5) == [fetch(5)], "but for the piece that the stream is writing"
    assert beside.hear(came(0))[0] == Confirm(0, bytes(32))


def test_when_the_swarm_carries_again_the_stream_is_left(beside: Download) -> None:
    for piece in range(10, 10 + CARRIED_MIN):
        beside.grant(piece)
        assert beside.planner.mode is Mode.BESIDE
        said = beside.hear(Done(piece, 7, 1000, DELIVERED))
    assert Order.LEAVE_ORIGIN in said
    assert (beside.planner.mode, beside.planner.trouble) == (Mode.SWARM, None)


def test_pieces_of_nodes_that_the_origin_keeps_pace_with_do_not_end_the_stream(beside: Download) -> None:
    for piece in range(4 * CARRIED_MIN):
        beside.grant(piece + 20)
        beside.hear(Done(piece + 20, 7, 1000, DELIVERED))
        beside.hear(came(piece))
    assert beside.planner.mode is Mode.BESIDE


def test_an_origin_that_refuses_leaves_the_swarm_which_is_waited_for(beside: Download) -> None:
    assert beside.hear(OriginEnded(REFUSED)) == []
    assert beside.planner.mode is Mode.SWARM
    while beside.planner.mode is Mode.SWARM:
        said = beside.hear(SEEDING, after=1.0)
    assert said == [Order.LEAVE_SWARM, GiveUp(REFUSED)]


def test_a_fetch_that_the_stream_overtook_counts_as_done_and_blames_nobody(swarm: Download) -> None:
    swarm.grant(0, 1, alternative=7)
    swarm.hear(Done(1, 7, 0, messages.UNREACHABLE))
    assert swarm.wait() == (EVIDENCE_SECONDS, [AskLeave(1)])
    assert swarm.hear(Leave(1, given=True)) == [FetchOrigin(0, None)]
    assert swarm.hear(Superseded(0, 7)) == []
    assert swarm.hear(came(0)) == [Confirm(0, bytes(32)), brought(0), report(Done(0, 7, 0, DELIVERED))]


def test_a_fetch_that_the_stream_overtook_is_begun_again_when_the_stream_ends_without_the_piece(beside: Download) -> None:
    beside.grant(1)
    beside.hear(came(0))
    assert beside.hear(Superseded(1, 7)) == []
    assert fetch(1) in beside.hear(OriginEnded(BROKEN))


def test_a_supernode_that_comes_and_goes_is_asked_three_times_and_then_not_again(swarm: Download) -> None:
    for _ in range(SWARM_TRIES_MAX - 1):
        assert swarm.hear(News.SWARM_LOST) == [Order.OPEN_SWARM]
        swarm.hear(opened(1))
    assert swarm.hear(News.SWARM_LOST) == [FetchOrigin(0, None)]
    assert swarm.hear(News.SWARM_AVAILABLE) == []


def test_that_nobody_can_be_asked_is_nobodys_failure(swarm: Download) -> None:
    swarm.hear(News.SWARM_LOST)
    for _ in range(2 * SWARM_TRIES_MAX):
        swarm.hear(News.NO_SWARM)
        assert swarm.hear(News.SWARM_AVAILABLE) == [Order.OPEN_SWARM]


def test_a_supernode_that_was_asked_and_has_not_answered_is_not_asked_again(origin: Download) -> None:
    assert origin.hear(News.SWARM_AVAILABLE) == [Order.OPEN_SWARM]
    assert origin.hear(News.SWARM_AVAILABLE) == []
    assert origin.wait() == (OPEN_SECONDS_MAX, [Order.LEAVE_SWARM])
    assert origin.hear(News.SWARM_AVAILABLE) == [Order.OPEN_SWARM]


def test_a_piece_from_the_swarm_makes_up_for_earlier_losses(swarm: Download) -> None:
    for piece in range(2 * SWARM_TRIES_MAX):
        swarm.grant(piece)
        swarm.hear(Done(piece, 7, 1000, DELIVERED))
        assert swarm.hear(News.SWARM_LOST) == [Order.OPEN_SWARM]
        swarm.hear(opened(1))


# Runs at the origin, which the supernode grants.


def test_a_run_is_asked_for_at_the_origin_and_each_piece_of_it_is_named_when_it_is_here(swarm: Download) -> None:
    assert swarm.hear(Run(1, 4, 7)) == [FetchOrigin(4, 7)]
    assert swarm.hear(came(4)) == [brought(4)]
    assert swarm.hear(came(5)) == [brought(5)]
    assert swarm.planner.mode is Mode.SWARM
    assert swarm.hear(came(6)) == [brought(6)]
    assert swarm.hear(OriginEnded(None)) == [RunEnded(1, 4, RUN_WHOLE)]


def test_a_run_up_to_the_blobs_end_names_no_end_to_the_registry(swarm: Download) -> None:
    assert swarm.hear(Run(1, PIECES - 3, PIECES)) == [FetchOrigin(PIECES - 3, None)]


def test_a_run_up_to_the_blobs_end_names_none_though_a_part_of_it_is_here_for_the_registry_may_know_no_ranges(
    swarm: Download,
) -> None:
    swarm.grant(10)
    swarm.hear(Done(10, 7, 1000, DELIVERED))
    assert swarm.hear(Run(1, 9, PIECES)) == [FetchOrigin(9, None)]
    swarm.hear(came(9))
    assert swarm.hear(OriginEnded(None)) == [FetchOrigin(11, None)]


def test_runs_are_asked_for_one_after_the_other_in_the_order_in_which_they_were_granted(swarm: Download) -> None:
    swarm.hear(Run(1, 8, 9))
    assert swarm.hear(Run(1, 4, 5)) == swarm.hear(Run(1, 6, 7)) == []
    swarm.hear(came(8))
    assert swarm.hear(OriginEnded(None)) == [RunEnded(1, 8, RUN_WHOLE), FetchOrigin(4, 5)]
    swarm.hear(came(4))
    assert swarm.hear(OriginEnded(None)) == [RunEnded(1, 4, RUN_WHOLE), FetchOrigin(6, 7)]


def test_what_is_here_of_a_run_is_passed_over_and_a_run_that_is_here_is_whole(swarm: Download) -> None:
    for piece in (4, 5, 7):
        swarm.grant(piece)
        swarm.hear(Done(piece, 7, 1000, DELIVERED))
    assert swarm.hear(Run(1, 4, 6)) == [RunEnded(1, 4, RUN_WHOLE)]
    assert swarm.hear(Run(1, 4, 10)) == [FetchOrigin(6, 7)]
    swarm.hear(came(6))
    assert swarm.hear(OriginEnded(None)) == [FetchOrigin(8, 10)], "the run goes on behind what is here"
    swarm.hear(came(8))
    swarm.hear(came(9))
    assert swarm.hear(OriginEnded(None)) == [RunEnded(1, 4, RUN_WHOLE)]


def test_a_run_is_put_off_while_a_stream_is_being_left(origin: Download) -> None:
    origin.hear(News.SWARM_AVAILABLE)
    assert Order.LEAVE_ORIGIN in origin.hear(opened(1))
    assert origin.hear(Run(1, 4, 6)) == []
    assert origin.hear(came(0)) == [brought(0)]
    assert origin.hear(OriginEnded(None)) == [FetchOrigin(4, 6)]


def test_a_run_that_breaks_off_is_asked_for_anew_from_there_on(swarm: Download) -> None:
    swarm.hear(Run(1, 4, 8))
    swarm.hear(came(4))
    assert swarm.hear(OriginEnded(BROKEN)) == [FetchOrigin(5, 8)]
    swarm.hear(came(5))
    assert swarm.hear(OriginEnded(BROKEN)) == [FetchOrigin(6, 8)]
    assert swarm.hear(OriginEnded(BROKEN)) == [RunEnded(1, 4, RUN_FAILED)], "not a piece came between"


@pytest.mark.parametrize(
    ("error", "outcome", "retry_after"),
    [
        (BROKEN, RUN_FAILED, 0),
        (OriginError(503, "busy"), RUN_FAILED, 0),
        (OriginError(504, "silent", certain=False), RUN_FAILED, 0),
        (OriginError(401, "who are you"), RUN_REFUSED, 0),
        (REFUSED, RUN_REFUSED, 0),
        (OriginError(429, "too many", retry_after=7), RUN_TOO_MANY, 7),
        (OriginError(429, "too many"), RUN_TOO_MANY, 0),
        (RangesError(502, "sends no part of a blob"), RUN_NO_RANGES, 0),
        (None, RUN_FAILED, 0),
    ],
    ids=str,
)
def test_how_a_run_ended_is_said_by_the_registrys_answer(
    swarm: Download, error: OriginError | None, outcome: int, retry_after: int
) -> None:
    swarm.hear(Run(1, 4, 8))
    assert swarm.hear(OriginEnded(error)) == [RunEnded(1, 4, outcome, retry_after)]
    assert swarm.planner.mode is Mode.SWARM, "others may have the pieces: the swarm is no worse for it"


def test_a_registry_without_ranges_is_asked_beside_the_swarm_for_all_that_follows_though_a_part_of_it_is_here(
    swarm: Download,
) -> None:
    swarm.grant(5)
    swarm.hear(Done(5, 7, 1000, DELIVERED))
    swarm.hear(Run(1, 0, 2))
    swarm.hear(OriginEnded(RangesError(502, "sends no part of a blob")))
    assert swarm.hear(FAILED) == [Order.LEAVE_SWARM, FetchOrigin(0, None)]


@pytest.mark.parametrize("error", [REFUSED, OriginError(429, "too many", retry_after=7), RangesError(502, "no ranges")])
def test_a_run_that_is_refused_in_its_middle_is_not_asked_for_anew(swarm: Download, error: OriginError) -> None:
    swarm.hear(Run(1, 4, 8))
    swarm.hear(came(4))
    (ended,) = swarm.hear(OriginEnded(error))
    assert isinstance(ended, RunEnded)


def test_an_origin_that_refused_a_run_is_asked_again_when_the_swarm_is_no_help(swarm: Download) -> None:
    swarm.hear(Run(1, 4, 8))
    swarm.hear(OriginEnded(REFUSED))
    assert swarm.hear(FAILED) == [Order.LEAVE_SWARM, FetchOrigin(0, None)]


def test_beside_the_swarm_no_run_is_begun_for_the_origin_is_asked_for_everything(beside: Download) -> None:
    assert beside.hear(Run(1, 4, 8)) == [RunEnded(1, 4, RUN_FAILED)]
    beside.hear(came(0))
    assert beside.hear(OriginEnded(BROKEN)) == [FetchOrigin(1, None)]


def test_a_run_is_over_with_its_swarm_and_the_next_swarm_hears_nothing_of_it(swarm: Download) -> None:
    swarm.hear(Run(1, 4, 8))
    swarm.hear(Run(1, 20, 24))
    assert swarm.hear(came(4)) == [brought(4)]
    assert swarm.hear(News.SWARM_LOST) == [Order.OPEN_SWARM]
    assert swarm.hear(came(5)) == [], "there is nobody to tell"
    assert swarm.hear(opened(2)) == [Order.LEAVE_ORIGIN, brought(4, 5, task=2), report(window=WINDOW, task=2)]
    assert swarm.hear(came(6)) == [brought(6, task=2)]
    assert swarm.hear(OriginEnded(None)) == []
    assert swarm.hear(Run(2, 7, 9)) == [FetchOrigin(7, 9)]


def test_the_stream_of_a_run_whose_swarm_has_failed_is_the_origins_stream(swarm: Download) -> None:
    swarm.hear(Run(1, 4, 8))
    assert swarm.hear(FAILED) == [Order.LEAVE_SWARM]
    assert swarm.hear(came(4)) == []
    assert swarm.hear(OriginEnded(None)) == [FetchOrigin(0, 4)]


def test_a_run_of_a_swarm_that_is_over_is_not_begun(swarm: Download) -> None:
    swarm.hear(News.SWARM_LOST)
    swarm.hear(opened(2))
    assert swarm.hear(Run(1, 4, 8)) == []


def test_a_node_that_gets_a_run_is_not_without_help(swarm: Download) -> None:
    swarm.hear(Run(1, 0, PIECES))
    for piece in range(4):
        assert swarm.hear(SEEDING, after=EVIDENCE_SECONDS - 0.1) == []
        swarm.hear(came(piece), after=EVIDENCE_SECONDS - 0.1)
    assert (swarm.planner.mode, swarm.planner.trouble) == (Mode.SWARM, None)


def test_a_piece_of_a_run_makes_up_for_swarms_that_were_lost(swarm: Download) -> None:
    for piece in range(2 * SWARM_TRIES_MAX):
        swarm.hear(Run(piece + 1, piece, piece + 1))
        swarm.hear(came(piece))
        swarm.hear(OriginEnded(None))
        assert swarm.hear(News.SWARM_LOST) == [Order.OPEN_SWARM]
        swarm.hear(opened(piece + 2))


def test_a_granted_piece_that_the_run_is_writing_is_put_off_until_it_is_here(swarm: Download) -> None:
    swarm.hear(Run(1, 4, 6))
    assert swarm.grant(4, 5) == [fetch(5)]
    assert swarm.hear(came(4))[0] == Confirm(4, bytes([4]) * 32)


def test_a_granted_piece_that_a_silent_run_is_writing_is_taken_from_it(swarm: Download) -> None:
    """FAULTS 101, 102: else it waits for as long as a registry may be silent, though somebody has it."""
    swarm.hear(Run(1, 4, 6))
    assert swarm.grant(4) == []
    assert swarm.hear(Idle(swarm.now), after=1.0) == [fetch(4)]
    assert swarm.hear(Idle(swarm.now), after=1.0) == [], "once"
    assert swarm.hear(OriginEnded(None)) == [RunEnded(1, 4, RUN_FAILED)], "the stream has found that out"
    assert report(Done(4, 7, FAST, DELIVERED)) in swarm.hear(Done(4, 7, FAST, DELIVERED))


def test_a_granted_piece_that_a_run_hardly_brings_is_taken_from_it(swarm: Download) -> None:
    swarm.hear(Run(1, 4, 6))
    swarm.grant(4)
    swarm.hear(SEEDING, after=PUT_OFF_SECONDS_MAX / 2)
    assert fetch(4) in swarm.hear(SEEDING, after=PUT_OFF_SECONDS_MAX / 2)


def test_a_piece_that_was_taken_from_the_stream_and_given_back_to_it_stays_there(swarm: Download) -> None:
    """Else both would begin it again and again, and none would end it."""
    swarm.hear(Run(1, 4, 6))
    swarm.grant(4)
    swarm.hear(Idle(swarm.now), after=1.0)
    assert swarm.hear(Superseded(4, 7)) == []
    assert swarm.hear(Idle(swarm.now), after=1.0) == []
    assert fetch(4) not in swarm.hear(SEEDING, after=PUT_OFF_SECONDS_MAX)
    assert swarm.hear(came(4))[0] == Confirm(4, bytes([4]) * 32)


def test_no_run_begins_with_a_piece_that_was_taken_from_one(swarm: Download) -> None:
    swarm.hear(Run(1, 4, 6))
    swarm.grant(4)
    swarm.hear(Idle(swarm.now), after=1.0)
    swarm.hear(OriginEnded(None))
    assert swarm.hear(Run(1, 4, 6)) == [FetchOrigin(5, 6)]


def test_nothing_is_taken_from_the_stream_beside_a_swarm_that_brings_nothing(beside: Download) -> None:
    """What a black hole for large packets lets through of an answer would end it each time."""
    beside.hear(came(0))
    beside.grant(1)
    assert beside.hear(Idle(beside.now), after=1.0) == []
    assert fetch(1) not in beside.hear(SEEDING, after=PUT_OFF_SECONDS_MAX)


def test_a_silent_run_keeps_the_piece_that_the_supernode_is_itself_getting(swarm: Download) -> None:
    swarm.hear(Run(1, 4, 6))
    swarm.hear(Grant(1, [Granted(4, messages.COMING, messages.SEED, messages.SEED)]))
    assert swarm.hear(Idle(swarm.now), after=1.0) == []


def test_what_many_pieces_brought_is_named_in_batches() -> None:
    many = 2 * BATCH_MAX + 1
    download = Download(swarm=False, pieces=2 * many)
    download.hear(SizeKnown(download.layout, 0))
    for piece in range(many):
        download.hear(OriginPiece(piece, piece.to_bytes(32)))
    download.hear(News.SWARM_AVAILABLE)
    named = [command.pieces for command in download.hear(opened(1)) if isinstance(command, Brought)]
    assert [len(pieces) for pieces in named] == [BATCH_MAX, BATCH_MAX, 1]
    assert {piece: digest for pieces in named for piece, digest in pieces.items()} == {
        piece: piece.to_bytes(32) for piece in range(many)
    }


def test_a_piece_without_a_digest_is_named_to_nobody(origin: Download) -> None:
    origin.hear(News.SWARM_AVAILABLE)
    origin.hear(OriginPiece(0, None))
    assert origin.hear(opened(1)) == [Order.LEAVE_ORIGIN, report(window=WINDOW)]
    assert origin.hear(OriginPiece(1, None)) == []


# The origin.


def test_the_origin_streams_on_while_a_supernode_is_asked_and_is_left_when_it_has_answered(origin: Download) -> None:
    assert origin.hear(News.SWARM_AVAILABLE) == [Order.OPEN_SWARM]
    assert origin.hear(came(0)) == []
    assert origin.planner.mode is Mode.ORIGIN
    assert origin.hear(opened(1)) == [Order.LEAVE_ORIGIN, brought(0), report()]


def test_a_stream_that_was_left_and_has_not_ended_is_not_joined_by_another(origin: Download) -> None:
    origin.hear(News.SWARM_AVAILABLE)
    origin.hear(opened(1))
    assert origin.hear(FAILED) == [Order.LEAVE_SWARM]
    assert origin.hear(came(0)) == []
    assert origin.hear(OriginEnded(None)) == [FetchOrigin(1, None)]


def test_a_stream_that_was_left_counts_as_no_failure_of_the_origin(origin: Download) -> None:
    origin.hear(OriginEnded(BROKEN))
    origin.hear(News.SWARM_AVAILABLE)
    origin.hear(opened(1))
    origin.hear(OriginEnded(None))
    origin.hear(FAILED)
    for _ in range(ORIGIN_TRIES_MAX - 1):
        assert origin.hear(OriginEnded(BROKEN)) == [FetchOrigin(0, None)]


def test_the_origin_is_asked_from_the_readers_place_on_up_to_what_is_here() -> None:
    download = Download(held=0b1011 << 20)
    download.hear(SizeKnown(download.layout, download.held))
    download.hear(ReadersMoved((20, 3)))
    assert download.hear(FAILED) == [Order.LEAVE_SWARM, FetchOrigin(22, 23)]
    download.hear(came(22))
    assert download.hear(OriginEnded(None)) == [FetchOrigin(24, None)]


def test_what_is_behind_all_readers_comes_last() -> None:
    download = Download()
    download.hear(SizeKnown(download.layout, 0))
    download.hear(ReadersMoved((PIECES - 1,)))
    assert download.hear(FAILED) == [Order.LEAVE_SWARM, FetchOrigin(PIECES - 1, None)]
    download.hear(came(PIECES - 1))
    assert download.hear(OriginEnded(None)) == [FetchOrigin(0, PIECES - 1)]


def test_what_an_earlier_try_left_is_passed_over(origin: Download) -> None:
    origin.hear(SizeKnown(origin.layout, 0b111))
    assert origin.hear(OriginEnded(None)) == [FetchOrigin(3, None)]


def test_a_stream_that_breaks_is_resumed_where_it_broke(origin: Download) -> None:
    for piece in range(2 * ORIGIN_TRIES_MAX):
        origin.hear(came(piece))
        assert origin.hear(OriginEnded(BROKEN)) == [FetchOrigin(piece + 1, None)]


@pytest.mark.parametrize("error", [BROKEN, None])
def test_streams_without_a_piece_are_tried_three_times(origin: Download, error: OriginError | None) -> None:
    for _ in range(ORIGIN_TRIES_MAX - 1):
        assert origin.hear(OriginEnded(error)) == [FetchOrigin(0, None)]
    (given_up,) = origin.hear(OriginEnded(error))
    assert isinstance(given_up, GiveUp)
    assert given_up.error is error or error is None
    assert origin.planner.mode is Mode.ENDED


def test_what_the_origin_refuses_is_not_asked_for_again(origin: Download) -> None:
    origin.hear(came(0))
    assert origin.hear(OriginEnded(REFUSED)) == [GiveUp(REFUSED)]


def test_an_origin_that_is_not_reached_at_all_is_told_at_once_for_the_runtime_is_waiting() -> None:
    assert Download(swarm=False).hear(OriginEnded(BROKEN)) == [GiveUp(BROKEN)]


def test_when_the_origin_fails_a_supernode_that_was_asked_may_know_better(origin: Download) -> None:
    origin.hear(News.SWARM_AVAILABLE)
    assert origin.hear(OriginEnded(REFUSED), after=5.0) == []
    assert origin.planner.mode is Mode.OPENING
    assert origin.hear(opened(1)) == [report()]


def test_when_the_supernode_does_not_either_the_origins_error_is_told_without_asking_it_again(origin: Download) -> None:
    origin.hear(News.SWARM_AVAILABLE)
    origin.hear(OriginEnded(REFUSED), after=5.0)
    assert origin.wait() == (OPEN_SECONDS_MAX - 5.0, [Order.LEAVE_SWARM, GiveUp(REFUSED)])


def test_after_a_piece_from_the_swarm_the_origin_is_worth_asking_again(origin: Download) -> None:
    origin.hear(News.SWARM_AVAILABLE)
    origin.hear(OriginEnded(REFUSED))
    origin.hear(opened(1))
    origin.grant(0)
    origin.hear(Done(0, 7, 1000, DELIVERED))
    assert origin.hear(FAILED) == [Order.LEAVE_SWARM, FetchOrigin(1, None)]


# Pieces.


def test_what_is_granted_is_fetched_at_once(swarm: Download) -> None:
    assert swarm.grant(5, 3) == [fetch(5), fetch(3)]


def test_where_a_source_fails_the_alternative_is_asked_once(swarm: Download) -> None:
    swarm.grant(5)
    failed, also_failed = Done(5, 7, 200, messages.STALLED), Done(5, 8, 100, messages.MISSING)
    assert swarm.hear(Done(5, 7, 200, messages.STALLED)) == [fetch(5, 8), report(failed)]
    assert swarm.hear(Done(5, 8, 100, messages.MISSING)) == [report(also_failed)]


def test_where_there_is_nobody_else_the_supernode_is_report(swarm: Download) -> None:
    swarm.grant(5, alternative=7)
    assert swarm.hear(Done(5, 7, 200, messages.CORRUPT)) == [report(Done(5, 7, 200, messages.CORRUPT))]


def test_a_piece_granted_twice_is_fetched_once(swarm: Download) -> None:
    assert swarm.grant(5, 5) == [fetch(5)]
    assert swarm.grant(5, source=9) == []


def test_a_piece_that_the_blob_does_not_have_is_not_fetched(swarm: Download) -> None:
    assert swarm.grant(PIECES) == []


def test_a_granted_piece_that_is_here_is_confirmed_and_reported_as_no_work_of_its_source() -> None:
    download = Download(held=0b1)
    download.join()
    assert download.grant(0) == [Confirm(0, bytes(32)), report(Done(0, 7, 0, DELIVERED))]


def test_never_are_more_pieces_on_their_way_than_the_window_at_its_widest(swarm: Download) -> None:
    assert len(swarm.grant(*range(PIECES))) == WINDOW


def test_grants_of_a_swarm_that_is_over_are_not_taken(swarm: Download) -> None:
    swarm.hear(FAILED)
    assert swarm.grant(1) == []


def test_what_comes_late_from_a_swarm_that_is_over_means_nothing_in_the_next(swarm: Download) -> None:
    swarm.hear(News.SWARM_LOST)
    swarm.hear(opened(2))
    due = swarm.planner.deadline
    assert swarm.hear(Grant(1, [granted(1)]), after=1.0) == []
    assert swarm.hear(Seeding(1), after=1.0) == []
    assert swarm.planner.deadline == due


def test_the_origins_piece_in_hand_is_put_off_until_it_is_here(origin: Download) -> None:
    origin.hear(News.SWARM_AVAILABLE)
    origin.hear(came(0))
    origin.hear(opened(1))
    assert origin.grant(1, 2) == [fetch(2)]
    assert origin.hear(came(1))[0] == Confirm(1, bytes([1]) * 32)


def test_the_origins_piece_in_hand_is_fetched_when_the_stream_ends_without_it(origin: Download) -> None:
    origin.hear(News.SWARM_AVAILABLE)
    origin.hear(opened(1))
    assert origin.grant(0) == []
    assert origin.hear(OriginEnded(BROKEN)) == [fetch(0)]


def test_pieces_under_way_from_a_lost_swarm_count_when_they_come_and_nobody_is_blamed_when_they_do_not(swarm: Download) -> None:
    swarm.grant(0, 1)
    swarm.hear(News.SWARM_LOST)
    swarm.hear(opened(2))
    assert swarm.hear(Done(0, 7, 1000, DELIVERED)) == []
    assert swarm.planner.held == 0b1
    assert swarm.hear(Done(1, 7, 1000, messages.CORRUPT)) == []


def test_a_piece_under_way_from_a_lost_swarm_is_asked_for_anew_when_the_next_one_grants_it(swarm: Download) -> None:
    swarm.grant(0, 1)
    swarm.hear(News.SWARM_LOST)
    swarm.hear(opened(2))
    assert swarm.grant(0, 1, source=3) == [fetch(0, 3), fetch(1, 3)]
    assert swarm.hear(Done(0, 7, 1000, DELIVERED)) == [report(Done(0, 3, 0, DELIVERED), task=2)]


def test_what_a_lost_swarm_granted_is_not_fetched_from_the_next_one(swarm: Download) -> None:
    swarm.grant(0)
    swarm.hear(News.SWARM_LOST)
    swarm.hear(opened(2))
    assert swarm.hear(Done(0, 7, 1000, messages.STALLED)) == []


def test_the_origin_does_not_wait_for_what_is_under_way() -> None:
    download = Download(pieces=3)
    download.join()
    download.grant(0)
    assert download.hear(FAILED) == [Order.LEAVE_SWARM, FetchOrigin(0, None)]


def test_a_fetch_that_takes_long_is_waited_for_and_then_the_alternative_is_asked_at_once(swarm: Download) -> None:
    swarm.grant(0)
    assert swarm.hear(SEEDING, after=TURN_SECONDS_MAX - 1.0) == [], "the piece is still being written"
    failed = Done(0, 7, 14_000, messages.STALLED)
    assert swarm.hear(failed)[0] == fetch(0, 8)


# Reports.


def test_slow_pieces_are_reported_one_by_one(swarm: Download) -> None:
    swarm.grant(0, 1)
    assert swarm.hear(Done(0, 7, 1000, DELIVERED)) == [report(Done(0, 7, 1000, DELIVERED))]


def test_fast_pieces_are_reported_some_at_a_time(swarm: Download) -> None:
    swarm.be_fast()
    swarm.grant(*range(REPORT_EVERY + 1))
    for piece in range(REPORT_EVERY - 1):
        assert swarm.hear(Done(piece, 7, FAST, DELIVERED)) == []
    (command,) = swarm.hear(Done(REPORT_EVERY - 1, 7, FAST, DELIVERED))
    assert isinstance(command, Report)
    assert [outcome.piece for outcome in command.done] == list(range(REPORT_EVERY))
    assert command.window == WINDOW


def test_a_report_is_never_later_than_5_ms(swarm: Download) -> None:
    swarm.be_fast()
    swarm.grant(0, 1)
    swarm.hear(Done(0, 7, FAST, DELIVERED))
    waited, commands = swarm.wait()
    assert waited == REPORT_SECONDS_MAX
    assert commands == [report(Done(0, 7, FAST, DELIVERED))]


def test_a_report_is_not_later_when_other_news_keep_the_planner_busy(swarm: Download) -> None:
    swarm.be_fast()
    swarm.grant(0, 1)
    swarm.hear(Done(0, 7, FAST, DELIVERED))
    assert swarm.hear(SEEDING, after=REPORT_SECONDS_MAX / 2) == []
    assert len(swarm.hear(SEEDING, after=REPORT_SECONDS_MAX / 2)) == 1


def test_no_more_is_asked_for_than_is_missing() -> None:
    download = Download(held=(1 << PIECES) - 1 & ~0b101)
    assert download.join() == [report(window=2)]


def test_what_happened_to_a_lost_swarms_pieces_is_not_reported_to_the_next_one(swarm: Download) -> None:
    swarm.be_fast()
    swarm.grant(0, 1)
    swarm.hear(Done(0, 7, FAST, DELIVERED))
    swarm.hear(News.SWARM_LOST)
    assert swarm.hear(opened(2)) == [report(task=2)]


# The end.


def test_with_the_last_piece_it_ends_and_reports_what_it_has_not_yet() -> None:
    download = Download(pieces=2)
    download.join()
    download.grant(0, 1)
    download.hear(Done(0, 7, 1000, DELIVERED))
    assert download.hear(Done(1, 7, 1000, DELIVERED)) == [report(Done(1, 7, 1000, DELIVERED), window=0)]
    assert download.planner.mode is Mode.ENDED
    assert download.planner.deadline is None


def test_when_everything_is_here_already_nobody_is_asked_for_anything() -> None:
    download = Download()
    assert download.hear(SizeKnown(download.layout, download.layout.everything)) == []
    assert download.planner.mode is Mode.ENDED


@pytest.mark.parametrize("event", [opened(1), FAILED, News.SWARM_AVAILABLE, OriginEnded(BROKEN), News.TIME_PASSED])
def test_after_the_end_nothing_that_happens_matters(event: Event) -> None:
    download = Download(pieces=0)
    download.hear(SizeKnown(download.layout, 0))
    assert download.hear(event) == []
