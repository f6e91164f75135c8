"""Derived pull secrets while the API server waits: an admission learns in time that they exist, or why it cannot count on them.

Nothing here blocks the event loop: the calls are made in a few threads, one at a time for each Secret and a few for each
namespace. An answer that is known is used for a while and confirmed before it gets old, so that a rollout of a thousand pods
costs one look. State belongs to the event loop; `changed` alone may be called from other threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from webhook.errors import NotDerived, Obstacle
from webhook.kube.api import ObjectName
from webhook.metrics import DERIVED_FAILURES
from webhook.pullsecrets.dockerconfig import derived_name, originals_among
from webhook.pullsecrets.shares import NamespaceShares
from webhook.pullsecrets.writer import Derived

log = logging.getLogger(__name__)

PENDING_MAX = 256
PENDING_PER_NAMESPACE_MAX = 64
KNOWN_MAX = 20_000
SECRETS_PER_POD_MAX = 32
REGISTRIES_PER_POD_MAX = 64
REGISTRIES_KEPT_MAX = 64
"""Per Secret, of those that are asked about once more when one is looked at again."""

CONFIRM_SECONDS = 20.0
"""Beyond this age what is known is still used, and looked at again meanwhile."""
KNOWN_SECONDS_MAX = 60.0
MISSING_SECONDS_MAX = 2.0
"""For an original that does not exist: a pod is often made a moment before its Secret."""
FAILURE_SECONDS = 1.0
"""Within this time after a failure nobody else waits for the next one."""

Settle = Callable[[str, str, frozenset[str]], Derived]


@dataclass
class _Known:
    derived: Derived
    since: float

    def age_seconds_max(self) -> float:
        return MISSING_SECONDS_MAX if self.derived.missing else KNOWN_SECONDS_MAX


@dataclass
class _Pending:
    future: asyncio.Future[Derived]
    since: float
    seen: set[str] = field(default_factory=set)
    """Versions that the cluster has told of meanwhile."""


class PullSecretCache:
    def __init__(self, settle: Settle, deadline_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._settle = settle
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._shares: NamespaceShares[Derived] = NamespaceShares("pull-secrets")
        self._known: OrderedDict[ObjectName, _Known] = OrderedDict()
        self._failed: dict[ObjectName, tuple[NotDerived, float]] = {}
        self._pending: dict[ObjectName, _Pending] = {}

    async def secrets_for(self, namespace: str, names: Sequence[str], registries: frozenset[str]) -> Mapping[str, frozenset[str]]:
        """The derived secrets that a pod with these pull secrets needs for these registries, each with those of them that it has
        a credential for. Raises NotDerived."""
        try:
            return await self._secrets_for(namespace, originals_among(names), registries)
        except NotDerived as failure:
            DERIVED_FAILURES.labels(failure.obstacle).inc()
            raise

    async def _secrets_for(
        self, namespace: str, names: Sequence[str], registries: frozenset[str]
    ) -> Mapping[str, frozenset[str]]:
        if len(names) > SECRETS_PER_POD_MAX:
            raise NotDerived(Obstacle.TOO_MANY, f"it has more than {SECRETS_PER_POD_MAX} pull secrets")
        if names and len(registries) > REGISTRIES_PER_POD_MAX:
            raise NotDerived(Obstacle.TOO_MANY, f"its images are from more than {REGISTRIES_PER_POD_MAX} registries")
        found: list[tuple[str, Derived]] = []
        try:
            async with asyncio.timeout(self._deadline_seconds):
                for name in names:
                    key = ObjectName(namespace, name)
                    found.append((name, self._look_up(key, registries) or await self._learn(key, registries)))
        except TimeoutError:
            raise self._late() from None
        return {derived_name(name): held for name, derived in found if (held := derived.covered & registries)}

    def changed(self, key: ObjectName, version: str) -> None:
        """The original of this key, or what is derived from it, now has this version (empty: is gone). From any thread."""
        self._loop.call_soon_threadsafe(self._forget, key, version)

    def close(self) -> None:
        self._shares.close()

    def _look_up(self, key: ObjectName, registries: frozenset[str]) -> Derived | None:
        known = self._known.get(key)
        if known is None or not registries <= known.derived.covered | known.derived.without:
            return None
        age = self._clock() - known.since
        if age > known.age_seconds_max():
            return None
        if age > CONFIRM_SECONDS and key not in self._pending and not self._is_full(key.namespace):
            self._begin(key, registries)
        return known.derived

    async def _learn(self, key: ObjectName, registries: frozenset[str]) -> Derived:
        while True:
            failure, until = self._failed.get(key, (None, 0.0))
            if failure and self._clock() < until:
                raise NotDerived(failure.obstacle, str(failure))
            pending = self._pending.get(key)
            if pending is None:
                if full := self._is_full(key.namespace):
                    raise NotDerived(Obstacle.BUSY, full)
                pending = self._begin(key, registries)
            elif self._clock() - pending.since > self._deadline_seconds:
                # Others have waited in vain already; a thousand more would not make it faster.
                raise self._late()
            derived = await asyncio.shield(pending.future)
            if registries <= derived.covered | derived.without:
                return derived

    def _is_full(self, namespace: str) -> str:
        """Why nothing more is begun for a namespace; empty if it is."""
        if len(self._pending) >= PENDING_MAX:
            return f"{PENDING_MAX} pull secrets are being derived already"
        if sum(1 for key in self._pending if key.namespace == namespace) >= PENDING_PER_NAMESPACE_MAX:
            return f"{PENDING_PER_NAMESPACE_MAX} pull secrets of its namespace are being derived already"
        return ""

    def _begin(self, key: ObjectName, registries: frozenset[str]) -> _Pending:
        known = self._known.get(key)
        before = known.derived.covered | known.derived.without if known else frozenset[str]()
        asked = registries | (before if len(before) <= REGISTRIES_KEPT_MAX else frozenset())
        future = self._shares.submit(key.namespace, partial(self._settle, key.namespace, key.name, asked))
        pending = self._pending[key] = _Pending(future, self._clock())
        future.add_done_callback(lambda _: self._finished(key, pending))
        return pending

    def _finished(self, key: ObjectName, pending: _Pending) -> None:
        self._pending.pop(key, None)
        if pending.future.cancelled():
            return
        failure = pending.future.exception()
        if isinstance(failure, NotDerived):
            self._failed[key] = (failure, self._clock() + FAILURE_SECONDS)
            self._loop.call_later(FAILURE_SECONDS, self._failed.pop, key, None)
            return
        if failure:
            log.error("the pull secret %s/%s could not be looked at", key.namespace, key.name, exc_info=failure)
            return
        derived = pending.future.result()
        if pending.seen <= set(derived.versions):
            self._known[key] = _Known(derived, pending.since)
            self._known.move_to_end(key)
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)

    def _forget(self, key: ObjectName, version: str) -> None:
        known = self._known.get(key)
        if known and version not in known.derived.versions:
            del self._known[key]
        if key in self._pending:
            self._pending[key].seen.add(version)

    def _late(self) -> NotDerived:
        return NotDerived(Obstacle.LATE, f"the API server did not answer about its Secrets within {self._deadline_seconds:g} s")
