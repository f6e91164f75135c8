"""Which manifests of an index are for the machines that a pod may come to.

An index names platforms as the OCI image specification 1.1 has it. Pure, but for the architecture of this machine.
"""

from __future__ import annotations

import platform
from collections.abc import Collection

import msgspec

from agent.values.manifest import Manifest, decoded
from agent.values.reference import InvalidReference, parse_digest

OWN_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
"""In the words of images. Most clusters have one architecture, which is their supernodes' too."""


class _Machine(msgspec.Struct):
    os: str | None = None
    architecture: str | None = None


class _ForMachine(msgspec.Struct):
    digest: str | None = None
    platform: _Machine | None = None


class _ForMachines(msgspec.Struct):
    manifests: list[_ForMachine] | None = None


def manifests_for(index: Manifest, architectures: Collection[str]) -> list[str]:
    """The digests of an index's manifests for Linux on one of these, each once, with all variants: no pod says which it needs."""
    found = decoded(index.body, _ForMachines) or _ForMachines()
    digests = [
        _digest(entry.digest or "")
        for entry in found.manifests or ()
        if entry.platform and entry.platform.os == "linux" and entry.platform.architecture in architectures
    ]
    return list(dict.fromkeys(filter(None, digests)))


def _digest(text: str) -> str:
    try:
        return parse_digest(text)
    except InvalidReference:
        return ""
