"""Work that goes on in a thread of its own for as long as the process runs, such as following objects of the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

Work = Callable[[threading.Event], None]
"""Runs until the event is set."""


def in_thread(name: str, work: Work, ending: threading.Event) -> asyncio.Future[None]:
    """Runs the work in a thread that the process does not wait for, and ends with it: with its error, if it has one."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if not ended.done():
            ended.set_exception(error) if error else ended.set_result(None)

    def run() -> None:
        failure: BaseException | None = None
        try:
            work(ending)
        except BaseException as error:  # whatever it is, the process ends with it
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and nobody listens any more
            loop.call_soon_threadsafe(settle, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return ended
