"""Rollouts in virtual time, driven by the production scheduler, health and planner: how near the bound, and that they end at all.

Virtual time is exact, so these are not timings of a machine: the same code gives the same figures everywhere (`-s` prints them).
The bound for N nodes and M pieces over links of rate u, the supernode's the same, fed by the origin at that rate, is
F/u · (1 + floor(log2 N)/M): see docs/scheduling.md.
"""

from __future__ import annotations

import sys

import pytest

from hack.simulate.rollout import Plan, Result, run
from supernode.tracker.seeds import LEAVES_MAX

GIGABIT = 125e6


def rollout(plan: Plan) -> Result:
    result = run(plan)
    sys.stdout.write(
        f"\n{plan.nodes} nodes, {plan.pieces} pieces: slowest {result.ratio:.3f} of the bound, half {result.quantile(0.5):.3f}, "
        f"supernode sent {result.seed_images:.3f} blobs, zones were crossed by {result.cross_zone_images:.2f} "
    )
    assert result.fell_back == 0
    return result


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("pieces", [128, 256])
@pytest.mark.parametrize("nodes", [8, 16])
def test_a_small_swarm_ends_within_a_fifth_of_the_bound_and_costs_the_supernode_one_image(
    nodes: int, pieces: int, seed: int
) -> None:
    result = rollout(Plan(nodes=nodes, pieces=pieces, seed=seed))
    assert len(result.seconds) == nodes
    assert result.ratio <= 1.20
    assert result.seed_images <= 1.10


@pytest.mark.parametrize(("nodes", "pieces"), [(2, 256), (3, 256), (64, 256), (300, 128)])
def test_so_does_a_swarm_of_another_size(nodes: int, pieces: int) -> None:
    result = rollout(Plan(nodes=nodes, pieces=pieces))
    assert len(result.seconds) == nodes
    assert result.ratio <= 1.20
    assert result.seed_images <= 1.10


def test_a_node_alone_gets_the_blob_as_fast_as_it_arrives() -> None:
    result = rollout(Plan(nodes=1))
    assert result.ratio <= 1.01
    assert result.first_seconds[0] <= 2.1 * result.plan.piece_bytes / result.plan.node_rate


@pytest.mark.parametrize("nodes", [8, 16])
def test_a_faster_supernode_is_used_for_what_it_has_alone(nodes: int) -> None:
    assert rollout(Plan(nodes=nodes, seed_rate=GIGABIT)).ratio <= 1.15
    assert rollout(Plan(nodes=nodes, seed_rate=GIGABIT, origin_rate=0)).ratio <= 1.15


@pytest.mark.parametrize("nodes", [8, 16])
def test_a_supernode_finds_out_that_its_link_is_faster_and_sends_what_others_have_too(nodes: int) -> None:
    result = rollout(Plan(nodes=nodes, seed_rate=GIGABIT))
    assert result.seed_images >= 2.0
    assert result.ratio <= 1.06


def test_nor_does_it_take_its_link_for_faster_when_the_links_of_nodes_are_as_fast() -> None:
    assert (
        rollout(Plan(nodes=64, node_rate=GIGABIT, seed_rate=GIGABIT, origin_rate=GIGABIT, piece_bytes=4 << 20)).seed_images
        <= 1.10
    )


@pytest.mark.parametrize("nodes", [8, 64])
def test_pieces_that_are_as_fast_as_a_round_trip_do_not_starve_the_links(nodes: int) -> None:
    plan = Plan(nodes=nodes, node_rate=GIGABIT, seed_rate=GIGABIT, origin_rate=GIGABIT)
    assert rollout(plan).ratio <= 1.35


@pytest.mark.parametrize("zones", [2, 4])
def test_each_piece_crosses_into_each_zone_once(zones: int) -> None:
    result = rollout(Plan(nodes=64, pieces=128, zones=zones))
    assert result.cross_zone_images <= (zones - 1) * 1.05
    assert result.ratio <= 1.30


def test_slow_links_keep_nobody_back_but_their_own_node() -> None:
    result = rollout(Plan(nodes=32, pieces=128, slow=0.1))
    assert result.quantile(0.85) <= 1.30
    assert result.ratio <= 4.2


def test_whoever_comes_late_gets_the_blob_at_the_rate_of_its_link() -> None:
    result = rollout(Plan(nodes=32, pieces=128, arrival_seconds=20))
    assert result.ratio <= 1.30
    assert result.seed_images <= 1.50


def test_a_rollout_ends_when_nodes_die_silently_and_otherwise() -> None:
    for seed in (1, 2, 3):
        result = rollout(Plan(nodes=32, failing=4 / 32, seed=seed))
        assert len(result.seconds) >= 28
        assert result.ratio <= 1.80


def test_one_silent_node_of_eight_costs_the_others_no_more_than_a_stall() -> None:
    for seed in (1, 2, 3, 4, 5):
        assert rollout(Plan(nodes=8, failing=1 / 8, seed=seed)).ratio <= 1.80


def test_a_rollout_ends_when_nodes_lie_and_exactly_the_liars_are_quarantined() -> None:
    for seed in (1, 2, 3):
        result = rollout(Plan(nodes=32, lying=4 / 32, seed=seed))
        assert len(result.seconds) == 32
        assert result.quarantined == result.liars
        assert result.wrong_pieces <= 4 * result.plan.limits.upload_slots_max
        assert result.ratio <= 1.50


def test_even_a_swarm_in_which_every_second_node_lies_ends() -> None:
    result = rollout(Plan(nodes=8, pieces=64, lying=0.5))
    assert len(result.seconds) == 8


@pytest.mark.parametrize("blocked", ["refused", "dropped"])
def test_when_the_supernodes_pieces_reach_nobody_few_ask_the_origin_and_the_others_get_it_from_them(blocked: str) -> None:
    """The bound is that of an origin in the supernode's place."""
    result = run(Plan(nodes=64, piece_bytes=4 << 20, blocked=blocked))
    assert len(result.seconds) == 64
    assert result.seed_images == 0
    assert result.ratio <= 1.5
    assert result.origin_blobs <= 1 + LEAVES_MAX


def test_five_hundred_nodes_that_come_within_a_second_are_served_and_the_same_seed_gives_the_same_result() -> None:
    plan = Plan(nodes=500, pieces=48, piece_bytes=1 << 20, arrival_seconds=1.0)
    result = rollout(plan)
    assert len(result.seconds) == 500
    assert result.ratio <= 1.60
    assert result.seed_images <= 1.30
    assert run(plan) == result
