"""Pauses, and the gate that keeps them: registries whose pulls keep failing by us, and owners that do not bear our names, are
left alone for a while.

Pure, in the time that it is told (seconds since the epoch, because replicas share it). The leader's `webhook.breaker.breaker`
begins pauses; they go to the other replicas as a text, and they alone are asked at an admission.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from webhook.gates import Gate, LeftAlone, Reason, Rewrite
from webhook.pods import Owner, Pod, controller_of, owners

PAUSE_SECONDS = 60.0
PAUSE_SECONDS_MAX = 3600.0
TRIAL_SECONDS = 3600.0
"""After a pause, one more failure begins the next one, twice as long; after this time without any, all is forgotten."""
CREDENTIAL_PAUSE_SECONDS = 6 * 3600.0
CREDENTIAL_PAUSE_SECONDS_MAX = 7 * 24 * 3600.0
"""For what only the nodes have a credential for, which is no accident but how a cluster was built; it is remembered for as long
again. So a job that runs every night costs a failed pull a week in the end."""
SKEW_SECONDS_MAX = 60.0
"""The clocks of two replicas may differ by so much."""
KEPT_MAX = 500
"""Registries, and owners, that are remembered. The Lease's annotation has room for these."""
KEY_LENGTH_MAX = 600


@dataclass(frozen=True)
class Pause:
    until: float
    times: int
    """Pauses in a row."""


@dataclass(frozen=True)
class Term:
    """How long pauses of one kind last, in seconds."""

    first: float = PAUSE_SECONDS
    longest: float = PAUSE_SECONDS_MAX
    trial: float = TRIAL_SECONDS


_TERMS = {"credential": Term(CREDENTIAL_PAUSE_SECONDS, CREDENTIAL_PAUSE_SECONDS_MAX, CREDENTIAL_PAUSE_SECONDS_MAX)}
KINDS = ("registry", "owner", "credential")


@dataclass(frozen=True)
class Pauses:
    """The registries and owners that are left alone, and until when. A key is `registry NAME`, `owner NAMESPACE/KIND/NAME`, or
    `credential NAME` for a registry or repository that is left alone for pods which have no pull secret for it.

    A value that never changes: admissions read it while another thread learns, and a dictionary in which that thread put
    entries in order would for a moment lack the very entry that an admission asks for.
    """

    entries: Mapping[str, Pause] = field(default_factory=dict)

    def remaining(self, key: str, now: float) -> float:
        """Seconds until its pause ends; 0 if it has none. Never longer than any pause is, whatever the clock does."""
        pause = self.entries.get(key)
        if pause is None:
            return 0.0
        # One that ends later than any could is from before a clock was set back, and would else last until that time comes again.
        longest = _term(key).longest
        if pause.until > now + longest + SKEW_SECONDS_MAX:
            return 0.0
        return min(max(0.0, pause.until - now), longest)

    def on_trial(self, key: str, now: float) -> bool:
        pause = self.entries.get(key)
        return pause is not None and pause.until <= now < pause.until + _term(key).trial

    def trial_since(self, key: str, now: float) -> float | None:
        """The time when its last pause ended, while the next failure would begin another one; None at any other time."""
        return self.entries[key].until if self.on_trial(key, now) else None

    def with_another(self, key: str, now: float) -> tuple[Pauses, float]:
        """The pauses from now on, when this one is left alone as well; and for how many seconds."""
        before = self.entries.get(key)
        term = _term(key)
        times = before.times + 1 if before and now < before.until + term.trial else 1
        seconds = min(term.first * 2.0 ** min(times - 1, 30), term.longest)
        entries = {other: pause for other, pause in self.entries.items() if other != key}
        entries[key] = Pause(now + seconds, times)
        forget_oldest(entries, KEPT_MAX)
        return Pauses(entries), seconds

    def without(self, key: str) -> Pauses:
        return Pauses({other: pause for other, pause in self.entries.items() if other != key})

    def left_alone(self, registry: str, owner: Owner | None, now: float) -> str | None:
        """The answer to an admission, from memory: in words why the registry or the owner is left alone, None if it is not."""
        if owner and (seconds := self.remaining(owner_key(owner), now)):
            why = f"pods of {owner.kind} {owner.name} are deleted again and again soon after they are rewritten"
        elif seconds := self.remaining(registry_key(registry), now):
            why = f"pulls from {registry} through the agents keep failing"
        else:
            return None
        return f"{why}, so it is left alone for another {duration_shown(seconds)}"

    def counts(self, now: float) -> Mapping[str, int]:
        """How many are left alone now, by kind."""
        open_now = [key for key in self.entries if self.remaining(key, now)]
        return {kind: sum(key.startswith(kind + " ") for key in open_now) for kind in KINDS}

    def text(self, now: float) -> str:
        """For the other replicas, and for the next leader."""
        known = {
            key: [round(pause.until), pause.times] for key, pause in self.entries.items() if now < pause.until + _term(key).trial
        }
        return json.dumps(known, sort_keys=True, separators=(",", ":"))

    @classmethod
    def read(cls, text: str, now: float) -> Pauses:
        """The pauses in a text that a leader has written; entries of any other form are left out."""
        try:
            known = json.loads(text or "{}")
        except (ValueError, RecursionError):
            known = {}
        return cls(dict(_pauses(known if isinstance(known, dict) else {}, now)))


