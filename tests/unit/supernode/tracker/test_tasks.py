"""The tracker between agents and scheduler: what is answered to whom, what is granted and what never is, and why it fails."""

from __future__ import annotations

import asyncio
import time

from agent.storage.blob import Blob
from agent.swarm import messages
from agent.values.errors import DigestError, OriginError
from supernode.overview import describe
from supernode.tracker import seeds as module
from tests.tracker import LAYOUT, OTHER, RAW, Agent, Lab, digest_of, in_loop, open_nothing

# Joining and opening.


@in_loop
async def test_an_agent_is_welcomed_and_told_where_the_supernodes_pieces_are(lab: Lab) -> None:
    agent = Agent(lab, "a")
    welcome = messages.Welcome(messages.VERSION, "supernode", 30.0, "10.0.0.9", 65002, 1000.0, takes_byte_reports=True)
    assert agent.writer.sent == [welcome]


@in_loop
async def test_all_who_open_a_blob_are_one_task_and_its_size_is_asked_for_once(lab: Lab) -> None:
    agents = [Agent(lab, f"agent-{number}") for number in range(50)]
    for agent in agents:
        agent.open(request=7, size=0)
    assert not any(agent.heard(messages.Task) for agent in agents)
    await lab.until(lambda: agents[0].heard(messages.Task))
    expected = messages.Task(7, agents[0].task.task, LAYOUT.size, LAYOUT.length, {})
    assert all(agent.heard(messages.Task) == [expected] for agent in agents)
    assert lab.sizes_asked == [("registry.test", "team/app", RAW)]
    assert lab.wanted == [], "the nodes fetch it"
    assert len(lab.tracker.seeds.tasks) == 1


@in_loop
async def test_all_who_open_a_blob_that_is_here_are_one_seed(lab: Lab) -> None:
    lab.cached.append(RAW)
    for number in range(50):
        Agent(lab, f"agent-{number}").open()
    (wanted,) = lab.wanted
    assert (wanted.digest, wanted.size) == (f"sha256:{RAW.hex()}", LAYOUT.size)
    assert (wanted.registry, wanted.repository) == ("registry.test", "team/app")


@in_loop
async def test_an_agent_that_opens_a_blob_anew_before_its_size_is_known_is_answered_once(lab: Lab) -> None:
    """FAULTS 62: it would hear the answer to what it has given up, say so, and be taken out of the swarm that it waits for."""
    agent = Agent(lab, "a")
    agent.open(request=1, size=0)
    agent.open(request=2, size=0)
    assert agent.session.waiting == 1
    await lab.until(lambda: agent.heard(messages.Task))
    assert [task.request for task in agent.heard(messages.Task)] == [2]
    assert agent.session.waiting == 0


@in_loop
async def test_whoever_opens_later_is_told_the_digests_that_are_known(lab: Lab) -> None:
    lab.cached.append(RAW)
    Agent(lab, "a").open()
    wanted = await lab.sized()
    await lab.seeded(wanted, 0, 3)
    late = Agent(lab, "late")
    late.open(request=9)
    assert late.task.known == {0: digest_of(0), 3: digest_of(3)}


@in_loop
async def test_two_blobs_are_two_tasks_and_one_failing_leaves_the_other(lab: Lab) -> None:
    agent = Agent(lab, "a")
    lab.sizes[OTHER] = OriginError(502, "no")
    agent.open(request=1, digest=RAW, size=0)
    agent.open(request=2, digest=OTHER, size=0)
    await lab.until(lambda: agent.heard(messages.Task) and agent.heard(messages.TaskFailed))
    assert [task.request for task in agent.heard(messages.Task)] == [1]
    assert agent.heard(messages.TaskFailed) == [messages.TaskFailed(2, 0, 502, "no", False)]


