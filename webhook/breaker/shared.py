"""The pauses that the replicas share: the leader begins them, its Lease carries them, and every replica admits pods by them.

Between the pure breakers and the threads that ask and tell them: one lock, the clock, and a word to people when a pause begins.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from webhook.breaker.breaker import Breakers, Tripped
from webhook.breaker.half_open import PROVEN_SECONDS, Evidence
from webhook.breaker.pauses import KINDS, Pauses
from webhook.kube.api import mapping_at, text_at
from webhook.kube.events import LEFT_ALONE, Events
from webhook.metrics import PAUSED, PAUSES
from webhook.pods import Owner, Pod, controller_of

log = logging.getLogger(__name__)


class Owned(NamedTuple):
    """The owner of a pod, and the fields by which an event names that owner."""

    owner: Owner
    version: str
    uid: str

    @property
    def subject(self) -> Mapping[str, Any]:
        metadata = {"namespace": self.owner.namespace, "name": self.owner.name, "uid": self.uid}
        return {"apiVersion": self.version, "kind": self.owner.kind, "metadata": metadata}


def owned_by(pod: Pod, namespace: str) -> Owned | None:
    """The pod's controller, if it has one."""
    owner = controller_of(pod, namespace)
    if owner is None:
        return None
    references = mapping_at(pod, "metadata")["ownerReferences"]
    reference = next(item for item in references if isinstance(item, Mapping) and item.get("controller") is True)
    return Owned(owner, text_at(reference, "apiVersion"), text_at(reference, "uid"))


class SharedBreakers:
    def __init__(self, events: Events | None, clock: Callable[[], float] = time.time) -> None:
        self.leading: Callable[[], bool] = lambda: False
        self._events = events
        self._clock = clock
        self._breakers = Breakers()
        self.evidence = Evidence()
        """The knowledge of this replica alone: each of them follows the rewritten pods."""
        self._lock = threading.Lock()
        for kind in KINDS:
            PAUSED.labels(kind).set_function(partial(self._paused, kind))

    def now(self) -> Pauses:
        """For an admission: nothing but memory."""
        return self._breakers.pauses

    def told(self, text: str) -> None:
        """Takes over the text of the Lease. The leader's own breakers know it already, and more."""
        if not self.leading():
            with self._lock:
                self._breakers = Breakers(Pauses.read(text, self._clock()))

    def publish(self) -> str:
        with self._lock:
            return self._breakers.pauses.text(self._clock())

    def failed(self, registry: str, pod: Mapping[str, Any], uid: str) -> None:
        """A pull from the registry has failed by us; the pod is the one that learns of it when that was the last straw."""
        with self._lock:
            tripped = self._breakers.failed(registry, uid, self._clock())
        self._say(tripped, pod)

    def refused(self, registry: str, repository: str, pod: Mapping[str, Any], ran: bool) -> None:
        """A pod without a pull secret was refused through its agent, and ran under its own name after that or was given up."""
        if not self.leading():
            return
        now = self._clock()
        whole = ran and not self.evidence.pulled_after(registry, now - PROVEN_SECONDS)
        with self._lock:
            tripped = self._breakers.refused(registry, repository, pod["metadata"]["uid"], whole, now)
        self._say(tripped, pod)

    def allowed(self, registry: str, repository: str, started: float) -> None:
        """A pod without a pull secret has pulled through its agent."""
        if self.leading():
            with self._lock:
                self._breakers.allowed(registry, repository, started, self._clock())

    def deleted(self, owned: Owned, created: float, deleted: float) -> None:
        if not self.leading():
            return
        with self._lock:
            tripped = self._breakers.deleted(owned.owner, created, deleted, self._clock())
        self._say(tripped, owned.subject)

    def _paused(self, kind: str) -> float:
        return self._breakers.pauses.counts(self._clock())[kind]

    def _say(self, tripped: Tripped | None, subject: Mapping[str, Any]) -> None:
        if tripped:
            log.warning("%s", tripped)
            PAUSES.labels(tripped.kind).inc()
            if self._events:
                self._events.warn(subject, LEFT_ALONE, str(tripped))
