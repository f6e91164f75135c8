"""`python -m hack.simulate`, the command of docs/scheduling.md."""

from __future__ import annotations

import json

import pytest

from agent.values.pieces import piece_length
from hack.simulate.__main__ import COLUMNS, FAST_NODES, FAST_PLANS, LARGE_PLANS, NODES, PLANS, main


def test_a_plan_that_is_given_is_one_row_and_the_same_seed_prints_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--nodes", "8", "--pieces", "32", "--zones", "2", "--failing", "0.1", "--lying", "0.1", "--seed", "4"]
    rows = []
    for _ in range(2):
        assert main(options) == 0
        heading, _, row = capsys.readouterr().out.splitlines()
        assert heading.count("|") == row.count("|") == len(COLUMNS) + 1
        rows.append(row.rsplit("|", 3)[0])
    assert rows[0] == rows[1]


def test_the_plans_of_the_page_are_many_and_small_enough_to_be_run_by_everybody() -> None:
    assert len(PLANS) >= 8
    assert max(NODES) <= 256


def test_the_figures_are_also_a_document_for_other_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nodes", "4", "--pieces", "16", "--output", "json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["nodes"], figures["finished"], figures["asked_the_origin"]) == (4, 4, 0)
    assert figures["pieces"] == 3 * 16  # one of four has each from the origin
    assert 1.0 < figures["p50_to_bound"] <= figures["p99_to_bound"] <= figures["max_to_bound"]


def test_the_large_plans_are_two_million_and_a_half_pieces_each() -> None:
    for plan in LARGE_PLANS.values():
        assert plan.nodes * plan.pieces == 2_560_000
        assert plan.size == 1 << 30


def test_blobs_on_fast_links_are_cut_as_everywhere_and_every_link_is_as_fast() -> None:
    assert len(FAST_PLANS) == 9
    assert max(FAST_NODES) <= 64
    for plan in FAST_PLANS.values():
        assert plan.piece_bytes == piece_length(plan.size)
        assert plan.node_rate == plan.seed_rate == plan.origin_rate >= 125e6
        assert plan.processors_bound > 0


def test_nodes_with_cores_take_longer_for_what_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    figures = []
    for cores in ("0", "2"):
        options = ["--nodes", "4", "--pieces", "16", "--rate-mbit", "10000", "--cores", cores, "--output", "json"]
        assert main(options) == 0
        figures.append(json.loads(capsys.readouterr().out))
    free, busy = figures
    assert free["bound_seconds"] == free["links_bound_seconds"] == busy["links_bound_seconds"] < busy["bound_seconds"]
    assert free["max_to_bound"] * free["bound_seconds"] < busy["max_to_bound"] * busy["bound_seconds"]


def test_the_plans_on_fast_links_are_a_table_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--fast", "--only", "25 Gbit/s, 64 MiB"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(FAST_NODES)