@in_loop
async def test_an_agent_that_left_before_the_size_was_known_is_not_answered(lab: Lab) -> None:
    leaver, stayer = Agent(lab, "leaver"), Agent(lab, "stayer")
    leaver.open(size=0)
    stayer.open(size=0)
    leaver.leave()
    await lab.until(lambda: stayer.heard(messages.Task))
    assert not leaver.heard(messages.Task)
    assert describe(lab.tracker)["swarms"][0]["takers"] == 1


@in_loop
async def test_the_same_name_on_a_second_connection_takes_the_place_of_the_first(lab: Lab) -> None:
    first = Agent(lab, "a")
    first.open(size=0)
    second = Agent(lab, "a")
    assert first.writer.closed
    assert [session.number for session in lab.tracker.sessions.values()] == [second.session.number]
    second.open(size=0)
    await lab.until(lambda: second.heard(messages.Task))
    assert not first.heard(messages.Task)
    first.report(task=second.task.task)
    first.leave()
    assert describe(lab.tracker)["nodesTotal"] == 1
    assert describe(lab.tracker)["swarms"][0]["takers"] == 1


@in_loop
async def test_an_agent_may_be_in_so_many_swarms_and_no_more(lab: Lab) -> None:
    agent = Agent(lab, "a")
    for number in range(module.TASKS_PER_AGENT_MAX + 3):
        agent.open(request=number, digest=number.to_bytes(32), size=LAYOUT.size * (number % 2))
    refused = agent.heard(messages.TaskFailed)
    assert [failed.request for failed in refused] == [256, 257, 258]
    assert {failed.status for failed in refused} == {429}
    assert len(lab.tracker.seeds.tasks) == module.TASKS_PER_AGENT_MAX
    await lab.until(lambda: len(agent.heard(messages.Task)) == module.TASKS_PER_AGENT_MAX)
    assert len(agent.heard(messages.TaskFailed)) == 3
    agent.say(messages.Close(agent.task.task))
    agent.open(request=1000, digest=OTHER)
    assert len(agent.heard(messages.TaskFailed)) == 3


# Private ones.


@in_loop
async def test_a_swarm_is_private_for_all_once_somebody_in_it_needs_a_credential(lab: Lab) -> None:
    lab.cached.append(RAW)
    first, second, third = Agent(lab, "first"), Agent(lab, "second"), Agent(lab, "third")
    first.open()
    blob = await lab.sized_blob()
    assert not lab.wanted[0].private
    assert (first.task.private, first.heard(messages.Private), blob.private) == (False, [], False)
    for agent in (second, third):
        agent.say(messages.Open(1, RAW, "registry.test", "team/app", b"", [], 0, True))
    assert second.task.private
    assert third.task.private
    assert first.heard(messages.Private) == [messages.Private(first.task.task)]
    assert second.heard(messages.Private) == []
    assert blob.private


@in_loop
async def test_what_is_here_from_a_private_swarm_is_private_in_the_next_one(lab: Lab) -> None:
    lab.cached.append(RAW)
    agent = Agent(lab, "a")
    agent.open()
    assert (await lab.sized_blob(private=True)).private
    assert agent.heard(messages.Private) == [messages.Private(agent.task.task)]
    late = Agent(lab, "late")
    late.open()
    assert late.task.private


@in_loop
async def test_where_others_find_a_node_and_by_which_certificate_is_told_together(lab: Lab) -> None:
    lab.cached.append(RAW)
    holder, taker = Agent(lab, "holder", RAW), Agent(lab, "taker")
    holder.session.fingerprint = bytes(range(32))
    holder.session.__post_init__()
    taker.open()
    await lab.distributed()
    taker.take()
    (peer,) = taker.heard(messages.Peer)
    assert peer == messages.Peer(holder.session.number, "10.0.0.1", 65002, bytes(range(32)))


# Grants.


