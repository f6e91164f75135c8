"""An origin: Debian's docker-registry on a host of the lab, and what it says that it sent.

Its access log is the witness of what left the origin, answer by answer, also where the reader left before the end.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from hack.lab.image import BuiltImage
from hack.lab.network import Host

_ACCESS = re.compile(r'^(\S+) - - \[[^]]*\] "(\S+) (\S+) HTTP/[^"]*" (\d{3}) (\d+) ', re.MULTILINE)


USER, PASSWORD = "alice", "s3cret"
PASSWORD_HASH = "$2b$05$41QmHtH2rz0Z40XkqXm/vekFwHMsB/Yqqk2Y4dSy21gyuG5plCJ7e"
"""bcrypt, the one form that the registry reads; a constant because Python has no bcrypt and the password is no secret."""
PASSWORDS = f"{USER}:{PASSWORD_HASH}\n"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass(frozen=True)
class Answer:
    """One line of the access log (Apache's combined form)."""

    client: str
    method: str
    path: str
    status: int
    body_bytes: int


class Registry:
    """Plain HTTP on port 5000 of its host, everything allowed, or to alice alone. What was pushed outlives a stop."""

    port = 5000

    def __init__(self, host: Host, *, private: bool = False) -> None:
        self.host = host
        self.authorization = self.pull_secret = BASIC if private else ""
        """What a client has to say here, and what it has to say to an agent."""
        self.name = f"{host.address}:{self.port}"
        self.local_prefix = f"127.0.0.1:65001/{host.address}_{self.port}"
        """How a rewritten image name begins that means this registry."""
        self._config = host.lab.directory / f"{host.name}-registry.yml"
        settings: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(host.lab.directory / f"{host.name}-registry")}},
            "http": {"addr": f":{self.port}"},
        }
        if private:
            passwords = host.lab.directory / f"{host.name}-passwords"
            passwords.write_text(PASSWORDS)
            settings["auth"] = {"htpasswd": {"realm": "origin", "path": str(passwords)}}
        self._config.write_text(json.dumps(settings))  # a registry reads YAML, and JSON is YAML
        self.start()

    def start(self) -> None:
        self.process = self.host.start("registry", ["docker-registry", "serve", self._config])
        self.process.wait_until(self._answers)

    def stop(self) -> None:
        self.process.kill()

    def push(self, image: BuiltImage, repository: str, tag: str) -> None:
        source, target = f"oci:{image.layout}:built", f"docker://{self.name}/{repository}:{tag}"
        self.host.run(["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", source, target])

    def answers(self) -> list[Answer]:
        """Everything that it answered since it was started last."""
        return answers_in(self.process.printed())

    def blob_bytes_sent(self, repository: str) -> dict[str, int]:
        """Bytes that left the registry for each blob that anybody asked for."""
        return blob_bytes_in(self.answers(), repository)

    def _answers(self) -> bool:
        try:
            self.host.connect(self.port, self.host.address).close()
        except OSError:
            return False
        return True


def answers_in(log: str) -> list[Answer]:
    """What an access log says."""
    lines = _ACCESS.findall(log)
    return [Answer(client, method, path, int(status), int(size)) for client, method, path, status, size in lines]


def blob_bytes_in(answers: Iterable[Answer], repository: str) -> dict[str, int]:
    """Bytes of each blob of a repository that were sent."""
    sent: dict[str, int] = {}
    for answer in answers:
        found = re.fullmatch(rf"/v2/{repository}/blobs/(sha256:[0-9a-f]{{64}})", answer.path)
        if found and answer.method == "GET" and answer.status in (200, 206):
            sent[found[1]] = sent.get(found[1], 0) + answer.body_bytes
    return sent
