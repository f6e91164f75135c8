"""The messages between an agent and a supernode. `agent.swarm.channel` says how they travel.

A message is an array of msgpack whose first item names it. The first message of an agent is `Hello` with the version; a supernode
that does not speak that version answers `Refused` and closes. Messages carry digests and piece numbers; the one exception is the
registry and repository of `Open` and `Resolve`, which go through the origin client's destination rules.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from agent.values.pieces import PIECES_MAX

VERSION = 1
HOLDINGS_MAX = 100_000
TOKEN_CHARACTERS_MAX = 16 << 10
READERS_MAX = 8
BATCH_MAX = 256
"""Pieces of one report or grant: several times what may be in flight."""
MESSAGE_TEXT_MAX = 1024
REASON_CHARACTERS_MAX = 200
LEASE_SECONDS_MAX = 86400.0

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
Piece = Annotated[int, msgspec.Meta(ge=0, lt=PIECES_MAX)]
Text = Annotated[str, msgspec.Meta(max_length=MESSAGE_TEXT_MAX)]
RawDigest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=LEASE_SECONDS_MAX)]
Age = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Pieces = Annotated[bytes, msgspec.Meta(max_length=PIECES_MAX // 8)]
"""A set of pieces as `agent.values.pieces.to_bytes` writes it."""

SEED: Final = 0
"""The number that names the supernode itself as a source."""
COMING = bytes(32)
"""In place of a digest: the piece is still arriving at the supernode, which sends its digest behind it (see
agent.swarm.piece_server)."""

DELIVERED: Final = 0
UNREACHABLE: Final = 1
STALLED: Final = 2
CORRUPT: Final = 3
MISSING: Final = 4
"""Verdicts on a fetched piece. Only CORRUPT proves that a peer lies."""
VERDICT_NAMES = ("delivered", "unreachable", "stalled", "corrupt", "missing")
Verdict = Annotated[int, msgspec.Meta(ge=DELIVERED, le=MISSING)]


class Message(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """Base of all messages; the class name is the tag on the wire."""


# From the agent.


class Holding(msgspec.Struct, array_like=True, frozen=True):
    """A whole, verified blob in a node's store."""

    digest: RawDigest
    size: Count


class Hello(Message, frozen=True, tag=True):
    version: int
    node: Text
    zone: Text
    host: Text
    """Where other nodes reach this node's piece server."""
    port: Port
    upload_slots: Count
    """Pieces that this node is willing to send at once; 0 leaves it to the supernode."""
    holdings: Annotated[list[Holding], msgspec.Meta(max_length=HOLDINGS_MAX)]
    token: Annotated[str, msgspec.Meta(max_length=TOKEN_CHARACTERS_MAX)] = ""
    """Which node this is, in the words of the cluster; see `supernode.node_tokens`."""


class Heartbeat(Message, frozen=True, tag=True):
    """Sent by either side that had nothing else to say; each renews the other's lease."""

    unix_seconds: float = 0.0
    """The supernode's clock; an agent tells none."""


class Resolve(Message, frozen=True, tag=True):
    """Ask for the manifest that a tag or a digest names."""

    request: Count
    registry: Text
    repository: Text
    reference: Text


class Open(Message, frozen=True, tag=True):
    """Join the swarm of a blob. `have` is what this node holds already, `readers` the pieces that somebody waits for."""

    request: Count
    digest: RawDigest
    registry: Text
    repository: Text
    have: Pieces
    readers: Annotated[list[Count], msgspec.Meta(max_length=READERS_MAX)]
    size: Count = 0
    """Bytes of the blob, as a manifest that this node was shown says; 0 when it knows of none."""


class Done(msgspec.Struct, array_like=True, frozen=True):
    piece: Piece
    source: Count
    milliseconds: Count
    """Rounded up; 0 for a piece that the node had from elsewhere when it was granted: that tells nothing of the source."""
    verdict: Verdict


class Report(Message, frozen=True, tag=True):
    """What became of granted pieces, and how many may be in flight in all from now on. Reports of a node arrive in order."""

    task: Count
    done: Annotated[list[Done], msgspec.Meta(max_length=BATCH_MAX)]
    window: Count
    readers: Annotated[list[Count], msgspec.Meta(max_length=READERS_MAX)]


