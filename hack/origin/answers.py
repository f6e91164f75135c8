"""What an origin answers, before anything goes wrong: repositories, tags, manifests and blobs, by path.

Pure: a path and headers in, an answer out. The paths are those of the OCI distribution specification 1.1, section "Endpoints";
sending the answer, and breaking it, is the server's business.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from email.message import Message
from urllib.parse import urlsplit

from hack.origin.access import Access
from hack.origin.image import Content, Image, size_of

PATH = re.compile(r"/v2/(?P<repository>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<reference>[^/]+)")


@dataclass
class Answer:
    """A status, headers, and the part of some content that is the body: bytes from `start` up to `end`."""

    status: int
    content: Content = b""
    headers: dict[str, str] = field(default_factory=dict)
    start: int = 0
    end: int = -1
    is_blob: bool = False

    def __post_init__(self) -> None:
        if self.end < 0:
            self.end = size_of(self.content)
        self.headers.setdefault("Content-Length", str(self.end - self.start))


def refusal(status: int, code: str, message: str, **headers: str) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status, body, {"Content-Type": "application/json", **headers})


def document(value: object, media_type: str = "application/json") -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": media_type})


class Repositories:
    """Everything that an origin holds. A tag can be moved by pushing again; digests stay."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._images: dict[str, dict[str, Image]] = {}
        self._tags: dict[str, dict[str, str]] = {}

    def push(self, repository: str, tag: str, image: Image) -> Image:
        self._images.setdefault(repository, {})[image.digest] = image
        self._tags.setdefault(repository, {})[tag] = image.digest
        return image

    def answer(self, target: str, headers: Message, address: str, etag: str = "") -> Answer:
        """`etag` is a blob's, if it is not made of its digest."""
        url = urlsplit(target)
        if url.path == "/token":
            token = self.access.token(url.query, headers.get("Authorization"))
            if token is None:
                return refusal(401, "UNAUTHORIZED", "wrong user or password")
            return document({"token": token, "expires_in": self.access.token_seconds})
        if url.path == "/v2/":
            return document({})
        match = PATH.fullmatch(url.path)
        if not match:
            return refusal(404, "UNSUPPORTED", f"no such endpoint: {url.path}")
        repository, kind, reference = match["repository"], match["kind"], match["reference"]
        if not self.access.allows(repository, headers.get("Authorization")):
            challenge = self.access.challenge(address, repository)
            return refusal(401, "UNAUTHORIZED", f"{repository} is not for everybody", **{"WWW-Authenticate": challenge})
        if repository not in self._images:
            return refusal(404, "NAME_UNKNOWN", f"repository {repository} is not known")
        if kind == "tags":
            return document({"name": repository, "tags": sorted(self._tags[repository])})
        if kind == "referrers":
            index = "application/vnd.oci.image.index.v1+json"
            return document({"schemaVersion": 2, "mediaType": index, "manifests": []}, index)
        if kind == "manifests":
            return self._manifest(repository, reference, headers)
        return self._blob(repository, reference, headers, etag or f'"{reference}"')

    def _manifest(self, repository: str, reference: str, headers: Message) -> Answer:
        image = self._images[repository].get(self._tags[repository].get(reference, reference))
        if image is None:
            return refusal(404, "MANIFEST_UNKNOWN", f"{repository} has no manifest {reference}")
        found = {"Content-Type": image.media_type, "Docker-Content-Digest": image.digest, "ETag": f'"{image.digest}"'}
        if image.digest in headers.get("If-None-Match", ""):
            return Answer(304, b"", found)
        return Answer(200, image.manifest, found)

    def _blob(self, repository: str, digest: str, headers: Message, etag: str) -> Answer:
        held = (image.blobs[digest] for image in self._images[repository].values() if digest in image.blobs)
        content = next(held, None)
        if content is None:
            return refusal(404, "BLOB_UNKNOWN", f"{repository} has no blob {digest}")
        size = size_of(content)
        found = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "ETag": etag,
            "Accept-Ranges": "bytes",
        }
        wanted = _range(headers, size, etag)
        if wanted is None:
            return Answer(200, content, found, is_blob=True)
        start, end = wanted
        if start >= end:
            return refusal(416, "UNSUPPORTED", "range not satisfiable", **{"Content-Range": f"bytes */{size}"})
        found["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        return Answer(206, content, found, start, end, is_blob=True)


def _range(headers: Message, size: int, etag: str) -> tuple[int, int] | None:
    """The single range that is asked for, as start and end; None for the whole (RFC 9110, 14.2: others may be ignored)."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("Range", ""))
    if not match or match[0] == "bytes=-" or headers.get("If-Range", etag) != etag:
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    return int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
