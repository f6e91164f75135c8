"""The tracker and its agents: whom it believes, what they hold and ask for, and when they are gone."""

from __future__ import annotations

import asyncio

import pytest

from agent.swarm import messages
from agent.swarm.channel import WireError, frame
from agent.values.errors import DigestError, OriginError
from agent.values.manifest import Manifest
from supernode.overview import describe
from supernode.seeder import AbandonedError
from supernode.session import INTRODUCED_MAX, UNSENT_BYTES_MAX
from supernode.tracker import seeds
from supernode.tracker import tracker as module
from supernode.tracker.health import HealthSettings
from tests.tracker import LAYOUT, MANIFEST, OTHER, RAW, Agent, Lab, in_loop

# Judgement.


def wrong(agent: Agent, number: int = 0) -> messages.Done:
    return messages.Done(agent.granted[number].piece, agent.granted[number].source, 5, messages.CORRUPT)


@in_loop
async def test_a_peer_that_sent_a_wrong_piece_is_no_source_any_more(lab: Lab) -> None:
    lab.cached.append(RAW)
    for number in range(4):
        Agent(lab, f"bystander-{number}")
    liar, taker = Agent(lab, "liar", RAW), Agent(lab, "taker")
    taker.open()
    await lab.distributed()
    taker.take(lambda source: messages.CORRUPT if source == liar.session.number else messages.DELIVERED)
    assert {grant.piece for grant in taker.granted} == set(range(LAYOUT.count))
    assert [item["name"] for item in describe(lab.tracker)["quarantines"]] == ["liar"]
    assert "taker" in describe(lab.tracker)["quarantines"][0]["reason"]
    next_one = Agent(lab, "next")
    next_one.open()
    next_one.take()
    assert {grant.piece for grant in next_one.granted} == set(range(LAYOUT.count))
    assert liar.session.number not in {source for grant in next_one.granted for source in (grant.source, grant.alternative)}
    again = Agent(lab, "liar", RAW)
    third = Agent(lab, "third")
    third.open()
    third.take()
    assert again.session.number not in {grant.source for grant in third.granted}, "coming back wipes nothing off the slate"


@in_loop
async def test_an_agent_accuses_only_those_that_it_was_sent_to(lab: Lab) -> None:
    lab.cached.append(RAW)
    innocent, accuser = Agent(lab, "innocent"), Agent(lab, "accuser")
    accuser.open()
    await lab.distributed()
    accuser.report(window=4)
    piece = accuser.granted[0].piece
    accuser.report(
        messages.Done(piece, innocent.session.number, 5, messages.CORRUPT),
        messages.Done(7, innocent.session.number, 5, messages.CORRUPT),
    )
    accuser.report(messages.Done(piece, 12345, 5, messages.CORRUPT))
    assert describe(lab.tracker)["quarantines"] == []


@in_loop
async def test_what_was_said_of_a_source_is_said_once_however_often_it_is_repeated(lab: Lab) -> None:
    lab.cached.append(RAW)
    source, taker = Agent(lab, "source", RAW), Agent(lab, "taker")
    taker.open()
    await lab.distributed()
    judged = []
    lab.patch.setattr(lab.tracker.health, "failed", lambda *words: judged.append(words[:3]))
    taker.report(window=16)
    granted = next(grant for grant in taker.granted if grant.source == source.session.number)
    for _ in range(5):
        taker.report(messages.Done(granted.piece, granted.source, 5, messages.STALLED), window=16)
    taker.report(messages.Done(granted.piece, granted.alternative, 5, messages.DELIVERED), window=16)
    taker.report(messages.Done(granted.piece, granted.source, 5, messages.CORRUPT), window=16)
    assert judged == [("source", "taker", messages.STALLED)]


@in_loop
async def test_the_supernode_itself_is_never_quarantined(lab: Lab) -> None:
    lab.cached.append(RAW)
    agent = Agent(lab, "a")
    agent.open()
    await lab.distributed()
    agent.report(window=4)
    agent.report(wrong(agent), window=4)
    assert describe(lab.tracker)["quarantines"] == []


