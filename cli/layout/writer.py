"""OCI image layouts, written. A blob is checked against its digest and its size on the way: what is wrong is not there.

An image's name is written in full, where containerd, BuildKit and docker look for it, and where skopeo and podman do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from agent.values.manifest import Manifest
from cli.errors import CommandError
from cli.layout.files import digest_of
from cli.layout.images import DOCUMENT_BYTES_MAX
from cli.layout.oci import CONTAINERD_NAME, INDEX, LAYOUT, REF_NAME, blob_path
from cli.layout.sinks import Sink

CHUNK_BYTES = 1 << 18
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
VERSION = b'{"imageLayoutVersion":"1.0.0"}'


class LayoutWriter:
    def __init__(self, sink: Sink) -> None:
        """Goes on with a layout that is there already. Raises CommandError for one that cannot be read."""
        self._sink = sink
        self._written: set[str] = set()
        self._entries = _entries_in(sink)

    def has(self, digest: str) -> bool:
        """Whether the blob is in the layout, and right."""
        if digest in self._written:
            return True
        if (file := self._sink.open(blob_path(digest))) is None:
            return False
        with file:
            is_right = digest_of(file) == digest
        self._written |= {digest} if is_right else set()
        return is_right

    def put(self, digest: str, size: int, source: BinaryIO, whose: str) -> None:
        """A blob of so many bytes. Raises CommandError, about `whose` blob it is, unless that is what `source` gives."""
        self._sink.put(blob_path(digest), size, checked(source, digest, size, whose))
        self._written.add(digest)

    def put_manifest(self, manifest: Manifest) -> None:
        if not self.has(manifest.digest):
            self._sink.put(blob_path(manifest.digest), len(manifest.body), [manifest.body])
            self._written.add(manifest.digest)

    def name(self, name: str, manifest: Manifest) -> None:
        """What a name means, in place of what it meant before."""
        self._entries = [entry for entry in self._entries if name not in _names_of(entry)]
        annotations = {CONTAINERD_NAME: name, REF_NAME: name}
        described = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.body)}
        self._entries.append({**described, "annotations": annotations})

    def finish(self) -> None:
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": self._entries}).encode()
        for path, content in ((LAYOUT, VERSION), (INDEX, index)):
            self._sink.put(path, len(content), [content])
        self._sink.finish()


def checked(source: BinaryIO, digest: str, size: int, whose: str) -> Iterator[bytes]:
    """All of a blob in chunks. Raises CommandError at its end where it is not the blob."""
    hasher = hashlib.sha256()
    left = size
    while left and (chunk := source.read(min(left, CHUNK_BYTES))):
        hasher.update(chunk)
        left -= len(chunk)
        yield chunk
    if left or source.read(1) or f"sha256:{hasher.hexdigest()}" != digest:
        raise CommandError(f"what came is not {digest} of {whose}, or not all of it; try again")


def _names_of(entry: dict[str, Any]) -> list[object]:
    """As other programs write them: BuildKit has the tag alone where this one has the name as well."""
    annotations = entry.get("annotations")
    return [annotations.get(CONTAINERD_NAME), annotations.get(REF_NAME)] if isinstance(annotations, dict) else []


def _entries_in(sink: Sink) -> list[dict[str, Any]]:
    """The descriptors of the layout that is there, as they are."""
    if (file := sink.open(INDEX)) is None:
        return []
    with file:
        try:
            entries = json.loads(file.read(DOCUMENT_BYTES_MAX))["manifests"]
            return [entry for entry in entries if isinstance(entry, dict)]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise CommandError(f"{sink.name} has an {INDEX} that cannot be read; name another directory") from None
