"""What `make bench` says about what it has measured."""

from __future__ import annotations

import json
import re

import pytest

from hack.bench.figures import BY_NAME, FIGURES, Figure, Measured, Verdict, worst_of_each
from hack.bench.machine import Processors
from hack.bench.report import COLUMNS, Report, as_json, as_markdown, number
from hack.bench.scenario import Options
from hack.bench.site import Plan, bound_seconds
from hack.bench.source import cases, kept
from hack.bench.suite import chosen, scenarios

EGRESS = BY_NAME["origin-egress"]
TIMES = Figure("times", "slowest / bound", must=1.3, aim=1.15)


def test_one_node_is_bound_by_its_own_link_or_by_the_origins() -> None:
    assert bound_seconds(100, 1, origin_rate=10, node_rate=20) == 10
    assert bound_seconds(100, 1, origin_rate=20, node_rate=10) == 10


def test_nodes_that_are_much_faster_than_the_origin_are_bound_by_it_however_many_they_are() -> None:
    assert bound_seconds(100, 1000, origin_rate=10, node_rate=1000) == 10


def test_all_copies_together_leave_through_all_uplinks_together() -> None:
    assert bound_seconds(100, 8, origin_rate=10, node_rate=10) == 10
    assert bound_seconds(100, 8, origin_rate=1000, node_rate=10) == 10
    assert bound_seconds(100, 8, origin_rate=10, node_rate=2) == 50


def test_the_median_of_the_rounds_counts() -> None:
    assert Measured(TIMES, [1.1, 9.0, 1.2]).value == 1.2


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(1.0, Verdict.AIM), (1.15, Verdict.AIM), (1.16, Verdict.MUST), (1.3, Verdict.MUST), (1.301, Verdict.SHORT)],
)
def test_a_figure_reaches_its_aim_or_its_must_or_falls_short(value: float, verdict: Verdict) -> None:
    assert Measured(TIMES, [value]).verdict is verdict


def test_a_figure_without_a_must_is_only_shown() -> None:
    assert Measured(Figure("shown", "whatever"), [1e9]).verdict is Verdict.SHOWN


def test_of_a_figure_that_several_scenarios_give_the_worst_counts_and_the_table_has_its_own_order() -> None:
    first, last = FIGURES[0], EGRESS
    found = worst_of_each([Measured(last, [1.0], note="a"), Measured(first, [1.2]), Measured(last, [1.1], note="b")])
    assert [(one.figure.name, one.value, one.note) for one in found] == [(first.name, 1.2, ""), (last.name, 1.1, "b")]


def test_no_aim_is_easier_than_its_must_and_every_name_is_there_once() -> None:
    assert len(BY_NAME) == len(FIGURES)
    assert all(figure.aim <= figure.must for figure in FIGURES if figure.aim is not None and figure.must is not None)


@pytest.fixture
def report() -> Report:
    short = Measured(TIMES, [1.4, 1.5, 1.31], {"direct": [8.0, 8.4, 8.2], "absent": []}, "cores idle 40%")
    failed = {"webhook": "it did not answer"}
    return Report("a machine", "2026-01-02", "make bench", [short, Measured(EGRESS, [1.0])], failed)


def test_the_page_says_what_was_measured_on_what_when_and_how(report: Report) -> None:
    page = as_markdown(report)
    assert all(part in page for part in ("a machine", "2026-01-02", "make bench"))
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in rows[0].strip("|").split("|")] == list(COLUMNS)
    assert re.search(r"1\.400 \| 1\.400 1\.500 1\.310 \| direct 8\.200 \| 1\.3 \| 1\.15 \| falls short", rows[1])


def test_programs_get_every_round_and_the_verdict(report: Report) -> None:
    first, second = json.loads(as_json(report))["figures"]
    assert (first["value"], first["rounds"], first["must"], first["verdict"]) == (1.4, [1.4, 1.5, 1.31], 1.3, "falls short")
    assert first["beside"]["direct"] == [8.0, 8.4, 8.2]
    assert second["verdict"] == "reaches its aim"


def test_a_scenario_that_could_not_be_measured_is_named_with_its_reason(report: Report) -> None:
    assert "not measured: webhook: it did not answer" in as_markdown(report).splitlines()
    assert json.loads(as_json(report))["failed"] == {"webhook": "it did not answer"}


def test_what_falls_short_is_named(report: Report) -> None:
    assert [one.figure for one in report.short] == [TIMES]


def test_numbers_are_as_exact_as_their_musts() -> None:
    assert [number(value) for value in (1.3004, 16.84, 64.04, 852.3)] == ["1.300", "16.840", "64.0", "852"]


def test_a_name_chooses_itself_or_all_that_begin_with_it() -> None:
    options = Options()
    assert list(chosen(["rollout-8-1x"], options)) == ["rollout-8-1x"]
    assert list(chosen(["rollout-8-1"], options)) == [
        "rollout-8-1x",
        "rollout-8-1x-4layers",
        "rollout-8-10x",
        "rollout-8-10x-4layers",
    ]
    assert list(chosen([], options)) == list(scenarios(options))


def test_a_name_that_chooses_nothing_is_an_error_that_tells_the_names() -> None:
    with pytest.raises(ValueError, match="rollout-16-10x"):
        chosen(["rolluot"], Options())


def test_every_case_of_the_origin_has_its_figures_and_is_chosen_by_that_word() -> None:
    names = [case.name for case in cases(Plan(8))]
    assert list(chosen(["origin"], Options())) == names
    assert all(BY_NAME[case.name] and BY_NAME[case.sent].must for case in cases(Plan(8)))


def test_rollouts_to_clients_that_keep_the_bytes_have_a_figure_for_the_link_and_one_for_the_processor() -> None:
    found = {case.name: case for case in kept(Plan(8))}
    assert list(chosen(["curl", "rollout-4-1g"], Options())) == list(found) == ["curl-8", "curl-16", "rollout-4-1g"]
    assert all(BY_NAME[name].must and BY_NAME[case.agents_cpu].unit == "CPU-s/GB" for name, case in found.items())
    gigabit = found["rollout-4-1g"].plan
    assert (gigabit.nodes, gigabit.rate, gigabit.image_bytes) == (4, 125_000_000, 256 << 20)


def test_nodes_are_dealt_to_zones_in_turns_and_have_none_where_there_is_one() -> None:
    assert [Plan(4, zones=2).zone(number) for number in range(4)] == ["zone-0", "zone-1", "zone-0", "zone-1"]
    assert Plan(4).zone(3) == ""


def test_the_share_of_time_without_work_is_of_the_time_that_passed() -> None:
    assert Processors(15.0, 40.0).idle_share_since(Processors(10.0, 20.0)) == 0.25
    assert Processors(10.0, 20.0).idle_share_since(Processors(10.0, 20.0)) == 1.0
