"""What a person sees of `darner get` while bytes come, on standard error: how many, how fast, and from where."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cli.get.sources import Incoming
from cli.output import console, printable, size, span

LOOK_SECONDS = 0.5
NAMES = {"peer": "other nodes", "supernode": "the supernode", "origin": "the server", "store": "this node"}


class Shown:
    """Told of the bytes of one file. `is_quiet` leaves out all but errors."""

    def __init__(self, name: str, *, is_quiet: bool) -> None:
        self._name, self._is_quiet = printable(name), is_quiet
        self._opened: Incoming | None = None
        self._began = time.monotonic()
        self._had = 0
        """Bytes that an earlier try has left."""
        self._position = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[sources]}"),
            console=console(sys.stderr),
            disable=is_quiet or not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(self._name, total=None, sources="")

    @contextmanager
    def showing(self) -> Iterator[None]:
        """While it lasts. A line at the end says how it went."""
        is_over = threading.Event()

        def look() -> None:
            while not is_over.wait(LOOK_SECONDS):
                self._progress.update(self._task, sources=self._sources())

        looking = threading.Thread(target=look, name="progress", daemon=True)
        with self._progress:
            if not self._progress.disable:
                looking.start()
            try:
                yield
            finally:
                is_over.set()
                if looking.is_alive():
                    looking.join()
        if not self._is_quiet:
            seconds = max(time.monotonic() - self._began, 1e-3)
            came = self._position - self._had
            sources = self._sources()
            rate = f"{size(came)} in {span(seconds) if seconds >= 10 else f'{seconds:.1f}s'}, {size(came / seconds)}/s"
            self.note(f"{self._name}: {rate}" + (f", from {sources}" if sources else ""))

    def note(self, words: str) -> None:
        if not self._is_quiet:
            self._progress.console.print(printable(words))

    def opened(self, opened: Incoming) -> None:
        self._opened, self._position = opened, opened.start
        self._had = opened.start if not self._had else self._had
        self._progress.update(self._task, total=opened.size, completed=opened.start)

    def came(self, position: int) -> None:
        self._position = position
        self._progress.update(self._task, completed=position)

    def _sources(self) -> str:
        sources = self._opened.sources() if self._opened else {}
        return ", ".join(f"{NAMES.get(name, name)} {size(count)}" for name, count in sources.items() if count)