@in_loop
async def test_a_holder_that_lied_to_the_supernode_is_quarantined_and_its_word_does_not_count(lab: Lab) -> None:
    lab.cached.append(RAW)
    liar, taker = Agent(lab, "liar", RAW), Agent(lab, "taker")
    taker.open()
    wanted = await lab.sized()
    assert [holder.name for holder in wanted.holders] == ["liar"]
    wanted.on_liar("liar")
    wanted.on_liar("somebody who left")
    await lab.seeded(wanted, *range(LAYOUT.count))
    await lab.ended(wanted)
    assert [item["name"] for item in describe(lab.tracker)["quarantines"]] == ["liar"]
    taker.report(window=16)
    assert {grant.source for grant in taker.granted} == {messages.SEED}
    assert liar.session.holdings == {}


@in_loop
async def test_a_quarantined_node_is_not_asked_for_what_the_supernode_has_lost(lab: Lab) -> None:
    lab.cached += [RAW, OTHER]
    Agent(lab, "liar", RAW, OTHER)
    taker = Agent(lab, "taker")
    taker.open()
    (await lab.sized()).on_liar("liar")
    await asyncio.sleep(0.01)
    taker.open(request=2, digest=OTHER)
    await lab.until(lambda: len(lab.wanted) == 2)
    assert lab.wanted[1].holders == ()


# Holdings.


@in_loop
async def test_those_who_hold_a_blob_are_sources_when_it_is_known_to_be_right_and_not_before(lab: Lab) -> None:
    lab.cached.append(RAW)
    taker = Agent(lab, "taker")
    taker.open()
    Agent(lab, "holder", RAW)
    wanted = await lab.sized()
    taker.report(window=16)
    await lab.seeded(wanted, *range(LAYOUT.count))
    assert {grant.source for grant in taker.granted} == {messages.SEED}
    assert describe(lab.tracker)["swarms"][0]["holders"] == 0
    await lab.ended(wanted)
    assert describe(lab.tracker)["swarms"][0]["holders"] == 1


@in_loop
async def test_what_a_node_holds_no_longer_it_is_not_asked_for(lab: Lab) -> None:
    lab.cached.append(RAW)
    holder, taker = Agent(lab, "holder", RAW), Agent(lab, "taker")
    taker.open()
    await lab.distributed()
    holder.say(messages.Holds(messages.Holding(RAW, LAYOUT.size), False))
    assert describe(lab.tracker)["swarms"][0]["holders"] == 0
    holder.say(messages.Holds(messages.Holding(RAW, LAYOUT.size), True))
    assert describe(lab.tracker)["swarms"][0]["holders"] == 1


@in_loop
async def test_a_node_may_not_hold_more_blobs_than_it_could_say_with_its_hello(lab: Lab) -> None:
    lab.patch.setattr(messages, "HOLDINGS_MAX", 3)
    agent = Agent(lab, "a")
    for number in range(9):
        agent.say(messages.Holds(messages.Holding(number.to_bytes(32), 5), True))
    assert describe(lab.tracker)["nodes"][0]["blobs"] == 3


# Names.


@in_loop
async def test_all_who_ask_for_a_name_at_the_same_time_are_one_question(lab: Lab) -> None:
    agents = [Agent(lab, f"agent-{number}") for number in range(50)]
    for number, agent in enumerate(agents):
        agent.say(messages.Resolve(number, "registry.test", "team/app", "1"))
    await lab.until(lambda: all(agent.heard(messages.Resolved) for agent in agents))
    assert lab.names == [("registry.test", "team/app", "1")]
    for number, agent in enumerate(agents):
        assert agent.heard(messages.Resolved) == [messages.Resolved(number, MANIFEST.media_type, MANIFEST.body, False)]


@in_loop
async def test_a_refusal_and_a_mistake_are_told_to_all_who_asked(lab: Lab) -> None:
    for error, status, code in (
        (OriginError(404, "no such tag", "MANIFEST_UNKNOWN"), 404, "MANIFEST_UNKNOWN"),
        (DigestError("wrong bytes"), 502, "DIGEST_INVALID"),
        (RuntimeError("a mistake"), 502, "UNAVAILABLE"),
    ):
        lab.answer = error
        agent = Agent(lab, "a")
        agent.say(messages.Resolve(1, "registry.test", "team/app", "1"))
        await lab.until(lambda agent=agent: agent.heard(messages.Unresolved))
        said = agent.heard(messages.Unresolved)[0]
        assert (said.status, said.code) == (status, code)


