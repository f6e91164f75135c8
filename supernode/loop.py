"""How threads reach the tracker's event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVarTuple

Arguments = TypeVarTuple("Arguments")


def call_in(loop: asyncio.AbstractEventLoop, call: Callable[[*Arguments], object], *arguments: *Arguments) -> None:
    """Have the loop call it soon, from any thread; never, if the loop has ended: the process is stopping then."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *arguments)
