"""The supernode's HTTP API: its state as JSON, bounded, and a clear answer when the tracker gives none."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent.admin import ControlServer
from agent.values.errors import DarnerError, OriginError
from supernode import api
from supernode.api import application, describe
from supernode.tracker.tracker import Tracker
from tests.swarm import free_address, nothing_left_running
from tests.tracker import LAYOUT, OTHER, RAW, Agent, Lab, in_loop

Ask = Callable[[Callable[[Tracker], dict[str, Any]]], dict[str, Any]]


@contextmanager
def serving(ask: Ask) -> Iterator[Callable[..., tuple[int, Any]]]:
    """A client of an API that asks its tracker like that."""
    app = application(lambda: "", ask, lambda *name: 0)
    where = free_address()

    def request(method: str, path: str, source: str = "127.0.0.1") -> tuple[int, Any]:
        connection = http.client.HTTPConnection(*where, timeout=20, source_address=(source, 0))
        try:
            connection.request(method, path)
            with connection.getresponse() as answer:
                return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    with nothing_left_running():
        server = ControlServer(app, where)
        server.start()
        yield request
        server.stop()


def test_the_state_is_what_the_tracker_says() -> None:
    with serving(lambda question: {"asked": question is describe}) as request:
        assert request("GET", "/api/v1/state") == (200, {"asked": True})


def test_a_stranger_is_not_told_which_nodes_there_are_and_what_they_pull() -> None:
    with serving(lambda question: {"asked": True}) as request:
        status, body = request("GET", "/api/v1/state", source="127.0.0.2")
        assert (status, list(body)) == (403, ["error"])
        assert request("POST", "/api/v1/state", source="127.0.0.2")[0] == 405


def test_a_tracker_that_does_not_answer_is_said_to_be_silent() -> None:
    def silent(question: object) -> dict[str, Any]:
        raise DarnerError("the tracker does not answer")

    with serving(silent) as request:
        assert request("GET", "/api/v1/state") == (503, {"error": "the tracker does not answer"})


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/v1/state"), ("GET", "/api/v1/"), ("GET", "/api/v1/state/x")])
def test_there_is_nothing_else_and_nothing_is_written(method: str, path: str) -> None:
    with serving(lambda question: {}) as request:
        assert request(method, path)[0] in (404, 405)


@in_loop
async def test_a_swarm_is_described_from_its_first_open_to_its_failure(lab: Lab) -> None:
    agent = Agent(lab, "a", OTHER)
    agent.open()
    await lab.until(lambda: lab.wanted)
    assert describe(lab.tracker)["swarms"] == [
        {
            "digest": f"sha256:{RAW.hex()}",
            "size": None,
            "whole": False,
            "failed": None,
            "pieces": None,
            "seeded": None,
            **dict.fromkeys(("takers", "holders", "parked", "inFlight"), 0),
        }
    ]
    wanted = await lab.sized()
    agent.report(window=4)
    await lab.seeded(wanted, 0, 1)
    swarm = describe(lab.tracker)["swarms"][0]
    assert (swarm["size"], swarm["pieces"], swarm["seeded"], swarm["takers"]) == (LAYOUT.size, LAYOUT.count, 2, 1)
    assert swarm["inFlight"] == 2
    await lab.ended(wanted, OriginError(502, "the registry broke off"))
    swarm = describe(lab.tracker)["swarms"][0]
    assert (swarm["failed"], swarm["takers"], swarm["size"]) == ("the registry broke off", 0, None)


@in_loop
async def test_lists_are_cut_and_their_length_is_told(lab: Lab) -> None:
    lab.patch.setattr(api, "SHOWN_MAX", 3)
    for number in range(5):
        Agent(lab, f"agent-{number}").open(digest=bytes([number]) * 32)
    found = describe(lab.tracker)
    assert (len(found["nodes"]), found["nodesTotal"]) == (3, 5)
    assert (len(found["swarms"]), found["swarmsTotal"]) == (3, 5)
    assert json.loads(json.dumps(found)) == found
