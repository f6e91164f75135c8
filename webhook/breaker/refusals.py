"""Owners, and bare pods, whose rewritten pods never come to exist: another admission refuses the names that we gave them.

Nothing in such a refusal names an image or us, and nobody tells a webhook what became of its answer. The sign is that a pod which
this replica rewrote is not among the rewritten pods, which every replica follows, when its owner tries again. A wrong guess (a
quota may refuse the pod, or anything else) costs nothing but speed: what is left alone is what it would be without Darner.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from webhook.breaker.pauses import Pauses, duration_shown, forget_oldest, owner_key
from webhook.breaker.shared import Owned, owned_by
from webhook.gates import LeftAlone, Reason, Rewrite
from webhook.kube.api import ObjectName, mapping_at, mappings_at, text_at
from webhook.kube.events import LEFT_ALONE, Events
from webhook.metrics import PAUSED, PAUSES
from webhook.pods import Pod

log = logging.getLogger(__name__)

UNSEEN_SECONDS = 3.0
"""A pod is seen some milliseconds after it was made. A ReplicaSet with 500 pods makes them all before the first is seen."""
MEMORY_SECONDS = 600.0
"""A controller that was refused tries again within this time: at first after milliseconds or seconds, and ever more rarely."""
BARE_SECONDS = 60.0
VIEW_AGE_SECONDS_MAX = 20.0
"""Watches end after 10 s and are confirmed then; what is older than this says nothing about which pods exist."""
KEPT_MAX = 5000
"""Owners and pods that are remembered: only those of which nothing is seen yet."""
EVENTS_WAITING_MAX = 100
GENERATED_LENGTH = 5
"""Characters that the API server puts behind `generateName`."""


class Refusals:
    """Admissions ask and tell in one thread, and what is seen of pods comes from another."""

    def __init__(
        self, events: Events | None, view_age: Callable[[], float | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._events = events
        self._view_age = view_age
        self._clock = clock
        self._lock = threading.Lock()
        self._unseen: dict[str, float] = {}
        """By owner or name: since when something of it was rewritten and nothing was seen."""
        self._pauses = Pauses()
        self._telling: queue.Queue[tuple[Owned, str]] = queue.Queue(EVENTS_WAITING_MAX)
        PAUSED.labels("refused").set_function(lambda: self._pauses.counts(clock())["owner"])

    def gate(self, namespace: str, pod: Pod, _rewrites: Sequence[Rewrite]) -> Iterator[LeftAlone]:
        owned = _maker(namespace, pod)
        words = self._owner_refused(owned) if owned else self._name_refused(namespace, pod)
        if words:
            yield LeftAlone("pod", Reason.REFUSED, words)

    def rewritten(self, namespace: str, pod: Pod) -> None:
        """An admission has been answered so; soon the pod exists, or it never does."""
        owned, now = _maker(namespace, pod), self._clock()
        key, seconds_max = (owned.uid, MEMORY_SECONDS) if owned else (_bare_key(namespace, pod), BARE_SECONDS)
        with self._lock:
            since = self._unseen.get(key)
            if since is None or now - since > seconds_max:
                self._unseen.pop(key, None)
                self._unseen[key] = now
                forget_oldest(self._unseen, KEPT_MAX)

    def appeared(self, name: ObjectName, owner_uid: str) -> None:
        """A rewritten pod exists."""
        with self._lock:
            for key in (owner_uid, str(name), f"{str(name)[:-GENERATED_LENGTH]}*"):
                self._unseen.pop(key, None)

    def run(self, stopped: threading.Event) -> None:
        """Tells people; an admission does not wait for that."""
        while not stopped.is_set():
            try:
                owned, message = self._telling.get(timeout=1.0)
            except queue.Empty:
                continue
            if self._events:
                self._events.warn(owned.subject, LEFT_ALONE, message)

    def _name_refused(self, namespace: str, pod: Pod) -> str | None:
        key, now = _bare_key(namespace, pod), self._clock()
        # Many may be made at once of one `generateName`; of one name, a second is made only when there is none.
        least = UNSEEN_SECONDS if key.endswith("*") else 0.0
        with self._lock:
            since = self._unseen.get(key)
        if since is None or not least <= now - since <= BARE_SECONDS:
            return None
        return f"it was rewritten {now - since:.0f} s ago and never came to exist, as if its images' names were refused"

    def _owner_refused(self, owned: Owned) -> str | None:
        key, now = owner_key(owned.owner), self._clock()
        who = f"pods of {owned.owner.kind} {owned.owner.name}"
        with self._lock:
            left = self._pauses.remaining(key, now)
            since = self._unseen.get(owned.uid)
            if left:
                return f"{who} never came to exist while rewritten, so they are left alone for another {duration_shown(left)}"
            if since is None or not UNSEEN_SECONDS <= now - since <= MEMORY_SECONDS or not self._sees():
                return None
            del self._unseen[owned.uid]
            self._pauses, seconds = self._pauses.with_another(key, now)
        words = f"{who} never came to exist while rewritten, so they are left alone for {duration_shown(seconds)}"
        PAUSES.labels("refused").inc()
        log.warning("namespace %s: %s", owned.owner.namespace, words)
        if not self._telling.full():
            why = "an admission policy may refuse the local names of their images, or a quota the pods themselves"
            self._telling.put_nowait((owned, f"{words}: {why}"))
        return words

    def _sees(self) -> bool:
        age = self._view_age()
        return age is not None and age <= VIEW_AGE_SECONDS_MAX


def _maker(namespace: str, pod: Pod) -> Owned | None:
    """The owner that sends the pod again; None: people do, as they do with ephemeral containers whosever the pod is."""
    return None if _ephemeral(pod) else owned_by(pod, namespace)


def _bare_key(namespace: str, pod: Pod) -> str:
    """The pod's name, or the beginning of it with a star. With ephemeral containers their number too, which grows by each that is
    there, and is the same again when one was refused."""
    metadata, number = mapping_at(pod, "metadata"), _ephemeral(pod)
    name = str(ObjectName(namespace, text_at(metadata, "name") or text_at(metadata, "generateName") + "*"))
    return f"{name}+{number}" if number else name


def _ephemeral(pod: Pod) -> int:
    return sum(1 for _ in mappings_at(mapping_at(pod, "spec"), "ephemeralContainers"))