@in_loop
async def test_pieces_are_granted_as_they_are_seeded_with_their_digest_and_a_source_that_is_introduced(lab: Lab) -> None:
    lab.cached.append(RAW)
    agent = Agent(lab, "a")
    agent.open()
    wanted = await lab.sized()
    agent.report(window=4)
    assert agent.granted == []
    await lab.seeded(wanted, 2)
    assert agent.granted == [messages.Granted(2, digest_of(2), messages.SEED, messages.SEED)]


@in_loop
async def test_a_piece_is_granted_while_it_comes_and_its_digest_named_when_it_is_here(lab: Lab) -> None:
    lab.cached.append(RAW)
    agent = Agent(lab, "a")
    agent.open()
    wanted = await lab.sized()
    agent.report(window=4)
    wanted.on_coming(2)
    await lab.until(lambda: agent.granted)
    assert agent.granted == [messages.Granted(2, messages.COMING, messages.SEED, messages.SEED)]
    early = Agent(lab, "early")
    early.open(have=1 << 2)
    assert early.task.known == {}
    await lab.seeded(wanted, 2)
    agent.report(messages.Done(2, messages.SEED, 5, messages.DELIVERED), window=4)
    late = Agent(lab, "late")
    late.open()
    assert late.task.known == {2: digest_of(2)}
    late.report(window=4)
    assert late.granted == [messages.Granted(2, digest_of(2), agent.session.number, messages.SEED)]


@in_loop
async def test_what_the_supernode_can_send_at_once_goes_before_what_is_coming(lab: Lab) -> None:
    lab.cached.append(RAW)
    agent = Agent(lab, "a")
    agent.open()
    wanted = await lab.sized()
    await lab.seeded(wanted, 0)
    wanted.on_coming(1)
    await asyncio.sleep(0.05)
    agent.report(window=4)
    assert [grant.piece for grant in agent.granted] == [0]
    await lab.seeded(wanted, 1)
    assert [(grant.piece, grant.digest) for grant in agent.granted] == [(0, digest_of(0)), (1, digest_of(1))]


@in_loop
async def test_a_coming_piece_that_did_not_come_is_granted_anew(lab: Lab) -> None:
    lab.cached.append(RAW)
    agent, other = Agent(lab, "a"), Agent(lab, "b")
    for taker in (agent, other):
        taker.open()
    wanted = await lab.sized()
    for taker in (agent, other):
        taker.report(window=4)
    wanted.on_coming(2)
    await lab.until(lambda: agent.granted or other.granted)
    first, second = (agent, other) if agent.granted else (other, agent)
    first.report(messages.Done(2, messages.SEED, 5, messages.UNREACHABLE), window=4)
    assert [grant.piece for grant in second.granted] == [2]


@in_loop
async def test_a_peer_is_introduced_once_before_the_first_grant_that_names_it(lab: Lab) -> None:
    lab.cached.append(RAW)
    holder, taker = Agent(lab, "holder", RAW, port=7001), Agent(lab, "taker", port=7002)
    taker.open()
    await lab.distributed()
    taker.take()
    assert {grant.piece for grant in taker.granted} == set(range(LAYOUT.count))
    named = {source for grant in taker.granted for source in (grant.source, grant.alternative)}
    assert named == {messages.SEED, holder.session.number}
    assert taker.heard(messages.Peer) == [messages.Peer(holder.session.number, "10.0.0.1", 7001)]
    first = next(number for number, said in enumerate(taker.writer.sent) if isinstance(said, messages.Peer))
    before = [said for said in taker.writer.sent[:first] if isinstance(said, messages.Grant)]
    assert all(piece.source == piece.alternative == messages.SEED for grant in before for piece in grant.pieces)


@in_loop
async def test_nobody_is_granted_more_than_it_has_room_for(lab: Lab) -> None:
    lab.cached.append(RAW)
    agent = Agent(lab, "a")
    agent.open()
    await lab.distributed()
    agent.report(window=3)
    assert len(agent.granted) == 3
    agent.report(messages.Done(agent.granted[0].piece, messages.SEED, 5, messages.DELIVERED), window=3)
    assert len(agent.granted) == 4


