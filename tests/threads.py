"""What another thread may see: looks that are made between any two lines of some work, without a second thread or chance."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

Seen = TypeVar("Seen")


def between_lines(work: Callable[[], object], look: Callable[[], Seen]) -> list[Seen]:
    """Does the work once, and looks before each line of it, its callees' lines too, and after the last."""
    seen: list[Seen] = []

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            sys.settrace(None)
            seen.append(look())
            sys.settrace(trace)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return [*seen, look()]
