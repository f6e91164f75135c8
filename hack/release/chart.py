"""The chart as a release has it: its version, the image by digest, and what Artifact Hub shows.

    python -m hack.release.chart DIRECTORY VERSION REPOSITORY DIGEST ARCHITECTURES

copies the chart to DIRECTORY and pins it there. The tree's own chart names no image of any registry.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from hack.chart.helm import CHART, ROOT
from hack.release.changelog import changes

LICENSE = "Apache-2.0"


def pinned(values: str, repository: str, digest: str) -> str:
    """values.yaml with the image that a release installs; every other word as it was, the comments too."""
    for name, value in {"repository": repository, "digest": digest}.items():
        values, times = re.subn(rf"(?m)(?<=^image:\n)((?:(?: .*|)\n)*?  {name}:) .*$", rf'\1 "{value}"', values)
        if times != 1:
            raise ValueError(f"values.yaml has no image.{name}")
    if yaml.safe_load(values)["image"]["digest"] != digest:
        raise ValueError("values.yaml did not take the digest")
    return values


def described(chart: dict[str, Any], version: str, image: str, architectures: list[str], changelog: str) -> dict[str, Any]:
    """Chart.yaml with version and annotations (artifacthub.io/docs, "Helm annotations"). Signatures are found without."""
    platforms = [f"linux/{architecture}" for architecture in architectures]
    annotations = {
        "artifacthub.io/category": "networking",
        "artifacthub.io/changes": yaml.safe_dump(changes(changelog, version), sort_keys=False, width=1000),
        "artifacthub.io/images": yaml.safe_dump([{"name": "darner", "image": image, "platforms": platforms}], sort_keys=False),
        "artifacthub.io/license": LICENSE,
        "artifacthub.io/prerelease": str("-" in version).lower(),
    }
    return {**chart, "version": version, "appVersion": version, "annotations": {**chart.get("annotations", {}), **annotations}}


def write(directory: Path, version: str, repository: str, digest: str, architectures: list[str]) -> None:
    shutil.copytree(CHART, directory)
    values, about = directory / "values.yaml", directory / "Chart.yaml"
    values.write_text(pinned(values.read_text(), repository, digest))
    chart = described(
        yaml.safe_load(about.read_text()), version, f"{repository}@{digest}", architectures, (ROOT / "CHANGELOG.md").read_text()
    )
    about.write_text(yaml.safe_dump(chart, sort_keys=False, width=1000))


if __name__ == "__main__":
    directory, version, repository, digest, *architectures = sys.argv[1:]
    try:
        write(Path(directory), version, repository, digest, architectures)
    except (LookupError, ValueError) as error:
        sys.exit(f"release.sh: {error}")