@in_loop
async def test_a_piece_that_an_agent_says_it_has_without_being_granted_it_is_granted_to_nobody_unseeded(lab: Lab) -> None:
    """Others could not check what it would give them."""
    lab.cached.append(RAW)
    liar, taker = Agent(lab, "liar"), Agent(lab, "taker")
    for agent in (liar, taker):
        agent.open(have=LAYOUT.everything)
    wanted = await lab.sized()
    taker.report(window=4)
    liar.report(*(messages.Done(piece, messages.SEED, 5, messages.DELIVERED) for piece in range(LAYOUT.count)), window=4)
    assert taker.granted == []
    await lab.seeded(wanted, 1)
    assert {grant.piece for grant in taker.granted + liar.granted} == {1}


@in_loop
async def test_what_an_agent_had_before_is_given_on_by_it(lab: Lab) -> None:
    lab.cached.append(RAW)
    first = Agent(lab, "first")
    first.open()
    await lab.distributed()
    resumed = Agent(lab, "resumed")
    resumed.open(have=0b11)
    resumed.report(window=16)
    assert {grant.piece for grant in resumed.granted} <= set(range(2, LAYOUT.count))


# Failures.


@in_loop
async def test_everybody_is_told_when_the_blob_cannot_be_had_and_whoever_comes_soon_after(lab: Lab) -> None:
    joined, waiting = Agent(lab, "joined"), Agent(lab, "waiting")
    lab.sizes[OTHER] = OriginError(404, "no such blob", "BLOB_UNKNOWN")
    joined.open(request=1)
    joined.cannot_fetch()
    wanted = await lab.sized()
    waiting.open(request=2, digest=OTHER, size=0)
    await lab.ended(wanted, DigestError("wrong bytes"))
    assert joined.heard(messages.TaskFailed) == [messages.TaskFailed(0, joined.task.task, 502, "wrong bytes", True)]
    assert waiting.heard(messages.TaskFailed) == [messages.TaskFailed(2, 0, 404, "no such blob", False)]
    late = Agent(lab, "late")
    late.open(request=3)
    assert late.heard(messages.TaskFailed) == [messages.TaskFailed(3, 0, 502, "wrong bytes", True)]
    late.open(request=4, digest=OTHER, size=0)
    assert late.heard(messages.TaskFailed)[1:] == [messages.TaskFailed(4, 0, 404, "no such blob", False)]
    assert (len(lab.wanted), len(lab.sizes_asked)) == (1, 1)


@in_loop
async def test_a_failure_is_forgotten_soon_and_the_next_one_tries_again(lab: Lab) -> None:
    lab.patch.setattr(module, "FAILURE_SECONDS", 0.0)
    agent = Agent(lab, "a")
    lab.sizes[RAW] = OriginError(502, "no")
    agent.open(request=1, size=0)
    await lab.until(lambda: agent.heard(messages.TaskFailed))
    del lab.sizes[RAW]
    agent.open(request=2, size=0)
    await lab.until(lambda: agent.heard(messages.Task))
    assert agent.task.request == 2
    assert len(lab.tracker.seeds.tasks) == 1


@in_loop
async def test_late_words_of_a_seed_that_is_over_say_nothing(lab: Lab) -> None:
    lab.patch.setattr(module, "FAILURE_SECONDS", 0.0)
    agent = Agent(lab, "a")
    agent.open(request=1)
    agent.cannot_fetch()
    old = await lab.sized()
    await lab.ended(old, OriginError(502, "no"))
    agent.open(request=2)
    agent.cannot_fetch()
    new = await lab.sized(1)
    agent.report(window=4)
    await lab.seeded(old, 0, 1)
    await lab.ended(old, None)
    old.on_size(Blob(old.digest, LAYOUT, open_nothing()))
    old.on_liar("a")
    await asyncio.sleep(0.01)
    assert agent.granted == []
    await lab.seeded(new, 0)
    assert [grant.piece for grant in agent.granted] == [0]


