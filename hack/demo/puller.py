"""Pulls an image as a container runtime does: the manifest by tag, then config and layers, three at once; keeps no byte.

Every digest is checked here, against what the manifest says, so that nothing that an agent claims has to be believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from agent.values.reference import Reference

LAYERS_AT_ONCE = 3
"""What containerd does by default."""
TIMEOUT_SECONDS = 30
BUFFER_BYTES = 1 << 20
ACCEPT = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"

Progress = Callable[[int], None]


class PullError(Exception):
    """The pull did not bring the whole right image: one line that says which part, and why."""


@dataclass(frozen=True)
class Pulled:
    digest: str
    blobs: tuple[str, ...]
    size: int
    seconds: float


def pull(host: str, image: Reference, progress: Progress) -> Pulled:
    """Pulls `image` from the agent at `host`; `progress` hears of every stretch of bytes. Raises PullError."""
    began = time.monotonic()
    path = f"/v2/{image.repository}"
    manifest, digest = fetch_manifest(host, f"{path}/manifests/{image.tag}")
    parts: list[dict[str, Any]] = [manifest["config"], *manifest["layers"]]
    with ThreadPoolExecutor(LAYERS_AT_ONCE) as pool:
        list(pool.map(lambda part: fetch_blob(host, f"{path}/blobs/{part['digest']}", part, progress), parts))
    blobs = tuple(part["digest"] for part in parts)
    return Pulled(digest, blobs, sum(part["size"] for part in parts), time.monotonic() - began)


def fetch_manifest(host: str, path: str) -> tuple[dict[str, Any], str]:
    with get(host, path, Accept=ACCEPT) as response:
        body = response.read()
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    if response.headers["Docker-Content-Digest"] != digest:
        raise PullError(f"the manifest is said to be {response.headers['Docker-Content-Digest']} and is {digest}")
    return json.loads(body), digest


def fetch_blob(host: str, path: str, part: dict[str, Any], progress: Progress) -> None:
    hasher, received, buffer = hashlib.sha256(), 0, memoryview(bytearray(BUFFER_BYTES))
    with get(host, path) as response:
        try:
            while count := response.readinto(buffer):
                hasher.update(buffer[:count])
                received += count
                progress(count)
        except (OSError, http.client.HTTPException) as error:
            raise PullError(
                f"blob {part['digest']} broke off after {received} of {part['size']} bytes: {reason(error)}"
            ) from None
    if received != part["size"]:
        raise PullError(f"blob {part['digest']} ended after {received} of {part['size']} bytes")
    if part["digest"] != f"sha256:{hasher.hexdigest()}":
        raise PullError(f"blob {part['digest']} came with the digest sha256:{hasher.hexdigest()}")


@contextlib.contextmanager
def get(host: str, path: str, **headers: str) -> Iterator[http.client.HTTPResponse]:
    """A successful answer, its body still to be read."""
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT_SECONDS)
    try:
        try:
            connection.request("GET", path, headers={"Connection": "close", **headers})
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise PullError(f"GET {path}: {reason(error)}") from None
        with response:
            if response.status != 200:
                raise PullError(f"GET {path}: {response.status} {complaint(response.read())}")
            yield response
    finally:
        connection.close()


def complaint(body: bytes) -> str:
    """What an error in OCI form says, or the body as it is."""
    try:
        return str(json.loads(body)["errors"][0]["message"])
    except (ValueError, LookupError, TypeError):
        return body[:200].decode(errors="replace")


def reason(error: Exception) -> str:
    return str(error) or type(error).__name__
