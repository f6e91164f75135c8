"""The `darner` command: one program, a process per subcommand, and what a person types beside them.

Processes are found by the entry point group `darner.processes`, so that the agent's package knows none of the others. Everything
else is the command line's (group `darner.commands`), which is imported only then: it has dependencies that no process needs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points, version

USAGE_STATUS = 2
PLUGIN = "kubectl-darner"
"""By this name kubectl finds the program, as `kubectl darner`."""
EXTRA = ("rich", "typer", "websocket")
"""What the command line imports and no process does."""


def main() -> int:
    processes = {entry.name: entry for entry in entry_points(group="darner.processes")}
    arguments = sys.argv[1:]
    if arguments and arguments[0] in processes:
        status: int = processes[arguments[0]].load()(arguments[1:])
        return status
    if arguments == ["--version"]:
        print(f"darner {version('darner')}")  # noqa: T201
        return 0
    return _typed(arguments)


def _typed(arguments: Sequence[str]) -> int:
    program = "kubectl darner" if os.path.basename(sys.argv[0]) == PLUGIN else "darner"
    (commands,) = entry_points(group="darner.commands")
    try:
        run = commands.load()
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        words = f"{program}: this installation has the processes alone; pip install 'darner[cli]' brings its commands"
        print(words, file=sys.stderr)  # noqa: T201
        return USAGE_STATUS
    status: int = run(arguments, program)
    return status
