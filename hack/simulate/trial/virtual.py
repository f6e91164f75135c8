"""Virtual time for the product: an event loop that never waits, and what the product's modules get in place of `time`.

The supernode's tracker lives in an asyncio loop and reads the monotonic clock; so does the agent's channel. While `product_time`
is entered, both see the simulation's clock, and hashing a span of a file looks at the few bytes that are written of each piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from typing import Any, cast
from unittest import mock

from agent.origin.shares import Seat, Shares
from agent.storage import disk
from agent.swarm import channel, describe
from hack.simulate.network import Clock
from hack.simulate.trial import content
from supernode.tracker import seed_threads, seeds, tracker

UNIX_SECONDS = 1.7e9
"""What a right clock shows when a trial begins."""


class Loop:
    """What the product needs of an event loop, on the simulation's clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.failures: list[str] = []
        """What was raised inside."""

    def time(self) -> float:
        return self._clock.now

    def get_debug(self) -> bool:
        return False

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        handle = asyncio.TimerHandle(when, callback, args, cast(Any, self), context)
        self._clock.at(when, self._run, handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        return self.call_at(self._clock.now + delay, callback, *args, context=context)

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        return self.call_at(self._clock.now, callback, *args, context=context)

    call_soon_threadsafe = call_soon

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=cast(Any, self))

    def create_task(self, coro: Coroutine[Any, Any, Any], **_: Any) -> Any:
        return asyncio.Task(coro, loop=cast(Any, self))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _timer_handle_cancelled(self, _: asyncio.TimerHandle) -> None:
        return

    def _run(self, handle: asyncio.TimerHandle) -> None:
        if not handle.cancelled():
            handle._run()


class Time:
    """Stands in for the module."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def monotonic(self) -> float:
        return self._clock.now

    def time(self) -> float:
        return UNIX_SECONDS + self._clock.now


class Inline:
    """Stands in for threads: what is submitted is done at once."""

    def __init__(self, *_: Any, **__: Any) -> None:
        return

    def submit(self, registry: str, node: str, do: Callable[[Seat], None]) -> None:
        do(Seat(Shares(1), registry, node))

    def stop(self) -> None:
        return


class InlinePool:
    """Stands in for a pool of threads in the same way."""

    def __init__(self, *_: Any, **__: Any) -> None:
        return

    def submit(self, do: Callable[..., object], *arguments: object) -> None:
        do(*arguments)

    def shutdown(self, **_: Any) -> None:
        return


class Told(logging.Handler):
    """What the product says of failures inside it is a failure of the trial."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(logging.ERROR)
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._loop.failures.append(f"{record.getMessage()}: {error!r}")


@contextlib.contextmanager
def _logs_told(loop: Loop) -> Iterator[None]:
    told = Told(loop)
    loggers = [logging.getLogger(name) for name in ("agent", "supernode")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(told)
        logger.setLevel(logging.ERROR)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(told)
            logger.propagate = propagate
            logger.setLevel(level)


@contextlib.contextmanager
def product_time(clock: Clock) -> Iterator[Loop]:
    """The product lives on this clock."""
    loop, time = Loop(clock), Time(clock)
    with contextlib.ExitStack() as patches:
        patches.enter_context(_logs_told(loop))
        for module in (tracker, seeds, channel):
            patches.enter_context(mock.patch.object(module, "time", time))
        patches.enter_context(mock.patch.object(seed_threads, "SharedThreads", Inline))
        patches.enter_context(mock.patch.object(describe, "ThreadPoolExecutor", InlinePool))
        patches.enter_context(mock.patch.object(disk, "hash_span", content.hash_marks))
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(cast(Any, loop))
        try:
            yield loop
        finally:
            asyncio._set_running_loop(before)
