"""The election of the one replica that acts: a Lease of coordination.k8s.io, and a text of its holder's that all of them read.

Blocking, one thread. It acts on nothing itself; `leading` is asked before every act, from any thread. What others wrote is
timed by our own clock from when we saw it, never by theirs, so that clocks may differ (as client-go's leaderelection does).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from webhook.errors import Unreachable
from webhook.kube.api import Api, ObjectName, mapping_at, text_at

log = logging.getLogger(__name__)

DURATION_SECONDS = 8
"""Without a sign of life for so long, a holder is taken for gone."""
RENEW_SECONDS = 2.0
LEAD_SECONDS = 6.0
"""After its last renewal a holder no longer acts: before anybody else does."""
TIMEOUT_SECONDS = (1.0, 2.0)
SHARED = "darner.dev/left-alone"
"""Annotation for the text."""

Document = dict[str, Any]


class Lease:
    """`publish` is the holder's text when it writes, None: leave what is there; `told` gets what is there, at every look."""

    def __init__(
        self,
        api: Api,
        name: ObjectName,
        identity: str,
        publish: Callable[[], str | None] = lambda: None,
        told: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{name.namespace}/leases"
        self._name = name
        self._identity = identity
        self._publish = publish
        self._told = told
        self._clock = clock
        self._renewed: float | None = None
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = 0.0
        self._lock = threading.Lock()
        self._given_back = False

    def leading(self) -> bool:
        renewed = self._renewed
        return renewed is not None and self._clock() - renewed < LEAD_SECONDS

    def run(self, stopped: threading.Event) -> None:
        """Until stopped; then gives the Lease back, so that the next one need not wait for it to run out."""
        while not stopped.is_set():
            before = self.leading()
            self.step()
            if self.leading() != before:
                log.info("this replica %s", "acts from now on" if not before else "leaves acting to another")
            stopped.wait(RENEW_SECONDS)
        self.release()

    def step(self) -> None:
        """One look, and one write if the Lease is ours or nobody's. What fails is tried again at the next."""
        with self._lock:
            if not self._given_back:
                self._step()

    def _step(self) -> None:
        begun = self._clock()
        try:
            answered = self._api.ask("GET", f"{self._collection}/{self._name.name}", timeout=TIMEOUT_SECONDS)
            if answered.status not in (200, 404):
                raise Unreachable(f"the API server answered {answered.status}")
            found = answered.document if answered.status == 200 else None
            self._told(text_at(mapping_at(mapping_at(found, "metadata"), "annotations"), SHARED))
            if not self._free(found):
                self._renewed = None
                return
            self._write(found, self._identity, begun)
        except Unreachable as error:
            log.warning("the Lease %s cannot be looked at: %s", self._name, error)

    def release(self) -> None:
        """Gives the Lease back, if it is ours, and never takes it again."""
        with self._lock:
            was_leading, self._given_back = self.leading() and not self._given_back, True
            if not was_leading:
                return
            try:
                answered = self._api.ask("GET", f"{self._collection}/{self._name.name}", timeout=TIMEOUT_SECONDS)
                if answered.status == 200 and text_at(mapping_at(answered.document, "spec"), "holderIdentity") == self._identity:
                    self._write(answered.document, "", self._clock())
            except Unreachable as error:
                log.info("the Lease %s runs out by itself: %s", self._name, error)
            self._renewed = None

    def _free(self, found: Document | None) -> bool:
        spec = mapping_at(found, "spec")
        holder, renewed = text_at(spec, "holderIdentity"), text_at(spec, "renewTime")
        if (holder, renewed) != self._seen:
            self._seen, self._seen_at = (holder, renewed), self._clock()
        return holder in ("", self._identity) or self._clock() - self._seen_at >= DURATION_SECONDS

    def _write(self, found: Document | None, holder: str, begun: float) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = mapping_at(found, "spec")
        ours = text_at(before, "holderIdentity") == holder
        transitions = before.get("leaseTransitions")
        spec = {
            **before,
            "holderIdentity": holder,
            "leaseDurationSeconds": DURATION_SECONDS,
            "renewTime": now,
            "acquireTime": before.get("acquireTime", now) if ours else now,
            "leaseTransitions": (transitions if isinstance(transitions, int) else 0) + (0 if ours or not holder else 1),
        }
        metadata = dict(mapping_at(found, "metadata")) or {"name": self._name.name, "namespace": self._name.namespace}
        shared = self._publish()
        if shared is not None:
            metadata["annotations"] = {**mapping_at(metadata, "annotations"), SHARED: shared}
        document = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        if found is None:
            answered = self._api.ask("POST", self._collection, document, timeout=TIMEOUT_SECONDS)
        else:
            answered = self._api.ask("PUT", f"{self._collection}/{self._name.name}", document, timeout=TIMEOUT_SECONDS)
        if answered.status in (200, 201):
            self._renewed = begun if holder else None
            self._seen, self._seen_at = (holder, now), self._clock()
        elif answered.status == 409:
            self._renewed = None  # Another one was first.
        else:
            log.warning("the Lease %s cannot be held: the API server answered %s", self._name, answered.status)
