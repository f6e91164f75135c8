"""Mirrors: servers that are asked for a registry's images before the registry itself, such as pull-through caches.

A mirror that does not help costs one try. One that failed is kept away from for a while, so that the next blob does not wait for
it again, and asked all the same when the registry itself does not answer: in a closed network it is the only way. A mirror that
refuses, or has not, what it is asked for is well. Nothing here connects to anybody.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from agent.origin.destinations import NOT_ASKED
from agent.values.errors import DarnerError, DigestError, OriginError
from agent.values.reference import parse_registry

log = logging.getLogger(__name__)

KEPT_AWAY_SECONDS_MIN = 10.0
KEPT_AWAY_SECONDS_MAX = 300.0
"""Twice as long each time that a mirror fails again, up to this."""
WRONG_SECONDS = 600.0
"""How long a mirror is not asked for a blob of which it sent other bytes."""
WRONG_BLOBS_MAX = 1024

_MIRROR = re.compile(
    r"(?P<registry>[^\s=,/]+)=(?P<scheme>https?)://(?P<server>[^\s=,/@?#]+)(?:/(?P<prefix>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*))?/?"
)


class Mirror(NamedTuple):
    registry: str
    """Whose images it has."""
    server: str
    """HOST or HOST:PORT."""
    prefix: str
    """The path that its repositories have before the registry's own name for them; empty for none."""
    is_plain: bool
    """Whether it speaks plain HTTP."""

    def repository(self, repository: str) -> str:
        return f"{self.prefix}/{repository}" if self.prefix else repository

    @property
    def namespace(self) -> str:
        """What it is told by `?ns=`, as runtimes do, of the registry that is meant; nothing where the prefix says it.

        containerd says it to every mirror. One that has both, a path and `ns`, may take the first for a part of the name, as
        Darner itself would.
        """
        return "" if self.prefix else self.registry

    @property
    def listed(self) -> str:
        """The mirror as `agent.origin.destinations` has it listed: an operator's endpoint may be anywhere."""
        return self.server if self.is_plain else f"https://{self.server}"


def mirror(value: str) -> Mirror:
    """`REGISTRY=URL`, with the prefix as the URL's path: `docker.io=https://harbor.example.com/hub`."""
    found = _MIRROR.fullmatch(value)
    if not found:
        shown = re.sub(r"//.*@", "//", value)
        raise ValueError(f"{shown!r} is no mirror; write REGISTRY=https://HOST[:PORT][/PREFIX], without the /v2/ of its API")
    registry, server = parse_registry(found["registry"]), parse_registry(found["server"])
    return Mirror(registry, server, found["prefix"] or "", found["scheme"] == "http")


class Mirrors:
    """Those of one process, with what is remembered of them."""

    def __init__(self, mirrors: Iterable[Mirror] = (), now: Callable[[], float] = time.monotonic) -> None:
        self._by_registry: dict[str, list[Mirror]] = {}
        for each in mirrors:
            self._by_registry.setdefault(each.registry, []).append(each)
        self._now = now
        self._lock = threading.Lock()
        self._failed: dict[Mirror, tuple[float, float]] = {}
        """Until when a mirror is kept away from, and for how long that is."""
        self._wrong: dict[tuple[Mirror, str], float] = {}

    def of(self, registry: str, digest: str = "") -> tuple[list[Mirror], list[Mirror]]:
        """The mirrors to ask before a registry, in order, and those that failed lately. Without those that had it wrong."""
        mirrors = self._by_registry.get(registry)
        if not mirrors:
            return [], []
        now = self._now()
        with self._lock:
            usable = [each for each in mirrors if now >= self._wrong.get((each, digest), now)]
            failed = {each for each in usable if now < self._failed.get(each, (now, 0.0))[0]}
        return [each for each in usable if each not in failed], [each for each in usable if each in failed]

    def failed(self, mirror: Mirror, error: DarnerError, digest: str = "") -> None:
        """A mirror did not give what it was asked for. With `digest`, it had begun to send that blob."""
        if isinstance(error, OriginError) and error.answered and error.status != NOT_ASKED:
            log.info("the mirror %s of %s has it not: %s", mirror.server, mirror.registry, error)
            return
        now = self._now()
        with self._lock:
            if digest and isinstance(error, DigestError):
                while len(self._wrong) >= WRONG_BLOBS_MAX:
                    self._wrong.pop(next(iter(self._wrong)))
                self._wrong[mirror, digest] = now + WRONG_SECONDS
            until, seconds = self._failed.get(mirror, (0.0, KEPT_AWAY_SECONDS_MIN / 2))
            if now < until:  # it was asked before the last failure was known
                return
            seconds = min(2 * seconds, KEPT_AWAY_SECONDS_MAX)
            self._failed[mirror] = now + seconds, seconds
        log.warning("the mirror %s of %s is kept away from for %.0f s: %s", mirror.server, mirror.registry, seconds, error)

    def worked(self, mirror: Mirror) -> None:
        with self._lock:
            self._failed.pop(mirror, None)