# Leave to ask the origin.


@in_loop
async def test_few_nodes_of_a_swarm_have_leave_at_once_and_one_that_ends_makes_room(lab: Lab) -> None:
    """FAULTS 56."""
    agents = [Agent(lab, f"agent-{number}") for number in range(module.LEAVES_MAX + 1)]
    for agent in agents:
        agent.open()
    for agent in agents:
        agent.say(messages.AskLeave(agent.task.task))
    assert [agent.heard(messages.Leave)[-1].given for agent in agents] == [True] * module.LEAVES_MAX + [False]
    agents[0].say(messages.AskLeave(agents[0].task.task))
    assert agents[0].heard(messages.Leave)[-1].given, "it has leave already"
    agents[0].say(messages.Close(agents[0].task.task))
    agents[-1].say(messages.AskLeave(agents[-1].task.task))
    assert agents[-1].heard(messages.Leave)[-1].given


@in_loop
async def test_a_node_that_the_pieces_of_others_do_not_reach_has_leave_however_many_have_it(lab: Lab) -> None:
    """FAULTS 56 and 57 together: a firewall closes 65002 everywhere."""
    lab.cached.append(RAW)
    holder = Agent(lab, "holder", RAW)
    few = [Agent(lab, f"agent-{number}") for number in range(module.LEAVES_MAX)]
    late = Agent(lab, "late")
    for agent in [*few, late]:
        agent.open()
    await lab.distributed()
    for agent in few:
        agent.say(messages.AskLeave(agent.task.task))
    late.report(window=16)
    piece = next(granted.piece for granted in late.granted if granted.source == holder.session.number)
    late.report(messages.Done(piece, holder.session.number, 5, messages.UNREACHABLE))
    late.say(messages.AskLeave(late.task.task))
    assert late.heard(messages.Leave)[-1].given
    assert len(lab.tracker.seeds.tasks[late.task.task].leaves) == module.LEAVES_MAX, "it is not counted among the few"


@in_loop
async def test_a_node_that_a_piece_of_another_has_come_to_waits_for_more(lab: Lab) -> None:
    lab.cached.append(RAW)
    holder = Agent(lab, "holder", RAW)
    agents = [Agent(lab, f"agent-{number}") for number in range(module.LEAVES_MAX + 1)]
    for agent in agents:
        agent.open()
    await lab.distributed()
    for agent in agents[:-1]:
        agent.say(messages.AskLeave(agent.task.task))
    last = agents[-1]
    last.report(window=16)
    first, second, *_ = (granted.piece for granted in last.granted if granted.source == holder.session.number)
    source = holder.session.number
    last.report(messages.Done(first, source, 5, messages.STALLED), messages.Done(second, source, 5, messages.DELIVERED))
    last.say(messages.AskLeave(last.task.task))
    assert not last.heard(messages.Leave)[-1].given


@in_loop
async def test_what_a_node_got_from_the_origin_is_granted_to_others_from_it_with_the_digest_that_it_named(lab: Lab) -> None:
    """FAULTS 56."""
    giver, taker = Agent(lab, "giver"), Agent(lab, "taker")
    giver.open()
    giver.bring(2, 3)
    taker.open()
    assert taker.task.known == {2: digest_of(2), 3: digest_of(3)}
    taker.report(window=1)
    (granted,) = taker.granted
    assert (granted.source, granted.digest) == (giver.session.number, digest_of(granted.piece))
    assert granted.piece in (2, 3)


@in_loop
async def test_a_node_that_waits_for_the_size_is_told_so_every_second(lab: Lab) -> None:
    agent = Agent(lab, "a")
    agent.open(request=7, size=0)
    lab.tracker.seeds.look_at_all(time.monotonic())
    lab.flush()
    assert agent.heard(messages.Seeding) == [messages.Seeding(0, 7)]
