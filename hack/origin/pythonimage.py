"""A container image made from the Python installation that runs this: real files, without downloading anything.

The archives are put together once, into a cache folder outside the tree, and found again as long as the same files are there.
What is in the cache is never changed, because somebody may be serving it.
The same files always give the same bytes: sorted names, no owners, no times, nothing compressed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hack.origin.image import Image

LAYER_BYTES = 40 << 20
"""A layer is closed by the file that takes it past this."""
IMAGE_BYTES = 160 << 20
"""The image is complete with the layer that takes it past this: four or five layers."""

STALE_SECONDS = 24 * 3600
"""An image of a Python that has changed since is deleted from the cache when it is older."""

CONFIG = {"Entrypoint": ["/usr/bin/python3"], "Labels": {"org.opencontainers.image.title": "the Python that made this image"}}


def python_image(cache: Path | None = None) -> Image:
    """The image, from the cache where it is already there. Takes a few seconds the first time."""
    cache = cache or Path(os.environ.get("DARNER_CACHE") or Path.home() / ".cache" / "darner")
    files = list(real_files())
    key = hashlib.sha256(repr([(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]).encode()).hexdigest()
    folder = cache / f"python-image-{key[:16]}"
    if not folder.is_dir():
        make(files, folder)
    return Image.of(sorted(folder.glob("layer-*.tar")), CONFIG)


def make(files: list[Path], folder: Path) -> None:
    """Puts the image into its folder, whole or not at all: others may be reading, or doing the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for stale in folder.parent.glob("python-image-*"):
        if time.time() - stale.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(stale, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        write_layers(files, unfinished)
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def real_files() -> Iterator[Path]:
    """The interpreter, its standard library and its packages; no compiled caches, which come and go."""
    yield Path(sys.executable).resolve()
    for root in dict.fromkeys((sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))):
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if name not in ("__pycache__", "site-packages", "dist-packages"))
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    yield path


def write_layers(files: list[Path], folder: Path) -> None:
    """Deals the files into `layer-1.tar`, `layer-2.tar`, ... until the image is large enough."""
    remaining, total, number = iter(files), 0, 0
    while total < IMAGE_BYTES:
        number += 1
        layer = folder / f"layer-{number}.tar"
        with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as archive:
            for path in remaining:
                with path.open("rb") as file:
                    archive.addfile(plain(archive.gettarinfo(arcname=name_of(path), fileobj=file)), file)
                if archive.offset >= LAYER_BYTES:
                    break
            else:
                raise RuntimeError(f"this Python has only {total >> 20} MiB of files; the image takes {IMAGE_BYTES >> 20} MiB")
        total += layer.stat().st_size


def name_of(path: Path) -> str:
    """Where the file lies in the image: below /usr, whatever place it has here."""
    for prefix in (sys.prefix, sys.base_prefix):
        if path.is_relative_to(prefix):
            return str(Path("usr", path.relative_to(prefix)))
    return str(path).lstrip("/")


def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    info.mode &= 0o755
    return info
