"""What the webhook leaves alone for a while: registries whose pulls keep failing by us, and owners that do not bear our names.

Pure, in the time that it is told (seconds since the epoch, because replicas share it). `Breakers` learns from what happened to
rewritten pods and is the leader's; what it has decided is a `Pauses`, which goes to the other replicas as a text, and which
alone is asked at an admission. Leaving alone is always safe: such a pod is what it would have been without Darner.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from webhook.admission.rewrite import Gate, Left, Pod, Reason, Rewrite, mapping_at, text_at

FAILURES_MAX = 3
"""Pods, within the window, whose pulls from one registry fail: as many as it takes to tell a registry from an accident."""
WINDOW_SECONDS = 600.0
ROUNDS_MAX = 5
"""Young pods in a row, each made after the one before it was deleted, as an operator does that compares images."""
YOUNG_SECONDS = 60.0
PAUSE_SECONDS = 60.0
PAUSE_SECONDS_MAX = 3600.0
TRIAL_SECONDS = 3600.0
"""After a pause, one more failure begins the next one, twice as long; after this time without any, all is forgotten."""
SKEW_SECONDS_MAX = 60.0
"""By which the clocks of two replicas may differ."""
KEPT_MAX = 500
"""Registries, and owners, that are remembered. The Lease's annotation has room for these."""
FAILURES_KEPT_MAX = 100
KEY_LENGTH_MAX = 600


class Owner(NamedTuple):
    """The object that a pod belongs to, in the pod's namespace."""

    namespace: str
    kind: str
    group: str
    name: str

    def __str__(self) -> str:
        kind = f"{self.kind}.{self.group}" if self.group else self.kind
        return f"{self.namespace}/{kind}/{self.name}"[:KEY_LENGTH_MAX]


@dataclass(frozen=True)
class Pause:
    until: float
    times: int
    """In a row."""


@dataclass(frozen=True)
class Pauses:
    """Who is left alone, and until when. A key is `registry NAME` or `owner NAMESPACE/KIND/NAME`.

    A value that never changes: admissions read it while another thread learns, and a dictionary in which that thread put
    entries in order would for a moment lack the very entry that an admission asks for.
    """

    entries: Mapping[str, Pause] = field(default_factory=dict)

    def remaining(self, key: str, now: float) -> float:
        """Seconds; 0 if it is not left alone. Never longer than any pause is, whatever a clock has done meanwhile."""
        pause = self.entries.get(key)
        # One that ends later than any could is from before a clock was set back, and would else last until that time comes again.
        if pause is None or pause.until > now + PAUSE_SECONDS_MAX + SKEW_SECONDS_MAX:
            return 0.0
        return min(max(0.0, pause.until - now), PAUSE_SECONDS_MAX)

    def on_trial(self, key: str, now: float) -> bool:
        pause = self.entries.get(key)
        return pause is not None and pause.until <= now < pause.until + TRIAL_SECONDS

    def trial_since(self, key: str, now: float) -> float | None:
        """When its last pause ended, while the next failure would begin another one; None at any other time."""
        return self.entries[key].until if self.on_trial(key, now) else None

    def with_another(self, key: str, now: float) -> tuple[Pauses, float]:
        """The pauses from now on, when this one is left alone as well; and for how many seconds."""
        before = self.entries.get(key)
        times = before.times + 1 if before and now < before.until + TRIAL_SECONDS else 1
        seconds = min(PAUSE_SECONDS * 2.0 ** min(times - 1, 30), PAUSE_SECONDS_MAX)
        entries = {other: pause for other, pause in self.entries.items() if other != key}
        entries[key] = Pause(now + seconds, times)
        forget_oldest(entries, KEPT_MAX)
        return Pauses(entries), seconds

    def left_alone(self, registry: str, owner: Owner | None, now: float) -> str | None:
        """What an admission asks; from memory, in words."""
        if owner and (seconds := self.remaining(owner_key(owner), now)):
            why = f"pods of {owner.kind} {owner.name} are deleted again and again soon after they are rewritten"
        elif seconds := self.remaining(registry_key(registry), now):
            why = f"pulls from {registry} through the agents keep failing"
        else:
            return None
        return f"{why}, so it is left alone for another {_shown(seconds)}"

    def counts(self, now: float) -> Mapping[str, int]:
        """How many registries, and how many owners, are left alone now."""
        open_now = [key for key in self.entries if self.remaining(key, now)]
        return {kind: sum(key.startswith(kind + " ") for key in open_now) for kind in ("registry", "owner")}

    def text(self, now: float) -> str:
        """For the other replicas, and for the next leader."""
        known = {
            key: [round(pause.until), pause.times] for key, pause in self.entries.items() if now < pause.until + TRIAL_SECONDS
        }
        return json.dumps(known, sort_keys=True, separators=(",", ":"))

    @classmethod
    def read(cls, text: str, now: float) -> Pauses:
        """What a leader has written; whatever is not that is left out."""
        try:
            known = json.loads(text or "{}")
        except (ValueError, RecursionError):
            known = {}
        return cls(dict(_pauses(known if isinstance(known, dict) else {}, now)))


