"""Images that an operator has loaded: named here, whatever a registry says of the name, with their blobs pinned in the store.

    DIR/loaded/HEX       a name, what it means and all manifests, named by the hash of the name

Everybody in the cluster may have them (docs/decisions/0034). A file is written when the whole image is in the store. Of a blob
that was damaged since then nothing is said here, so that a registry is asked for it as for any other.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agent.storage.disk import remove
from agent.storage.store import Store
from agent.values.errors import DarnerError, RequestError, StoreError
from agent.values.manifest import Manifest
from supernode.loaded.conversation import LoadImage, blobs_of, check_name_and_digest, manifests_of

log = logging.getLogger(__name__)

IMAGES_MAX = 2000
MANIFESTS_BYTES_MAX = 128 << 20
"""Of all images: they are in memory."""
DIRECTORY = "loaded"

Repository = tuple[str, str]
"""Registry, and repository in it."""


class LoadedImage:
    """One name, and all that belongs to it. Raises DarnerError for what is no image."""

    def __init__(self, load: LoadImage) -> None:
        self.load = load
        self.reference = check_name_and_digest(load)
        self.manifests = manifests_of(load)
        self.blobs = blobs_of(load, self.manifests)
        """Sizes in bytes by digest."""

    @property
    def repository(self) -> Repository:
        return self.reference.registry, self.reference.repository

    @property
    def manifest_bytes(self) -> int:
        return sum(len(manifest.body) for manifest in self.manifests.values())

    def manifest(self, reference: str) -> Manifest | None:
        """That of a tag or a digest, if it is one of this image's."""
        return self.manifests.get(self.load.digest if reference == self.reference.tag else reference)


class LoadedImages:
    """Any thread may ask; one at a time changes what there is."""

    def __init__(self, root: Path, store: Store) -> None:
        """`root` is the store's own directory."""
        self._directory = root / DIRECTORY
        self._store = store
        self._lock = threading.Lock()
        self._images: dict[str, LoadedImage] = {}
        """By name."""
        self._by_repository: dict[Repository, list[LoadedImage]] = {}
        """This and the other are made anew by each change, so that whoever goes through one is not disturbed."""
        try:
            self._directory.mkdir(exist_ok=True)
            kept = sorted(self._directory.iterdir())
        except OSError as error:  # a supernode goes on without it
            log.warning("no loaded image is taken up again: %s", error)
            kept = []
        for path in kept:
            self._take_up(path)

    def _put(self, name: str, image: LoadedImage | None) -> LoadedImage | None:
        """A name means this now, or nothing: the image that it meant before."""
        with self._lock:
            earlier = self._images.get(name)
            others = {other: item for other, item in self._images.items() if other != name}
            self._images = {**others, name: image} if image else others
            by_repository: dict[Repository, list[LoadedImage]] = {}
            for item in self._images.values():
                by_repository.setdefault(item.repository, []).append(item)
            self._by_repository = by_repository
        return earlier

    def _take_up(self, path: Path) -> None:
        """An image that an earlier process has loaded. A file that a crash or a bad disk has left is no image.

        One that cannot be read or pinned now is left for the next start, which may have a larger quota.
        """
        try:
            image = LoadedImage(msgspec.msgpack.decode(path.read_bytes(), type=LoadImage))
            if path != self._path(image.load.name):
                raise RequestError(400, "NAME_INVALID", f"{path.name} is not the file of {image.load.name}")
            self._store.pin(image.blobs)
        except (OSError, StoreError) as error:
            log.warning("a loaded image is not taken up by this start: %s", error)
            return
        except (msgspec.MsgspecError, UnicodeDecodeError, DarnerError) as error:
            log.warning("a loaded image is not taken up again; load it anew: %s", error)
            remove(path)
            return
        self._put(image.load.name, image)

    def manifest(self, registry: str, repository: str, reference: str) -> Manifest | None:
        """What a name means that was loaded."""
        for image in self._by_repository.get((registry, repository), ()):
            if manifest := image.manifest(reference):
                return manifest
        return None

    def blob_size(self, registry: str, repository: str, digest: str) -> int | None:
        """Bytes of a blob of an image that was loaded from that repository, if the blob is here."""
        if any(digest in image.blobs for image in self._by_repository.get((registry, repository), ())):
            return self._store.size_of(digest)
        return None

    def missing(self, image: LoadedImage) -> dict[str, int]:
        """The blobs that are not in the store, with their sizes."""
        return {digest: size for digest, size in image.blobs.items() if self._store.size_of(digest) != size}

    def load(self, image: LoadedImage, receive: Callable[[LoadedImage], None]) -> None:
        """Pin what is here, have `receive` bring the rest, and name the image. If it raises DarnerError, no name has changed."""
        self._check_limits(image)
        self._store.pin(image.blobs)
        try:
            receive(image)
            if missing := self.missing(image):
                raise StoreError(f"the store has no room for {len(missing)} blobs of {image.load.name}; unload others")
            self._write(image)
        except BaseException:
            self._store.unpin(image.blobs)
            raise
        if earlier := self._put(image.load.name, image):
            self._store.unpin(earlier.blobs)
        log.info("%s is loaded: %d blobs", image.load.name, len(image.blobs))

    def _check_limits(self, image: LoadedImage) -> None:
        others = [other for name, other in self._images.items() if name != image.load.name]
        manifest_bytes = image.manifest_bytes + sum(other.manifest_bytes for other in others)
        if len(others) >= IMAGES_MAX or manifest_bytes > MANIFESTS_BYTES_MAX:
            limits = f"{IMAGES_MAX} images, and {MANIFESTS_BYTES_MAX >> 20} MiB of manifests"
            raise StoreError(f"no more than {limits} can be loaded; unload others")

    def _write(self, image: LoadedImage) -> None:
        path = self._path(image.load.name)
        beside = path.with_suffix(".new")
        try:
            beside.write_bytes(msgspec.msgpack.encode(image.load))
            os.replace(beside, path)
        except OSError as error:
            remove(beside)
            raise StoreError(f"the name of {image.load.name} cannot be written to the store: {error.strerror}") from None

    def unload(self, name: str) -> bool:
        """Whether the name was loaded. Its blobs are a cache's like others from now on."""
        path = self._path(name)
        is_kept = path.exists()
        remove(path)
        if (image := self._put(name, None)) is None:
            return is_kept
        self._store.unpin(image.blobs)
        log.info("%s is unloaded", name)
        return True

    def described(self) -> list[dict[str, Any]]:
        """For people and programs, by name."""
        return [
            {
                "name": name,
                "digest": image.load.digest,
                "bytes": sum(image.blobs.values()),
                "blobsMissing": len(self.missing(image)),
            }
            for name, image in sorted(self._images.items())
        ]

    def _path(self, name: str) -> Path:
        return self._directory / hashlib.sha256(name.encode()).hexdigest()
