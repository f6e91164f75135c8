"""The `darner` command: one program, a process per subcommand.

Processes are found by the entry point group `darner.processes`, so that the agent's package knows none of the others.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points, version

USAGE_STATUS = 1


def main() -> int:
    processes = {entry.name: entry for entry in entry_points(group="darner.processes")}
    arguments = sys.argv[1:]
    if arguments and arguments[0] in processes:
        status: int = processes[arguments[0]].load()(arguments[1:])
        return status
    if arguments == ["--version"]:
        print(f"darner {version('darner')}")  # noqa: T201
        return 0
    asked = arguments in (["-h"], ["--help"])
    usage = f"usage: darner {{{','.join(sorted(processes))}}} [--help]"
    print(usage, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else USAGE_STATUS
