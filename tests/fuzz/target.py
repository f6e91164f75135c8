"""A parser that strangers reach, as a function of bytes: what it may raise, and what every input is held to.

An error that is right is one of the package's own, which the caller handles. Anything else is a finding: another error, one that
is logged with a traceback because it was caught at the last moment, and work of more than a second for each kilobyte.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
CPU_SECONDS_PER_KIB_MAX = 1.0


class TooSlow(AssertionError):  # noqa: N818 (it says what the matter is)
    """An input costs more of a processor than its length is worth."""


@dataclass(frozen=True)
class Target:
    name: str
    run: Callable[[bytes], object]
    """Also checks what the parser promises, by assertions."""
    right: tuple[type[Exception], ...] = ()
    examples: tuple[bytes, ...] = ()
    """Inputs that are understood, from which others are made."""
    bytes_max: int = 4096

    @property
    def corpus(self) -> list[Path]:
        """Inputs that showed something once, each named by what it showed."""
        return sorted((CORPUS / self.name).glob("*"))

    def try_on(self, data: bytes) -> None:
        """Raises what is a finding."""
        inside = _Inside(self.right)
        logging.getLogger().addHandler(inside)
        began = time.thread_time()
        try:
            self.run(data)
        except self.right:
            pass
        finally:
            logging.getLogger().removeHandler(inside)
        seconds = time.thread_time() - began
        if inside.errors:
            raise inside.errors[0]
        if seconds > CPU_SECONDS_PER_KIB_MAX * (1 + len(data) // 1024):
            raise TooSlow(f"{len(data)} bytes took {seconds:.1f} s of a processor")


class _Inside(logging.Handler):
    """Hears of errors that were caught where nobody knew what to do with them."""

    def __init__(self, right: tuple[type[Exception], ...]) -> None:
        super().__init__()
        self._right = right
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error and not isinstance(error, self._right):
            self.errors.append(error)
