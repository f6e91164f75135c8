"""A task: one blob that is being distributed, as the tracker knows it. Who takes what from whom is the scheduler's knowledge."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from agent.storage.blob import Blob
from agent.swarm import messages
from supernode.tracker.session import Link


@dataclass(eq=False)
class Task:
    number: int
    digest: bytes
    begun_at: float
    used_at: float
    """When somebody last took part."""
    blob: Blob | None = None
    """In the supernode's cache, where it is not evicted as long as it is distributed. Its size is known with it."""
    digests: dict[int, bytes] = field(default_factory=dict)
    """Of the pieces that the supernode has: nothing is granted that the taker could not check."""
    coming: set[int] = field(default_factory=set)
    """Pieces that it is just getting, and whose digests it will tell whoever takes them from it."""
    whole: bool = False
    takers: set[Link] = field(default_factory=set)
    waiting: list[tuple[Link, messages.Open]] = field(default_factory=list)
    """Opens that are answered when the size is known."""
    failed: messages.TaskFailed | None = None
    abandoned: threading.Event = field(default_factory=threading.Event)
    """Set when seeding is to stop, because nobody takes part."""

    @property
    def name(self) -> str:
        return f"sha256:{self.digest.hex()}"

    @property
    def over(self) -> bool:
        """Whether whoever opens the blob now needs another task."""
        return self.failed is not None or self.abandoned.is_set()
