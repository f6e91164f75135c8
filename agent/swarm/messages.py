"""The messages between an agent and a supernode. `agent.swarm.channel` says how they travel.

A message is an array of msgpack whose first item names it. The first message of an agent is `Hello` with the version; a supernode
that does not speak that version answers `Refused` and closes. A webhook, which has proven that it is one, says `Warm` and
`WarmBlob` and nothing else. Messages carry digests and piece numbers; the exceptions are the registry and repository of `Open`,
`Resolve`, `AskVerdict` and these two, and the URL of an `Open` that is of a file, which has to be on the supernode's own list.
All of these go through the origin client's destination rules.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from agent.values.pieces import PIECES_MAX
from agent.values.web_file import URL_CHARACTERS_MAX

VERSION = 2
HOLDINGS_MAX = 100_000
TOKEN_CHARACTERS_MAX = 16 << 10
READERS_MAX = 8
ARCHITECTURES_MAX = 16
WARMED_MAX = 512
"""Blobs of one image that are spoken of: none that anybody pulls has so many."""
BATCH_MAX = 256
"""Pieces of one report or grant: several times what may be in flight."""
MESSAGE_TEXT_MAX = 1024
REASON_CHARACTERS_MAX = 200
SHARED_MANIFEST_BYTES_MAX = 256 << 10
"""A longer manifest of a private image each node gets itself: an index of a few images has a few KiB."""
LEASE_SECONDS_MAX = 86400.0

COUNT_MAX = 1 << 40
Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
Piece = Annotated[int, msgspec.Meta(ge=0, lt=PIECES_MAX)]
Text = Annotated[str, msgspec.Meta(max_length=MESSAGE_TEXT_MAX)]
Architecture = Annotated[str, msgspec.Meta(max_length=64)]
RawDigest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Fingerprint = Annotated[bytes, msgspec.Meta(max_length=32)]
"""SHA-256 of a piece server's certificate; b"" when it has none."""
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=LEASE_SECONDS_MAX)]
Age = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
UnixSeconds = Annotated[float, msgspec.Meta(ge=0, le=1e10)]
"""Bounded, for what is no number would pass as a float, and no ticket can be made for such a time."""
Who = Annotated[bytes, msgspec.Meta(max_length=32)]
"""A credential, as `agent.swarm.tickets.who` hides it; empty for none."""
SharedManifest = Annotated[bytes, msgspec.Meta(max_length=SHARED_MANIFEST_BYTES_MAX)]
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
RUN_WHOLE: Final = 0
RUN_FAILED: Final = 1
RUN_REFUSED: Final = 2
RUN_TOO_MANY: Final = 3
"""The registry had too many connections or questions, and said so by 429."""
RUN_NO_RANGES: Final = 4
"""The registry sends whole blobs only."""
Outcome = Annotated[int, msgspec.Meta(ge=RUN_WHOLE, le=RUN_NO_RANGES)]
"""How a run ended."""

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
    fingerprint: Fingerprint = b""
    """Of this node's piece server."""


class Heartbeat(Message, frozen=True, tag=True):
    """Sent by either side that had nothing else to say; each renews the other's lease."""

    unix_seconds: UnixSeconds = 0.0
    """The supernode's clock; an agent tells none."""


class Resolve(Message, frozen=True, tag=True):
    """Ask for the manifest that a tag or a digest names."""

    request: Count
    registry: Text
    repository: Text
    reference: Text


class OpenedFile(msgspec.Struct, array_like=True, frozen=True):
    """A file of a web server (`agent.values.web_file`), whose task is the digest of the `Open` that it belongs to."""

    url: Annotated[str, msgspec.Meta(max_length=URL_CHARACTERS_MAX)]
    validator: Text
    digest: Text
    """That its bytes must have; "" when nobody said."""


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
    private: bool = False
    """Whether this node's reader needs a credential for the blob, or may need one."""
    file: OpenedFile | None = None
    """Where it is no blob: then the registry and the repository name its server and its path, and its `size` is known."""


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


class Brought(Message, frozen=True, tag=True):
    """Pieces that this node got from its origin, or has in a blob that it holds whole, and their digests: the supernode tells
    them to the others. Which node said so is remembered until the whole blob has proved it."""

    task: Count
    pieces: Annotated[dict[Piece, RawDigest], msgspec.Meta(max_length=BATCH_MAX)]


class RunEnded(Message, frozen=True, tag=True):
    """This node asks its origin for no more of a `Run`, which `first` names; what of that did not come others may get."""

    task: Count
    first: Piece
    outcome: Outcome
    retry_after: Count = 0
    """Seconds for which the registry wants not to be asked; 0 when it did not say."""


class Disputed(Message, frozen=True, tag=True):
    """All pieces of the swarm are here, each with the digest that was told, and the blob has another digest than its own."""

    task: Count


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


class Received(Message, frozen=True, tag=True):
    """Bytes of blobs that came to this node, by where they came from, of which it did not tell before. For people to look at;
    said only to a supernode whose `Welcome` asks for it."""

    peer: Count
    supernode: Count
    origin: Count
    age_seconds: Age
    """How long ago, to the hour."""


ALLOWED: Final = 0
REFUSED: Final = 1
UNANSWERED: Final = 2
"""What an origin said to a question about permission."""


