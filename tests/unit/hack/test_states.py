"""The state diagrams of the architecture page are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.states import TABLES, diagram, drawn_anew

PAGE = Path(__file__).parents[3] / "docs" / "architecture.md"


def test_the_architecture_page_shows_the_states_as_the_code_has_them() -> None:
    page = PAGE.read_text()
    assert drawn_anew(page) == page, "draw them anew: python -m hack.states docs/architecture.md"


def test_a_page_that_has_no_place_for_a_diagram_is_refused() -> None:
    with pytest.raises(LookupError, match="planner"):
        drawn_anew("# Architecture")


@pytest.mark.parametrize("name", TABLES)
def test_every_state_is_reached_from_the_first_one(name: str) -> None:
    first, steps = TABLES[name]
    reached = {first}
    for _ in steps:
        reached |= {after for before, after in steps if before in reached}
    assert reached == set(type(first))
    assert all(f"{state.value}" in diagram(first, steps) for state in type(first))
