"""Where in which page a thing of the code is shown: between two marks that name it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hack.pages.commands import command_reference
from hack.pages.events import scheduler_table
from hack.pages.metrics import metric_tables
from hack.pages.modules import module_tables
from hack.pages.settings import PROCESSES, settings_table
from hack.pages.states import planner_diagram

DOCS = Path(__file__).resolve().parents[2] / "docs"

SHOWN: dict[str, tuple[Path, Callable[[], str]]] = {
    "states of the planner": (DOCS / "architecture.md", planner_diagram),
    "reference of commands": (DOCS / "cli.md", command_reference),
    "modules": (DOCS / "architecture.md", module_tables),
    "metrics": (DOCS / "metrics.md", metric_tables),
    "events of the scheduler": (DOCS / "scheduling.md", scheduler_table),
    **{f"settings of the {process}": (DOCS / "settings.md", settings_table(process)) for process in PROCESSES},
}


def written_anew() -> dict[Path, str]:
    """The pages as they are to be."""
    pages: dict[Path, str] = {}
    for name, (page, shown) in SHOWN.items():
        pages[page] = between_marks(pages.get(page) or page.read_text(), name, shown())
    return pages


def between_marks(page: str, name: str, text: str) -> str:
    """The page with that text between the marks of that name. Raises LookupError when they are not there once."""
    begin, end = f"<!-- {name}: python -m hack.pages -->\n", f"<!-- end of the {name} -->\n"
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended or begin in after:
        raise LookupError(f"a page has no one place for the {name}: {begin}and {end}")
    return f"{before}{begin}\n{text}\n{end}{after}"
