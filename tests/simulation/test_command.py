"""`python -m hack.simulate`, the command of docs/scheduling.md."""

from __future__ import annotations

import pytest

from hack.simulate.__main__ import COLUMNS, NODES, PLANS, main


def test_a_plan_that_is_given_is_one_row_and_the_same_seed_prints_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--nodes", "8", "--pieces", "32", "--zones", "2", "--failing", "0.1", "--lying", "0.1", "--seed", "4"]
    rows = []
    for _ in range(2):
        assert main(options) == 0
        heading, _, row = capsys.readouterr().out.splitlines()
        assert heading.count("|") == row.count("|") == len(COLUMNS) + 1
        rows.append(row.rsplit("|", 2)[0])
    assert rows[0] == rows[1]


def test_the_plans_of_the_page_are_many_and_small_enough_to_be_run_by_everybody() -> None:
    assert len(PLANS) >= 8
    assert max(NODES) <= 256
