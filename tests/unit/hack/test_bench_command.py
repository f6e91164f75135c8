"""`python -m hack.bench`: what it ends with, and when it writes its page. The scenarios are not real here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hack.bench import __main__ as command
from hack.bench.figures import BY_NAME, Measured
from hack.bench.scenario import Options, Scenario, Tell

SHORT, GOOD = "rollout-8-1x", "zones"


def far_from_its_must(options: Options, tell: Tell) -> list[Measured]:
    tell("one round")
    return [Measured(BY_NAME[SHORT], [99.0] * options.rounds)]


def at_its_aim(options: Options, tell: Tell) -> list[Measured]:
    return [Measured(BY_NAME[GOOD], [1.0] * options.rounds)]


def broken(options: Options, tell: Tell) -> list[Measured]:
    raise RuntimeError("the lab fell down\nand more words")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(command, "PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(command.os, "geteuid", lambda: 0)
    return tmp_path / "benchmarks.md"


def run(monkeypatch: pytest.MonkeyPatch, scenarios: dict[str, Scenario], *argv: str) -> int:
    monkeypatch.setattr(command, "chosen", lambda names, options: scenarios)
    return command.main(list(argv))


@pytest.mark.usefixtures("page")
def test_a_figure_that_falls_short_is_an_error_only_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenarios: dict[str, Scenario] = {SHORT: far_from_its_must, GOOD: at_its_aim}
    assert run(monkeypatch, scenarios) == 0
    assert f"falls short: {SHORT}" in capsys.readouterr().err
    assert run(monkeypatch, scenarios, "--strict") == 1
    assert run(monkeypatch, {GOOD: at_its_aim}, "--strict") == 0


def test_a_scenario_that_breaks_is_an_error_and_the_others_are_still_told(monkeypatch: pytest.MonkeyPatch, page: Path) -> None:
    assert run(monkeypatch, {"silent": broken, GOOD: at_its_aim}) == 1
    written = page.read_text()
    assert "not measured: silent: the lab fell down" in written
    assert BY_NAME[GOOD].what in written


@pytest.mark.parametrize("argv", [["--only", GOOD], ["--quick"]])
def test_the_page_is_written_when_everything_was_measured_and_not_for_a_part(
    monkeypatch: pytest.MonkeyPatch, page: Path, argv: list[str]
) -> None:
    assert run(monkeypatch, {GOOD: at_its_aim}, *argv) == 0
    assert not page.exists()
    assert run(monkeypatch, {GOOD: at_its_aim}, "--rounds", "5") == 0
    assert "    make bench OPTIONS='--rounds 5'" in page.read_text().splitlines()


@pytest.mark.usefixtures("page")
def test_programs_read_standard_output_and_people_the_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, {SHORT: far_from_its_must}, "--output", "json", "--rounds", "2")
    printed = capsys.readouterr()
    assert json.loads(printed.out)["figures"][0]["rounds"] == [99.0, 99.0]
    assert "one round" in printed.err


def test_the_page_can_be_joined_out_of_several_runs_of_one_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], page: Path, tmp_path: Path
) -> None:
    parts: list[Path] = []
    for name, scenario in ((SHORT, far_from_its_must), (GOOD, at_its_aim), ("silent", broken)):
        run(monkeypatch, {name: scenario}, "--only", name, "--output", "json")
        parts.append(tmp_path / name)
        parts[-1].write_text(capsys.readouterr().out)
    assert command.main(["--join", *map(str, parts)]) == 0
    written = page.read_text()
    assert all(BY_NAME[name].what in written for name in (SHORT, GOOD))
    assert "not measured: silent" in written
    assert all(f"    make bench OPTIONS='--only {name} --output json'" in written for name in (SHORT, GOOD, "silent"))

    other = json.loads(parts[0].read_text()) | {"machine": "another"}
    parts[0].write_text(json.dumps(other))
    with pytest.raises(ValueError, match="2 machines"):
        command.main(["--join", *map(str, parts)])


def test_it_says_that_it_takes_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command.os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit):
        command.main(["--only", GOOD])
    assert "root" in capsys.readouterr().err


def test_a_name_that_is_no_scenario_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--only", "nothing"])
    assert "nothing is no scenario" in capsys.readouterr().err
