"""What is in the image that these tests install: the scheduler as machine code, and nothing of what made it."""

from __future__ import annotations

import json
import tarfile
import tomllib
from pathlib import Path, PurePath

from hack.cluster.programs import HERE

COMPILED = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["tool"]["darner"]["compiled"]
COMPILERS = {"as", "c++", "cc", "cc1", "g++", "gcc", "ld", "mypy", "mypyc", "pip", "pip3"}


def files_of(archive: Path) -> list[PurePath]:
    """Of all layers of an image as `docker save` writes it."""
    with tarfile.open(archive) as image:
        manifest = image.extractfile("manifest.json")
        assert manifest
        found: list[PurePath] = []
        for name in json.load(manifest)[0]["Layers"]:
            with tarfile.open(fileobj=image.extractfile(name)) as layer:
                found += [PurePath(member.name) for member in layer if not member.isdir()]
        return found


def test_the_image_has_the_compiled_scheduler_and_no_compiler(image_archive: Path) -> None:
    files = files_of(image_archive)
    packages = {path.parent for path in files if path.match("site-packages/darner__mypyc.*.so")}
    assert len(packages) == 1
    for name in COMPILED:
        module = packages.copy().pop() / name.replace(".", "/")
        assert module.with_suffix(".py") in files
        assert [path for path in files if path.parent == module.parent and path.match(f"{module.name}.cpython-*.so")]
    tools = [path for path in files if path.name in COMPILERS or path.match("*-gcc*") or path.is_relative_to("usr/include")]
    assert tools == []
    installed = {path.parent.name for path in files if path.name == "METADATA"}
    assert [name for name in installed if name.startswith(("mypy", "setuptools", "pip", "librt"))] == []