def _pauses(known: Mapping[str, Any], now: float) -> Iterator[tuple[str, Pause]]:
    for key, value in list(known.items())[:KEPT_MAX]:
        numbers = isinstance(value, list) and len(value) == 2 and all(type(item) is int and 0 <= item < 1 << 40 for item in value)
        if numbers and value[0] <= now + PAUSE_SECONDS_MAX + SKEW_SECONDS_MAX:
            yield key, Pause(min(float(value[0]), now + PAUSE_SECONDS_MAX), value[1])


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
        return f"the {self.kind} {self.name} is left alone for {_shown(self.seconds)}, because {why}"


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


@dataclass(frozen=True)
class OwnerKind:
    """Owners that are left alone from the start, as KIND.GROUP."""

    kind: str
    group: str

    def __str__(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind


def owner_kind(text: str) -> OwnerKind:
    """`Cluster.postgresql.cnpg.io`, or a kind of the core group: `Node`. Raises ValueError."""
    match = re.fullmatch(r"([A-Z][A-Za-z0-9]*)(?:\.([a-z0-9-]+(?:\.[a-z0-9-]+)*))?", text)
    if not match:
        raise ValueError(f"{text!r} names no kind of owner; write KIND.GROUP, such as Cluster.postgresql.cnpg.io")
    return OwnerKind(match[1], match[2] or "")


def owners(pod: Pod, namespace: str) -> tuple[Owner, ...]:
    """Every owner, the controller first."""
    references = mapping_at(pod, "metadata").get("ownerReferences")
    found = [item for item in (references if isinstance(references, list) else ()) if isinstance(item, Mapping)]
    found.sort(key=lambda item: item.get("controller") is not True)
    return tuple(
        Owner(namespace, text_at(item, "kind"), text_at(item, "apiVersion").rpartition("/")[0], text_at(item, "name"))
        for item in found
    )


def controller(pod: Pod, namespace: str) -> Owner | None:
    """The owner that makes the pod anew when it is gone."""
    references = mapping_at(pod, "metadata").get("ownerReferences")
    controlled = isinstance(references, list) and any(mapping_at({"": item}, "").get("controller") is True for item in references)
    return owners(pod, namespace)[0] if controlled else None


def leave_alone(view: Callable[[], Pauses], excluded: Iterable[OwnerKind], clock: Callable[[], float]) -> Gate:
    """The gate; `view` is what is left alone at this moment."""
    kinds = frozenset((item.kind, item.group) for item in excluded)

    def gate(namespace: str, pod: Pod, rewrites: Sequence[Rewrite]) -> Iterator[Left]:
        for owner in owners(pod, namespace):
            if (owner.kind, owner.group) in kinds:
                yield Left("pod", Reason.EXCLUDED_OWNER, f"it belongs to a {owner.kind} of {owner.group}, which is excluded")
                return
        now, owned_by, pauses = clock(), controller(pod, namespace), view()
        for item in rewrites:
            words = pauses.left_alone(item.registry, None, now)
            if words:
                yield Left(item.place.where, Reason.REGISTRY_FAILING, words)
        if owned_by and (words := pauses.left_alone("", owned_by, now)):
            yield Left("pod", Reason.OWNER_DELETES, words)

    return gate


def registry_key(registry: str) -> str:
    return f"registry {registry}"[:KEY_LENGTH_MAX]


def owner_key(owner: Owner) -> str:
    return f"owner {owner}"


def forget_oldest(entries: dict[str, Any], count: int) -> None:
    """Forgets the oldest."""
    while len(entries) > count:
        del entries[next(iter(entries))]


def _shown(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
