"""A registry after its pause is half open: one pod at a time tries it, until pulls through the agents are known to succeed. Pure.

The knowledge comes from pods: a container that was started under a rewritten name is the proof. Each replica sees the same pods
and keeps its own record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from webhook.breaker.breaker import YOUNG_SECONDS
from webhook.breaker.pauses import KEPT_MAX, Pauses, credential_keys, duration_shown, forget_oldest, owner_key, registry_key
from webhook.gates import CredentialGate, Gate, LeftAlone, Reason, Rewrite
from webhook.pods import Pod, controller_of

TRIAL_SECONDS_MAX = 30.0
"""One pod has so long to be heard of: it may not have been scheduled. Then another one is let through."""
CREDENTIAL_TRIAL_SECONDS_MAX = 600.0
"""And so long where it has to be refused, and to run under its own name after that."""
PROVEN_SECONDS = 24 * 3600.0
"""A pull longer ago proves nothing about today."""


@dataclass
class Evidence:
    """When an image of a registry was last pulled through an agent, and when a pull last failed by the registry's fault.

    One thread notes what it sees while admissions read; so each mapping is replaced by another one, and never changed.
    """

    pulled: Mapping[str, float] = field(default_factory=dict)
    failed: Mapping[str, float] = field(default_factory=dict)

    def saw_pulled(self, registry: str, at: float) -> None:
        self.pulled = _noted(self.pulled, registry, at)

    def saw_failing(self, registry: str, at: float) -> None:
        self.failed = _noted(self.failed, registry, at)

    def pulled_after(self, registry: str, moment: float) -> bool:
        return self.pulled.get(registry, 0.0) > moment

    def proves(self, registry: str, now: float) -> bool:
        return self.pulled_after(registry, max(self.failed.get(registry, 0.0), now - PROVEN_SECONDS))


class Trials:
    """The keys whose pause is over, with the pod that was let through last to try each."""

    def __init__(self) -> None:
        self.sent: dict[str, tuple[float, float]] = {}
        """By key: which pause it comes after, and when a pod was let through."""

    def held(self, key: str, pause_end: float, now: float, seconds: float) -> bool:
        """Whether another pod tries it already; otherwise this one does."""
        pause, at = self.sent.get(key, (0.0, 0.0))
        if pause == pause_end and 0 <= now - at < seconds:
            return True
        self.sent.pop(key, None)
        self.sent[key] = (pause_end, now)
        forget_oldest(self.sent, KEPT_MAX)
        return False


def only_with_secret(pauses: Callable[[], Pauses], clock: Callable[[], float]) -> CredentialGate:
    """The gate for what only the nodes have a credential for: pods that have a pull secret for it are let through, and after a
    pause one without."""
    trials = Trials()

    def gate(rewrites: Sequence[Rewrite], covered: frozenset[str]) -> Iterator[LeftAlone]:
        now, known = clock(), pauses()
        words: dict[str, str | None] = {}
        for item in rewrites:
            if item.registry in covered:
                continue
            for key in credential_keys(item.registry, item.repository):
                if key not in words:
                    words[key] = _why(known, key, now, trials)
                if why := words[key]:
                    yield LeftAlone(item.place.where, Reason.NODE_CREDENTIAL, why)
                    break

    return gate


def _why(known: Pauses, key: str, now: float, trials: Trials) -> str | None:
    name, seconds, end = key.partition(" ")[2], known.remaining(key, now), known.trial_since(key, now)
    refused = f"{name} has refused pods without a pull secret for it through the agents"
    if seconds:
        return f"{refused}, so those are left alone for another {duration_shown(seconds)}"
    if end is not None and trials.held(key, end, now, CREDENTIAL_TRIAL_SECONDS_MAX):
        return f"{refused}, and another pod tries it first"
    return None


def one_at_a_time(pauses: Callable[[], Pauses], evidence: Evidence, clock: Callable[[], float]) -> Gate:
    """The gate for registries and owners whose pause is over. It belongs behind the others: what they refuse tries nothing."""
    trials = Trials()
    held = trials.held

    def gate(namespace: str, pod: Pod, rewrites: Sequence[Rewrite]) -> Iterator[LeftAlone]:
        now, known = clock(), pauses()
        closed = set()
        for registry in dict.fromkeys(item.registry for item in rewrites):
            end = known.trial_since(registry_key(registry), now)
            if end is not None and not evidence.pulled_after(registry, end):
                closed |= {registry} if held(registry_key(registry), end, now, TRIAL_SECONDS_MAX) else set()
        for item in rewrites:
            if item.registry in closed:
                words = f"pulls from {item.registry} through the agents kept failing, and another pod tries it first"
                yield LeftAlone(item.place.where, Reason.REGISTRY_FAILING, words)
        owner = controller_of(pod, namespace)
        end = known.trial_since(owner_key(owner), now) if owner else None
        if owner is None or end is None:
            return
        # A pod that is not deleted young is proof enough; then there is no next pause, and all are let through.
        tried, at = trials.sent.get(owner_key(owner), (0.0, 0.0))
        if (tried != end or now - at < YOUNG_SECONDS) and held(owner_key(owner), end, now, YOUNG_SECONDS):
            words = f"pods of {owner.kind} {owner.name} were deleted again and again, and another one tries it first"
            yield LeftAlone("pod", Reason.OWNER_DELETES, words)

    return gate


def _noted(entries: Mapping[str, float], registry: str, at: float) -> Mapping[str, float]:
    """The entries with the latest time of this registry, and without the oldest where there are too many."""
    if not registry:
        return entries
    noted = {other: moment for other, moment in entries.items() if other != registry}
    noted[registry] = max(entries.get(registry, 0.0), at)
    forget_oldest(noted, KEPT_MAX)
    return noted
