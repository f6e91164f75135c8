"""`darner` as a person types it: the commands, and how each of them ends.

A command is a function that returns its exit code. Errors are one line on standard error; what is no error of ours and none of
usage is a bug, and the only thing that has a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

import typer
from typer.exceptions import TyperException

from agent.values.errors import DarnerError, UsageError
from cli import listing
from cli.dashboard import dashboard
from cli.doctor.command import doctor
from cli.errors import ClosedPipe, CommandError, ExitCode
from cli.explain.command import explain
from cli.get.command import get
from cli.load import load, unload
from cli.pull import pull
from cli.quarantine import quarantine, release_node
from cli.save import save
from cli.session import asks_the_cluster
from cli.status.command import status
from cli.sysdump import sysdump
from cli.warm.command import cool, warm

COMPLETION = "_DARNER_COMPLETE"
"""The variable by which a shell asks what a word may become."""

app = typer.Typer(
    name="darner",
    help="Says what Darner does in a cluster, and acts on it. The cluster is the one that kubectl would ask.",
    epilog="Processes, and commands in pods: agent, supernode, webhook, forget, revert, local, loaded; `darner NAME --help`.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(asks_the_cluster(status))
app.add_typer(listing.app, name="list")
app.command()(asks_the_cluster(quarantine))
app.command("release")(asks_the_cluster(release_node))
app.command()(asks_the_cluster(sysdump))
app.command()(asks_the_cluster(dashboard))
app.command()(asks_the_cluster(doctor))
app.command()(asks_the_cluster(load))
app.command()(asks_the_cluster(unload))
app.command()(asks_the_cluster(save))
app.command()(pull)
app.add_typer(explain)
app.command()(asks_the_cluster(warm))
app.command()(asks_the_cluster(cool))
app.command()(get)


@app.callback(invoke_without_command=True)
def begin(
    context: typer.Context,
    show_version: bool = typer.Option(False, "--version", help="Print the version of this program, and end."),
) -> None:
    if show_version:
        print(f"darner {version('darner')}")  # noqa: T201
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())  # noqa: T201
        raise typer.Exit(ExitCode.USAGE)


def main(argv: Sequence[str], program: str = "darner") -> int:
    """Raises SystemExit only where a shell asks for completion."""
    try:
        status = typer.main.get_command(app).main(list(argv), program, COMPLETION, standalone_mode=False)
        sys.stdout.flush()
        return int(status or 0)
    except TyperException as error:
        return _said(f"{program}: {error.format_message()} See {program} --help.", ExitCode.USAGE)
    except (BrokenPipeError, ClosedPipe):
        # What is still buffered goes nowhere, and Python would complain of that when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.CLOSED_PIPE
    except CommandError as error:
        return _said(f"{program}: {error}", error.exit_code)
    except UsageError as error:
        return _said(f"{program}: {error}", ExitCode.USAGE)
    except DarnerError as error:
        return _said(f"{program}: {error}", ExitCode.PROBLEM)
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED


def _said(line: str, status: int) -> int:
    print(line, file=sys.stderr)  # noqa: T201
    return status
