"""The origin: a host with one store of images behind several registries, each with its own door.

| port | speaks | who may pull |
|---|---|---|
| 5000 | HTTP | everybody; images are pushed here |
| 5001 | HTTP | alice, with the password s3cret |
| 443 | HTTPS, as registry.test | everybody |
| 444 | HTTPS, as registry.test | alice |

Nodes know registry.test by name and trust its authority as they trust those of the world, so that a container runtime pulls from
there by itself. Each registry's access log is the witness of what left it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from hack.cluster.layout import ORIGIN, Layout
from hack.cluster.programs import start
from hack.lab import registry
from webhook.certificates.authority import AUTHORITIES_FILE, SERVING_FILE, SERVING_KEY_FILE, Lifetimes, advanced

NAME = "registry.test"
USER, PASSWORD = registry.USER, registry.PASSWORD
OPEN, PRIVATE, OPEN_TLS, PRIVATE_TLS = 5000, 5001, 443, 444
PORTS = (OPEN, PRIVATE, OPEN_TLS, PRIVATE_TLS)
_LIFE_SECONDS = 365 * 24 * 3600


class Origin:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._directory = layout.disk(ORIGIN)
        self.authority = self._directory / AUTHORITIES_FILE

    def prepare(self) -> None:
        """Certificates, passwords and configurations; the store survives everything but the cluster."""
        self._directory.mkdir()
        certificates = advanced(None, (NAME,), Lifetimes(_LIFE_SECONDS, _LIFE_SECONDS, 0), time.time())
        for name, content in certificates.items():
            (self._directory / name).write_bytes(content)
        (self._directory / "passwords").write_text(registry.PASSWORDS)
        for port in PORTS:
            self._configuration(port).write_text(json.dumps(self._settings(port)))  # JSON is YAML

    def start(self) -> None:
        for port in PORTS:
            start(self._layout, ORIGIN, f"registry-{port}", ["docker-registry", "serve", self._configuration(port)])

    def access_log(self, port: int) -> Path:
        return self._layout.logs / f"registry-{port}.log"

    def _configuration(self, port: int) -> Path:
        return self._directory / f"registry-{port}.yml"

    def _settings(self, port: int) -> dict[str, object]:
        http: dict[str, object] = {"addr": f":{port}"}
        if port in (OPEN_TLS, PRIVATE_TLS):
            certificate, key = self._directory / SERVING_FILE, self._directory / SERVING_KEY_FILE
            http["tls"] = {"certificate": str(certificate), "key": str(key)}
        settings: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(self._directory / "store")}},
            "http": http,
        }
        if port in (PRIVATE, PRIVATE_TLS):
            settings["auth"] = {"htpasswd": {"realm": "origin", "path": str(self._directory / "passwords")}}
        return settings
