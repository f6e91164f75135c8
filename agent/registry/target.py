"""A request to the registry endpoint: its target and its Range, parsed once into values. Pure.

Targets are those of the OCI distribution specification 1.1, pull part. The repository's first component is the origin registry
(see agent.values.reference), or the registry is named by `?ns=`, as runtimes do for mirrors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs

from agent.values.errors import RequestError
from agent.values.reference import Digest, Reference, origin_of, parse_digest, parse_registry, parse_tag

TARGET_LENGTH_MAX = 2048
QUERY_FIELDS_MAX = 8
RANGE_LENGTH_MAX = 64
"""Three times what any blob's offsets take. A longer one is not looked at."""

_TARGET = re.compile(r"/v2/(?P<name>[a-z0-9._/-]+)/(?P<what>manifests|blobs|tags|referrers)/(?P<last>[A-Za-z0-9._:-]+)")
_LISTING_FIELD = re.compile(r"(?:n|last|artifactType)=[A-Za-z0-9._/+%-]{1,256}")
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.ASCII | re.IGNORECASE)


class RangeError(RequestError):
    """The client's fault: a range outside the blob. `size` is told with the answer (RFC 9110 section 15.5.17)."""

    def __init__(self, size: int) -> None:
        super().__init__(416, "SIZE_INVALID", f"the blob has {size} bytes")
        self.size = size


@dataclass(frozen=True)
class Ping:
    """`/v2/`: does this speak the protocol?"""


@dataclass(frozen=True)
class Resource:
    registry: str
    repository: str


@dataclass(frozen=True)
class ManifestResource(Resource):
    reference: str
    """A tag or a sha256 digest."""


@dataclass(frozen=True)
class BlobResource(Resource):
    digest: Digest


@dataclass(frozen=True)
class ListingResource(Resource):
    """Tag lists and referrers: passed through."""

    rest: str


def parse_target(target: str) -> Ping | ManifestResource | BlobResource | ListingResource:
    """Raises RequestError and InvalidReference, each with the OCI code that fits."""
    path, _, query = target.partition("?")
    if path in ("/v2/", "/v2"):
        return Ping()
    match = _TARGET.fullmatch(path) if len(target) <= TARGET_LENGTH_MAX else None
    if not match:
        raise RequestError(404, "NAME_INVALID", "not a path of the OCI distribution specification, or not a plain one")
    registry, repository = _place(match["name"], query)
    what, last = match["what"], match["last"]
    if what == "blobs":
        return BlobResource(registry, repository, parse_digest(last))
    if what == "manifests":
        return ManifestResource(registry, repository, parse_digest(last) if ":" in last else parse_tag(last))
    if what == "tags" and last != "list":
        raise RequestError(404, "NAME_INVALID", "of tags there is only their list")
    rest = "tags/list" if what == "tags" else f"referrers/{parse_digest(last)}"
    return ListingResource(registry, repository, f"{rest}?{_listing_query(query)}".rstrip("?"))


def _place(name: str, query: str) -> tuple[str, str]:
    """Registry and repository: from the name, or from `ns` when a runtime uses the agent as a mirror."""
    try:
        mirrored = parse_qs(query, max_num_fields=QUERY_FIELDS_MAX).get("ns")
    except ValueError:
        raise RequestError(400, "NAME_INVALID", "a query of more fields than any client sends") from None
    if not mirrored:
        return origin_of(name)
    if len(mirrored) > 1:
        raise RequestError(400, "NAME_INVALID", "ns names one registry")
    # Upper case makes a host of every name that has a letter, a bare one too (see agent.values.reference).
    reference = Reference.parse(f"{parse_registry(mirrored[0]).upper()}/{name}")
    if reference.registry != parse_registry(mirrored[0]):
        raise RequestError(400, "NAME_INVALID", "ns names no registry")
    return reference.registry, reference.repository


def _listing_query(query: str) -> str:
    """The fields that the specification lets a client say of a list: how many, after which, and of which type."""
    return "&".join(part for part in query.split("&") if _LISTING_FIELD.fullmatch(part))


def names_an_end(header: str | None) -> bool:
    """Whether a Range asks for bytes up to one that it names, as clients do that read a blob piece by piece when they need it.

    Runtimes that pull a blob in ranges leave the end open.
    """
    match = _RANGE.fullmatch(header or "")
    return match is not None and bool(match[2])


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the byte after the last that a Range asks for, or None for the whole (RFC 9110 section 14).

    One range of bytes is understood. Several ranges, or a malformed one, are as if not there, as the RFC allows; so is a range of
    nothing, which no 206 could express. A range that begins past the end raises RangeError.
    """
    if header is None or len(header) > RANGE_LENGTH_MAX or size == 0:
        return None
    match = _RANGE.fullmatch(header)
    if not match or not (match[1] or match[2]):
        return None
    if match[1]:
        start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    else:
        start, end = size - min(int(match[2]), size), size
    if start >= size:
        raise RangeError(size)
    return start, end
