"""A copy of some of the cluster's objects, kept by list and watch, that knows how old it is.

One thread lists, then follows a chain of short watches. The API server ends each of them itself, which proves that nothing was
missed until then: a connection that has gone dead is found out within seconds, where one long watch would just be silent. What
is kept of an object is the caller's choice; an informer changes nothing in the cluster.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from webhook.errors import Unreachable
from webhook.kube.api import METADATA, PAGE_ITEMS, Api, Object, ObjectName, items_of

log = logging.getLogger(__name__)

WATCH_SECONDS = 10
SILENCE_SECONDS_MAX = 5.0
"""Beyond the time after which a watch should have ended."""
CONNECT_SECONDS_MAX = 3.0
RETRY_SECONDS = 2.0
WATCH_SECONDS_MIN = 1.0
"""An API server that ends watches at once, as one does that shuts down, is not asked more often than this."""
PAGES_MAX = 2000

Kept = TypeVar("Kept")
Changes = Mapping[ObjectName, tuple[Kept | None, Kept | None]]
"""Each changed object, as far as it is kept, before and after; None: it did not, or does not, exist."""


class _Expired(Exception):  # noqa: N818 (it is no error: the API server keeps only so much history)
    """The version to go on from is forgotten; list again."""


class Informer(Generic[Kept]):
    """Objects may be looked up from any thread; `changed` is told, in the informer's own, which are otherwise than before."""

    def __init__(
        self,
        api: Api,
        path: str,
        selector: Mapping[str, str],
        keep: Callable[[Object], Kept],
        changed: Callable[[Changes[Kept]], None] = lambda _: None,
        metadata_only: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.objects: dict[ObjectName, Kept] = {}
        self._api = api
        self._path = path
        self._selector = dict(selector)
        self._keep = keep
        self._changed = changed
        self._metadata_only = metadata_only
        self._clock = clock
        self._proven: float | None = None

    def snapshot(self) -> dict[ObjectName, Kept]:
        """A copy to go through: the informer's own dictionary changes meanwhile."""
        return dict(self.objects)

    def age_seconds(self) -> float | None:
        """The seconds since the copy was certainly right; None if it never was."""
        return None if self._proven is None else max(0.0, self._clock() - self._proven)

    def run(self, stopped: threading.Event) -> None:
        """Until stopped. What fails is logged once per outage and tried again."""
        failing = False
        while not stopped.is_set():
            try:
                version = self._list()
                if failing:
                    log.info("%s can be followed again", self._path)
                failing = False
                while not stopped.is_set():
                    begun = self._clock()
                    version = self._follow(version)
                    stopped.wait(max(0.0, WATCH_SECONDS_MIN - (self._clock() - begun)))
            except _Expired:
                stopped.wait(WATCH_SECONDS_MIN)
            except Unreachable as error:
                if not failing:
                    log.warning("cannot follow %s: %s", self._path, error)
                failing = True
                stopped.wait(RETRY_SECONDS)

    def _list(self) -> str:
        begun = self._clock()
        found: dict[ObjectName, Kept] = {}
        query = {**self._selector, "limit": str(PAGE_ITEMS)}
        for _ in range(PAGES_MAX):
            answered = self._api.ask("GET", self._path, query=query, accept=self._accept("List"))
            if answered.status == 410:
                raise _Expired
            if answered.status != 200:
                raise Unreachable(f"the API server answered {answered.status}")
            items, metadata = items_of(answered.document), answered.document.get("metadata")
            if items is None or not isinstance(metadata, dict):
                raise Unreachable("the API server's answer is no list")
            found |= {_key(item): self._keep(item) for item in items}
            if not metadata.get("continue"):
                break
            query["continue"] = metadata["continue"]
        else:
            raise Unreachable(f"the list has more than {PAGES_MAX} pages")
        before, self.objects = self.objects, found
        self._tell({key: (before.get(key), found.get(key)) for key in before.keys() | found.keys()})
        self._proven = begun
        return str(metadata.get("resourceVersion"))

    def _follow(self, version: str) -> str:
        """One watch, to its end; returns the version to go on from."""
        query = {
            **self._selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = (CONNECT_SECONDS_MAX, WATCH_SECONDS + SILENCE_SECONDS_MAX)
        for event in self._api.watch(self._path, query, timeout, self._accept("")):
            kind, item = event.get("type"), event.get("object")
            if kind == "ERROR" and isinstance(item, dict):
                if item.get("code") == 410:
                    raise _Expired
                raise Unreachable(f"the API server answered {item.get('code')}")
            if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK") or not isinstance(item, dict):
                raise Unreachable("the API server's answer is no watch")
            version = str(item["metadata"]["resourceVersion"])
            if kind != "BOOKMARK":
                self._happened(kind, item)
            self._proven = self._clock()
        self._proven = self._clock()
        return version

    def _happened(self, kind: str, item: Object) -> None:
        key = _key(item)
        before, after = self.objects.get(key), None if kind == "DELETED" else self._keep(item)
        if after is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = after
        self._tell({key: (before, after)})

    def _tell(self, changes: dict[ObjectName, tuple[Kept | None, Kept | None]]) -> None:
        real = {key: change for key, change in changes.items() if change[0] != change[1]}
        if real:
            self._changed(real)

    def _accept(self, suffix: str) -> str:
        return METADATA.format(list=suffix) if self._metadata_only else "application/json"


def _key(item: Object) -> ObjectName:
    metadata = item["metadata"]
    return ObjectName(metadata.get("namespace", ""), metadata["name"])
