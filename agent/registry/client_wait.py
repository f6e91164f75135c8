"""How long a client waits for the head of its answer, and waiting on its behalf for registries that may never answer.

A runtime gives up after 30 s, so it is told before. Questions to other processes are asked in threads of their own, each with
limits of its own; a question whose client has left, or was told an error, ends by those.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from agent.http.server import ClientGone, Exchange
from agent.values.errors import OriginError, RequestError

HEAD_SECONDS_MAX = 25.0
"""containerd gives up when it has no headers after 30 s."""
LOOK_SECONDS = 0.1
"""How soon a client that left while it waited is noticed."""
QUESTIONS_MAX = 256

Reply = TypeVar("Reply")


class ClientWait:
    def __init__(self, head_seconds: float = HEAD_SECONDS_MAX) -> None:
        self._head_seconds = head_seconds
        self._places = threading.BoundedSemaphore(QUESTIONS_MAX)

    def look(self, exchange: Exchange, registry: str) -> None:
        """Raises when there is no use in waiting on: ClientGone, or OriginError 504 when the client is about to give up."""
        if exchange.client_left():
            raise ClientGone
        if time.monotonic() - exchange.began > self._head_seconds:
            raise OriginError(504, f"neither other nodes nor the registry {registry} answered in time", certain=False)

    def ask(self, exchange: Exchange, registry: str, question: Callable[[], Reply]) -> Reply:
        """The reply to a question. Raises its errors and those of `look`, and RequestError when too many wait already."""
        if not self._places.acquire(blocking=False):
            raise RequestError(503, "TOOMANYREQUESTS", f"{QUESTIONS_MAX} requests wait for registries already")
        reply: Future[Reply] = Future()
        try:
            threading.Thread(target=self._answer, args=(reply, question), name="question", daemon=True).start()
        except RuntimeError:
            self._places.release()
            raise RequestError(503, "TOOMANYREQUESTS", "no thread is left to ask the registry with") from None
        while not wait([reply], LOOK_SECONDS).done:
            self.look(exchange, registry)
        return reply.result()

    def _answer(self, reply: Future[Reply], question: Callable[[], Reply]) -> None:
        try:
            reply.set_result(question())
        except BaseException as error:
            reply.set_exception(error)
        finally:
            self._places.release()
