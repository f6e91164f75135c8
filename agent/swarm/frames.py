"""Frames: how the messages between an agent and a supernode travel.

A frame is a big-endian u32 length and that many bytes of msgpack, which are one message (`agent.swarm.messages`). Nothing here
reads a socket: `Frames` is fed bytes and gives the bodies of frames.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from agent.swarm.messages import REASON_CHARACTERS_MAX, VERSION, FromAgent, FromSupernode, Message
from agent.values.errors import DarnerError

LENGTH = struct.Struct(">I")
FRAME_BYTES_MAX = 5 << 20
"""A manifest of 4 MiB and its envelope; the holdings of a node with 100,000 blobs are 4 MB."""


class WireError(DarnerError):
    """The sender's fault: a frame that is too long, or bytes that are no message."""


Decoded = TypeVar("Decoded")
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
    return _decoded(_from_agent, body)


def supernode_message(body: bytes) -> FromSupernode:
    """What a supernode sent. Raises WireError."""
    return _decoded(_from_supernode, body)


def _decoded(decoder: msgspec.msgpack.Decoder[Decoded], body: bytes) -> Decoded:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a message of version {VERSION}: {ascii(str(error)[:REASON_CHARACTERS_MAX])[1:-1]}") from None


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
