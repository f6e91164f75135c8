"""A few threads for the work of many namespaces: each has its share of them, and turns go round.

Authors of pods decide how many Secrets are looked at and how large they are. One namespace's may keep its own pods waiting, and
nobody else's. State belongs to the event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

WORKERS = 8
WORKERS_PER_NAMESPACE_MAX = 3
"""So that three namespaces, and not one, would be needed to keep all of them busy; then turns go round."""

Result = TypeVar("Result")


class NamespaceShares(Generic[Result]):
    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix=name)
        self._loop = asyncio.get_running_loop()
        self._running: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[tuple[asyncio.Future[Result], Callable[[], Result]]]] = OrderedDict()
        """By namespace; the one whose turn was longest ago comes first."""

    def submit(self, namespace: str, work: Callable[[], Result]) -> asyncio.Future[Result]:
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiting.setdefault(namespace, deque()).append((future, work))
        self._begin()
        return future

    def close(self) -> None:
        for queue in self._waiting.values():
            for future, _ in queue:
                future.cancel()
        self._waiting.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        while self._running.total() < WORKERS:
            namespace = next((name for name in self._waiting if self._running[name] < WORKERS_PER_NAMESPACE_MAX), None)
            if namespace is None:
                return
            queue = self._waiting.pop(namespace)
            future, work = queue.popleft()
            if queue:
                self._waiting[namespace] = queue
            self._running[namespace] += 1
            running = self._loop.run_in_executor(self._pool, work)
            running.add_done_callback(lambda ended, name=namespace, waiting=future: self._ended(name, ended, waiting))  # type: ignore[misc]

    def _ended(self, namespace: str, ended: asyncio.Future[Result], waiting: asyncio.Future[Result]) -> None:
        self._running[namespace] -= 1
        if not self._running[namespace]:
            del self._running[namespace]
        if ended.cancelled():
            waiting.cancel()
        elif not waiting.done():
            failure = ended.exception()
            waiting.set_exception(failure) if failure else waiting.set_result(ended.result())
        self._begin()