class AskVerdict(Message, frozen=True, tag=True):
    """May this credential have `path`, which is `blobs/DIGEST` or `manifests/REFERENCE`, of this repository?"""

    request: Count
    registry: Text
    repository: Text
    path: Text
    who: Who


class Told(Message, frozen=True, tag=True):
    """What the origin itself has told this node about that, just now."""

    registry: Text
    repository: Text
    path: Text
    who: Who
    outcome: Annotated[int, msgspec.Meta(ge=ALLOWED, le=UNANSWERED)]
    body: SharedManifest = b""
    """The manifest that a reference means, if it says its media type itself."""


# From the supernode.


class Welcome(Message, frozen=True, tag=True):
    version: int
    node: Text
    lease_seconds: Seconds
    host: Text
    """Where the supernode's own piece server is reached."""
    port: Port
    unix_seconds: UnixSeconds = 0.0
    """The supernode's clock, on which all tickets of its swarms are issued and judged."""
    fingerprint: Fingerprint = b""
    """Of the supernode's own piece server. It is new with each start of the supernode."""
    takes_byte_reports: bool = False
    """Whether the supernode knows `Received`."""


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


class Judged(Message, frozen=True, tag=True):
    """The answer to `AskVerdict`: the origin allowed it `age` seconds ago; or, with `yours`, this node is to ask the origin and
    say what it was told, while others wait for that. What an answer of that kind holds besides is old, or one node's word."""

    request: Count
    yours: bool
    age: Age | None = None
    body: SharedManifest = b""
    is_loaded: bool = False
    """Whether an operator has put the blob into the supernodes for this repository: its bytes are everybody's, whoever gives them
    (docs/decisions/0034). An agent that does not know this asks the registry for proof."""


class Revoked(Message, frozen=True, tag=True):
    """Another node was refused what this one was told that the origin allows."""

    registry: Text
    repository: Text
    path: Text
    who: Who


class Task(Message, frozen=True, tag=True):
    """The answer to `Open`: the number of the swarm and how its blob is cut. `known` are piece digests known so far."""

    request: Count
    task: Count
    size: Count
    piece_length: Count
    known: dict[Piece, RawDigest]
    private: bool = False
    """Whether somebody in the swarm needs a credential for the blob: then its pieces are not for everybody's eyes."""


class Private(Message, frozen=True, tag=True):
    """A swarm is private from now on, because of somebody who has just joined."""

    task: Count


class Peer(Message, frozen=True, tag=True):
    """Introduces a node, once per connection and before the first grant that names its number."""

    number: Count
    host: Text
    port: Port
    fingerprint: Fingerprint = b""


class Granted(msgspec.Struct, array_like=True, frozen=True):
    piece: Piece
    digest: RawDigest
    source: Count
    alternative: Count
    """Whom to ask when the source fails; equal to `source` when there is nobody else."""


class Grant(Message, frozen=True, tag=True):
    task: Count
    pieces: Annotated[list[Granted], msgspec.Meta(max_length=BATCH_MAX)]


class Run(Message, frozen=True, tag=True):
    """Get the pieces from `first` to `end` (not included) from the origin, for this node and for the others."""

    task: Count
    first: Piece
    end: Annotated[int, msgspec.Meta(ge=1, le=PIECES_MAX)]


class Describe(Message, frozen=True, tag=True):
    """Say the digests of the pieces of a blob that this node holds whole, by `Brought`. It is cut as in `Task`."""

    task: Count
    digest: RawDigest
    size: Count
    piece_length: Count


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


# Of a webhook (docs/decisions/0036), and to it.


class Warm(Message, frozen=True, tag=True):
    """A pod was admitted with this image: which blobs will its nodes ask for? Of an index, which manifests: each of these is
    asked for by its digest at its own supernode, as nodes do it."""

    request: Count
    registry: Text
    repository: Text
    reference: Text
    architectures: Annotated[list[Architecture], msgspec.Meta(max_length=ARCHITECTURES_MAX)]
    """Of the nodes that the pod may come to, as images name them; none: the supernode's own."""


class WarmBlob(Message, frozen=True, tag=True):
    """Get a blob of such an image into the cache, when nobody is in the way of that. There is no answer."""

    registry: Text
    repository: Text
    blob: Holding


class Warmed(Message, frozen=True, tag=True):
    """The answer to `Warm`: the blobs of a manifest, or the manifests of an index; neither of what is not everybody's."""

    request: Count
    blobs: Annotated[list[Holding], msgspec.Meta(max_length=WARMED_MAX)]
    manifests: Annotated[list[RawDigest], msgspec.Meta(max_length=ARCHITECTURES_MAX)]


FromWebhook = Warm | WarmBlob
ToWebhook = Warmed | Refused

FromAgent = (
    Hello
    | Heartbeat
    | Resolve
    | Open
    | Report
    | Brought
    | RunEnded
    | Disputed
    | AskLeave
    | Close
    | Holds
    | Recalled
    | AskVerdict
    | Told
    | Received
)
TaskMessage = Task | TaskFailed | Grant | Run | Seeding | Leave | Private
"""Said of one swarm, to a node that has asked to take part in it."""
FromSupernode = Welcome | Refused | Heartbeat | Resolved | Unresolved | Recall | Peer | Describe | Judged | Revoked | TaskMessage
