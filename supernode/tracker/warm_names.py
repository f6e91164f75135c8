"""Names of images that pods were just admitted with: which blobs they have, or which manifests, for a webhook that asks.

The answer is the one that nodes get a moment later, and is kept for them: one question to a registry serves both. It is asked as
nobody, so of a private image nothing is said. A name is looked at once in a while, and few of them at a time, however many a
webhook names (docs/decisions/0036). All but the questions is done in the tracker's event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from agent.origin.shares import SharedThreads
from agent.registry.manifests import Manifests
from agent.swarm import messages
from agent.values.errors import DarnerError
from agent.values.manifest import Manifest
from agent.values.pieces import BLOB_BYTES_MAX
from agent.values.reference import InvalidReference, raw_digest
from supernode import metrics
from supernode.loop import call_in
from supernode.names import check_name
from supernode.platforms import OWN_ARCHITECTURE, manifests_for
from supernode.tags.resolver import Loaded
from supernode.warm_run import was_refused

log = logging.getLogger(__name__)

NAMES_AT_ONCE_MAX = 8
"""Questions to registries about warmed names."""
NAMES_WAITING_MAX = 64
NAMES_PER_SECOND = 5.0
NAMES_BURST = 50.0
NAMES_MAX = 4096
NAME_SECONDS = 600.0
"""How long a name that was asked for is not looked at again: pods come by the hundred, and what they need is here or at nodes."""

Answer = Callable[[messages.Warmed], None]


class WarmNames:
    def __init__(self, manifests: Manifests, loaded: Loaded = lambda *_: None) -> None:
        """Made in the tracker's event loop. `loaded` tells what a name means that an operator has loaded: all of that is here."""
        self._manifests = manifests
        self._loaded = loaded
        self._loop = asyncio.get_running_loop()
        self._asking = SharedThreads(NAMES_AT_ONCE_MAX, "warm name", prompt=manifests.prompt)
        self._names: OrderedDict[tuple[str, ...], float] = OrderedDict()
        """That were asked for lately, and when."""
        self._waiting = 0
        """Names that registries are being asked for."""
        self._allowed, self._allowed_at = NAMES_BURST, time.monotonic()

    def stop(self) -> None:
        self._asking.stop()

    def join(self) -> None:
        """Wait for the threads, which end when the origin client is closed. Called from another thread, after `stop`."""
        self._asking.join()

    def ask(self, message: messages.Warm, answer: Answer) -> None:
        """Which blobs, or which manifests, an image has. `answer` is called in any case, perhaps later, and with nothing where
        there is nothing to be done."""
        name = (message.registry, message.repository, message.reference)
        outcome = self._refusal(name, (*name, *message.architectures))
        if outcome:
            self._named(message, answer, outcome, messages.Warmed(message.request, [], []))
            return
        architectures = message.architectures or [OWN_ARCHITECTURE]
        self._waiting += 1

        def resolve() -> None:
            said, words = self._resolved(message, architectures)
            call_in(self._loop, self._resolving_ended, message, answer, words, said)

        try:
            self._asking.submit(message.registry, "", lambda _: resolve())
        except RuntimeError:  # no thread is left
            self._resolving_ended(message, answer, "limited", messages.Warmed(message.request, [], []))

    def _refusal(self, name: tuple[str, str, str], key: tuple[str, ...]) -> str:
        """Why a name is not looked at, as metrics name it."""
        now = time.monotonic()
        try:
            check_name(*name)
        except InvalidReference:
            return "failed"
        if now - self._names.get(key, now - NAME_SECONDS) < NAME_SECONDS:
            return "repeated"
        if self._loaded(*name):
            return "loaded"
        self._allowed = min(NAMES_BURST, self._allowed + (now - self._allowed_at) * NAMES_PER_SECOND)
        self._allowed_at = now
        if self._allowed < 1 or self._waiting >= NAMES_WAITING_MAX:
            return "limited"
        self._allowed -= 1
        self._names.pop(key, None)
        self._names[key] = now
        if len(self._names) > NAMES_MAX:
            self._names.popitem(last=False)
        return ""

    def _resolved(self, message: messages.Warm, architectures: list[str]) -> tuple[messages.Warmed, str]:
        """In a thread. The answer, and how it went."""
        try:
            manifest = self._manifests.resolve(message.registry, message.repository, message.reference)
        except DarnerError as error:
            log.debug("%s/%s is not warmed: %s", message.registry, message.repository, error)
            return messages.Warmed(message.request, [], []), "private" if was_refused(error) else "failed"
        except Exception:
            log.exception("a name could not be warmed")
            return messages.Warmed(message.request, [], []), "failed"
        if manifest.stale:  # its registry does not answer
            return messages.Warmed(message.request, [], []), "failed"
        return _contents(message.request, manifest, architectures), "resolved"

    def _resolving_ended(self, message: messages.Warm, answer: Answer, outcome: str, said: messages.Warmed) -> None:
        self._waiting -= 1
        self._named(message, answer, outcome, said)

    @staticmethod
    def _named(message: messages.Warm, answer: Answer, outcome: str, said: messages.Warmed) -> None:
        metrics.WARM_NAMES.labels(outcome).inc()
        level = logging.INFO if outcome == "resolved" and said.blobs else logging.DEBUG
        log.log(level, "%s/%s is warmed for pods: %s, %d blobs", message.registry, message.repository, outcome, len(said.blobs))
        answer(said)


def _contents(request: int, manifest: Manifest, architectures: list[str]) -> messages.Warmed:
    if manifest.is_index:
        digests = manifests_for(manifest, architectures)[: messages.ARCHITECTURES_MAX]
        return messages.Warmed(request, [], [raw_digest(digest) for digest in digests])
    sizes = [(digest, size) for digest, size in manifest.sizes().items() if 0 < size <= BLOB_BYTES_MAX]
    return messages.Warmed(
        request, [messages.Holding(raw_digest(digest), size) for digest, size in sizes[: messages.WARMED_MAX]], []
    )
