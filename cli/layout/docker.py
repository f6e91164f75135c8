"""What `docker save` writes, read: a list of configs, names and layers, from which the manifest is made that docker never had.

The layers are uncompressed archives, whose digests are those that the config names. A tar that has an OCI layout as well, as
docker writes since version 25, is read as that (`cli.layout.archive`).
"""

from __future__ import annotations

import hashlib
import json

import msgspec

from agent.values.manifest import Manifest, decoded
from cli.layout.files import GZIP_MAGIC, BadArchive, ImageFiles, digest_of
from cli.layout.images import ArchivedImage, ImageArchive, name_in, read_document

SAVED = "manifest.json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


class SavedImage(msgspec.Struct, rename="pascal"):
    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


class _Rootfs(msgspec.Struct):
    diff_ids: list[str] | None = None


class _Config(msgspec.Struct):
    rootfs: _Rootfs | None = None


def diff_ids_of(config: bytes) -> list[str]:
    """The digests of an image's layers, uncompressed, as its config names them."""
    said = decoded(config, _Config)
    return (said.rootfs.diff_ids if said and said.rootfs else None) or []


def read_saved(files: ImageFiles) -> ImageArchive:
    """Raises BadArchive."""
    saved = decoded(read_document(files, SAVED), list[SavedImage])
    if not saved:
        raise BadArchive(f"{files.name}: {SAVED} lists no image")
    archive = ImageArchive(files)
    for item in saved:
        manifest = _manifest(archive, item)
        for name in item.repo_tags or [""]:
            full = name_in(files, name) if name else ""
            archive.images.append(ArchivedImage(full, manifest.digest, {manifest.digest: manifest}, manifest.sizes()))
    return archive


def _manifest(archive: ImageArchive, item: SavedImage) -> Manifest:
    files = archive.files
    content = read_document(files, item.config)
    diff_ids = diff_ids_of(content)
    paths = item.layers or []
    if len(diff_ids) != len(paths):
        raise BadArchive(f"{files.name}: the config {item.config!a} has {len(diff_ids)} layers, and {SAVED} {len(paths)}")
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    archive.places[digest] = item.config
    archive.proven.add(digest)
    layers = [_layer(archive, path, diff_id) for path, diff_id in zip(paths, diff_ids, strict=True)]
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": digest, "size": len(content)},
        "layers": layers,
    }
    return Manifest.of(MANIFEST_TYPE, json.dumps(document, separators=(",", ":")).encode())


def _layer(archive: ImageArchive, path: str, diff_id: str) -> dict[str, object]:
    files = archive.files
    with files.open(path) as file:
        is_compressed = file.read(2) == GZIP_MAGIC
    with files.open(path) as file:
        digest = digest_of(file)
    if digest != diff_id and not is_compressed:
        raise BadArchive(f"{files.name} is damaged: the layer {path!a} is not {ascii(diff_id)[1:-1]}; copy it again")
    archive.places[digest] = path
    archive.proven.add(digest)
    return {"mediaType": LAYER_TYPE + ("+gzip" if is_compressed else ""), "digest": digest, "size": files.size(path)}