def _pauses(known: Mapping[str, Any], now: float) -> Iterator[tuple[str, Pause]]:
    for key, value in list(known.items())[:KEPT_MAX]:
        numbers = isinstance(value, list) and len(value) == 2 and all(type(item) is int and 0 <= item < 1 << 40 for item in value)
        longest = _term(key).longest
        if numbers and value[0] <= now + longest + SKEW_SECONDS_MAX:
            yield key, Pause(min(float(value[0]), now + longest), value[1])


def _term(key: str) -> Term:
    return _TERMS.get(key.partition(" ")[0], Term())


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


def leave_alone(view: Callable[[], Pauses], excluded: Iterable[OwnerKind], clock: Callable[[], float]) -> Gate:
    """The gate; `view` is what is left alone at this moment."""
    kinds = frozenset((item.kind, item.group) for item in excluded)

    def gate(namespace: str, pod: Pod, rewrites: Sequence[Rewrite]) -> Iterator[LeftAlone]:
        for owner in owners(pod, namespace):
            if (owner.kind, owner.group) in kinds:
                yield LeftAlone("pod", Reason.EXCLUDED_OWNER, f"it belongs to a {owner.kind} of {owner.group}, which is excluded")
                return
        now, owned_by, pauses = clock(), controller_of(pod, namespace), view()
        for item in rewrites:
            words = pauses.left_alone(item.registry, None, now)
            if words:
                yield LeftAlone(item.place.where, Reason.REGISTRY_FAILING, words)
        if owned_by and (words := pauses.left_alone("", owned_by, now)):
            yield LeftAlone("pod", Reason.OWNER_DELETES, words)

    return gate


def registry_key(registry: str) -> str:
    return f"registry {registry}"[:KEY_LENGTH_MAX]


def credential_keys(registry: str, repository: str) -> tuple[str, str]:
    """Under which a name may be left alone for want of a credential: all of its registry, and its repository."""
    return f"credential {registry}"[:KEY_LENGTH_MAX], f"credential {registry}/{repository}"[:KEY_LENGTH_MAX]


def owner_key(owner: Owner) -> str:
    return f"owner {owner}"


def forget_oldest(entries: dict[str, Any], count: int) -> None:
    """Forgets the oldest entries beyond so many; a dictionary has them in the order in which they came."""
    while len(entries) > count:
        del entries[next(iter(entries))]


def duration_shown(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.0f} h"
