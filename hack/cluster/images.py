"""Images that need no hub: made from files of this machine, written as archives for a node or pushed to a registry.

What an image is in bytes is hack.origin.image's; this is what its layers hold, and where it goes. image.sh makes Darner's own.
"""

from __future__ import annotations

import http.client
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hack.cluster.layout import ClusterError
from hack.origin.image import Content, Image, size_of

BUSYBOX, COREDNS = "darner.test/busybox:1", "darner.test/coredns:1"
_SHELL = Path("/bin/busybox")
_APPLETS = ("sh", "sleep", "cat", "echo", "id", "ls", "true", "wget", "httpd", "nc", "nslookup", "sha256sum")
_PATH = "PATH=/bin"


def layer(files: Mapping[str, Content], links: Mapping[str, str] | None = None) -> bytes:
    """A layer's archive, which anybody may execute from. The same files give the same bytes."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = size_of(content), 0o755
            tar.addfile(entry, io.BytesIO(content if isinstance(content, bytes) else content.read_bytes()))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return archive.getvalue()


def busybox(more: Sequence[Content] = (), command: Sequence[str] = ("/bin/sleep", "2147483647")) -> Image:
    """A static busybox that sleeps, and more layers. It serves as pause image too: the kubelet's sandboxes only have to live."""
    shell = layer({"bin/busybox": _SHELL}, {f"bin/{applet}": "busybox" for applet in _APPLETS})
    return Image.of([shell, *more], {"Cmd": list(command), "Env": [_PATH]})


def coredns(program: Path) -> Image:
    return Image.of([layer({"coredns": program})], {"Entrypoint": ["/coredns"]})


def write_archive(image: Image, name: str, path: Path) -> None:
    """An OCI layout in an archive, as `ctr images import` reads it."""
    named = {
        "mediaType": image.media_type,
        "digest": image.digest,
        "size": len(image.manifest),
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]},
    }
    with tarfile.open(path, "w") as tar:

        def add(entry_name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(entry_name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))

        add("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        add("index.json", json.dumps({"schemaVersion": 2, "manifests": [named]}).encode())
        for digest, content in {image.digest: image.manifest, **image.blobs}.items():
            add(f"blobs/{digest.replace(':', '/')}", content if isinstance(content, bytes) else content.read_bytes())


def push(image: Image, registry: str, repository: str, tag: str) -> None:
    """To a registry in plain HTTP that lets everybody push. Blobs first (OCI distribution specification 1.1, "Push")."""
    connection = http.client.HTTPConnection(registry, timeout=30)

    def ask(method: str, path: str, body: Any = None, media_type: str = "application/octet-stream") -> http.client.HTTPResponse:
        connection.request(method, path, body, {"Content-Type": media_type})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status not in (201, 202):
            raise ClusterError(f"{registry} answers {answer.status} to {method} {path}: {said[:200]!r}")
        return answer

    try:
        for digest, content in image.blobs.items():
            upload = ask("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
            upload = upload.removeprefix(f"http://{registry}")
            data = content if isinstance(content, bytes) else content.read_bytes()
            ask("PUT", f"{upload}{'&' if '?' in upload else '?'}digest={digest}", data)
        ask("PUT", f"/v2/{repository}/manifests/{tag}", image.manifest, image.media_type)
    finally:
        connection.close()
