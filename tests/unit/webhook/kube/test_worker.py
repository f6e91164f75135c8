"""Work in threads: a thread that dies takes the process with it, and one that hangs does not keep it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from webhook.kube.worker import in_thread


def test_a_thread_that_dies_is_told_with_its_reason() -> None:
    def dies(_ending: threading.Event) -> None:
        raise ZeroDivisionError("of all things")

    async def run() -> None:
        await asyncio.wait_for(in_thread("dies", dies, threading.Event()), 5)

    with pytest.raises(ZeroDivisionError, match="of all things"):
        asyncio.run(run())


def test_a_thread_works_until_the_event_is_set() -> None:
    ending = threading.Event()

    def works(event: threading.Event) -> None:
        assert event.wait(5)

    async def run() -> None:
        working = in_thread("works", works, ending)
        await asyncio.sleep(0.05)
        assert not working.done()
        ending.set()
        assert await asyncio.wait_for(working, 5) is None

    asyncio.run(run())


def test_a_thread_that_ends_after_its_event_loop_does_no_harm_and_keeps_no_process() -> None:
    ending = threading.Event()
    working: list[threading.Thread] = []

    def slow(event: threading.Event) -> None:
        working.append(threading.current_thread())
        event.wait(5)

    async def run() -> None:
        in_thread("slow", slow, ending)
        while not working:
            await asyncio.sleep(0.01)

    asyncio.run(run())
    assert working[0].daemon
    ending.set()
    working[0].join(5)
    assert not working[0].is_alive()
