"""Learns from what happens to rewritten pods, and begins pauses: for registries whose pulls keep failing by us, and for owners
that delete the pods which they do not recognise.

Pure, in the time that it is told; the leader's alone. What has been decided is a `webhook.breaker.pauses.Pauses`, which never
changes and is replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from webhook.breaker.pauses import KEPT_MAX, Pauses, duration_shown, forget_oldest, owner_key, registry_key
from webhook.pods import Owner

FAILURES_MAX = 3
"""Pods, within the window, whose pulls from one registry fail: as many as it takes to tell a registry from an accident."""
WINDOW_SECONDS = 600.0
ROUNDS_MAX = 5
"""Young pods in a row, each made after the one before it was deleted, as an operator does that compares images."""
YOUNG_SECONDS = 60.0
FAILURES_KEPT_MAX = 100
"""Failed pods that are remembered of one registry."""


@dataclass
class _Streak:
    rounds: int
    last_deleted: float


class Tripped(NamedTuple):
    """A pause that has begun."""

    kind: str
    name: str
    seconds: float

    def __str__(self) -> str:
        why = (
            "pulls of its images through the agents keep failing"
            if self.kind == "registry"
            else "its rewritten pods are deleted young again and again"
        )
        return f"the {self.kind} {self.name} is left alone for {duration_shown(self.seconds)}, because {why}"


class Breakers:
    """Learns, and begins pauses. One thread at a time."""

    def __init__(self, pauses: Pauses | None = None) -> None:
        self.pauses = pauses or Pauses()
        self._failures: dict[str, dict[str, float]] = {}
        self._streaks: dict[str, _Streak] = {}

    def failed(self, registry: str, pod: str, now: float) -> Tripped | None:
        """A pod's pull through the agent has failed by no fault of its image; `pod` is its uid."""
        key = registry_key(registry)
        if not registry or self.pauses.remaining(key, now):
            return None  # A pod that was rewritten before the pause tells nothing new.
        failures = self._failures.setdefault(key, {})
        failures[pod] = now
        for stale in [uid for uid, at in failures.items() if now - at > WINDOW_SECONDS]:
            del failures[stale]
        forget_oldest(failures, FAILURES_KEPT_MAX)
        forget_oldest(self._failures, KEPT_MAX)
        if len(failures) < FAILURES_MAX and not self.pauses.on_trial(key, now):
            return None
        self._failures.pop(key, None)
        return self._tripped("registry", registry, key, now)

    def deleted(self, owner: Owner, created: float, deleted: float, now: float) -> Tripped | None:
        """A rewritten pod was deleted that had not done its work.

        Only a chain counts, in which each pod was made after the one before had been deleted. A controller that scales down, or
        a namespace that goes, deletes many young pods at once; who compares images deletes, makes, deletes, makes.
        """
        key = owner_key(owner)
        streak = self._streaks.get(key)
        if deleted - created >= YOUNG_SECONDS:
            self._streaks.pop(key, None)
            return None
        if self.pauses.remaining(key, now):
            return None
        if streak and created >= streak.last_deleted and deleted - streak.last_deleted <= WINDOW_SECONDS:
            streak = _Streak(streak.rounds + 1, deleted)
        elif streak and created < streak.last_deleted:
            return None
        else:
            streak = _Streak(1, deleted)
        self._streaks.pop(key, None)
        self._streaks[key] = streak
        forget_oldest(self._streaks, KEPT_MAX)
        if streak.rounds < ROUNDS_MAX and not self.pauses.on_trial(key, now):
            return None
        del self._streaks[key]
        return self._tripped("owner", str(owner), key, now)

    def _tripped(self, kind: str, name: str, key: str, now: float) -> Tripped:
        self.pauses, seconds = self.pauses.with_another(key, now)
        return Tripped(kind, name, seconds)
