"""OCI image layouts, read (OCI image specification 1.1, "Image Layout").

A name is where containerd and BuildKit write it, in full, or where the specification has it, and there it may be a tag alone. An
index may list platforms that are not in the layout.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from agent.values.manifest import Manifest, decoded
from agent.values.reference import InvalidReference, parse_digest
from cli.layout.files import BadArchive, ImageFiles
from cli.layout.images import ArchivedImage, ImageArchive, name_in, read_document

INDEX = "index.json"
LAYOUT = "oci-layout"
REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
MANIFESTS_MAX = 4096


class LayoutEntry(msgspec.Struct):
    """A descriptor of index.json."""

    digest: str = ""
    media_type: str = msgspec.field(name="mediaType", default="")
    annotations: dict[str, str] | None = None


class LayoutIndex(msgspec.Struct):
    manifests: list[LayoutEntry] | None = None


def blob_path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def read_layout(files: ImageFiles) -> ImageArchive:
    """Raises BadArchive."""
    index = decoded(read_document(files, INDEX), LayoutIndex)
    if index is None or not index.manifests:
        raise BadArchive(f"{files.name}: {INDEX} lists no image")
    if len(index.manifests) > MANIFESTS_MAX:
        raise BadArchive(f"{files.name}: {INDEX} lists more than {MANIFESTS_MAX} images")
    archive = ImageArchive(files)
    for entry in index.manifests:
        archive.images.append(_image(files, entry))
    archive.places = {digest: blob_path(digest) for image in archive.images for digest in image.blobs}
    return archive


def _image(files: ImageFiles, entry: LayoutEntry) -> ArchivedImage:
    root = _manifest(files, entry.digest, entry.media_type)
    manifests: dict[str, Manifest] = {}
    blobs: dict[str, int] = {}
    missing = ""
    for manifest in _platforms(files, root, manifests):
        if missed := [digest for digest, size in manifest.sizes().items() if files.size(blob_path(digest)) != size]:
            missing = missing or missed[0]
            del manifests[manifest.digest]
        else:
            blobs |= manifest.sizes()
    if not blobs:
        words = f"has not all of {missing}" if missing else f"lists no platform that is here in {root.digest}"
        raise BadArchive(f"{files.name} {words}; save the image again")
    return ArchivedImage(_name(files, entry), root.digest, manifests, blobs)


def _platforms(files: ImageFiles, root: Manifest, manifests: dict[str, Manifest]) -> Iterator[Manifest]:
    """The manifests below this one that are there and are no indexes. All that are there are put into `manifests`."""
    todo = [root]
    while todo:
        manifest = todo.pop()
        if manifest.digest in manifests:
            continue
        manifests[manifest.digest] = manifest
        if len(manifests) > MANIFESTS_MAX:
            raise BadArchive(f"{files.name}: {root.digest} has more than {MANIFESTS_MAX} manifests")
        if manifest.is_index:
            todo += [_manifest(files, digest) for digest in manifest.lists() if files.size(blob_path(digest)) is not None]
        else:
            yield manifest


def _manifest(files: ImageFiles, digest: str, media_type: str = "") -> Manifest:
    try:
        parse_digest(digest)
    except InvalidReference as error:
        raise BadArchive(f"{files.name}: {error}") from None
    manifest = Manifest.of(media_type, read_document(files, blob_path(digest)))
    if manifest.digest != digest:
        raise BadArchive(f"{files.name} is damaged: what it calls {digest} has another digest; copy it again")
    return manifest


def _name(files: ImageFiles, entry: LayoutEntry) -> str:
    annotations = entry.annotations or {}
    text = annotations.get(CONTAINERD_NAME) or annotations.get(REF_NAME, "")
    is_name = any(mark in text for mark in "/:@")
    return name_in(files, text) if is_name else ""
