"""Blobs that come from the nodes' own origins: who names their pieces, who is believed, and when the supernode steps in."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from agent.swarm import messages
from agent.swarm.messages import RUN_FAILED, RUN_TOO_MANY
from agent.values.errors import DigestError, OriginError
from agent.values.pieces import Layout
from supernode.overview import describe
from supernode.scheduler.limits import Limits
from supernode.seeder import NotHereError
from supernode.tracker import doubts
from supernode.tracker import seeds as module
from supernode.tracker.task import BlobTask, Named, Source
from tests.tracker import LAYOUT, OTHER, RAW, Agent, Lab, digest_of, in_loop

SIZE = LAYOUT.size
EVERYTHING = range(LAYOUT.count)


def wrong(piece: int) -> bytes:
    return bytes([piece]) * 32


def wrong_only(bad: int) -> Callable[[int], bytes]:
    return lambda piece: wrong(piece) if piece == bad else digest_of(piece)


def task_of(agent: Agent) -> BlobTask:
    return agent.lab.tracker.seeds.tasks[agent.task.task]


def look(lab: Lab, seconds: float = 0.0) -> None:
    """As it is done every second, so much later."""
    lab.tracker.seeds.look_at_all(time.monotonic() + seconds)
    lab.flush()


def quarantined(lab: Lab) -> list[str]:
    return [item["name"] for item in describe(lab.tracker)["quarantines"]]


def takers(lab: Lab, count: int) -> list[Agent]:
    agents = [Agent(lab, f"agent-{number}") for number in range(count)]
    for agent in agents:
        agent.open(size=SIZE)
    return agents


# Opening, and names.


@in_loop
async def test_a_node_that_knows_the_size_is_answered_at_once_and_granted_a_run_and_the_supernode_asks_nobody(lab: Lab) -> None:
    agent = Agent(lab, "a")
    agent.open(request=7, size=SIZE)
    assert agent.heard(messages.Task) == [messages.Task(7, agent.task.task, SIZE, LAYOUT.length, {})]
    assert agent.runs[0] == messages.Run(agent.task.task, 0, 2)
    assert lab.wanted == []


@in_loop
async def test_where_the_first_piece_of_a_new_blob_does_not_come_at_once_a_second_node_is_granted_a_run(lab: Lab) -> None:
    size = Limits().head_pieces_min * LAYOUT.length
    first, second = Agent(lab, "a"), Agent(lab, "b")
    for agent in (first, second):
        agent.open(size=size)
    assert (len(first.runs), second.runs) == (1, [])
    await lab.until(lambda: second.runs)


@in_loop
async def test_what_nodes_bring_is_told_to_all_and_granted_from_them(lab: Lab) -> None:
    first, second = takers(lab, 2)
    second.report(window=4)
    first.bring(0, 1)
    assert {granted.piece: (granted.source, granted.digest) for granted in second.granted} == {
        piece: (first.session.number, digest_of(piece)) for piece in (0, 1)
    }
    late = Agent(lab, "late")
    late.open(size=SIZE)
    assert late.task.known == {0: digest_of(0), 1: digest_of(1)}


@in_loop
async def test_who_named_a_piece_and_from_where_it_had_it_is_remembered(lab: Lab) -> None:
    agent = Agent(lab, "a")
    agent.open(size=SIZE, registry="mirror.test")
    agent.bring(3)
    said = task_of(agent).named[3]
    assert (said.node, said.source.registry, said.digest) == ("a", "mirror.test", digest_of(3))


@in_loop
async def test_a_piece_that_is_known_is_not_named_anew_and_whoever_says_otherwise_is_no_source_of_it(lab: Lab) -> None:
    first, second, third = takers(lab, 3)
    first.bring(0)
    second.bring(0, digest=wrong)
    assert task_of(first).digests == {0: digest_of(0)}
    third.report(window=4)
    assert [(granted.piece, granted.source) for granted in third.granted] == [(0, first.session.number)]


@in_loop
async def test_a_piece_that_nobody_has_any_more_may_be_named_anew(lab: Lab) -> None:
    first, second = takers(lab, 2)
    first.bring(0, digest=wrong)
    first.leave()
    second.bring(0)
    assert task_of(second).digests == {0: digest_of(0)}


@in_loop
async def test_what_strangers_quarantined_nodes_and_nodes_of_a_failed_blob_name_is_not_heard(lab: Lab) -> None:
    agent, liar = takers(lab, 2)
    number = agent.task.task
    stranger = Agent(lab, "stranger")
    stranger.say(messages.Brought(number, {0: digest_of(0)}))
    lab.tracker._distrust("agent-1", RAW)
    liar.bring(1)
    agent.say(messages.Brought(number, {LAYOUT.count: digest_of(0)}), messages.Brought(99, {0: digest_of(0)}))
    assert task_of(agent).digests == {}


@in_loop
async def test_another_size_is_another_task(lab: Lab) -> None:
    honest, liar = Agent(lab, "honest"), Agent(lab, "liar")
    liar.open(size=5)
    honest.open(size=SIZE)
    assert liar.task.task != honest.task.task
    assert (liar.task.size, honest.task.size) == (5, SIZE)
    honest.bring(0)
    assert task_of(liar).digests == {}


@in_loop
async def test_a_size_that_cannot_be_is_refused(lab: Lab) -> None:
    agent = Agent(lab, "a")
    agent.open(request=7, size=1 << 60)
    (failed,) = agent.heard(messages.TaskFailed)
    assert (failed.request, failed.status) == (7, 400)
    assert lab.tracker.seeds.tasks == {}


@in_loop
async def test_nodes_that_know_the_size_join_those_for_which_the_supernode_found_it(lab: Lab) -> None:
    first, second, third = Agent(lab, "first"), Agent(lab, "second"), Agent(lab, "third")
    first.open(request=7, size=0)
    await lab.until(lambda: first.heard(messages.Task))
    second.open()
    third.open(size=0)
    assert first.task.task == second.task.task == third.task.task
    assert (first.task.request, first.task.size) == (7, SIZE)
    assert list(lab.tracker.seeds.tasks) == [first.task.task], "the one without a size is over"


@pytest.mark.parametrize(
    ("size", "status", "reason"),
    [
        (OriginError(401, "who are you"), 401, "who are you"),
        (OriginError(429, "later", retry_after=7), 429, "later"),
        (None, 404, f"the registry registry.test does not have sha256:{RAW.hex()}"),
        (1 << 60, 502, "a size is named for it that cannot be"),
        (0, 502, f"sha256:{RAW.hex()} has no bytes that could be shared"),
    ],
)
def test_a_size_that_the_origin_does_not_say_ends_the_task_and_the_node_hears_why(
    size: int | OriginError | None, status: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @in_loop
    async def test(lab: Lab) -> None:
        lab.sizes[RAW] = size
        agent = Agent(lab, "a")
        agent.open(request=7, size=0)
        await lab.until(lambda: agent.heard(messages.TaskFailed))
        (failed,) = agent.heard(messages.TaskFailed)
        assert (failed.request, failed.status, failed.retry_after) == (7, status, 7 * (status == 429))
        assert failed.reason.startswith(reason)

    test(monkeypatch)


# Nodes that hold the blob whole.


@in_loop
async def test_two_of_those_who_hold_a_blob_are_asked_what_its_pieces_are_and_the_origin_is_not_asked(lab: Lab) -> None:
    holders = [Agent(lab, f"holder-{number}", RAW) for number in range(5)]
    taker = Agent(lab, "taker")
    taker.open(size=SIZE)
    asked = [holder for holder in holders if holder.heard(messages.Describe)]
    assert len(asked) == module.DESCRIBERS_MAX
    assert asked[0].heard(messages.Describe) == [messages.Describe(taker.task.task, RAW, SIZE, LAYOUT.length)]
    assert taker.runs == []
    taker.report(window=16)
    asked[0].say(messages.Brought(taker.task.task, {piece: digest_of(piece) for piece in EVERYTHING}))
    taker.take()
    assert {granted.piece for granted in taker.granted} == set(EVERYTHING)
    assert {granted.source for granted in taker.granted} <= {holder.session.number for holder in holders}
    assert lab.wanted == []


@in_loop
async def test_a_holder_that_names_what_it_has_is_a_source_of_it_while_it_goes_on(lab: Lab) -> None:
    holder, taker = Agent(lab, "holder", RAW), Agent(lab, "taker")
    taker.open(size=SIZE)
    taker.report(window=4)
    holder.say(messages.Brought(taker.task.task, {0: digest_of(0)}))
    assert [(granted.piece, granted.source) for granted in taker.granted] == [(0, holder.session.number)]


@in_loop
async def test_a_holder_that_says_nothing_is_waited_for_and_then_the_origin_is_the_source(lab: Lab) -> None:
    holder, taker = Agent(lab, "holder", RAW), Agent(lab, "taker")
    taker.open(size=SIZE)
    look(lab, module.DESCRIBE_SECONDS - 0.5)
    assert taker.runs == []
    look(lab, module.DESCRIBE_SECONDS + 0.1)
    assert taker.runs
    assert describe(lab.tracker)["swarms"][0]["holders"] == 0
    assert holder.session.holdings, "it may still hold it"


@in_loop
async def test_a_holder_that_goes_on_describing_is_waited_for(lab: Lab) -> None:
    holder, taker = Agent(lab, "holder", RAW), Agent(lab, "taker")
    taker.open(size=SIZE)
    task = task_of(taker)
    before = task.describers[holder.session.number]
    holder.say(messages.Brought(task.number, {0: digest_of(0)}))
    assert task.describers[holder.session.number] >= before


@pytest.mark.parametrize("how", ["leave", "evict", "silence"])
def test_what_a_holder_has_not_named_when_it_goes_comes_from_the_origin_however_many_others_hold_it(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @in_loop
    async def test(lab: Lab) -> None:
        holders = [Agent(lab, f"holder-{number}", RAW) for number in range(module.DESCRIBERS_MAX + 2)]
        taker = Agent(lab, "taker")
        taker.open(size=SIZE)
        asked = [holder for holder in holders if holder.heard(messages.Describe)]
        asked[0].say(messages.Brought(taker.task.task, {0: digest_of(0)}))
        for holder in asked:
            if how == "leave":
                holder.leave()
            elif how == "evict":
                holder.say(messages.Holds(messages.Holding(RAW, SIZE), False))
        look(lab, 2 * module.DESCRIBE_SECONDS if how == "silence" else 0.0)
        assert taker.runs, "nobody else is asked, and nobody else may be waited for"

    test(monkeypatch)


@in_loop
async def test_a_node_that_holds_another_size_under_the_digest_is_neither_asked_nor_a_source(lab: Lab) -> None:
    lab.patch.setattr(messages, "HOLDINGS_MAX", 9)
    odd = Agent(lab, "odd")
    odd.say(messages.Holds(messages.Holding(RAW, SIZE - 1), True))
    taker = Agent(lab, "taker")
    taker.open(size=SIZE)
    assert odd.heard(messages.Describe) == []
    taker.bring(*EVERYTHING)
    again = Agent(lab, "odd")
    again.say(messages.Holds(messages.Holding(RAW, SIZE - 1), True))
    assert describe(lab.tracker)["swarms"][0]["holders"] == 1


@in_loop
async def test_a_node_that_comes_and_holds_the_blob_is_a_source_when_all_pieces_have_names(lab: Lab) -> None:
    (taker,) = takers(lab, 1)
    taker.bring(0)
    Agent(lab, "early", RAW)
    assert describe(lab.tracker)["swarms"][0]["holders"] == 1
    taker.bring(*EVERYTHING)
    Agent(lab, "late", RAW)
    assert describe(lab.tracker)["swarms"][0]["holders"] == 2


# When the supernode steps in.


@in_loop
async def test_where_no_node_can_fetch_the_supernode_asks_the_origin_at_once(lab: Lab) -> None:
    agents = takers(lab, 2)
    for agent in agents:
        agent.cannot_fetch()
    (wanted,) = lab.wanted
    assert (wanted.asks_origin, wanted.size, wanted.registry) == (True, SIZE, "registry.test")
    await lab.seeded(wanted, 0)
    agents[0].report(window=4)
    assert [granted.source for granted in agents[0].granted] == [messages.SEED]


@in_loop
async def test_where_nothing_comes_for_a_while_the_supernode_asks_too_and_nodes_go_on(lab: Lab) -> None:
    (agent,) = takers(lab, 1)
    look(lab, module.RESCUE_SECONDS - 0.5)
    assert lab.wanted == []
    look(lab, module.RESCUE_SECONDS + 0.1)
    assert [wanted.asks_origin for wanted in lab.wanted] == [True]
    agent.bring(0)
    assert task_of(agent).digests == {0: digest_of(0)}


@in_loop
async def test_where_pieces_come_the_supernode_leaves_the_origin_to_the_nodes(lab: Lab) -> None:
    (agent,) = takers(lab, 1)
    agent.bring(0)
    look(lab, module.RESCUE_SECONDS + 1.0)
    assert lab.wanted == []


@in_loop
async def test_where_the_supernode_cannot_fetch_either_all_are_left_to_themselves(lab: Lab) -> None:
    (agent,) = takers(lab, 1)
    agent.cannot_fetch()
    await lab.ended(lab.wanted[0], OriginError(403, "denied"))
    assert agent.heard(messages.TaskFailed) == [messages.TaskFailed(0, agent.task.task, 403, "denied", False)]


@in_loop
async def test_that_the_supernode_may_not_fetch_is_nobodys_failure_while_a_node_may(lab: Lab) -> None:
    (agent,) = takers(lab, 1)
    look(lab, module.RESCUE_SECONDS + 0.1)
    await lab.ended(lab.wanted[0], OriginError(401, "who are you"))
    assert agent.heard(messages.TaskFailed) == []
    agent.bring(0)
    agent.cannot_fetch()
    look(lab)
    assert len(lab.wanted) == 1, "it is not asked again"
    assert [failed.reason for failed in agent.heard(messages.TaskFailed)] == ["who are you"]


@in_loop
async def test_a_registry_that_wants_a_long_pause_before_anything_came_is_left_alone_by_all(lab: Lab) -> None:
    agents = takers(lab, 2)
    agents[0].end_run(RUN_TOO_MANY, retry_after=60)
    for agent in agents:
        (failed,) = agent.heard(messages.TaskFailed)
        assert (failed.status, failed.retry_after, failed.corrupt) == (429, 60, False)
        assert "registry.test" in failed.reason


@in_loop
async def test_a_short_pause_or_one_in_the_middle_of_a_blob_is_waited_for(lab: Lab) -> None:
    (agent,) = takers(lab, 1)
    agent.end_run(RUN_TOO_MANY, retry_after=int(module.PAUSE_SECONDS_MAX))
    assert agent.heard(messages.TaskFailed) == []
    (other,) = takers(lab, 1)
    other.bring(0)
    assert other.heard(messages.TaskFailed) == []


@in_loop
async def test_runs_of_a_swarm_that_a_node_is_not_in_end_nothing(lab: Lab) -> None:
    (agent,) = takers(lab, 1)
    stranger = Agent(lab, "stranger")
    stranger.say(messages.RunEnded(agent.task.task, 0, RUN_TOO_MANY, 60), messages.RunEnded(99, 0, RUN_FAILED))
    assert agent.heard(messages.TaskFailed) == []


# What is in the supernode's cache.


@in_loop
async def test_what_is_in_the_cache_is_given_from_there_and_no_node_asks_the_origin(lab: Lab) -> None:
    lab.cached.append(RAW)
    (agent,) = takers(lab, 1)
    (wanted,) = lab.wanted
    assert (wanted.asks_origin, agent.runs) == (False, [])
    await lab.seeded(wanted, *EVERYTHING)
    await lab.ended(wanted)
    agent.report(window=4)
    assert {granted.source for granted in agent.granted} == {messages.SEED}


@in_loop
async def test_what_the_cache_turns_out_not_to_have_nodes_get_from_the_origin(lab: Lab) -> None:
    lab.cached.append(RAW)
    (agent,) = takers(lab, 1)
    await lab.ended(lab.wanted[0], NotHereError("damaged"))
    assert agent.runs
    assert agent.heard(messages.TaskFailed) == []


@in_loop
async def test_the_size_of_what_is_in_the_cache_is_known_there_though_the_origin_is_away(lab: Lab) -> None:
    lab.cached.append(RAW)
    lab.sizes[RAW] = OriginError(503, "away")
    Agent(lab, "odd").say(messages.Holds(messages.Holding(RAW, SIZE - 1), True))
    agent = Agent(lab, "a")
    agent.open(size=0)
    await lab.until(lambda: agent.heard(messages.Task))
    assert (agent.task.size, [wanted.asks_origin for wanted in lab.wanted]) == (SIZE, [False])


@in_loop
async def test_the_size_that_all_who_hold_a_blob_say_is_believed_and_where_they_differ_the_origin_is_asked(lab: Lab) -> None:
    for number in range(2):
        Agent(lab, f"holder-{number}", RAW)
    agent = Agent(lab, "a")
    agent.open(size=0)
    await lab.until(lambda: agent.heard(messages.Task))
    assert (agent.task.size, lab.sizes_asked) == (SIZE, [])
    Agent(lab, "even", OTHER)
    Agent(lab, "odd").say(messages.Holds(messages.Holding(OTHER, SIZE - 1), True))
    agent.open(request=2, digest=OTHER, size=0)
    await lab.until(lambda: len(agent.heard(messages.Task)) == 2)
    assert (agent.task.size, lab.sizes_asked) == (SIZE, [("registry.test", "team/app", OTHER)])


# The supernode's copy.


@in_loop
async def test_the_supernode_takes_its_copy_from_holders_when_nobody_needs_their_links(lab: Lab) -> None:
    (agent,) = takers(lab, 1)
    agent.bring(*EVERYTHING)
    look(lab, 1.0)
    assert lab.wanted == [], "somebody is still taking it"
    agent.say(messages.Holds(messages.Holding(RAW, SIZE), True), messages.Close(agent.task.task))
    look(lab, 1.0)
    (wanted,) = lab.wanted
    assert (wanted.asks_origin, [holder.name for holder in wanted.holders]) == (False, ["agent-0"])
    await lab.ended(wanted)
    look(lab, 2.0)
    assert len(lab.wanted) == 1


@in_loop
async def test_the_copy_is_taken_after_a_while_though_nodes_go_on_coming(lab: Lab) -> None:
    first, _ = takers(lab, 2)
    first.bring(*EVERYTHING)
    first.say(messages.Holds(messages.Holding(RAW, SIZE), True))
    look(lab, module.COPY_SECONDS - 1.0)
    assert lab.wanted == []
    look(lab, module.COPY_SECONDS + 1.0)
    assert len(lab.wanted) == 1


@in_loop
async def test_copies_are_taken_one_at_a_time_and_tried_a_few_times(lab: Lab) -> None:
    agent = Agent(lab, "a")
    for request, digest in ((1, RAW), (2, OTHER)):
        agent.open(request=request, digest=digest, size=SIZE)
        agent.bring(*EVERYTHING)
        agent.say(messages.Holds(messages.Holding(digest, SIZE), True), messages.Close(agent.task.task))
    look(lab)
    assert len(lab.wanted) == 1
    await lab.ended(lab.wanted[0], NotHereError("no holder gave it"))
    look(lab)
    assert [wanted.digest for wanted in lab.wanted] == [f"sha256:{digest.hex()}" for digest in (RAW, OTHER)]
    await lab.ended(lab.wanted[1])
    look(lab)
    assert len(lab.wanted) == 2, "a copy that failed is not tried every second"
    for tries in range(2, 5):
        look(lab, module.COPY_AGAIN_SECONDS)
        assert len(lab.wanted) == 1 + min(tries, module.COPY_TRIES_MAX)
        await lab.ended(lab.wanted[-1], NotHereError("no holder gave it"))


# Disputes.


async def dispute(lab: Lab, *liars: str) -> Agent:
    """A blob whose pieces were all named, one wrongly by each of these: the node that found out, which is in no swarm now."""
    honest = Agent(lab, "honest")
    honest.open(size=SIZE)
    for piece, name in enumerate(liars):
        liar = Agent(lab, name)
        liar.open(size=SIZE)
        liar.bring(piece, digest=wrong)
    honest.bring(*EVERYTHING)
    honest.say(messages.Disputed(honest.task.task))
    return honest


@in_loop
async def test_a_blob_that_turned_out_wrong_is_over_for_all_and_none_of_them_keeps_it(lab: Lab) -> None:
    honest = await dispute(lab, "liar")
    (failed,) = honest.heard(messages.TaskFailed)
    assert (failed.status, failed.corrupt) == (502, True)
    assert lab.tracker.seeds.tasks == {}


@in_loop
async def test_only_who_takes_part_may_dispute_a_blob_and_only_when_all_of_it_is_named_and_none_has_proved_it(lab: Lab) -> None:
    first, second = takers(lab, 2)
    number = first.task.task
    first.bring(0)
    first.say(messages.Disputed(number), messages.Disputed(99))
    second.bring(*EVERYTHING)
    Agent(lab, "stranger").say(messages.Disputed(number))
    assert number in lab.tracker.seeds.tasks
    task_of(first).whole = True
    first.say(messages.Disputed(number))
    assert number in lab.tracker.seeds.tasks, "the supernode has all of it, and right"


@in_loop
async def test_the_next_task_of_a_disputed_blob_asks_the_origin_itself_and_finds_who_named_a_piece_wrongly(lab: Lab) -> None:
    honest = await dispute(lab, "liar")
    honest.open(request=2, size=SIZE)
    (wanted,) = lab.wanted
    assert (wanted.asks_origin, wanted.holders) == (True, ())
    assert not [run for run in honest.runs if run.task == honest.task.task], "nobody names anything meanwhile"
    await lab.seeded(wanted, *EVERYTHING)
    assert quarantined(lab) == ["liar"]
    await lab.ended(wanted)
    honest.take()
    assert {granted.piece for granted in honest.granted if granted.digest == digest_of(granted.piece)} == set(EVERYTHING)


@in_loop
async def test_two_liars_are_both_found(lab: Lab) -> None:
    for number in range(8):
        Agent(lab, f"bystander-{number}")  # of too few nodes not that many are quarantined
    honest = await dispute(lab, "liar", "another")
    honest.open(request=2, size=SIZE)
    await lab.seeded(lab.wanted[0], *EVERYTHING)
    assert sorted(quarantined(lab)) == ["another", "liar"]


@in_loop
async def test_where_the_supernode_may_not_ask_nodes_fetch_and_none_names_a_piece_again_that_is_in_doubt(lab: Lab) -> None:
    honest = await dispute(lab, "liar")
    liar = next(session for session in lab.sessions if session.name == "liar")
    honest.open(request=2, size=SIZE)
    await lab.ended(lab.wanted[0], OriginError(401, "who are you"))
    number = honest.task.task
    runs = [run for run in honest.runs if run.task == number]
    assert all(run.first == 0 and run.end == 1 for run in runs), "the others were named by it"
    lab.tracker.receive(liar, messages.Open(9, RAW, "registry.test", "team/app", b"", [], SIZE))
    lab.tracker.receive(liar, messages.Brought(number, {0: wrong(0), 1: digest_of(1)}))
    assert task_of(honest).digests == {1: digest_of(1)}
    honest.bring(0)
    assert task_of(honest).digests[0] == digest_of(0)


@in_loop
async def test_a_registry_that_sends_something_else_is_blamed_in_place_of_the_node_that_asked_it(lab: Lab) -> None:
    honest, other = Agent(lab, "honest"), Agent(lab, "other")
    honest.open(size=SIZE)
    other.open(size=SIZE, registry="mirror.test")
    other.bring(0, digest=wrong)
    honest.bring(*EVERYTHING)
    honest.say(messages.Disputed(honest.task.task))
    honest.open(request=2, size=SIZE)
    await lab.seeded(lab.wanted[0], *EVERYTHING)
    assert quarantined(lab) == []


@in_loop
async def test_what_the_supernode_gets_itself_beside_nodes_shows_a_wrong_name_at_once(lab: Lab) -> None:
    liar, honest = takers(lab, 2)
    look(lab, module.RESCUE_SECONDS + 0.1)
    liar.bring(0, digest=wrong)
    await lab.seeded(lab.wanted[0], 0)
    assert quarantined(lab) == ["agent-0"]
    assert [failed.corrupt for failed in honest.heard(messages.TaskFailed)] == [True]


@in_loop
async def test_what_a_node_named_that_gave_the_supernode_a_wrong_copy_is_in_doubt_and_no_other_is_blamed(
    lab: Lab,
) -> None:
    (liar,) = takers(lab, 1)
    liar.bring(*EVERYTHING, digest=wrong)
    liar.say(messages.Holds(messages.Holding(RAW, SIZE), True), messages.Close(liar.task.task))
    look(lab, 1.0)
    lab.wanted[0].on_liar("agent-0")
    await lab.ended(lab.wanted[0], NotHereError("no holder gave it"))
    assert quarantined(lab) == ["agent-0"]
    honest = Agent(lab, "honest")
    honest.open(size=SIZE)
    assert honest.task.known == {}, "what the liar named is not told to others"
    assert lab.wanted[1].asks_origin


@in_loop
async def test_who_was_blamed_for_bytes_that_were_right_is_a_source_again_when_the_name_turns_out_wrong(lab: Lab) -> None:
    liar, honest, taker = takers(lab, 3)
    liar.bring(*EVERYTHING, digest=wrong)
    honest.say(messages.Holds(messages.Holding(RAW, SIZE), True))
    taker.take(lambda source: messages.CORRUPT if source == honest.session.number else messages.DELIVERED)
    assert quarantined(lab) == ["agent-1"]
    taker.say(messages.Disputed(taker.task.task))
    taker.open(request=2, size=SIZE)
    await lab.seeded(lab.wanted[-1], *EVERYTHING)
    assert quarantined(lab) == ["agent-0"]
    taker.take()
    assert not lab.tracker.scheduler.nodes[honest.session.number].barred


@in_loop
async def test_a_node_is_heard_once_when_it_says_that_a_blob_is_wrong(lab: Lab) -> None:
    honest, accuser = takers(lab, 2)
    honest.bring(*EVERYTHING)
    accuser.say(messages.Disputed(accuser.task.task))
    for agent in (honest, accuser):
        agent.open(request=2)
    await lab.ended(lab.wanted[0], OriginError(401, "who are you"))
    other = Agent(lab, "other")
    other.open()
    other.bring(*EVERYTHING)
    number = accuser.task.task
    accuser.say(messages.Disputed(number))
    assert number in lab.tracker.seeds.tasks
    other.say(messages.Disputed(number))
    assert number not in lab.tracker.seeds.tasks


@in_loop
async def test_a_blob_that_is_wrong_again_and_again_is_left_to_each_nodes_own_origin(lab: Lab) -> None:
    for number in range(module.DISPUTES_MAX):
        agent = Agent(lab, f"agent-{number}")
        agent.open(request=number, size=SIZE)
        if number:
            await lab.ended(lab.wanted[-1], OriginError(401, "who are you"))
        named_by = Agent(lab, f"namer-{number}")
        named_by.open(size=SIZE)
        named_by.bring(*EVERYTHING, digest=wrong)
        agent.say(messages.Disputed(agent.task.task))
    agent = Agent(lab, "a")
    agent.open(request=9, size=SIZE)
    await lab.ended(lab.wanted[-1], OriginError(401, "who are you"))
    failed = agent.heard(messages.TaskFailed)[-1]
    assert (failed.status, failed.corrupt) == (401, False), "so that it asks its own origin"


@in_loop
async def test_an_origin_that_gives_the_supernode_a_wrong_blob_ends_the_task_as_corrupt(lab: Lab) -> None:
    honest = await dispute(lab, "liar")
    honest.open(request=2, size=SIZE)
    await lab.ended(lab.wanted[0], DigestError("wrong bytes"))
    assert honest.heard(messages.TaskFailed)[-1].corrupt


@in_loop
async def test_no_more_doubts_are_kept_than_the_limit(lab: Lab) -> None:
    lab.patch.setattr(doubts, "BLOBS_MAX", 2)
    agent, other = Agent(lab, "a"), Agent(lab, "b")
    for number in range(4):
        for member in (agent, other):
            member.open(digest=bytes([number]) * 32, size=SIZE)
        other.bring(0)
        agent.bring(*EVERYTHING)
        agent.say(messages.Disputed(agent.task.task))
    assert len(lab.tracker.seeds._doubts._named) == 2


@in_loop
async def test_a_node_that_named_all_pieces_itself_doubts_nobody_when_they_are_wrong(lab: Lab) -> None:
    """What it was sent was wrong, by a mirror perhaps, which it asks no more: there is nothing to compare."""
    agent = Agent(lab, "a")
    agent.open(size=SIZE)
    agent.bring(*EVERYTHING)
    agent.say(messages.Disputed(agent.task.task))
    assert agent.heard(messages.TaskFailed)[-1].corrupt
    assert not lab.tracker.seeds._doubts._named


def test_whoever_named_a_piece_in_any_of_several_doubts_is_denied_it() -> None:
    layout = Layout.of(SIZE)
    task = BlobTask(1, RAW, "a", Source("registry.test", "team/app"), 0.0, 0.0, layout)
    said = [Named(digest_of(piece), name, task.source) for piece, name in enumerate(("a", "b", "a", "a"))]
    task.doubts = [{0: said[0], 1: said[1]}, {0: said[0], 3: said[3]}]
    assert (task.denied("a"), task.denied("b"), task.denied("c")) == (0b1001, 0b10, 0)
