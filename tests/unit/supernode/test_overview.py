"""What is shown of the tracker: swarms and their progress, images, bytes by source, who is left alone, and never too much."""

from __future__ import annotations

import json
import time

from agent.build import VERSION
from agent.swarm import messages
from agent.values.errors import OriginError
from supernode import overview
from supernode.overview import describe
from tests.swarm import PIECE
from tests.tracker import LAYOUT, OTHER, RAW, Agent, Lab, in_loop


@in_loop
async def test_a_swarm_is_described_from_its_first_open_to_its_failure(lab: Lab) -> None:
    agent = Agent(lab, "a", OTHER)
    agent.open(size=0)
    assert describe(lab.tracker)["swarms"] == [
        {
            "digest": f"sha256:{RAW.hex()}",
            "image": "registry.test/team/app",
            "size": None,
            "whole": False,
            "failed": None,
            "pieces": None,
            "seeded": None,
            **dict.fromkeys(
                ("takers", "holders", "parked", "inFlight", "finished", "bytesDone", "bytesTotal", "bytesPerSecond"), 0
            ),
            "progress": None,
            "secondsLeft": 0,
        }
    ]
    await lab.until(lambda: agent.heard(messages.Task))
    agent.cannot_fetch()
    wanted = await lab.sized()
    agent.report(window=4)
    await lab.seeded(wanted, 0, 1)
    swarm = describe(lab.tracker)["swarms"][0]
    assert (swarm["size"], swarm["pieces"], swarm["seeded"], swarm["takers"]) == (LAYOUT.size, LAYOUT.count, 2, 1)
    assert swarm["inFlight"] == 2
    await lab.ended(wanted, OriginError(502, "the registry broke off"))
    swarm = describe(lab.tracker)["swarms"][0]
    assert (swarm["failed"], swarm["takers"], swarm["size"]) == ("the registry broke off", 0, LAYOUT.size)


@in_loop
async def test_lists_are_cut_and_their_length_is_told(lab: Lab) -> None:
    lab.patch.setattr(overview, "SHOWN_MAX", 3)
    for number in range(5):
        Agent(lab, f"agent-{number}").open(digest=bytes([number]) * 32)
    found = describe(lab.tracker)
    assert (len(found["nodes"]), found["nodesTotal"]) == (3, 5)
    assert (len(found["swarms"]), found["swarmsTotal"]) == (3, 5)
    assert json.loads(json.dumps(found)) == found


@in_loop
async def test_a_rollout_shows_what_its_nodes_have_of_what_they_want_and_when_that_will_be_all(lab: Lab) -> None:
    first, second = Agent(lab, "a"), Agent(lab, "b")
    for agent in (first, second):
        agent.open()
    rollout = describe(lab.tracker)["rollouts"][0]
    assert (rollout["image"], rollout["blobs"], rollout["bytes"]) == ("registry.test/team/app", 1, LAYOUT.size)
    assert (rollout["nodes"], rollout["nodesPulling"], rollout["progress"]) == (2, 2, 0.0)
    assert (rollout["bytesDone"], rollout["bytesTotal"], rollout["secondsLeft"]) == (0, 2 * LAYOUT.size, None)
    task = next(iter(lab.tracker.seeds.tasks.values()))
    task.arrivals.look(10.0)
    first.bring(0, 1)
    task.arrivals.look(11.0)
    rollout = describe(lab.tracker)["rollouts"][0]
    assert (rollout["bytesDone"], rollout["bytesPerSecond"]) == (2 * PIECE, 2 * PIECE)
    assert rollout["secondsLeft"] == (2 * LAYOUT.size - 2 * PIECE) / (2 * PIECE)
    first.say(messages.Holds(messages.Holding(RAW, LAYOUT.size), True), messages.Close(task.number))
    rollout = describe(lab.tracker)["rollouts"][0]
    assert (rollout["nodes"], rollout["nodesPulling"]) == (2, 1)
    assert rollout["progress"] == 0.5


@in_loop
async def test_the_blobs_of_one_image_are_one_rollout(lab: Lab) -> None:
    agent = Agent(lab, "a")
    agent.open(1, RAW)
    agent.open(2, OTHER)
    agent.open(3, b"\x01" * 32, registry="other.test")
    found = describe(lab.tracker)["rollouts"]
    assert [(rollout["image"], rollout["blobs"]) for rollout in found] == [
        ("registry.test/team/app", 2),
        ("other.test/team/app", 1),
    ]


@in_loop
async def test_bytes_by_source_are_those_that_nodes_tell_of_themselves(lab: Lab) -> None:
    first, second = Agent(lab, "a"), Agent(lab, "b")
    first.say(messages.Received(100, 20, 3, 0.0))
    second.say(messages.Received(1, 0, 0, 3600.0))
    found = describe(lab.tracker)
    assert found["bytes24h"] == {"peer": 101, "supernode": 20, "origin": 3}
    assert found["nodes"][0]["bytes24h"] == {"peer": 100, "supernode": 20, "origin": 3}
    first.leave()
    assert describe(lab.tracker)["bytes24h"]["peer"] == 101, "what came has come"


@in_loop
async def test_a_quarantine_is_shown_with_its_reason_and_the_seconds_that_are_left(lab: Lab) -> None:
    Agent(lab, "a")
    Agent(lab, "b")
    lab.tracker._accuse("a", "b", messages.CORRUPT, time.monotonic())
    (quarantine,) = describe(lab.tracker)["quarantines"]
    assert (quarantine["name"], quarantine["reason"]) == ("a", "sent wrong bytes to b")
    assert 0 < quarantine["until"] <= 30.0


@in_loop
async def test_a_registry_that_wants_to_be_left_alone_is_shown_with_the_time(lab: Lab) -> None:
    agent = Agent(lab, "a")
    agent.open()
    agent.end_run(messages.RUN_TOO_MANY, retry_after=4)
    (left_alone,) = [item for item in describe(lab.tracker)["leftAlone"] if item["kind"] == "registry"]
    assert left_alone["name"] == "registry.test"
    assert 0 < left_alone["until"] <= 4.0


@in_loop
async def test_a_node_that_asks_the_origin_itself_and_an_image_that_failed_are_left_alone(lab: Lab) -> None:
    agent = Agent(lab, "a")
    agent.open()
    agent.say(messages.AskLeave(agent.task.task))
    (left_alone,) = describe(lab.tracker)["leftAlone"]
    assert (left_alone["kind"], left_alone["name"]) == ("node", "a")
    assert 0 < left_alone["until"] <= 30.0
    agent.end_run(messages.RUN_TOO_MANY, retry_after=60)
    (left_alone,) = [item for item in describe(lab.tracker)["leftAlone"] if item["kind"] == "image"]
    assert (left_alone["name"], left_alone["until"]) == ("registry.test/team/app", None)
    assert "wants to be left alone for 60 s" in left_alone["why"]


@in_loop
async def test_a_node_whose_word_does_not_count_is_left_alone(lab: Lab) -> None:
    Agent(lab, "a")
    lab.tracker.health._disbelieved["a"] = time.monotonic() + 100
    (left_alone,) = describe(lab.tracker)["leftAlone"]
    assert (left_alone["kind"], left_alone["name"]) == ("node", "a")


@in_loop
async def test_the_supernode_says_its_name_and_version(lab: Lab) -> None:
    found = describe(lab.tracker)
    assert found["name"] == lab.tracker.node_name
    assert found["version"] == VERSION
