"""The state diagrams of docs/architecture.md, drawn from the tables in the code: `python -m hack.states`.

With the name of a page, its diagrams are drawn anew, each between the two comments that name it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from agent.download import planner

Steps = Mapping[tuple[Enum, Enum], str]
"""From one state to another, and when."""

TABLES: dict[str, tuple[Enum, Steps]] = {"planner": (planner.Planner().mode, planner.STEPS)}
"""By name: the state that everything begins in, and the steps from state to state."""


def main() -> None:
    for name in sys.argv[1:]:
        page = Path(name)
        page.write_text(drawn_anew(page.read_text()))
    if len(sys.argv) == 1:
        print("\n".join(diagram(*table) for table in TABLES.values()))


def diagram(first: Enum, steps: Steps) -> str:
    """A state diagram in Mermaid's language, which code hosts draw."""
    lines = [f"{before.value} --> {after.value}: {when}" for (before, after), when in steps.items()]
    last = sorted({after.value for _, after in steps} - {before.value for before, _ in steps})
    lines = [f"[*] --> {first.value}", *lines, *(f"{state} --> [*]" for state in last)]
    return "\n".join(["```mermaid", "stateDiagram-v2", *(f"    {line}" for line in lines), "```"])


def drawn_anew(page: str) -> str:
    """The page with each diagram as the code has it now. Raises LookupError for a diagram that has no place there."""
    for name, table in TABLES.items():
        begin, end = f"<!-- states of the {name}: python -m hack.states docs/architecture.md -->", f"<!-- end of the {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise LookupError(f"the page has no one place for the diagram of the {name}: {begin} and {end}")
        drawn = f"{begin}\n{diagram(*table)}\n{end}"
        page = pattern.sub(lambda _, drawn=drawn: drawn, page)  # type: ignore[misc]
    return page


if __name__ == "__main__":
    main()
