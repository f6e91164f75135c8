"""The benchmark's clients that keep the bytes, and its origins: who may pull, and what is counted, slow and refused there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from hack.bench.keeper import Keeper
from hack.bench.puller import PullError
from hack.bench.rollout import pull_all, roll_out, seconds_of
from hack.bench.scenario import Options
from hack.bench.site import REPOSITORY, Plan, site
from hack.bench.source import Case, from_origin
from hack.bench.standin import CONNECTION_SHARE, CONNECTIONS_MAX, StandIn, slow_by_connection, with_few_connections, with_tokens
from hack.lab import Host
from hack.lab.process import wait_until
from hack.lab.registry import Registry

pytestmark = pytest.mark.needs_root

PLAN = Plan(nodes=2, mbit=400, image_bytes=4 << 20)
RATE = 2_000_000


@pytest.mark.parametrize("origin", [partial(Registry, private=True), partial(with_tokens, repository=REPOSITORY)])
def test_a_private_image_is_pulled_by_whoever_shows_the_secret_and_by_nobody_else(
    origin: Callable[[Host], Registry | StandIn],
) -> None:
    with site(PLAN, origin) as place:
        outcome = roll_out(place, client=Keeper)
        assert len(outcome.seconds) == PLAN.nodes
        assert outcome.origin_images >= 1
        assert outcome.origin_requests >= len(("config", "layer"))
        image, tag = place.new_image()
        for door in (place.agents_door(tag), place.origins_door(tag)):
            pullers = [Keeper(place.agents[0].host, told) for told in (door, replace(door, authorization=""))]
            pull_all(pullers)
            assert seconds_of(pullers[0]) > 0
            with pytest.raises(PullError, match="401"):
                seconds_of(pullers[1])
        assert place.origin_sent(image) >= 2 * image.size, "the agent's pull and the direct one"
        assert list(place.lab.directory.glob("*-kept-*")) == [], "files of pulls that have ended"


def test_an_origin_gives_each_connection_a_part_of_its_link() -> None:
    with site(replace(PLAN, image_bytes=1 << 20), partial(slow_by_connection, rate=RATE)) as place:
        _, tag = place.new_image()
        pullers = [Keeper(agent.host, place.origins_door(tag)) for agent in place.agents]
        pull_all(pullers)
        assert min(map(seconds_of, pullers)) >= 0.9 * (1 << 20) / (RATE / CONNECTION_SHARE)


def test_an_origin_refuses_one_connection_too_many_and_that_is_counted() -> None:
    # More than what the kernel takes of an answer that nobody reads.
    with site(replace(PLAN, nodes=1, image_bytes=32 << 20), with_few_connections) as place:
        place.registry.host.shape(RATE)
        image, tag = place.new_image()
        door = place.origins_door(tag)
        readers = [place.agents[0].host.connect(door.port, door.address) for _ in range(CONNECTIONS_MAX)]
        for reader in readers:
            reader.sendall(f"GET {door.path}/blobs/{image.layers[0]} HTTP/1.1\r\nHost: origin\r\n\r\n".encode())
            reader.recv(1)
        puller = Keeper(place.agents[0].host, door)
        pull_all([puller])
        with pytest.raises(PullError, match="429"):
            seconds_of(puller)
        assert [answer.status for answer in place.registry.answers()].count(429) == 1
        for reader in readers:
            reader.close()


def test_a_client_that_is_not_waited_for_ends() -> None:
    with site(replace(PLAN, nodes=1)) as place:
        place.registry.host.shape(100_000)
        _, tag = place.new_image()
        puller = Keeper(place.agents[0].host, place.origins_door(tag))
        puller.start(time.monotonic())
        wait_until(lambda: any(file.stat().st_size for file in place.lab.directory.glob("*-kept-*-sha256:*")))
        puller.abort()
        puller.join()
        with pytest.raises(PullError):
            seconds_of(puller)


def test_a_case_with_a_price_tells_what_a_gb_cost_the_agents() -> None:
    told: list[str] = []
    measured = from_origin(Case("curl-8", PLAN, agents_cpu="curl-8-cpu"), Options(1), told.append)
    by_name = {one.figure.name: one for one in measured}
    assert set(by_name) == {"curl-8", "origin-sent", "origin-requests", "curl-8-cpu"}
    assert by_name["curl-8"].beside["direct"][0] > 1
    assert by_name["curl-8-cpu"].value > 0
    assert "supernode" in by_name["curl-8-cpu"].note
    assert "CPU-s/GB: agents" in told[0]


def test_a_case_tells_its_ratio_and_what_the_origin_sent_beside_direct_pulls() -> None:
    told: list[str] = []
    measured = from_origin(Case("origin-10x", replace(PLAN, origin_times=10), against_direct=True), Options(1), told.append)
    by_name = {one.figure.name: one for one in measured}
    assert set(by_name) == {"origin-10x", "origin-sent", "origin-requests"}
    (direct,) = by_name["origin-10x"].beside["direct, s"]
    assert by_name["origin-10x"].value > 0
    assert direct > 0
    assert by_name["origin-sent"].value >= 1
    assert len(told) == 1
