"""podman on a host of a lab: the library of CRI-O (containers/image), and so its way to registries and its configuration.

It runs no daemon. Each command has a mount namespace of its own, in which /etc/containers is a directory of the lab. It pulls and
unpacks; to run a container takes capabilities that not every machine gives.
"""

from __future__ import annotations

from hack.lab.network import Host

_PULL_SECONDS_MAX = 120
_ANY_SIGNATURE = '{"default": [{"type": "insecureAcceptAnything"}]}'


class Podman:
    def __init__(self, host: Host) -> None:
        self._host = host
        directory = host.lab.directory / f"{host.name}-podman"
        self.config = directory / "containers"
        """What is /etc/containers to it."""
        (self.config / "registries.conf.d").mkdir(parents=True)
        (self.config / "policy.json").write_text(_ANY_SIGNATURE)
        storage = ["--root", directory / "storage", "--runroot", directory / "run", "--storage-driver", "vfs"]
        self._podman = ["podman", *storage, "--cgroup-manager", "cgroupfs", "--events-backend", "none"]

    def pull(self, image: str) -> None:
        """Fetch and unpack."""
        self._run(["pull", "--quiet", image], _PULL_SECONDS_MAX)

    def remove(self, image: str) -> None:
        self._run(["rmi", "--force", image], 30)

    def _run(self, argv: list[str], timeout_seconds: float) -> str:
        script = 'mount --bind "$0" /etc/containers && exec "$@"'
        isolated = ["unshare", "--mount", "sh", "-c", script, self.config]
        return self._host.run([*isolated, *self._podman, *argv], timeout_seconds)
