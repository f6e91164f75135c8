"""Doubts: what was said of blobs that turned out wrong, until somebody has said it right.

Who named which piece how is kept for the next task of the same blob, which compares; and an origin that sent something else than
the blob, where others may be right, is remembered for a while. Nothing here judges a node: `supernode.tracker.seeds` does.
"""

from __future__ import annotations

from supernode.tracker.task import Named, Source

BLOBS_MAX = 256
"""Of each kind; the oldest is forgotten."""
LYING_SECONDS = 300.0
"""How long a node is left to its own origin that sent something else than a blob that other nodes have from elsewhere."""

MISLED_SECONDS = 3600.0
"""How long a node does not get pieces of a blob from its origin to which that has sent something else."""

BlobId = tuple[bytes, int]
"""Digest and size."""


class Doubts:
    def __init__(self) -> None:
        self._named: dict[BlobId, list[dict[int, Named]]] = {}
        self._accusers: dict[BlobId, set[str]] = {}
        """By blob, the nodes that have said that it was wrong: each of them is heard once."""
        self._lying: dict[BlobId, dict[Source, float]] = {}
        """By blob, origins, and until when that is remembered."""
        self._misled: dict[tuple[BlobId, str], float] = {}
        """By blob and node, the same."""

    def of(self, blob: BlobId) -> list[dict[int, Named]]:
        """What tasks of the blob have said of its pieces, in their order."""
        return list(self._named.get(blob, ()))

    def is_heard(self, blob: BlobId, accuser: str) -> bool:
        """Whether a node may say that the blob is wrong: one that has said so before may only wish that nobody shared it."""
        return accuser not in self._accusers.get(blob, ())

    def add(self, blob: BlobId, named: dict[int, Named], accuser: str) -> None:
        self._named.setdefault(blob, []).append(dict(named))
        self._accusers.setdefault(blob, set()).add(accuser)
        if len(self._named) > BLOBS_MAX:
            oldest = next(iter(self._named))
            del self._named[oldest], self._accusers[oldest]

    def lies(self, blob: BlobId, source: Source, now: float) -> bool:
        """Whether that origin sent something else lately."""
        return now < self._lying.get(blob, {}).get(source, 0.0)

    def note_lie(self, blob: BlobId, source: Source, now: float) -> None:
        self._lying.setdefault(blob, {})[source] = now + LYING_SECONDS
        if len(self._lying) > BLOBS_MAX:
            self._lying.pop(next(iter(self._lying)))

    def is_misled(self, blob: BlobId, node: str, now: float) -> bool:
        """Whether a node's origin sent it something else lately, which nobody else has to have from there."""
        return now < self._misled.get((blob, node), 0.0)

    def note_misled(self, blob: BlobId, node: str, now: float) -> None:
        self._misled.pop((blob, node), None)
        self._misled[blob, node] = now + MISLED_SECONDS
        if len(self._misled) > BLOBS_MAX:
            self._misled.pop(next(iter(self._misled)))
