"""Docker on a host of a lab: a dockerd of its own, with the containerd that it starts, which pulls and runs as its user asks.

It runs in its own mount and process namespace with its own /run, so that all that it started is gone when it is killed. It makes
no bridge and no packet filter: the host's network is the lab's.
"""

from __future__ import annotations

import os
from pathlib import Path

from hack.lab.network import Host
from hack.lab.process import LabError

_PULL_SECONDS_MAX = 120
_SOCKET = "unix:///run/docker.sock"


class Docker:
    def __init__(self, host: Host) -> None:
        self._host = host
        directory = host.lab.directory / f"{host.name}-docker"
        directory.mkdir()
        (directory / "daemon.json").write_text("{}")  # and nothing of this machine's own
        self._environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "DOCKER_CONFIG": str(directory)}
        daemon = ["dockerd", "--config-file", directory / "daemon.json", "--data-root", directory / "root"]
        daemon += ["--exec-root", "/run/docker", "--pidfile", "/run/docker.pid", "--host", _SOCKET]
        daemon += ["--bridge=none", "--iptables=false", "--ip6tables=false", f"--cgroup-parent=/{host.lab.name}"]
        script = 'mount -t tmpfs none /run && exec "$@"'
        isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "dockerd"]
        self.process = host.start("dockerd", [*isolated, *daemon], self._environment)
        self.process.wait_until(self._answers)

    def pull(self, image: str) -> None:
        """Fetch and unpack."""
        self._docker(["pull", "--quiet", image], _PULL_SECONDS_MAX)

    def run(self, image: str, command: tuple[str, ...]) -> str:
        """What a command prints that runs in the image."""
        return self._docker(["run", "--rm", "--network", "none", image, *command], 60)

    def _docker(self, argv: list[str], timeout_seconds: float) -> str:
        """Run in the namespaces of dockerd, whose /run has its socket."""
        child = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0]
        environment = ["env", *(f"{name}={value}" for name, value in self._environment.items())]
        inside = ["nsenter", "--target", child, "--mount", "--pid", "--", *environment]
        return self._host.run([*inside, "docker", "--host", _SOCKET, *argv], timeout_seconds)

    def _answers(self) -> bool:
        try:
            self._docker(["version"], 10)
        except (LabError, IndexError):
            return False
        return True
