"""What pages have from the code is what the code has now."""

from __future__ import annotations

import pytest

from agent.download.planner import STEPS, Mode, Planner
from hack.pages.marks import between_marks, written_anew
from hack.pages.modules import PACKAGES, TREE, module_tables


def test_the_pages_show_states_events_and_modules_as_the_code_has_them() -> None:
    for page, text in written_anew().items():
        assert page.read_text() == text, "write them anew: .venv/bin/python -m hack.pages"


def test_a_page_without_a_place_for_a_thing_is_refused() -> None:
    with pytest.raises(LookupError, match="modules"):
        between_marks("# Architecture", "modules", "")


def test_every_state_of_the_planner_is_reached_from_the_first_one() -> None:
    reached = {Planner().mode}
    for _ in STEPS:
        reached |= {after for before, after in STEPS if before in reached}
    assert reached == set(Mode)


def test_every_module_is_listed_with_what_it_owns() -> None:
    listed = module_tables()
    for package in PACKAGES:
        for path in (TREE / package).rglob("*.py"):
            if path.stem not in ("__init__", "__main__"):
                assert f"| `{path.name}` | " in listed
    assert "| |" not in listed.replace("|  |", "| |"), "a module without a docstring"
