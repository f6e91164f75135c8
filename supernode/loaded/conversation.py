"""What `darner load` and a supernode say to each other over the socket: a line of JSON each time, and bytes of blobs after some.

    -> {"type": "load", "name": ..., "digest": ..., "manifests": {DIGEST: {"media_type": ..., "body": BASE64}}}
    <- {"missing": [DIGEST, ...]}
    -> the bytes of each missing blob, in that order, as many as the manifests say
    <- {} when the image is there, or {"error": "..."} at any time, which is the last that is said

    -> {"type": "unload", "name": ...}
    <- {}, or {"missing": [NAME]} when it was not loaded

An image is named when all of it is there, and not before. Several are loaded one after another. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from agent.values.errors import DarnerError, RequestError
from agent.values.manifest import MANIFEST_BYTES_MAX, Manifest
from agent.values.pieces import BLOB_BYTES_MAX
from agent.values.reference import InvalidReference, Reference, parse_digest

LINE_BYTES_MAX = 64 << 20
MANIFESTS_MAX = 256
"""Of one image: an index, and a manifest for each platform with what attests it."""
MANIFESTS_BYTES_MAX = 32 << 20


class LoadedManifest(msgspec.Struct, frozen=True):
    media_type: str
    body: bytes


class LoadImage(msgspec.Struct, frozen=True, tag="load"):
    name: str
    digest: str
    """What the name means: the digest of one of the manifests."""
    manifests: dict[str, LoadedManifest]
    """By digest."""


class UnloadImage(msgspec.Struct, frozen=True, tag="unload"):
    name: str


class LoadAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the supernode answers."""

    missing: list[str] | None = None
    error: str = ""


LoadRequest = LoadImage | UnloadImage


def read_request(line: bytes) -> LoadRequest:
    """Raises RequestError for what nobody may ask."""
    try:
        asked: LoadRequest = msgspec.json.decode(line, type=LoadRequest)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise RequestError(400, "UNSUPPORTED", "the supernode does not know what it is asked; is it another version?") from None
    return asked


def manifests_of(load: LoadImage) -> dict[str, Manifest]:
    """By digest. Raises DarnerError for what is no manifest of that digest."""
    if len(load.manifests) > MANIFESTS_MAX or sum(len(item.body) for item in load.manifests.values()) > MANIFESTS_BYTES_MAX:
        raise _wrong(load, f"has more than {MANIFESTS_MAX} manifests, or they are longer than {MANIFESTS_BYTES_MAX >> 20} MiB")
    found = {digest: Manifest.of(item.media_type, item.body) for digest, item in load.manifests.items()}
    for digest, manifest in found.items():
        if manifest.digest != digest or len(manifest.body) > MANIFEST_BYTES_MAX:
            raise _wrong(load, f"has a manifest that is not {digest}, or longer than {MANIFEST_BYTES_MAX >> 20} MiB")
    return found


def blobs_of(load: LoadImage, found: Mapping[str, Manifest]) -> dict[str, int]:
    """The blobs of all platforms that are there, with their sizes in bytes. Raises DarnerError for an image that is none.

    An index may list platforms that were not loaded.
    """
    blobs: dict[str, int] = {}
    for manifest in _platforms(load.digest, found):
        if not manifest.tells_all_sizes:
            raise _wrong(load, f"has a manifest {manifest.digest} that does not say which blobs it has and how long they are")
        for blob, size in manifest.sizes().items():
            if blobs.setdefault(blob, size) != size or size > BLOB_BYTES_MAX:
                raise _wrong(load, f"names two sizes of {blob}, or one that no blob has")
    if not blobs:
        raise _wrong(load, "has no platform of which all is there")
    return blobs


def _platforms(root: str, found: Mapping[str, Manifest]) -> Iterator[Manifest]:
    """The manifests that a name leads to, without indexes."""
    reached: set[str] = set()
    todo = [root]
    while todo:
        digest = todo.pop()
        if digest in reached or digest not in found:
            continue
        reached.add(digest)
        if found[digest].is_index:
            todo += found[digest].lists()
        else:
            yield found[digest]


def reference_of(name: str) -> Reference:
    """A name in full, with a tag or a digest. Raises InvalidReference."""
    reference = Reference.parse(name)
    if str(reference) != name or not (reference.tag or reference.digest):
        raise InvalidReference(f"{name!a} is not a full name with a tag or a digest")
    return reference


def check_name_and_digest(load: LoadImage) -> Reference:
    """Raises DarnerError for a name that cannot mean that digest."""
    parse_digest(load.digest)
    reference = reference_of(load.name)
    if load.digest not in load.manifests or reference.digest not in (None, load.digest):
        raise _wrong(load, f"does not have the manifest {reference.digest or load.digest} that it names")
    return reference


def _wrong(load: LoadImage, words: str) -> DarnerError:
    return RequestError(400, "MANIFEST_INVALID", f"{ascii(load.name)[1:-1]} {words}")