@in_loop
async def test_too_many_names_at_once_are_refused_at_once(lab: Lab) -> None:
    lab.patch.setattr("supernode.tags.resolver.QUESTIONS_MAX", 3)
    agent = Agent(lab, "a")
    for number in range(5):
        agent.say(messages.Resolve(number, "registry.test", "team/app", str(number)))
    assert [said.request for said in agent.heard(messages.Unresolved)] == [3, 4]
    await lab.until(lambda: len(agent.heard(messages.Resolved)) == 3)


@in_loop
async def test_a_long_manifest_is_handed_out_as_fast_as_agents_read_and_who_does_not_read_is_cut_off(lab: Lab) -> None:
    """FAULTS 94."""
    lab.patch.setattr("supernode.tags.handout.UNREAD_BYTES_MAX", 1 << 20)
    lab.answer = Manifest.of(MANIFEST.media_type, b" " * (512 << 10))
    agents = [Agent(lab, f"agent-{number}") for number in range(6)]
    for agent in agents[:2]:
        agent.writer.unsent = 512 << 10
    for number, agent in enumerate(agents):
        agent.say(messages.Resolve(number, "registry.test", "team/app", "1"))
    await lab.until(lambda: agents[1].heard(messages.Resolved))
    assert not any(agent.heard(messages.Resolved) for agent in agents[2:])
    agents[0].writer.unsent = agents[1].writer.unsent = 0
    await lab.until(lambda: all(agent.heard(messages.Resolved) for agent in agents))
    assert [agent.heard(messages.Resolved)[0].request for agent in agents] == list(range(6))
    lab.patch.setattr("supernode.tags.handout.READ_SECONDS_MAX", 0.3)
    agents[2].writer.unsent = 1 << 20
    for agent in agents[2:4]:
        agent.say(messages.Resolve(9, "registry.test", "team/app", "1"))
    await lab.until(lambda: len(agents[3].heard(messages.Resolved)) == 2)
    assert [agent.writer.aborted for agent in agents[:4]] == [False, False, True, False]


# Time.


@in_loop
async def test_a_node_that_is_not_heard_for_its_lease_counts_as_gone(lab: Lab) -> None:
    lab.patch.setattr(module, "TICK_SECONDS", 0.02)
    lab.tracker._ticking.cancel()
    lab.tracker._ticking = asyncio.get_running_loop().create_task(lab.tracker._keep_ticking())
    silent = Agent(lab, "silent")
    silent.open()
    lab.tracker.health._settings = HealthSettings(lease_seconds=0.1)
    await lab.until(lambda: silent.writer.closed)
    assert describe(lab.tracker)["nodesTotal"] == 0
    assert describe(lab.tracker)["swarms"][0]["takers"] == 0


@in_loop
async def test_a_tick_that_fails_is_logged_and_said_by_readiness_until_the_next_one_succeeds(lab: Lab) -> None:
    logged: list[str] = []
    lab.patch.setattr(module.log, "exception", logged.append)
    lab.patch.setattr(module, "TICK_SECONDS", 0.02)
    lab.tracker._ticking.cancel()
    lab.tracker._ticking = asyncio.get_running_loop().create_task(lab.tracker._keep_ticking())
    silent = Agent(lab, "silent")
    lab.tracker.health._settings = HealthSettings(lease_seconds=0.1)
    assert lab.tracker.not_ready() == ""
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(lab.tracker.health, "tick", lambda now: 1 / 0)
        await lab.until(lambda: lab.tracker.not_ready() == "the tracker's last tick failed: ZeroDivisionError")
        await asyncio.sleep(0.1)
        assert not silent.writer.closed
    await lab.until(lambda: silent.writer.closed)
    await lab.until(lambda: lab.tracker.not_ready() == "")
    assert logged
    assert set(logged) == {"a tick of the tracker failed inside"}


@in_loop
async def test_a_tracker_that_does_not_tick_at_all_is_not_ready(lab: Lab) -> None:
    lab.tracker._ticking.cancel()
    lab.patch.setattr(module, "TICK_SILENCE_SECONDS_MAX", 0.05)
    await lab.until(lambda: lab.tracker.not_ready() == "the tracker has not ticked for 0 s")


