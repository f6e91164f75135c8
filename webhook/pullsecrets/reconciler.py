"""Keeps derived pull secrets in step with their originals, and tells the admissions when something has changed.

A copy of the metadata of all pull secrets, never of what is in them, shows which derived secret was made from another version
than its original now has; the leader among the replicas derives those anew. Looking at the whole again and again, rather than
at what has just happened, is what makes a missed event, a restart or a new leader harmless.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from webhook.errors import NotDerived
from webhook.kube.api import Api, ObjectName
from webhook.kube.informer import Changes, Informer
from webhook.kube.worker import Work
from webhook.metrics import OUT_OF_STEP
from webhook.pullsecrets.dockerconfig import (
    CONFIG_KEYS,
    derived_from,
    original_version_of,
    owner_uid,
    registries_of,
    version_of,
)
from webhook.pullsecrets.writer import Derived

log = logging.getLogger(__name__)

CHECK_SECONDS = 30.0
RETRY_SECONDS = 5.0
PAUSE_SECONDS = 0.1
"""After a change, so that several that belong together are looked at once."""
LOST_MAX = 1000

Settle = Callable[[str, str, Iterable[str]], Derived]


class KeptSecret(NamedTuple):
    """The fields of a pull secret that are kept, none of them secret."""

    version: str
    original: str | None
    """The name of its original, if it is a derived one."""
    made_from: str
    owner_uid: str
    registries: frozenset[str]


def keep(item: Mapping[str, Any]) -> KeptSecret:
    metadata = item["metadata"]
    original = derived_from(metadata)
    if original is None:
        return KeptSecret(version_of(metadata), None, "", "", frozenset())
    return KeptSecret(version_of(metadata), original, original_version_of(metadata), owner_uid(metadata), registries_of(metadata))


def by_turns(behind: Mapping[ObjectName, frozenset[str]]) -> list[tuple[ObjectName, frozenset[str]]]:
    """The first Secret of each namespace, then the second of each: one that has a thousand keeps none waiting."""
    seen: Counter[str] = Counter()
    turns = []
    for key, registries in behind.items():
        turns.append((seen[key.namespace], key, registries))
        seen[key.namespace] += 1
    return [(key, registries) for _, key, registries in sorted(turns, key=itemgetter(0))]


class PullSecretReconciler:
    """`changed` is told the key of an original and a version of it, or of what is derived from it; empty: one is gone."""

    def __init__(
        self,
        api: Api,
        settle: Settle,
        changed: Callable[[ObjectName, str], None],
        leading: Callable[[], bool] = lambda: True,
        namespaces: Collection[str] = (),
    ) -> None:
        """Follows the Secrets of these namespaces, and with none those of all."""
        self._settle = settle
        self._tell = changed
        self._leading = leading
        self._due = threading.Event()
        self._lock = threading.Lock()
        self._lost: dict[ObjectName, frozenset[str]] = {}
        """Derived secrets that went with their originals, which may come back under the same name."""
        paths = [f"/api/v1/namespaces/{namespace}/secrets" for namespace in namespaces] or ["/api/v1/secrets"]
        self._informers = {
            f"{path} {kind}": Informer(api, path, {"fieldSelector": f"type={kind}"}, keep, self._changed, metadata_only=True)
            for path in paths
            for kind in CONFIG_KEYS
        }

    def working(self) -> dict[str, Work]:
        following = {f"follow {what}": informer.run for what, informer in self._informers.items()}
        return {**following, "reconcile pull secrets": self.run}

    def run(self, stopped: threading.Event) -> None:
        pause = CHECK_SECONDS
        while not stopped.is_set():
            self._due.wait(pause)
            stopped.wait(PAUSE_SECONDS)
            self._due.clear()
            if not self._leading():
                OUT_OF_STEP.set(0)  # It is the leader's to tell.
                pause = CHECK_SECONDS
            else:
                pause = CHECK_SECONDS if self.step() else RETRY_SECONDS

    def step(self) -> bool:
        """Derives anew every secret that is out of step; whether all of them could be."""
        failures = 0
        for key, registries in by_turns(dict(self._out_of_step())):
            try:
                self._settle(key.namespace, key.name, registries)
                with self._lock:
                    self._lost.pop(key, None)
            except NotDerived as failure:
                failures += 1
                log.warning("what is derived from the pull secret %s/%s is out of step: %s", key.namespace, key.name, failure)
        OUT_OF_STEP.set(failures)
        return not failures

    def _out_of_step(self) -> Iterator[tuple[ObjectName, frozenset[str]]]:
        for informer in self._informers.values():
            for key, kept in informer.snapshot().items():
                if kept.original is not None:
                    of = ObjectName(key.namespace, kept.original)
                    original = self._original(of)
                    if original and original.version != kept.made_from:
                        yield of, kept.registries
        with self._lock:
            lost = dict(self._lost)
        yield from ((of, registries) for of, registries in lost.items() if self._original(of))

    def _original(self, key: ObjectName) -> KeptSecret | None:
        found = [kept for informer in self._informers.values() if (kept := informer.objects.get(key)) is not None]
        return found[0] if found else None

    def _changed(self, changes: Changes[KeptSecret]) -> None:
        for key, (before, after) in changes.items():
            for of in {self._concerned(key, kept) for kept in (before, after) if kept}:
                self._tell(of, after.version if after else "")
            if before and before.original is not None and after is None:
                self._remember(self._concerned(key, before), before)
        self._due.set()

    @staticmethod
    def _concerned(key: ObjectName, kept: KeptSecret) -> ObjectName:
        """The name of the original, for a pull secret and for one that is derived from it."""
        return key if kept.original is None else ObjectName(key.namespace, kept.original)

    def _remember(self, of: ObjectName, derived: KeptSecret) -> None:
        """One that was deleted by hand, or by an uninstallation, while its original stayed, stays deleted."""
        original = self._original(of)
        if original is None or original.version.split("/")[0] != derived.owner_uid:
            with self._lock:
                while len(self._lost) >= LOST_MAX:
                    self._lost.pop(next(iter(self._lost)))
                self._lost[of] = derived.registries