class Offer(Message, frozen=True, tag=True):
    """Pieces that this node got from the origin. Those whose digest the supernode knows it grants in answer, so that the node can
    compare: what it confirms it offers to others."""

    task: Count
    pieces: Pieces


class AskLeave(Message, frozen=True, tag=True):
    """The swarm brings this node nothing: may it ask the origin? Asked again every second while it may not."""

    task: Count


class Close(Message, frozen=True, tag=True):
    """Leave a swarm: nobody waits for the blob here any more, or it is complete."""

    task: Count


class Holds(Message, frozen=True, tag=True):
    """The node has a whole blob now, or has it no longer."""

    blob: Holding
    held: bool


class Recalled(Message, frozen=True, tag=True):
    """What this node knows of a name: the digest that the origin last said, how long ago, and the manifest if it was wanted."""

    request: Count
    digest: RawDigest | None
    """None when it knows nothing."""
    age_seconds: Age
    media_type: Text
    body: bytes
    refused: bool = False
    """Instead of a digest: the origin has last said that clients without a credential may not read it."""


# From the supernode.


class Welcome(Message, frozen=True, tag=True):
    version: int
    node: Text
    lease_seconds: Seconds
    host: Text
    """Where the supernode's own piece server is reached."""
    port: Port
    unix_seconds: float = 0.0
    """The supernode's clock, on which all tickets of its swarms are issued and judged. One of an earlier release tells none, and
    knows neither `Offer` nor `AskLeave`."""


class Refused(Message, frozen=True, tag=True):
    reason: Text


class Resolved(Message, frozen=True, tag=True):
    """The manifest, verbatim. `stale` says that its origin could not be asked and this is the last that it said."""

    request: Count
    media_type: Text
    body: bytes
    stale: bool


class Unresolved(Message, frozen=True, tag=True):
    """The origin's own refusal (`status` as it sent it), or 502 and 504 when it did not answer."""

    request: Count
    status: Count
    code: Text
    reason: Text
    retry_after: Count = 0
    """Seconds for which the registry wants not to be asked; 0 when it did not say."""


class Recall(Message, frozen=True, tag=True):
    """Ask a node what the origin last said of a name to whoever has no credential. The origin is away, and this is lost here."""

    request: Count
    registry: Text
    repository: Text
    reference: Text
    body: bool
    """Whether the manifest itself is wanted, or its digest alone."""


class Task(Message, frozen=True, tag=True):
    """The answer to `Open`: the number of the swarm and how its blob is cut. `known` are piece digests known so far."""

    request: Count
    task: Count
    size: Count
    piece_length: Count
    known: dict[Piece, RawDigest]


class Peer(Message, frozen=True, tag=True):
    """Introduces a node, once per connection and before the first grant that names its number."""

    number: Count
    host: Text
    port: Port


class Granted(msgspec.Struct, array_like=True, frozen=True):
    piece: Piece
    digest: RawDigest
    source: Count
    alternative: Count
    """Whom to ask when the source fails; equal to `source` when there is nobody else."""


class Grant(Message, frozen=True, tag=True):
    task: Count
    pieces: Annotated[list[Granted], msgspec.Meta(max_length=BATCH_MAX)]


class Seeding(Message, frozen=True, tag=True):
    """Sent every second to those that wait: for pieces of the open swarm `task`, or for the answer to the `Open` that `request`
    names; the other is 0."""

    task: Count
    request: Count = 0


class Leave(Message, frozen=True, tag=True):
    """The answer to `AskLeave`. Few nodes of a swarm have leave at a time; the others get from them what they bring."""

    task: Count
    given: bool


class TaskFailed(Message, frozen=True, tag=True):
    """The supernode cannot get the blob. `request` names an `Open` not answered yet, `task` an open swarm; the other is 0."""

    request: Count
    task: Count
    status: Count
    reason: Text
    corrupt: bool
    """The bytes that arrived did not have the blob's digest: pieces of this swarm are worth nothing."""
    retry_after: Count = 0
    """As in `Unresolved`."""


FromAgent = Hello | Heartbeat | Resolve | Open | Report | Offer | AskLeave | Close | Holds | Recalled
TaskMessage = Task | TaskFailed | Grant | Seeding | Leave
"""Said of one swarm, to a node that has asked to take part in it."""
FromSupernode = Welcome | Refused | Heartbeat | Resolved | Unresolved | Recall | Peer | TaskMessage
