"""An image of more than 50 MiB in three gzip layers that really runs: the Python that runs this, out of this machine's files.

Layers: the interpreter with the libraries that it is linked to and a static shell; its standard library; programs that the lab
has anyway. The result is an OCI image layout, which skopeo pushes. The same files give the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.lab.process import LabError

IMAGE_BYTES_MIN = 50 << 20
PROOF = "the image runs"
_SHELL = Path("/bin/busybox")
_PROGRAMS = ("containerd", "ctr", "docker-registry", "skopeo", "umoci", "runc")
_LEFT_OUT = {"__pycache__", "site-packages", "dist-packages", "test", "idlelib"}
_OCI = "application/vnd.oci.image"

Descriptor = dict[str, Any]
"""Of the OCI image specification: mediaType, digest, size."""
Layer = tuple[str, Descriptor]
"""The digest of what a layer unpacks to, and its descriptor."""


@dataclass(frozen=True)
class BuiltImage:
    layout: Path
    """Directory of the OCI image layout; the image's name in it is `built`."""
    blobs: Mapping[str, int]
    """Digest and size of the config and of each layer."""
    command: tuple[str, ...]
    """Prints PROOF if it runs in the image; reads files of all three layers."""

    @property
    def size(self) -> int:
        return sum(self.blobs.values())


def build_image(layout: Path) -> BuiltImage:
    """Takes some three seconds."""
    python = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]  # outside the virtual environment
    library = Path(sysconfig.get_path("stdlib"))
    extensions = list(library.glob("lib-dynload/*.so"))
    modules = [
        found for found in library.rglob("*") if found.is_file() and not _LEFT_OUT.intersection(found.relative_to(library).parts)
    ]
    search = f"{os.environ['PATH']}:/usr/sbin"
    programs = [Path(found) for name in _PROGRAMS if (found := shutil.which(name, path=search))]
    layers = [
        {"/bin/sh": _SHELL} | _as_they_are([python, *_libraries_of([python, *extensions])]),
        _as_they_are(modules),
        _as_they_are(programs),
    ]
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    with ThreadPoolExecutor(len(layers)) as pool:  # zlib and hashlib let go of the interpreter's lock
        written = list(pool.map(lambda files: _write_layer(files, blobs), layers))
    proof = f"import json, sqlite3; [open(program, 'rb').read() for program in {list(map(str, programs))}]; print({PROOF!r})"
    image = write_image(layout, written, (str(python), "-I", "-c", proof))
    if image.size < IMAGE_BYTES_MIN:
        raise LabError(f"the files of this machine make an image of {image.size >> 20} MiB only")
    return image


def write_image(layout: Path, layers: Sequence[Layer], command: tuple[str, ...]) -> BuiltImage:
    """What makes layers that lie in a layout an image."""
    blobs = layout / "blobs/sha256"
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [unpacked for unpacked, _ in layers]},
    }
    parts = [_write_json(config, f"{_OCI}.config.v1+json", blobs), *(layer for _, layer in layers)]
    manifest_type = f"{_OCI}.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": manifest_type, "config": parts[0], "layers": parts[1:]}
    named = {**_write_json(manifest, manifest_type, blobs), "annotations": {"org.opencontainers.image.ref.name": "built"}}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return BuiltImage(layout, {part["digest"]: part["size"] for part in parts}, command)


def store_layer(packed: Path, unpacked: str, blobs: Path) -> Layer:
    """A gzip layer under the name of its digest; `unpacked` is the digest of what it unpacks to."""
    digest = _digest(packed)
    stored = packed.rename(blobs / digest.removeprefix("sha256:"))
    return unpacked, {"mediaType": f"{_OCI}.layer.v1.tar+gzip", "digest": digest, "size": stored.stat().st_size}


def _as_they_are(paths: Iterable[Path]) -> dict[str, Path]:
    """Each file in the image where it lies on this machine."""
    return {str(path): path for path in paths}


def _libraries_of(programs: list[Path]) -> set[Path]:
    """The shared libraries that these load, by the paths under which the loader finds them."""
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    return {Path(word) for word in told.split() if word.startswith("/") and not word.endswith(":")}


def _write_layer(files: Mapping[str, Path], blobs: Path) -> Layer:
    plain, packed = blobs / f"{id(files)}.tar", blobs / f"{id(files)}.gz"
    with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in sorted(files.items()):
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode = path.stat().st_size, path.stat().st_mode & 0o755
            with path.open("rb") as content:
                archive.addfile(entry, content)
    with plain.open("rb") as source, packed.open("wb") as target, gzip.GzipFile("", "wb", 1, target, mtime=0) as compressor:
        shutil.copyfileobj(source, compressor, 1 << 20)
    layer = store_layer(packed, _digest(plain), blobs)
    plain.unlink()
    return layer


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return "sha256:" + hashlib.file_digest(content, "sha256").hexdigest()


def _write_json(value: object, media_type: str, blobs: Path) -> Descriptor:
    content = json.dumps(value).encode()
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
