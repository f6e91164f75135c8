"""`oci://REGISTRY/REPOSITORY:TAG`: the files of an OCI artifact, by the names that ORAS gives them.

They are the layers with the annotation `org.opencontainers.image.title` (OCI image specification 1.1, "Pre-Defined Annotation
Keys"). All comes by the registry endpoint of this node's agent, as an image would, so every byte is verified.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable

from agent.values.errors import DarnerError
from agent.values.manifest import MANIFEST_BYTES_MAX
from agent.values.reference import Reference
from cli.errors import WrongUsage
from cli.get.errors import GetError, GetStatus
from cli.get.hub import is_plain_path
from cli.get.sources import Wanted
from cli.registry import repository_path

TITLE = "org.opencontainers.image.title"
ACCEPT = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, */*"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Ask = Callable[[str, dict[str, str], int], bytes]
"""A small answer: URL, headers, and how many bytes it may have."""


def files_of_artifact(url: str, ask: Ask, endpoint: str, headers: dict[str, str]) -> list[tuple[str, Wanted]]:
    """Each file's name and where it is. Raises WrongUsage, and GetError."""
    try:
        reference = Reference.parse(url.removeprefix("oci://"))
    except DarnerError as error:
        raise WrongUsage(f"{url}: {error}") from None
    place = f"http://{endpoint}{repository_path(reference)}"
    version = reference.digest or reference.tag or "latest"
    body = ask(f"{place}/manifests/{version}", {"Accept": ACCEPT, **headers}, MANIFEST_BYTES_MAX)
    if reference.digest and f"sha256:{hashlib.sha256(body).hexdigest()}" != reference.digest:
        raise GetError(GetStatus.PROBLEM, f"{url}: its manifest does not have that digest")
    try:
        manifest = json.loads(body)
        layers = [(str(layer["digest"]), layer.get("annotations") or {}) for layer in manifest.get("layers", [])]
        titled = [(str(said[TITLE]), digest) for digest, said in layers if TITLE in said]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise GetError(GetStatus.PROTOCOL, f"{url}: its manifest is none of an artifact") from None
    if not titled:
        raise GetError(GetStatus.PROBLEM, f"{url} has no files with a name ({TITLE}); it may be an image: darner pull gets those")
    found = []
    for title, digest in titled:
        if not is_plain_path(title) or not _DIGEST.fullmatch(digest):
            raise GetError(GetStatus.PROTOCOL, f"{url}: a file of it has a name that leads elsewhere, or no digest")
        found.append((title, Wanted(f"{place}/blobs/{digest}", digest, headers)))
    return found
