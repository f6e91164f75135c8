"""What this node pulled lately: of each pull its sources, its time and who asked, for the log, the metrics and the state.

A pull is of one blob: a download that has ended, whoever waited for it, or an answer from what this node had already. Runtimes
ask for a blob in several ranges at once, and one of them begins with its first byte: that one is the pull, the others are not.
Images are the names by which manifests were asked for since this process started. Nothing here outlives it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from agent import metrics
from agent.values.manifest import Manifest

log = logging.getLogger(__name__)

PULLS_MAX = 200
IMAGES_MAX = 500
"""The least recently used are forgotten beyond that."""
INDEX_MANIFESTS_MAX = 64
"""Of one index, that are looked at: a platform, or an attestation, each."""
ASKER_CHARACTERS_MAX = 100
"""Of a User-Agent, which a client writes as it likes."""

SOURCES = ("peer", "supernode", "origin", "store", "containerd")


@dataclass(eq=False)
class BlobPull:
    """One pull, as whoever carries it out writes it down."""

    image: str | None
    digest: str
    asked_by: str
    """What the client calls itself."""
    sources: Counter[str] = field(default_factory=Counter)
    """Bytes, by SOURCES."""
    began_at: float = field(default_factory=time.monotonic)
    first_byte_at: float | None = None
    """When a client was sent the first."""
    ended_at: float = 0.0
    error: str | None = None

    def described(self) -> dict[str, Any]:
        """As the state and the log have it."""
        return {
            "image": self.image,
            "digest": self.digest,
            "bytes": self.sources.total(),
            "seconds": round(self.ended_at - self.began_at, 3),
            "firstByteSeconds": None if self.first_byte_at is None else round(self.first_byte_at - self.began_at, 3),
            "sources": {source: self.sources[source] for source in SOURCES},
            "error": self.error,
        }


@dataclass
class PulledImage:
    name: str
    """REGISTRY/REPOSITORY:TAG, or with @DIGEST where it was asked for so."""
    digest: str
    """What the name means: a manifest, or an index of manifests."""
    used_at: float
    manifests: dict[str, int] = field(default_factory=dict)
    """Of an index, those that were asked for; else itself. Each with the bytes of what it lists."""


class Pulls:
    """The newest pulls, and the images by name. Any thread calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: deque[BlobPull] = deque(maxlen=PULLS_MAX)
        self._images: OrderedDict[str, PulledImage] = OrderedDict()
        self._named_by: dict[str, PulledImage] = {}
        """By REPOSITORY@DIGEST of each manifest of an index, the image that was asked for last and lists it."""

    def ended(self, pull: BlobPull, error: str | None) -> None:
        """One line for each pull, and none for its pieces."""
        pull.ended_at, pull.error = time.monotonic(), error
        told, asked_by = pull.described(), pull.asked_by[:ASKER_CHARACTERS_MAX] or "somebody"
        metrics.PULL_SECONDS.labels("failed" if error else "whole").observe(told["seconds"])
        sources = ", ".join(f"{source} {size}" for source, size in told["sources"].items() if size) or "nothing came"
        first = ""
        if told["firstByteSeconds"] is not None:
            metrics.FIRST_BYTE_SECONDS.observe(told["firstByteSeconds"])
            first = f", first byte after {told['firstByteSeconds']:.3f} s"
        came = f"{told['bytes']} bytes ({sources}) in {told['seconds']:.3f} s{first}"
        outcome = f"not pulled, {error}" if error else "pulled"
        what = f"{pull.image or 'a blob'} {pull.digest}"
        log.info("%s for %s: %s: %s", what, asked_by, came, outcome, extra={"fields": told | {"askedBy": asked_by}})
        with self._lock:
            self._ended.append(pull)

    def named(self, registry: str, repository: str, reference: str, manifest: Manifest) -> None:
        """A client was given this manifest by that name. A manifest that an index lists counts towards the index's name."""
        where, now = f"{registry}/{repository}", time.monotonic()
        sizes = manifest.sizes()
        with self._lock:
            image = self._named_by.get(f"{where}@{manifest.digest}") if reference == manifest.digest else None
            if image is None:
                name = f"{where}@{reference}" if reference == manifest.digest else f"{where}:{reference}"
                image = self._images.get(name)
                if image is None or image.digest != manifest.digest:
                    if image is not None:
                        self._forget(image)
                    image = self._images[name] = PulledImage(name, manifest.digest, now)
            image.used_at = now
            self._images.move_to_end(image.name)
            if manifest.is_index:
                self._named_by.update((f"{where}@{digest}", image) for digest in list(sizes)[:INDEX_MANIFESTS_MAX])
            else:
                image.manifests[manifest.digest] = len(manifest.body) + sum(sizes.values())
            while len(self._images) > IMAGES_MAX:
                self._forget(self._images.popitem(last=False)[1])

    def _forget(self, image: PulledImage) -> None:
        """The manifests of that image count towards it no longer."""
        self._named_by = {digest: one for digest, one in self._named_by.items() if one is not image}

    def described(self) -> dict[str, Any]:
        """`pulls`, the newest first, and `images`, the last used first."""
        now = time.monotonic()
        with self._lock:
            ended, images = list(self._ended), list(self._images.values())
            return {
                "images": [
                    {
                        "name": image.name,
                        "digest": image.digest,
                        "bytes": sum(image.manifests.values()),
                        "lastUsedSecondsAgo": round(now - image.used_at, 1),
                    }
                    for image in reversed(images)
                ],
                "pulls": [pull.described() | {"secondsAgo": round(now - pull.ended_at, 1)} for pull in reversed(ended)],
            }
