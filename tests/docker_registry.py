"""Debian's docker-registry as a process on loopback, which lets one user in (htpasswd)."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path

from agent.values.credential import Credential
from hack.lab.process import Process
from hack.lab.registry import PASSWORD_HASH
from hack.origin import Image
from tests.swarm import free_address


class Refused(Exception):  # noqa: N818 (what the registry does, and no fault)
    """The registry does not take what is pushed."""


@dataclass
class DockerRegistry:
    """One on loopback, for one user."""

    root: Path
    user: Credential

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.where = free_address()
        self.address = str(self.where)
        (self.root / "passwords").write_text(f"{self.user.username}:{PASSWORD_HASH}\n")
        config = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(self.root / "storage")}},
            "http": {"addr": self.address},
            "auth": {"htpasswd": {"realm": "origin", "path": str(self.root / "passwords")}},
        }
        (self.root / "config.yml").write_text(json.dumps(config))  # a registry reads YAML, and JSON is YAML
        self.process = Process("registry", ["docker-registry", "serve", str(self.root / "config.yml")], self.root)
        self.process.wait_until(self._listens)

    def _listens(self) -> bool:
        try:
            socket.create_connection(self.where, 1).close()
        except OSError:
            return False
        return True

    def put(
        self, method: str, path: str, body: bytes = b"", media_type: str = "application/octet-stream"
    ) -> http.client.HTTPMessage:
        connection = http.client.HTTPConnection(*self.where, timeout=30)
        try:
            headers = {"Authorization": self.user.header, "Content-Type": media_type}
            connection.request(method, path, body, headers)
            with connection.getresponse() as answer:
                said = answer.read()
                if answer.status not in (201, 202):
                    raise Refused(said)
                return answer.headers
        finally:
            connection.close()

    def push(self, repository: str, tag: str, image: Image) -> Image:
        for digest, content in image.blobs.items():
            place = self.put("POST", f"/v2/{repository}/blobs/uploads/")["Location"]
            assert isinstance(content, bytes)
            path = place.partition(self.address)[2] or place
            self.put("PUT", f"{path}{'&' if '?' in path else '?'}digest={digest}", content)
        self.put("PUT", f"/v2/{repository}/manifests/{tag}", image.manifest, image.media_type)
        return image
