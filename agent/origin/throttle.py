"""Registries that said when they may be asked again (Retry-After, RFC 9110 section 10.2.3), and are not asked before.

What is told on is all of the time that a registry named. It is kept no longer than a kubelet would wait before it tries again. A
pause of a few seconds is waited for by those who ask meanwhile.
"""

from __future__ import annotations

import math
import threading
import time
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from agent.origin.shown import key_of
from agent.values.credential import Credential
from agent.values.errors import OriginError

RETRY_AFTER_KEPT_SECONDS_MAX = 300.0
"""The longest pause of a kubelet between two pulls: whoever pulls without an agent asks again after it, whatever was said."""
RETRY_AFTER_SECONDS_MAX = 86_400
WAITED_SECONDS_MAX = 5.0
"""A runtime that hears 429 asks again at once, some five times, and gives up: told from memory, it never gets through."""
REGISTRIES_MAX = 1024


def retry_after(value: str) -> int:
    """The seconds that a Retry-After asks for, in numbers or as a date; 0 when it says nothing."""
    try:
        seconds = int(value) if value.isascii() and value.isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0
    return min(max(0, math.ceil(seconds)), RETRY_AFTER_SECONDS_MAX)


class _Pause(NamedTuple):
    kept_until: float
    told_until: float
    status: int
    message: str
    code: str


class Throttle:
    """By registry and credential: what one user has used up is there for another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._pauses: dict[tuple[str, str], _Pause] = {}

    def keep(self, registry: str, credential: Credential | None, error: OriginError) -> None:
        """Ask no more before the time that a registry's refusal names."""
        if not error.retry_after:
            return
        now = time.monotonic()
        kept = min(error.retry_after, RETRY_AFTER_KEPT_SECONDS_MAX)
        with self._lock:
            while len(self._pauses) >= REGISTRIES_MAX:
                self._pauses.pop(next(iter(self._pauses)))
            self._pauses[_key(registry, credential)] = _Pause(
                now + kept, now + error.retry_after, error.status, str(error), error.code
            )

    def close(self) -> None:
        """Nobody waits any more."""
        self._closed.set()

    def check(self, registry: str, credential: Credential | None) -> None:
        """Raises the refusal again, with the time that is left, while the registry is not to be asked; waits if that is short."""
        now = time.monotonic()
        with self._lock:
            pause = self._pauses.get(_key(registry, credential))
            if pause is None or now >= pause.kept_until:
                self._pauses.pop(_key(registry, credential), None)
                return
        if pause.kept_until - now <= WAITED_SECONDS_MAX and not self._closed.wait(pause.kept_until - now):
            return
        raise OriginError(pause.status, pause.message, pause.code, retry_after=math.ceil(pause.told_until - now))


def _key(registry: str, credential: Credential | None) -> tuple[str, str]:
    return registry, key_of(credential)
