"""The `darner` command, as it is installed: found by its entry point, with a process for each subcommand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest

from agent import cli

GROUP = "darner.processes"
Run = Callable[..., int]
Capture = pytest.CaptureFixture[str]
SEEN: list[list[str]] = []


def a_process(argv: list[str]) -> int:
    SEEN.append(argv)
    return 7


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    entries = [EntryPoint(name, f"{__name__}:a_process", GROUP) for name in ("webhook", "agent")]
    monkeypatch.setattr(EntryPoint, "load", lambda _: a_process)
    monkeypatch.setattr(cli, "entry_points", lambda group: entries if group == GROUP else [])
    monkeypatch.setattr(cli, "version", lambda name: "1.2.3" if name == "darner" else "")

    def run(*argv: str) -> int:
        monkeypatch.setattr(sys, "argv", ["darner", *argv])
        return cli.main()

    return run


def test_a_subcommand_is_a_process_with_the_rest_of_the_arguments_and_its_status(run: Run, capsys: Capture) -> None:
    assert run("agent", "--node-name", "n", "--help") == 7
    assert SEEN[-1] == ["--node-name", "n", "--help"]
    assert capsys.readouterr() == ("", "")


def test_the_version_is_the_packages(run: Run, capsys: Capture) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == "darner 1.2.3\n"


def test_help_names_the_processes_in_order(run: Run, capsys: Capture) -> None:
    for flag in ("-h", "--help"):
        assert run(flag) == 0
        assert capsys.readouterr() == ("usage: darner {agent,webhook} [--help]\n", "")


@pytest.mark.parametrize("argv", [(), ("no-such-process",), ("--agent",), ("--version", "agent")])
def test_anything_else_is_one_line_and_status_1(run: Run, capsys: Capture, argv: tuple[str, ...]) -> None:
    assert run(*argv) == 1
    assert capsys.readouterr() == ("", "usage: darner {agent,webhook} [--help]\n")
