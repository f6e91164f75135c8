"""The messages between an agent and a supernode, and the frames that carry them.

A frame is a big-endian u32 length and that many bytes of msgpack: an array whose first item names the message. The first
message of an agent is `Hello` with the version; a supernode that does not speak it answers `Refused` and closes. Messages
carry digests and piece numbers; the one exception is the registry and repository of `Open` and `Resolve`, which go through
the origin client's destination rules. Nothing here reads a socket: `Frames` is fed bytes and gives messages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec

from agent.values.errors import DarnerError
from agent.values.pieces import PIECES_MAX

VERSION = 1
LENGTH = struct.Struct(">I")
FRAME_BYTES_MAX = 5 << 20
"""A manifest of 4 MiB and its envelope; the holdings of a node with 100,000 blobs are 4 MB."""
HOLDINGS_MAX = 100_000
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
Verdict = Annotated[int, msgspec.Meta(ge=DELIVERED, le=MISSING)]


class WireError(DarnerError):
    """The sender's fault: a frame that is too long, or bytes that are no message."""


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


class Heartbeat(Message, frozen=True, tag=True):
    """Sent by either side that had nothing else to say; each renews the other's lease."""


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


# From the supernode.


class Welcome(Message, frozen=True, tag=True):
    version: int
    node: Text
    lease_seconds: Seconds
    host: Text
    """Where the supernode's own piece server is reached."""
    port: Port


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
    """Sent to those whose wants are parked: the blob is still arriving from its origin, so waiting is right."""

    task: Count


class TaskFailed(Message, frozen=True, tag=True):
    """The supernode cannot get the blob. `request` names an `Open` not answered yet, `task` an open swarm; the other is 0."""

    request: Count
    task: Count
    status: Count
    reason: Text
    corrupt: bool
    """The bytes that arrived did not have the blob's digest: pieces of this swarm are worth nothing."""


FromAgent = Hello | Heartbeat | Resolve | Open | Report | Close | Holds | Recalled
FromSupernode = Welcome | Refused | Heartbeat | Resolved | Unresolved | Recall | Task | Peer | Grant | Seeding | TaskFailed

_NO_MESSAGE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_supernode: msgspec.msgpack.Decoder[FromSupernode] = msgspec.msgpack.Decoder(FromSupernode)


def frame(message: Message) -> bytes:
    """Raises WireError for a message that is too long to be sent."""
    body = _encoder.encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise WireError(f"{type(message).__name__} of {len(body)} bytes does not fit a frame of {FRAME_BYTES_MAX}")
    return LENGTH.pack(len(body)) + body


def agent_message(body: bytes) -> FromAgent:
    """What an agent sent. Raises WireError."""
    try:
        return _from_agent.decode(body)
    except _NO_MESSAGE as error:
        raise _no_message(error) from None


def supernode_message(body: bytes) -> FromSupernode:
    """What a supernode sent. Raises WireError."""
    try:
        return _from_supernode.decode(body)
    except _NO_MESSAGE as error:
        raise _no_message(error) from None


def _no_message(error: Exception) -> WireError:
    return WireError(f"not a message of version {VERSION}: {ascii(str(error)[:REASON_CHARACTERS_MAX])[1:-1]}")


class Frames:
    """Bytes in, bodies of frames out. Between two calls it holds at most one frame, which is not whole yet."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The bodies that `data` completes. Raises WireError as soon as a length is over the limit."""
        buffer = self._buffer
        if buffer:
            buffer += data
        whole = buffer or data
        start, end = 0, len(whole)
        try:
            while end - start >= LENGTH.size:
                (length,) = LENGTH.unpack_from(whole, start)
                if length > FRAME_BYTES_MAX:
                    raise WireError(f"a frame of {length} bytes is over the limit of {FRAME_BYTES_MAX}")
                after = start + LENGTH.size + length
                if after > end:
                    break
                body = bytes(whole[start + LENGTH.size : after])
                start = after
                yield body
        finally:
            if whole is buffer:
                del buffer[:start]
            else:
                buffer += whole[start:]
