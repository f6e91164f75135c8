"""Follows the rewritten pods, and puts the original image back wherever a pull by its local name has failed.

All replicas follow, so that each knows everything at once when its turn comes; only the leader acts. A few workers read a pod
anew, patch it once, and tell: so what is kept of a pod is small, and what is decided is decided about the pod as it is now.
What is to be put back is `webhook.revert.failures`'s to say, and who is left alone after it `webhook.breaker.breaker`'s.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from webhook.breaker.breaker import YOUNG_SECONDS
from webhook.breaker.pauses import forget_oldest
from webhook.breaker.shared import Owned, SharedBreakers, owned_by
from webhook.errors import Unreachable
from webhook.kube.api import Api, ObjectName, mapping_at, text_at
from webhook.kube.events import NOT_REVERTED, REVERTED, Events
from webhook.kube.informer import Changes, Informer
from webhook.kube.worker import Work
from webhook.metrics import REVERT_FAILURES, REVERTED_PODS
from webhook.pods import pull_secrets, rewritten_by
from webhook.pullsecrets.dockerconfig import originals_among
from webhook.revert.causes import Cause
from webhook.revert.failures import FailedPull, Failures, failed_pulls, held_back, patch, pulled, started_as_written, statuses_of

log = logging.getLogger(__name__)

WORKERS = 4
ATTEMPTS_MAX = 4
"""Looks in a row at a pod that changes between our look and our patch."""
RETRY_SECONDS = 1.0
RETRY_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.5
TOLD_MAX = 1000
REFUSED_MAX = 1000
"""Pods that were refused for want of a credential, and have not been seen to start yet."""
TIMEOUT_SECONDS = (2.0, 5.0)

for _cause in Cause:
    REVERTED_PODS.labels(_cause)


class KeptPod(NamedTuple):
    """The fields of a rewritten pod that are kept."""

    uid: str
    failing: frozenset[str]
    """Places whose pull has failed, and only while there is something to be done about them."""
    owned: Owned | None
    created: float
    going: bool
    finished: bool
    pulled: tuple[tuple[str, str, float], ...] = ()
    """Registries and repositories of images that were pulled, with the time when a container was started."""
    doubted: frozenset[str] = frozenset()
    """Registries that are not known to work any more, because a pull fails perhaps by their fault."""
    bare: bool = True
    """No derived pull secret was found for it."""
    refused: frozenset[tuple[str, str, str]] = frozenset()
    """Places whose pull was refused for want of a credential, with registry and repository."""
    as_written: frozenset[str] = frozenset()
    """Places whose container was started under another than a local name."""
    held_back: frozenset[str] = frozenset()
    untold: bool = False
    """Nobody says by what any of its pulls has failed."""


def keep(pod: Mapping[str, Any]) -> KeptPod:
    metadata = mapping_at(pod, "metadata")
    going = bool(text_at(metadata, "deletionTimestamp"))
    statuses = statuses_of(pod)
    failures = Failures() if going else failed_pulls(pod, statuses)
    failed = (*failures.back, *failures.stuck)
    secrets = pull_secrets(pod)
    return KeptPod(
        text_at(metadata, "uid"),
        frozenset(str(pull.place) for pull in failed),
        owned_by(pod, text_at(metadata, "namespace")),
        _seconds(text_at(metadata, "creationTimestamp")),
        going,
        text_at(mapping_at(pod, "status"), "phase") in ("Succeeded", "Failed"),
        tuple((registry, repository, _seconds(stamp)) for registry, repository, stamp in pulled(pod, statuses)),
        frozenset(pull.registry for pull in failed if pull.cause.registry_is_in_doubt),
        len(originals_among(secrets)) == len(secrets),
        frozenset(
            (str(pull.place), pull.registry, pull.repository) for pull in failed if pull.cause.refused and not pull.foreseen
        ),
        started_as_written(pod, statuses),
        held_back(pod, statuses),
        all(pull.cause is Cause.UNTOLD for pull in failed),
    )


@dataclass
class _Due:
    at: float
    attempts: int = 0
    busy: bool = False


class RevertController:
    def __init__(
        self,
        api: Api,
        events: Events,
        breakers: SharedBreakers,
        leading: Callable[[], bool],
        release: str = "",
        namespaces: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._events = events
        self._breakers = breakers
        self._leading = leading
        self._namespaces = namespaces
        """The only ones in which pods may be changed; all if empty."""
        self._clock = clock
        self._wall_clock = wall_clock
        self.appeared: Callable[[ObjectName, str], None] = lambda _name, _owner: None
        """Told of every rewritten pod that comes to exist, with its owner's uid."""
        self._due: dict[ObjectName, _Due] = {}
        self._seen: dict[ObjectName, float] = {}
        """The time when a pod was first seen, by our own clock: the API server's may differ by more than a pod's life."""
        self._told: dict[tuple[str, str], None] = {}
        """Pods and places that nothing can be done about; once is enough."""
        self._refused: dict[str, dict[str, tuple[str, str]]] = {}
        """By uid and place: registry and repository that refused a pod for want of a credential. The informer thread's own."""
        self._changes = threading.Condition()
        self._informer: Informer[KeptPod] = Informer(
            api, "/api/v1/pods", {"labelSelector": rewritten_by(release)}, keep, self._changed
        )

    def working(self) -> dict[str, Work]:
        workers: dict[str, Work] = {f"revert {number}": self.work for number in range(1, WORKERS + 1)}
        return {"rewritten pods": self._informer.run, **workers}

    def view_age_seconds(self) -> float | None:
        """The seconds since it was certain which rewritten pods exist; None if it never was."""
        return self._informer.age_seconds()

    def work(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            taken = self._take()
            if taken is None:
                with self._changes:
                    self._changes.wait(LOOK_SECONDS)
                continue
            key, due = taken
            try:
                done = self.look_after(key)
            except Unreachable as error:
                log.warning("pod %s/%s cannot be given its original images yet: %s", key.namespace, key.name, error)
                done = False
            except Exception:
                # One pod that nobody has thought of must not keep the others waiting, and never end the process.
                log.exception("pod %s/%s could not be looked after", key.namespace, key.name)
                done = False
            self._finish(key, due, done)

    def look_after(self, key: ObjectName) -> bool:
        """Puts back what can be; whether there is nothing left to do. Raises Unreachable."""
        path = f"/api/v1/namespaces/{key.namespace}/pods/{key.name}"
        for _ in range(ATTEMPTS_MAX):
            found = self._api.ask("GET", path, timeout=TIMEOUT_SECONDS)
            if found.status == 404:
                return True
            if found.status != 200:
                raise Unreachable(f"the API server answered {found.status}")
            pod = found.document
            if text_at(mapping_at(pod, "metadata"), "deletionTimestamp"):
                return True
            failures = failed_pulls(pod)
            if failures.back:
                answered = self._api.ask("PATCH", path, patch(pod, failures.back), timeout=TIMEOUT_SECONDS)
                if answered.status in (409, 422):
                    continue  # It has changed since we looked, and perhaps its container runs now.
                if answered.status == 404:
                    return True
                if answered.status != 200:
                    raise Unreachable(f"the API server answered {answered.status}: {text_at(answered.document, 'message')[:300]}")
            self._tell(pod, failures)
            return True
        return False

    def _tell(self, pod: Mapping[str, Any], failures: Failures) -> None:
        uid = text_at(mapping_at(pod, "metadata"), "uid")
        if failures.back:
            REVERTED_PODS.labels(failures.back[0].cause).inc()
        for pull in failures.back:
            failed = "would fail" if pull.foreseen else "failed"
            message = (
                f"The original image {pull.original} is put back, because its pull as {pull.place.image} {failed}: {pull.words}"
            )
            self._events.warn(pod, REVERTED, message, _field(pull))
        for pull in failures.stuck:
            if not self._first_time(uid, str(pull.place)):
                continue
            what = "an image volume" if pull.place.kind == "volumes" else "an ephemeral container"
            message = (
                f"The pull of {pull.original} as {pull.place.image} failed, and Kubernetes lets nobody change the image of "
                f"{what}; make it anew, with darner.dev/inject: disabled on the pod if that does not help: {pull.words}"
            )
            self._events.warn(pod, NOT_REVERTED, message, _field(pull))
        at_fault = {pull.registry: None for pull in (*failures.back, *failures.stuck) if pull.cause.registry_is_at_fault}
        for registry in at_fault:
            self._breakers.failed(registry, pod, uid)

    def _first_time(self, uid: str, place: str) -> bool:
        with self._changes:
            if (uid, place) in self._told:
                return False
            self._told[uid, place] = None
            if len(self._told) > TOLD_MAX:
                del self._told[next(iter(self._told))]
            return True

    def _take(self) -> tuple[ObjectName, _Due] | None:
        if not self._leading():
            return None
        now = self._clock()
        with self._changes:
            for key, due in self._due.items():
                if not due.busy and due.at <= now:
                    due.busy = True
                    return key, due
        return None

    def _finish(self, key: ObjectName, due: _Due, done: bool) -> None:
        with self._changes:
            if self._due.get(key) is not due:
                return  # It has changed meanwhile, and is looked at again or gone.
            if done:
                del self._due[key]
                return
            REVERT_FAILURES.inc()
            due.at = self._clock() + min(RETRY_SECONDS * 2.0 ** min(due.attempts, 10), RETRY_SECONDS_MAX)
            due.attempts += 1
            due.busy = False

    def _changed(self, changes: Changes[KeptPod]) -> None:
        for key, (before, after) in changes.items():
            with self._changes:
                if after is None or not after.failing or (self._namespaces and key.namespace not in self._namespaces):
                    self._due.pop(key, None)
                elif before and before.uid == after.uid and after.untold and after.failing <= before.held_back:
                    pass  # A kubelet until 1.30 does not repeat that it holds a pull back, and will try it.
                elif before is None or (before.uid, before.failing) != (after.uid, after.failing):
                    self._due[key] = _Due(self._clock())
                    self._changes.notify()
            self._learn(key, before, after)

    def _learn(self, key: ObjectName, before: KeptPod | None, after: KeptPod | None) -> None:
        """A pod's deletion counts once, when it begins, and not when the pod had done its work."""
        now = self._wall_clock()
        gone = before is not None and (after is None or after.uid != before.uid)
        if after:
            self._prove(None if gone else before, after, now)
            if before is None or gone:
                self.appeared(key, after.owned.uid if after.owned else "")
        self._learn_credentials(key, before, after)
        begun = gone or (after is not None and after.going and not after.finished)
        if before and before.owned and begun and not before.going and not before.finished:
            self._breakers.deleted(before.owned, self._seen.get(key, before.created), now)
        if after is None:
            self._seen.pop(key, None)
        elif before is None or gone:
            # One that is old when it is first seen was there before us.
            self._seen[key] = after.created if after.created < now - YOUNG_SECONDS else now

    def _prove(self, before: KeptPod | None, after: KeptPod, now: float) -> None:
        """A pull that is seen to happen has happened now, by our own clock; one from before we came is dated by the node's."""
        evidence = self._breakers.evidence
        known = {(registry, repository) for registry, repository, _ in before.pulled} if before else set()
        for registry, repository, started in after.pulled:
            if (registry, repository) in known:
                continue
            at = now if before else min(started, now)
            evidence.saw_pulled(registry, at)
            if after.bare:
                self._breakers.allowed(registry, repository, at)
        for registry in after.doubted - (before.doubted if before else frozenset()):
            evidence.saw_failing(registry, now)

    def _learn_credentials(self, key: ObjectName, before: KeptPod | None, after: KeptPod | None) -> None:
        """A pod without a pull secret that was refused through its agent and runs under its own name has shown that only its node
        has a credential. One that is given up before it could run, as jobs are at their first failure, has shown that such pods
        are refused."""
        if after and after.bare:
            if after.refused:
                refusals = {place: (registry, repository) for place, registry, repository in after.refused}
                self._refused.setdefault(after.uid, {}).update(refusals)
                forget_oldest(self._refused, REFUSED_MAX)
            refused = self._refused.get(after.uid, {})
            for place in after.as_written & refused.keys():
                self._breakers.refused(*refused.pop(place), _subject(key, after.uid), ran=True)
        over = {
            pod.uid for pod in (before, after) if pod and (after is None or pod.uid != after.uid or pod.going or pod.finished)
        }
        for uid in over & self._refused.keys():
            for name in self._refused.pop(uid, {}).values():
                self._breakers.refused(*name, _subject(key, uid), ran=False)


def _subject(key: ObjectName, uid: str) -> Mapping[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": key.namespace, "name": key.name, "uid": uid}}


def _field(pull: FailedPull) -> str:
    return f"spec.{pull.place.kind}{{{pull.place.name}}}"


def _seconds(stamp: str) -> float:
    """An RFC 3339 time in seconds since the epoch; 0 if it is none."""
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return 0.0
