"""An OCI image as a registry holds it: a manifest and blobs by digest.

Owns how manifests and configs are put together (OCI image specification 1.1). A blob is bytes or a file; files are never read
into memory, so an image can be larger than the machine's. Where the bytes of the layers come from is the caller's business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

Content = bytes | Path


def sha256(content: Content) -> str:
    """The OCI digest of some content: `sha256:` and 64 hexadecimal digits."""
    if isinstance(content, bytes):
        return "sha256:" + hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def size_of(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


@dataclass(frozen=True)
class Image:
    """One image for one platform. `size` is what its blobs weigh: the config and the layers, without the manifest."""

    manifest: bytes
    blobs: Mapping[str, Content]
    media_type: str = MANIFEST

    @property
    def digest(self) -> str:
        return sha256(self.manifest)

    @property
    def size(self) -> int:
        return sum(size_of(content) for content in self.blobs.values())

    @property
    def layers(self) -> list[str]:
        """Digests of the layers, the lowest first."""
        return [layer["digest"] for layer in json.loads(self.manifest)["layers"]]

    @classmethod
    def of(cls, layers: Sequence[Content], config: Mapping[str, Any] | None = None) -> Image:
        """An image of these layers, which are taken as uncompressed archives. The same layers always make the same image."""
        described: list[dict[str, Any]] = [
            {"mediaType": LAYER, "digest": sha256(layer), "size": size_of(layer)} for layer in layers
        ]
        blobs: dict[str, Content] = {item["digest"]: layer for item, layer in zip(described, layers, strict=True)}
        configuration = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": dict(config or {}),
                "rootfs": {"type": "layers", "diff_ids": [item["digest"] for item in described]},
            }
        ).encode()
        blobs[sha256(configuration)] = configuration
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": sha256(configuration), "size": len(configuration)},
            "layers": described,
        }
        return cls(json.dumps(manifest).encode(), blobs)
