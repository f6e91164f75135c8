"""The page about scheduling tells what the scheduler does, event by event, as the code has it."""

from __future__ import annotations

from hack.states_scheduler import PAGE, page_with_table, scheduler_table


def test_the_page_has_the_table_that_the_code_gives() -> None:
    text = PAGE.read_text()
    assert page_with_table(text) == text, "python -m hack.states_scheduler --write"
    assert scheduler_table() in text
