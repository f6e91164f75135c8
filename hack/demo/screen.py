"""What the demo shows: bars while it pulls, a table at the end. On a pipe or in a log: plain lines instead of bars."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    node: str
    seconds: float
    received: Mapping[str, int]


class Screen:
    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def bars(self, names: list[str], total: int) -> Iterator[Callable[[str, int], None]]:
        """A bar for each name while the block runs; the value is called with a name and the bytes that came for it."""
        if not self._console.is_terminal:
            yield lambda *_: None
            return
        columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
        with Progress(*columns, console=self._console) as progress:
            tasks = {name: progress.add_task(name, total=total) for name in names}
            yield lambda name, count: progress.advance(tasks[name], count)

    def table(self, rows: list[Row]) -> None:
        table = Table("node")
        for title in ("seconds", "MiB from own store", "peers", "supernode", "origin"):
            table.add_column(title, justify="right")
        for row in rows:
            amounts = (f"{row.received[source] / MIB:.1f}" for source in ("store", "peer", "supernode", "origin"))
            table.add_row(row.node, f"{row.seconds:.1f}", *amounts)
        self._console.print(table)
