"""What the scheduler does on each event: a line for each."""

from __future__ import annotations

from supernode.scheduler.events import COMMANDS_AFTER


def scheduler_table() -> str:
    lines = ["| event | what it means | commands that may follow |", "|---|---|---|"]
    for event, may_follow in COMMANDS_AFTER.items():
        commands = ", ".join(f"`{command.__name__}`" for command in may_follow) or "none"
        lines.append(f"| `{event.__name__}` | {(event.__doc__ or '').splitlines()[0]} | {commands} |")
    return "\n".join(lines) + "\n"
