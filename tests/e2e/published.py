"""This tree as a release in the origin's registry: published by hack/release.sh as for the world, and verified before use.

Programs of this machine reach the registry by its name and over TLS, as nodes do.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from hack.chart.helm import CHART, ROOT, TOOL_SECONDS_MAX
from hack.cluster import Cluster, ClusterError
from hack.cluster.origin import NAME, OPEN
from hack.release.layout import INDEX

IMAGE, CHART_REPOSITORY = f"{NAME}/darner-image", f"{NAME}/darner"
RELEASE_SECONDS_MAX = 300
REQUEST_SECONDS_MAX = 30
PASSWORD = "of the tests' key, which lives as long as they run"
UNLOGGED = "--insecure-ignore-tlog=true"
"""No transparency log knows of a registry that is in no network but the cluster's."""


def cosign() -> Path:
    """Where cosign.sh has it, which builds it first if it must."""
    command = [str(ROOT / "hack" / "release" / "cosign.sh")]
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=TOOL_SECONDS_MAX, check=True)
    return Path(made.stdout.strip())


def knowing_the_origin(cluster: Cluster, command: Sequence[object]) -> list[str]:
    """What to execute so that the command runs on this machine, but knows the origin by name and trusts its authority."""
    hosts = cluster.layout.directory / "hosts"
    hosts.write_text(f"{Path('/etc/hosts').read_text()}\n{cluster.layout.origin.address} {NAME}\n")
    script = 'mount --bind "$1" /etc/hosts && shift && exec env "$@"'
    environment = [f"SSL_CERT_FILE={cluster.origin.authority}"]
    return ["unshare", "--mount", "bash", "-c", script, "bash", str(hosts), *environment, *map(str, command)]


@dataclass
class Published:
    """A release of a version that no registry has seen."""

    cluster: Cluster
    directory: Path
    """What release.sh has made."""
    version: str = field(default_factory=lambda: f"{_version()}-e2e.v{secrets.token_hex(4)}")
    image: str = ""
    """By digest."""
    chart: str = ""
    """As Helm has to be told it: oci://, by digest."""
    said: str = ""

    def publish(self) -> None:
        self.directory.mkdir(exist_ok=True)
        if not (self.directory / "cosign.key").exists():
            self.run([cosign(), "generate-key-pair", "--output-key-prefix", self.directory / "cosign"])
        done = self.release(self.version)
        if done.returncode:
            raise ClusterError(f"release.sh: {done.stdout}{done.stderr}")
        self.said = done.stdout
        (self.image,) = re.findall(rf"{re.escape(IMAGE)}@sha256:[0-9a-f]{{64}}", self.said)
        (self.chart,) = re.findall(
            rf"helm install darner (oci://{re.escape(CHART_REPOSITORY)}@sha256:[0-9a-f]{{64}})$", self.said, re.M
        )

    def release(self, version: str) -> subprocess.CompletedProcess[str]:
        """release.sh with that version and this registry."""
        options = ["--push", "--no-transparency-log", "--output", self.directory / "release"]
        environment = {"COSIGN_PRIVATE_KEY": (self.directory / "cosign.key").read_text()}
        return self._run([ROOT / "hack" / "release.sh", version, NAME, *options], environment)

    @property
    def package(self) -> Path:
        """The chart's archive, beside all else that was made."""
        return self.directory / "release" / f"darner-{self.version}.tgz"

    def verify(self, reference: str, key: Path | None = None) -> subprocess.CompletedProcess[str]:
        """`cosign verify` as docs/releasing.md has it."""
        return self._run([*self.verifying("verify", key), reference])

    def verifying(self, verb: str, key: Path | None = None) -> list[object]:
        """The beginning of a command of cosign's."""
        return [cosign(), verb, "--key", key or self.directory / "cosign.pub", UNLOGGED]

    def tags(self, repository: str) -> list[str]:
        found: list[str] = json.loads(self.run(["skopeo", "list-tags", f"docker://{NAME}/{repository}"]))["Tags"]
        return found

    def put(self, path: str, index: bytes) -> str:
        """An index into the registry as somebody may who writes to it; its digest."""
        address = f"{self.cluster.layout.origin.address}:{OPEN}"
        request = urllib.request.Request(f"http://{address}/v2/{path}", index, {"Content-Type": INDEX}, method="PUT")
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS_MAX) as answer:
            return str(answer.headers["Docker-Content-Digest"])

    def run(self, command: Sequence[object]) -> str:
        """What a command prints that knows the registry; an error with its last words if it fails."""
        done = self._run(command)
        if done.returncode:
            raise ClusterError(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
        return done.stdout

    def _run(self, command: Sequence[object], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            knowing_the_origin(self.cluster, command),
            env={**os.environ, "COSIGN_PASSWORD": PASSWORD, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=RELEASE_SECONDS_MAX,
            check=False,
        )


def verified(published: Published) -> Published:
    """Image and chart are signed with the key that was published with them."""
    for reference in (published.image, published.chart.removeprefix("oci://")):
        done = published.verify(reference)
        if done.returncode:
            raise ClusterError(f"cosign verify {reference}: {done.stderr}")
    return published


def _version() -> str:
    return str(yaml.safe_load((CHART / "Chart.yaml").read_text())["version"])
