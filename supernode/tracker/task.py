"""A task: one blob that is being distributed, as the tracker knows it, and who said which digest its pieces have.

A node names the pieces that it got from its origin. That is believed until the whole blob has shown otherwise: then the names are
doubts, which the next task of the blob takes over, and whoever turns out to have named a piece wrongly is known by them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.storage.blob import Blob
from agent.swarm import messages
from agent.values.errors import DarnerError, DigestError, OriginError
from agent.values.pieces import Layout
from agent.values.web_file import WebFile
from supernode.session import AgentSession
from supernode.tracker.arrivals import Arrivals


class Source(NamedTuple):
    """An origin of a blob: a registry and a repository there."""

    registry: str
    repository: str


BLAMED_MAX = 16
"""Accusations that are remembered with one name of a piece."""


@dataclass(frozen=True)
class Named:
    """What somebody said of a piece."""

    digest: bytes
    node: str
    """Its name; "" for the supernode itself."""
    source: Source
    """From where that node had the piece."""
    blamed: set[tuple[str, str]] = field(default_factory=set, compare=False)
    """Nodes that sent other bytes than that, and who said so. If the name is wrong, they may have sent the right ones."""

    def blame(self, sender: str, reporter: str) -> None:
        if self.node and len(self.blamed) < BLAMED_MAX:
            self.blamed.add((sender, reporter))


@dataclass(eq=False)
class BlobTask:
    number: int
    digest: bytes
    opener: str
    """The name of the node that opened the blob first."""
    source: Source
    """The origin of the node that opened the blob first."""
    begun_at: float
    used_at: float
    """When somebody last took part."""
    layout: Layout | None = None
    """None until the size is known."""
    file: WebFile | None = None
    """Where it is no blob, but a file of a web server: the supernode alone gets it and names its pieces, for no digest would show
    what a node has named wrongly."""
    blob: Blob | None = None
    """In the supernode's cache, where it is not evicted as long as it is distributed."""
    digests: dict[int, bytes] = field(default_factory=dict)
    """Of the pieces that somebody has, by number: nothing is granted that the taker could not check."""
    named: dict[int, Named] = field(default_factory=dict)
    """The same, with who said so."""
    doubts: list[dict[int, Named]] = field(default_factory=list)
    """What was said before, of this blob, by tasks whose blob turned out wrong."""
    coming: set[int] = field(default_factory=set)
    """Pieces that the supernode is just getting. Their digests follow their bytes to the agents that take them from it."""
    is_seeding: bool = False
    """A thread is looking for the blob, or getting it."""
    asks_origin: bool = False
    """And that thread may ask the origin."""
    is_held_back: bool = False
    """No node is granted pieces at its origin yet."""
    is_warm: bool = False
    """No node has asked for it yet, but a pod was admitted that will need it (`supernode.tracker.warm_blobs`)."""
    streaming: int = 0
    """Pieces that the supernode is getting of it for that reason, which nodes need not ask the origin for: a set."""
    alone: int = 0
    """Pieces that the supernode alone had when nodes began to take them, until it is seen whether they come fast: a set."""
    alone_at: float = 0.0
    """When that was."""
    warm_rate: float = 0.0
    """Bytes a second with which the supernode got them, if that was before a node had asked."""
    seed_error: messages.TaskFailed | None = None
    """Why the supernode cannot get the blob from the origin itself."""
    private: bool = False
    """Whether somebody in the swarm needs a credential for the blob."""
    copy_tries: int = 0
    """How often the supernode has tried to take its copy from nodes."""
    copy_after: float = 0.0
    """When it may try again."""
    whole: bool = False
    """All of it is in the supernode's cache, and right."""
    describers: dict[int, float] = field(default_factory=dict)
    """By session, nodes that were asked to name the pieces of the blob that they hold, and until when that is waited for."""
    sources: dict[AgentSession, Source] = field(default_factory=dict)
    """The members, and from where each of them may have the blob."""
    takers: set[AgentSession] = field(default_factory=set)
    waiting: dict[AgentSession, messages.Open] = field(default_factory=dict)
    """Opens that are answered when the size is known. An agent that opens the blob anew has given up what it asked before: an
    answer to that would make it leave the swarm that it has just joined."""
    leaves: dict[int, float] = field(default_factory=dict)
    """By session, until when it has leave to ask the origin."""
    cut_off: set[int] = field(default_factory=set)
    """Sessions that a piece of another node did not come to, and none has come to since."""
    arrivals: Arrivals = field(default_factory=Arrivals)
    finished: int = 0
    """Nodes that took part until they had all of it."""
    failed: messages.TaskFailed | None = None
    abandoned: threading.Event = field(default_factory=threading.Event)
    """Set when seeding is to stop, because nobody takes part."""

    @property
    def name(self) -> str:
        return f"sha256:{self.digest.hex()}"

    @property
    def size(self) -> int:
        """Bytes of the blob; 0 as long as they are not known."""
        return self.layout.size if self.layout else 0

    @property
    def blob_id(self) -> tuple[bytes, int]:
        """Digest and size: a node that names another size than the others is alone with it."""
        return self.digest, self.size

    @property
    def over(self) -> bool:
        """Whether an agent that opens the blob now needs another task."""
        return self.failed is not None or self.abandoned.is_set()

    @property
    def is_named(self) -> bool:
        """Whether every piece has a digest."""
        return self.layout is not None and len(self.digests) == self.layout.count

    def failure(self, error: DarnerError) -> messages.TaskFailed:
        """An error of the supernode's, as agents are told it."""
        pause = error.retry_after if isinstance(error, OriginError) else 0
        reason = str(error)[: messages.MESSAGE_TEXT_MAX]
        return messages.TaskFailed(0, self.number, error.status, reason, isinstance(error, DigestError), pause)

    def name_piece(self, piece: int, said: Named) -> None:
        self.digests[piece] = said.digest
        self.named[piece] = said

    @property
    def is_brought(self) -> bool:
        """Whether a node has brought a piece of it."""
        return any(said.node for said in self.named.values())

    @property
    def needs_origin(self) -> bool:
        """Whether nodes wait for pieces that nobody in the cluster has."""
        return bool(self.takers) and not (self.whole or self.is_held_back or self.is_named)

    def denied(self, node: str) -> int:
        """The pieces that this node is not to name again: a set."""
        said = (piece for doubts in self.doubts for piece, named in doubts.items() if named.node == node)
        return sum(1 << piece for piece in set(said))
