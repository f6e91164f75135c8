"""What people see: bytes, times, and no escape sequence from a stranger."""

from __future__ import annotations

import pytest

from cli.output import Shade, print_table, size, span


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (200 << 20, "200 MiB"), (5 << 50, "5120 TiB"), (None, "-")],
)
def test_bytes_are_shown_with_the_unit_that_fits(count: int | None, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0s"), (119, "119s"), (720, "12m"), (12000, "3h20m"), (7200, "2h"), (864000, "10d")]
)
def test_times_are_shown_as_kubectl_shows_ages(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_a_table_that_no_terminal_shows_has_no_colour_and_breaks_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 500
    print_table(["name", "what"], [("a\x1b[31m", (long, Shade.BAD))])
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines] == ["NAME     WHAT", f"a [31m   {long}"]
