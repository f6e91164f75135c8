"""The version before this one, as its users have it: its chart, and an image with its code.

Both lie in `data`. The image is this tree's with one layer on top, which puts the earlier packages in the place of the present
ones. So nothing has to be built, and no history of the repository has to be there. The scheduler is not compiled in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VERSION = "0.1.0"
DATA = Path(__file__).parent / "data"
IMAGE = f"darner.dev/darner:{VERSION}"
CHART = DATA / f"darner-{VERSION}.tgz"
CODE = DATA / f"darner-{VERSION}.tar.xz"
OPAQUE = ".wh..wh..opq"
"""A file of this name hides all that lower layers have in its directory (OCI image specification, layer.md)."""
PACKAGE = re.compile(r"(.*/site-packages)/agent/__init__\.py")


def values(present: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a release of this version, as that version's chart knows them. It names the image by itself."""
    agent = {name: value for name, value in present["agent"].items() if name != "socket"}
    return {name: value for name, value in present.items() if name not in ("image", "files")} | {"agent": agent}


def image(present: Path, folder: Path) -> Path:
    """An archive for `docker load` and `ctr images import`, of the present one and the earlier code."""
    with tarfile.open(present) as archive:
        files = {member.name: archive.extractfile(member) for member in archive.getmembers() if member.isfile()}
        contents = {name: file.read() for name, file in files.items() if file}
    (manifest,) = json.loads(contents["manifest.json"])
    layer = _layer(next(filter(None, (_packages(contents[name]) for name in manifest["Layers"]))))
    digest = hashlib.sha256(layer).hexdigest()
    configuration: dict[str, Any] = json.loads(contents[manifest["Config"]])
    configuration["rootfs"]["diff_ids"].append(f"sha256:{digest}")
    configuration["history"].append({"created_by": f"the packages of {VERSION}"})
    written = json.dumps(configuration).encode()
    name = f"{hashlib.sha256(written).hexdigest()}.json"
    about = {"Config": name, "RepoTags": [IMAGE], "Layers": [*manifest["Layers"], f"{digest}.tar"]}
    parts = {layer_name: contents[layer_name] for layer_name in manifest["Layers"]}
    parts |= {f"{digest}.tar": layer, name: written, "manifest.json": json.dumps([about]).encode()}
    # Named by what is in it: a cluster that has an archive of this name takes it for this one.
    path = folder / f"darner-{VERSION}-{name[:12]}.tar"
    with tarfile.open(path, "w") as archive:
        for part, content in parts.items():
            _add(archive, part, content)
    return path


def _packages(layer: bytes) -> str:
    """Where a layer has Darner's packages; nothing if it has none."""
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        found = (PACKAGE.fullmatch(name) for name in archive.getnames())
        return next((match[1] for match in found if match), "")


def _layer(place: str) -> bytes:
    layer = io.BytesIO()
    with tarfile.open(CODE) as code, tarfile.open(fileobj=layer, mode="w") as archive:
        for member in code.getmembers():
            name = f"{place}/{member.name}"
            if member.isdir():
                directory = tarfile.TarInfo(name)
                directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(directory)
                if "/" not in member.name:
                    _add(archive, f"{name}/{OPAQUE}", b"")
            elif file := code.extractfile(member):
                _add(archive, name, file.read())
    return layer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))
