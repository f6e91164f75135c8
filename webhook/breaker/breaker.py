"""Learns from what happens to rewritten pods, and begins pauses: for registries whose pulls keep failing by us, for those whose
credential only the nodes have, and for owners that delete the pods which they do not recognise.

Pure, in the time that it is told; the leader's alone. What has been decided is a `webhook.breaker.pauses.Pauses`, which never
changes and is replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from webhook.breaker.pauses import KEPT_MAX, Pauses, credential_keys, duration_shown, forget_oldest, owner_key, registry_key
from webhook.pods import Owner

FAILURES_MAX = 3
"""Pods, within the window, whose pulls from one registry fail: as many as it takes to tell a registry from an accident."""
WINDOW_SECONDS = 600.0
CREDENTIAL_WINDOW_SECONDS = 24 * 3600.0
"""Pods that are refused for want of a credential add up for so long: jobs come once an hour."""
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
        if self.kind == "credential":
            return (
                f"{self.name} is left alone for {duration_shown(self.seconds)} for pods that have no pull secret for it, because "
                "it refuses them through the agents: if it can be pulled at all, only the nodes have a credential for it"
            )
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
        return self._counted("registry", registry, registry_key(registry), pod, now, WINDOW_SECONDS) if registry else None

    def refused(self, registry: str, repository: str, pod: str, whole: bool, now: float) -> Tripped | None:
        """A pod without a pull secret was refused through the agent, and then ran under its own name, or was given up before it
        could. `whole`: nothing speaks for other repositories of the registry, so all of them are meant."""
        keys = credential_keys(registry, repository)
        if not registry or any(self.pauses.remaining(key, now) for key in keys):
            return None
        key = next((key for key in keys if self.pauses.on_trial(key, now)), keys[0 if whole else 1])
        return self._counted("credential", key.partition(" ")[2], key, pod, now, CREDENTIAL_WINDOW_SECONDS)

    def allowed(self, registry: str, repository: str, started: float, now: float) -> None:
        """A pod without a pull secret has pulled through an agent: what was refused before is not any more."""
        for key in credential_keys(registry, repository):
            self._failures.pop(key, None)
            end = self.pauses.trial_since(key, now)
            if end is not None and started > end:
                self.pauses = self.pauses.without(key)

    def _counted(self, kind: str, name: str, key: str, pod: str, now: float, window: float) -> Tripped | None:
        if self.pauses.remaining(key, now):
            return None  # A pod that was rewritten before the pause tells nothing new.
        failures = self._failures.setdefault(key, {})
        failures[pod] = now
        for stale in [uid for uid, at in failures.items() if now - at > window]:
            del failures[stale]
        forget_oldest(failures, FAILURES_KEPT_MAX)
        forget_oldest(self._failures, KEPT_MAX)
        if len(failures) < FAILURES_MAX and not self.pauses.on_trial(key, now):
            return None
        self._failures.pop(key, None)
        return self._tripped(kind, name, key, now)

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
