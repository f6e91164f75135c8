"""How the program ends: exit codes, one line for an error, and what only the command line imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.app import main
from cli.errors import ExitCode
from tests.unit.cli.podserver import PodServer

DARNER = Path(sys.executable).parent / "darner"


@pytest.mark.parametrize("argv", [["nonsense"], ["--nonsense"], []])
def test_wrong_usage_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == ExitCode.USAGE
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert ("See darner --help" in said.err) == bool(argv)


def test_help_names_the_processes_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == ExitCode.FINE
    assert "agent, supernode, webhook" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_there_for(shell: str) -> None:
    environment = {**os.environ, "_DARNER_COMPLETE": f"source_{shell}"}
    done = subprocess.run([DARNER], env=environment, capture_output=True, text=True, check=True)
    assert f"complete_{shell}" in done.stdout


def test_without_the_extra_it_is_said_how_to_get_it() -> None:
    hidden = (
        "import sys; sys.modules['typer'] = None; sys.argv = ['darner', 'status']; from agent.cli import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (ExitCode.USAGE, 1)
    assert "pip install 'darner[cli]'" in done.stderr


def test_a_process_imports_nothing_of_the_command_line() -> None:
    asked = "import sys, agent.app, supernode.app, webhook.server; print({'typer', 'rich', 'websocket'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("argv", [["list", "nodes"], ["list", "nodes", "-o", "json"]])
def test_a_reader_that_has_left_is_no_news(darner: PodServer, kubeconfig: Path, argv: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run([DARNER, *argv], env=environment, stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (ExitCode.CLOSED_PIPE, b"")


def test_ctrl_c_is_quiet(darner: PodServer, kubeconfig: Path) -> None:
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    command = [DARNER, "list", "nodes", "--watch", "-o", "json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stderr
        assert running.stdout.readline()  # it has looked once, and waits
        running.send_signal(signal.SIGINT)
        assert (running.wait(60), running.stderr.read()) == (ExitCode.INTERRUPTED, b"")
