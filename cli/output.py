"""What commands print: tables for people, JSON for programs. Colours only on a terminal, and never where NO_COLOR is set.

Words from the cluster come from anybody who may write there, so nothing in them steers a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH_MAX = 10_000
"""Columns of a line that no terminal shows: it is not wrapped, so that programs find a row in a line."""


class OutputFormat(StrEnum):
    TABLE = "table"
    JSON = "json"


class Shade(StrEnum):
    """How a word is shown on a terminal; the words alone say the same."""

    PLAIN = ""
    GOOD = "green"
    WARNING = "yellow"
    BAD = "bold red"
    FAINT = "dim"


Cell = str | tuple[str, Shade]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich's own would end the process, with a status of its own


def console(file: TextIO | None = None) -> Console:
    file = file or sys.stdout
    width = None if file.isatty() else WIDTH_MAX
    return _Console(file=file, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)


def printable(words: str) -> str:
    """In one line, without what would steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in words)


def text(cell: Cell) -> Text:
    words, shade = cell if isinstance(cell, tuple) else (cell, Shade.PLAIN)
    return Text(printable(words), style=shade.value)


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Table:
    """As kubectl prints them: no lines, names of columns in capitals."""
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold", show_edge=False)
    for column in columns:
        shown.add_column(column.upper(), overflow="fold")
    for row in rows:
        shown.add_row(*map(text, row))
    return shown


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    console().print(table(columns, rows), soft_wrap=False)


def print_line(*cells: Cell, on: Console | None = None) -> None:
    """`on`: a console that shows something else below its lines."""
    (on or console()).print(Text("").join(map(text, cells)))


def print_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    print(json.dumps(document, indent=2), flush=True)  # noqa: T201


def size(count: float | None) -> str:
    """Bytes for people: 3.4 GiB."""
    if count is None:
        return "-"
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value /= 1024 if unit != "TiB" else 1
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def span(seconds: float | None) -> str:
    """A time for people, as kubectl's ages: 45s, 12m, 3h20m, 5d."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 2 * 3600:
        return f"{whole // 60}m"
    if whole < 48 * 3600:
        minutes = whole % 3600 // 60
        return f"{whole // 3600}h{minutes}m" if minutes else f"{whole // 3600}h"
    return f"{whole // 86400}d"
