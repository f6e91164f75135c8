"""The bill of materials of an image, as CycloneDX JSON: every Debian package and every Python package that is in its layers.

    python -m hack.release.sbom LAYOUT VERSION DIRECTORY

writes DIRECTORY/darner-VERSION-ARCHITECTURE.cdx.json for each image of the layout. It says what the packages in the image say
about themselves: Debian's in /var/lib/dpkg, Python's in their *.dist-info. Nothing of it depends on when or where it is written.
"""

from __future__ import annotations

import re
import sys
import tarfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.parser import HeaderParser
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from hack.release.layout import Layout

_DEBIAN = re.compile(r"var/lib/dpkg/status(\.d/[^/]+)?")
_PYTHON = re.compile(r"(.+/)?[^/]+\.dist-info/METADATA")
_REMOVED = ".wh."
"""How the name of a file begins that a layer takes away (OCI image specification 1.1, "Whiteouts")."""
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "darner.dev")


def files_about_packages(layers: Iterable[Path]) -> dict[str, str]:
    """What is left of them when all layers are on top of each other, by path."""
    found: dict[str, str] = {}
    for layer in layers:
        own: dict[str, str] = {}
        with tarfile.open(layer) as archive:
            for entry in archive:
                path = entry.name.removeprefix("./").removeprefix("/")
                directory, _, name = path.rpartition("/")
                if name.startswith(_REMOVED):
                    gone = directory if name == ".wh..wh..opq" else f"{directory}/{name.removeprefix(_REMOVED)}"
                    found = {kept: text for kept, text in found.items() if kept != gone and not kept.startswith(f"{gone}/")}
                elif entry.isfile() and (_DEBIAN.fullmatch(path) or _PYTHON.fullmatch(path)):
                    content = archive.extractfile(entry)
                    assert content is not None
                    own[path] = content.read().decode()
        found |= own
    return found


def components(files: Mapping[str, str]) -> Iterator[Component]:
    """One for each package."""
    for path, text in files.items():
        for paragraph in re.split(r"\n\n+", text.strip()) if _DEBIAN.fullmatch(path) else [text]:
            fields = HeaderParser().parsestr(paragraph)
            name, version = fields["Name" if _PYTHON.fullmatch(path) else "Package"], fields["Version"]
            if _PYTHON.fullmatch(path):
                url = PackageURL("pypi", None, re.sub(r"[-_.]+", "-", name).lower(), version)
            elif fields["Status"] in (None, "install ok installed"):
                url = PackageURL("deb", "debian", name, version, {"arch": fields["Architecture"]})
            else:
                continue
            yield Component(name=name, version=version, type=ComponentType.LIBRARY, purl=url, bom_ref=url.to_string())


def bill(layout: Layout, digest: str, version: str) -> str:
    """Of the image whose manifest has that digest."""
    layers = [layout.blob(layer["digest"]) for layer in layout.document(digest)["layers"]]
    bom = Bom(components=components(files_about_packages(layers)), serial_number=uuid.uuid5(_NAMESPACE, digest))
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest.partition(":")[2])]
    image = Component(name="darner", version=version, type=ComponentType.CONTAINER, bom_ref=digest, hashes=hashes)
    bom.metadata.component = image
    bom.register_dependency(image, bom.components)
    bom.metadata.timestamp = datetime.fromtimestamp(0, UTC)
    return JsonV1Dot6(bom).output_as_string(indent=2)


if __name__ == "__main__":
    layout, version, directory = Layout(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3])
    for architecture, digest in layout.images():
        (directory / f"darner-{version}-{architecture}.cdx.json").write_text(bill(layout, digest, version) + "\n")
