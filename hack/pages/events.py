"""What the scheduler does on each event: a line for each that it dispatches by."""

from __future__ import annotations

from random import Random

from supernode.scheduler.events import COMMANDS_AFTER
from supernode.scheduler.limits import Limits
from supernode.scheduler.machine import Scheduler


def scheduler_table() -> str:
    lines = ["| event | what it means | commands that may follow |", "|---|---|---|"]
    for event in Scheduler(Random(0), Limits()).events:
        commands = ", ".join(f"`{command.__name__}`" for command in COMMANDS_AFTER[event]) or "none"
        lines.append(f"| `{event.__name__}` | {(event.__doc__ or '').splitlines()[0]} | {commands} |")
    return "\n".join(lines) + "\n"
