"""Archives of images as other programs write them: OCI layouts, and what `docker save` writes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hack.origin.image import MANIFEST, Content, Image, sha256

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONTAINERD_NAME = "io.containerd.image.name"


def content_of(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def blob_path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def layout_of(images: Mapping[str, Image]) -> dict[str, bytes]:
    """The files of an OCI layout of images of one platform, by their full names."""
    files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
    entries: list[dict[str, Any]] = []
    for name, image in images.items():
        files[blob_path(image.digest)] = image.manifest
        files |= {blob_path(digest): content_of(content) for digest, content in image.blobs.items()}
        annotations = {"annotations": {CONTAINERD_NAME: name}} if name else {}
        entries.append({"mediaType": MANIFEST, "digest": image.digest, "size": len(image.manifest), **annotations})
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    return files


def index_of(platforms: Mapping[str, Image]) -> bytes:
    """An index of images, by `os/architecture`."""
    described = [
        {
            "mediaType": MANIFEST,
            "digest": image.digest,
            "size": len(image.manifest),
            "platform": dict(zip(("os", "architecture"), platform.split("/"), strict=True)),
        }
        for platform, image in platforms.items()
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": described}).encode()


def saved_of(name: str, image: Image) -> dict[str, bytes]:
    """The files that `docker save` writes of an image with uncompressed layers, as versions before 25 do."""
    config = json.loads(image.manifest)["config"]["digest"]
    files = {f"{config[7:]}.json": content_of(image.blobs[config])}
    paths = []
    for digest in image.layers:
        paths.append(f"{sha256(digest.encode())[7:]}/layer.tar")
        files[paths[-1]] = content_of(image.blobs[digest])
    files["manifest.json"] = json.dumps([{"Config": f"{config[7:]}.json", "RepoTags": [name], "Layers": paths}]).encode()
    return files


def write_tar(path: Path, files: Mapping[str, bytes], links: Iterable[tuple[str, str]] = ()) -> Path:
    """`links` are symbolic ones: their names, and where they lead."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def write_directory(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path
