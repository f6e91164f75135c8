"""What the scheduler does on each event, as the table of docs/scheduling.md, made from the code so that it is never out of date.

python -m hack.states_scheduler            prints the table
python -m hack.states_scheduler --write    writes it into the page
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

from supernode.scheduler.events import COMMANDS_AFTER
from supernode.scheduler.machine import Limits, Scheduler

PAGE = Path(__file__).resolve().parent.parent / "docs" / "scheduling.md"
BEGIN = "<!-- scheduler table: begin -->\n"
END = "<!-- scheduler table: end -->\n"


def scheduler_table() -> str:
    """A line for each event that `Scheduler.handle` dispatches by, in that order."""
    lines = ["| event | what it means | commands that may follow |", "|---|---|---|"]
    for event in Scheduler(Random(0), Limits()).events:
        commands = ", ".join(f"`{command.__name__}`" for command in COMMANDS_AFTER[event]) or "none"
        lines.append(f"| `{event.__name__}` | {(event.__doc__ or '').splitlines()[0]} | {commands} |")
    return "\n".join(lines) + "\n"


def page_with_table(page: str) -> str:
    """The page with the table as it is to be, between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{scheduler_table()}\n{END}{after}"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page_with_table(PAGE.read_text()))
    else:
        print(scheduler_table(), end="")