@in_loop
async def test_a_blob_that_nobody_waits_for_stops_arriving_and_a_whole_one_is_remembered_a_while(lab: Lab) -> None:
    lab.cached.append(RAW)
    lab.patch.setattr(module, "TICK_SECONDS", 0.02)
    lab.patch.setattr(seeds, "ABANDON_SECONDS", 0.1)
    lab.tracker._ticking.cancel()
    lab.tracker._ticking = asyncio.get_running_loop().create_task(lab.tracker._keep_ticking())
    whole, half = Agent(lab, "whole"), Agent(lab, "half")
    whole.open()
    await lab.distributed()
    half.open(digest=OTHER)
    half.cannot_fetch()
    wanted = await lab.sized(1)
    await asyncio.sleep(0.3)
    assert not wanted.abandoned.is_set(), "somebody waits"
    half.leave()
    whole.leave()
    await lab.until(wanted.abandoned.is_set)
    assert [task.name for task in lab.tracker.seeds.tasks.values()] == [f"sha256:{RAW.hex()}"]
    lab.patch.setattr(seeds, "IDLE_SECONDS", 0.1)
    await lab.until(lambda: not lab.tracker.seeds.tasks)
    await lab.ended(wanted, AbandonedError("nobody wants it"))


@in_loop
async def test_whoever_opens_a_blob_that_was_given_up_begins_a_new_seed(lab: Lab) -> None:
    lab.cached.append(RAW)
    agent = Agent(lab, "a")
    agent.open()
    wanted = await lab.sized()
    wanted.abandoned.set()
    agent.open(request=2)
    await lab.sized(1)
    assert agent.task.request == 2


# Sending.


@in_loop
async def test_an_agent_that_does_not_read_is_cut_off(lab: Lab) -> None:
    agent = Agent(lab, "a")
    agent.writer.unsent = UNSENT_BYTES_MAX + 1
    agent.say(messages.Heartbeat())
    assert agent.writer.aborted
    sent = len(agent.writer.sent)
    agent.say(messages.Heartbeat())
    assert len(agent.writer.sent) == sent


@in_loop
async def test_an_agent_that_cannot_be_written_to_is_cut_off_alone_and_the_others_hear_what_they_are_told(lab: Lab) -> None:
    broken, others = Agent(lab, "broken"), [Agent(lab, "before"), Agent(lab, "after")]
    await asyncio.sleep(0)  # Welcome
    lab.patch.setattr(broken.writer, "write", lambda data: 1 / 0)
    for agent in (others[0], broken, others[1]):
        agent.session.send(messages.Seeding(7))
    await asyncio.sleep(0)
    assert broken.writer.aborted
    assert not any(agent.writer.is_closing() for agent in others)
    assert [agent.heard(messages.Seeding) for agent in others] == [[messages.Seeding(7)]] * 2


@in_loop
async def test_what_is_said_to_an_agent_together_goes_out_together_and_in_order(lab: Lab) -> None:
    agent = Agent(lab, "a")
    await asyncio.sleep(0)  # Welcome
    written: list[bytes] = []
    lab.patch.setattr(agent.writer, "write", written.append)
    for number in range(3):
        agent.session.send(messages.Seeding(number))
    assert written == []
    await asyncio.sleep(0)
    assert written == [b"".join(frame(messages.Seeding(number)) for number in range(3))]


@in_loop
async def test_a_peer_is_introduced_again_when_it_may_have_been_forgotten(lab: Lab) -> None:
    agent, friend = Agent(lab, "a"), Agent(lab, "friend")
    for _ in range(2):
        agent.session.introduce(friend.session)
    assert len(agent.heard(messages.Peer)) == 1
    for _ in range(INTRODUCED_MAX):
        agent.session.introduce(Agent(lab, "friend").session)
        agent.session.introduce(friend.session)
    assert agent.heard(messages.Peer).count(messages.Peer(friend.session.number, "10.0.0.1", 65002)) == 2
    assert len(agent.session.introduced) <= INTRODUCED_MAX


@in_loop
async def test_hello_is_said_once(lab: Lab) -> None:
    agent = Agent(lab, "a")
    with pytest.raises(WireError, match="once"):
        agent.say(messages.Hello(messages.VERSION, "a", "", "10.0.0.1", 1, 0, []))
