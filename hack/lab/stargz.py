"""containerd's stargz-snapshotter on a host of a lab, and images that it need not pull before they run (eStargz).

The snapshotter is the real one, as a library in a small program of ours (go/stargz): it mounts layers by FUSE and reads them from
the registry that the image's name says, in ranges.
"""

from __future__ import annotations

import gzip
import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from hack.lab.image import BuiltImage, Layer, store_layer, write_image
from hack.lab.process import LabError

SOCKET = "/run/stargz.sock"
_BUILD = Path(__file__).resolve().parent / "stargz.sh"
_BUILD_SECONDS_MAX = 900
_CONVERT_SECONDS_MAX = 120
_TABLE_OF_CONTENTS = "containerd.io/snapshot/stargz/toc.digest"


@cache
def program() -> Path:
    """Its path; it is built if this machine has not got it yet."""
    done = subprocess.run([_BUILD], text=True, capture_output=True, timeout=_BUILD_SECONDS_MAX, check=False)
    if done.returncode:
        raise LabError(f"stargz-snapshotter cannot be built\n{done.stderr}")
    return Path(done.stdout.strip()) / "stargz"


def as_estargz(image: BuiltImage, layers: int, command: tuple[str, ...], layout: Path) -> BuiltImage:
    """The first layers of an image as eStargz, in a layout of their own; `command` is one that needs no file of the others."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    files = [_blob(image, layer["digest"]) for layer in _manifest(image)["layers"][:layers]]
    return write_image(layout, [_convert(file, blobs) for file in files], command)


def _convert(layer: Path, blobs: Path) -> Layer:
    packed = blobs / f"{layer.name}.esgz"
    with packed.open("wb") as target:
        plain = gzip.decompress(layer.read_bytes())
        done = subprocess.run(
            [program(), "convert"], input=plain, stdout=target, stderr=subprocess.PIPE, timeout=_CONVERT_SECONDS_MAX, check=False
        )
    said = done.stderr.decode(errors="replace")
    if done.returncode:
        raise LabError(f"{layer.name} cannot be made eStargz\n{said}")
    unpacked, table_of_contents = said.split()
    digest, descriptor = store_layer(packed, unpacked, blobs)
    return digest, {**descriptor, "annotations": {_TABLE_OF_CONTENTS: table_of_contents}}


def _manifest(image: BuiltImage) -> dict[str, Any]:
    index = json.loads((image.layout / "index.json").read_text())
    manifest: dict[str, Any] = json.loads(_blob(image, index["manifests"][0]["digest"]).read_text())
    return manifest


def _blob(image: BuiltImage, digest: str) -> Path:
    return image.layout / "blobs/sha256" / digest.removeprefix("sha256:")
