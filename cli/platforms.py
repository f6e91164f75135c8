"""For which machines an image is: platforms as OCI indexes and people write them. Pure, but for this machine's own."""

from __future__ import annotations

import platform as machine
from collections.abc import Collection

import msgspec

from agent.values.manifest import Manifest, decoded
from cli.errors import CommandError, WrongUsage

ALL = "all"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""Linux's words, and those of Go, which OCI has (image specification 1.1, "Image Index")."""


class Platform(msgspec.Struct, frozen=True, order=True):
    os: str = ""
    architecture: str = ""
    variant: str = ""
    """"" means any."""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def fits(self, other: Platform) -> bool:
        """Whether the other one is meant by this one, which a person has said."""
        return (self.os, self.architecture) == (other.os, other.architecture) and self.variant in ("", other.variant)


class _Entry(msgspec.Struct):
    digest: str = ""
    platform: Platform | None = None


class _Index(msgspec.Struct):
    manifests: list[_Entry] | None = None


def platform_of(text: str) -> Platform:
    """`linux/arm64`, `linux/arm/v7`. Raises WrongUsage."""
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise WrongUsage(f"--platform {text!a} is no platform; write OS/ARCHITECTURE, such as linux/arm64, or {ALL}")
    return Platform(*parts)


def of_this_machine() -> Platform:
    return Platform("linux", ARCHITECTURES.get(machine.machine(), machine.machine()))


def chosen(index: Manifest, wanted: Collection[Platform] | None) -> list[str]:
    """The digests of an index's manifests that are for one of these platforms; all of them for None. Raises CommandError."""
    found = decoded(index.body, _Index)
    entries = (found.manifests if found else None) or []
    digests = [
        entry.digest
        for entry in entries
        if entry.digest and (wanted is None or (entry.platform and any(item.fits(entry.platform) for item in wanted)))
    ]
    if not digests:
        there = ", ".join(sorted({str(entry.platform) for entry in entries if entry.platform and entry.platform.os != "unknown"}))
        asked = " or ".join(map(str, sorted(wanted or ())))
        raise CommandError(f"the image is not for {asked}; it is for {there or 'nothing that is known'}")
    return digests
