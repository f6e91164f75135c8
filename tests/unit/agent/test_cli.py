"""The `darner` command, as it is installed: a process for each subcommand by its entry point, and what people type."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest

from agent import cli

GROUP = "darner.processes"
COMMANDS = "darner.commands"
Run = Callable[..., int]
Capture = pytest.CaptureFixture[str]
SEEN: list[list[str]] = []


def a_process(argv: list[str]) -> int:
    SEEN.append(argv)
    return 7


def the_commands(argv: list[str], program: str) -> int:
    SEEN.append([program, *argv])
    return 3


def load(entry: EntryPoint) -> Callable[..., int]:
    return the_commands if entry.group == COMMANDS else a_process


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    entries = {
        GROUP: [EntryPoint(name, "a:process", GROUP) for name in ("webhook", "agent")],
        COMMANDS: [EntryPoint("darner", "the:commands", COMMANDS)],
    }
    monkeypatch.setattr(EntryPoint, "load", load)
    monkeypatch.setattr(cli, "entry_points", lambda group: entries[group])
    monkeypatch.setattr(cli, "version", lambda name: "1.2.3" if name == "darner" else "")

    def run(*argv: str, program: str = "/usr/bin/darner") -> int:
        monkeypatch.setattr(sys, "argv", [program, *argv])
        return cli.main()

    return run


def test_a_subcommand_is_a_process_with_the_rest_of_the_arguments_and_its_status(run: Run, capsys: Capture) -> None:
    assert run("agent", "--node-name", "n", "--help") == 7
    assert SEEN[-1] == ["--node-name", "n", "--help"]
    assert capsys.readouterr() == ("", "")


def test_the_version_is_the_packages(run: Run, capsys: Capture) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == "darner 1.2.3\n"


@pytest.mark.parametrize(
    "argv", [(), ("-h",), ("--help",), ("no-such-process",), ("--agent",), ("--version", "agent"), ("status", "-w")]
)
def test_everything_else_is_the_command_lines_with_its_status(run: Run, argv: tuple[str, ...]) -> None:
    assert run(*argv) == 3
    assert SEEN[-1] == ["darner", *argv]
    assert run(*argv, program="/usr/bin/kubectl-darner") == 3
    assert SEEN[-1] == ["kubectl darner", *argv]


def test_without_what_the_command_line_takes_one_line_says_how_to_get_it(
    run: Run, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(entry: EntryPoint) -> Callable[..., int]:
        raise ModuleNotFoundError("No module named 'typer'", name="typer")

    monkeypatch.setattr(EntryPoint, "load", missing)
    assert run("status") == 2
    said = "darner: this installation has the processes alone; pip install 'darner[cli]' brings its commands\n"
    assert capsys.readouterr() == ("", said)


def test_a_mistake_of_ours_is_not_said_to_be_a_missing_package(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(entry: EntryPoint) -> Callable[..., int]:
        raise ModuleNotFoundError("No module named 'cli.nowhere'", name="cli.nowhere")

    monkeypatch.setattr(EntryPoint, "load", broken)
    with pytest.raises(ModuleNotFoundError):
        run("status")
