"""Proof that a registry has the bytes that it says it has, where what is here came from elsewhere.

A registry can say of any digest that it has it. What one registry gave is another one's to give only when that one shows the
bytes: a range of them, somewhere in the blob, is compared. A manifest needs no such proof, for it always comes whole.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import closing

from agent.http.wire import chunks
from agent.origin.client import Origin
from agent.registry.target import BlobResource
from agent.storage.blob import Blob
from agent.values.credential import Credential
from agent.values.errors import DarnerError, OriginError

PROOF_BYTES = 64 << 10
_random = random.SystemRandom()


class ForeignError(DarnerError):
    """The registry does not show the bytes: what is here is not its to give. Its own bytes are the answer."""

    status = 502


def span_of(blob: Blob) -> tuple[int, int]:
    """The range to be compared, as nobody can foretell it."""
    start = _random.randrange(max(1, blob.size - PROOF_BYTES + 1))
    return start, min(blob.size, start + PROOF_BYTES)


def prove(origin: Origin, resource: BlobResource, credential: Credential | None, blob: Blob, start: int, end: int) -> bool:
    """True, when the registry's bytes are those that are here by now. Raises ForeignError otherwise, and OriginError."""
    registry, repository = resource.registry, resource.repository
    try:
        with closing(origin.open_blob(registry, repository, resource.digest, credential, start)) as stream:
            theirs = b"".join(map(bytes, chunks(stream.read_into, end - start))) if stream.size == blob.size else b""
    except OriginError as error:
        if error.status != 416:
            raise
        theirs = b""  # its own is shorter
    if theirs != os.pread(blob.fd, end - start, start):
        raise ForeignError(f"the registry {registry} does not show the bytes of {resource.digest}, which are here from elsewhere")
    blob.provenance.add(registry, f"{registry}/{repository}")
    return True


Look = Callable[[], None]


def await_span(blob: Blob, start: int, end: int, seconds: float, look: Look) -> None:
    """Until those bytes are here. Raises what `look` raises, and the blob's error."""
    while start < end:
        start, before = min(end, blob.wait(start, seconds)), start
        if start == before:
            look()
