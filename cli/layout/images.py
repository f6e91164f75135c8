"""An archive's images, whatever its form: their names, manifests and blobs, each of which is checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from agent.values.manifest import Manifest
from agent.values.reference import InvalidReference, Reference, from_local, is_local
from cli.errors import WrongUsage
from cli.layout.files import BadArchive, ImageFiles, digest_of

DOCUMENT_BYTES_MAX = 4 << 20
"""Of an index, a manifest or a config."""
DEFAULT_TAG = "latest"


@dataclass(frozen=True)
class ArchivedImage:
    """One name. Of an index, as many platforms as the archive has all of."""

    name: str
    """In full, with a tag or a digest; "" where the archive does not say."""
    digest: str
    """What the name means."""
    manifests: Mapping[str, Manifest]
    blobs: Mapping[str, int]
    """Sizes in bytes by digest."""

    @property
    def size(self) -> int:
        return sum(self.blobs.values())


@dataclass
class ImageArchive:
    files: ImageFiles
    images: list[ArchivedImage] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    """Where each blob lies, by digest."""
    proven: set[str] = field(default_factory=set)
    """Digests of the blobs that were read and found right."""

    def blob(self, digest: str) -> BinaryIO:
        return self.files.open(self.places[digest])

    def check(self, image: ArchivedImage) -> None:
        """Raises BadArchive for the first blob that does not have its digest."""
        for digest in image.blobs:
            if digest in self.proven:
                continue
            with self.blob(digest) as file:
                found = digest_of(file)
            if found != digest:
                raise BadArchive(f"{self.files.name} is damaged: what it calls {digest} has another digest; copy it again")
            self.proven.add(digest)


def read_document(files: ImageFiles, path: str) -> bytes:
    """Raises BadArchive."""
    with files.open(path) as file:
        content = file.read(DOCUMENT_BYTES_MAX + 1)
    if len(content) > DOCUMENT_BYTES_MAX:
        raise BadArchive(f"{files.name}: {path} is longer than {DOCUMENT_BYTES_MAX >> 20} MiB")
    return content


def full_name(text: str) -> str:
    """As pods mean it, with the tag that a name without one has, and what a local name stands for. Raises InvalidReference."""
    reference = Reference.parse(from_local(text) if is_local(text) else text)
    if reference.tag or reference.digest:
        return str(reference)
    return str(Reference(reference.registry, reference.repository, DEFAULT_TAG))


def name_typed(text: str) -> str:
    """The full name of an image that a person names. Raises WrongUsage."""
    try:
        return full_name(text)
    except InvalidReference as error:
        raise WrongUsage(str(error)) from None


def name_in(files: ImageFiles, text: str) -> str:
    """A name that an archive says. Raises BadArchive."""
    try:
        return full_name(text)
    except InvalidReference as error:
        raise BadArchive(f"{files.name} names an image in a way that none is: {error}") from None
