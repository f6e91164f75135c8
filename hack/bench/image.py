"""Images of random bytes, new for every pull, so that nobody has a byte of them before; and how they get into a registry."""

from __future__ import annotations

import contextlib
import http.client
import os
from urllib.parse import urlsplit

from hack.bench.standin import StandIn
from hack.lab.registry import Registry
from hack.origin.image import Content, Image, size_of


def random_image(size: int, layers: int = 1) -> Image:
    """`size` bytes in layers of the same size, and a config of a few hundred bytes."""
    return Image.of([os.urandom(size // layers) for _ in range(layers)])


def push(registry: Registry | StandIn, repository: str, tag: str, image: Image) -> None:
    """From the registry's own host, whose loopback has no rate (OCI distribution specification 1.1, "Pushing")."""
    if isinstance(registry, StandIn):
        registry.origin.push(repository, tag, image)
        return
    for digest, content in image.blobs.items():
        location = urlsplit(_ask(registry, "POST", f"/v2/{repository}/blobs/uploads/")["Location"])
        target = f"{location.path}?{location.query}{'&' if location.query else ''}digest={digest}"
        _ask(registry, "PUT", target, content, "application/octet-stream")
    _ask(registry, "PUT", f"/v2/{repository}/manifests/{tag}", image.manifest, image.media_type)


def _ask(
    registry: Registry, method: str, target: str, body: Content = b"", media_type: str = "application/octet-stream"
) -> http.client.HTTPMessage:
    connection = http.client.HTTPConnection(registry.host.address, registry.port)
    connection.sock = registry.host.connect(registry.port, registry.host.address)
    with contextlib.closing(connection):
        content = body if isinstance(body, bytes) else body.read_bytes()
        headers = {"Content-Type": media_type, "Content-Length": str(size_of(content))}
        if registry.authorization:
            headers["Authorization"] = registry.authorization
        connection.request(method, target, content, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {target}: {answer.status} {said[:200]!r}")
        return answer.headers
