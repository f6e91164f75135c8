"""What a cluster is made of, as it is noted in its directory, and how anybody reaches its hosts and its API server.

It looks and asks and runs; making and changing is `hack.cluster.cluster`'s. So another process can go on with a cluster.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.layout import CONTROL_PLANE, ORIGIN, ClusterError, Layout
from hack.cluster.network import NAMESPACES, Network
from hack.cluster.programs import DEFAULT_KUBERNETES, Programs, last_words

KUBECTL_SECONDS_MAX = 180


@dataclass(frozen=True)
class Plan:
    """What is noted."""

    kubernetes: str = DEFAULT_KUBERNETES
    nodes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name and container runtime of each."""
    bits_per_second: int = 0
    """Of the links of nodes and origin; 0: as fast as they are."""


class Access:
    """To the cluster of one number, whether it is there or not."""

    def __init__(self, number: int = 0) -> None:
        self.layout = Layout(number)
        self.network = Network(self.layout)
        self._plan = self.layout.directory / "plan.json"

    @property
    def plan(self) -> Plan:
        try:
            return Plan(**json.loads(self._plan.read_text()))
        except FileNotFoundError:
            raise ClusterError(f"there is no {self.layout.name}; `make cluster-up` makes one") from None

    @property
    def programs(self) -> Programs:
        return Programs.of(self.plan.kubernetes)

    def note(self, plan: Plan) -> None:
        self._plan.write_text(json.dumps(dataclasses.asdict(plan)))

    def command(self, host: str, argv: Sequence[object]) -> list[str]:
        """What to execute so that `argv` runs on the host, with a node's own processes, mounts and programs."""
        arguments = [str(argument) for argument in argv]
        if self.known(host) in (CONTROL_PLANE, ORIGIN):
            return ["nsenter", f"--net={NAMESPACES / self.layout.namespace(host)}", "--", *arguments]
        first = self._first_process(host)
        path = Path(f"/proc/{first}/environ").read_bytes().decode().split("PATH=")[1].split("\0")[0]
        namespaces = ["--mount", "--net", "--pid", "--uts", "--ipc"]
        return ["nsenter", "--target", str(first), *namespaces, "--", "env", f"PATH={path}", *arguments]

    def run(self, host: str, argv: Sequence[object], timeout_seconds: float = 60) -> str:
        """What a command prints that ends by itself; an error with its last words if it fails."""
        return _output(self.command(host, argv), timeout_seconds)

    def kubectl(self, *arguments: object, given: str = "", timeout_seconds: float = KUBECTL_SECONDS_MAX) -> str:
        """What kubectl prints, as the administrator."""
        return _output([*self._kubectl(), *map(str, arguments)], timeout_seconds, given)

    def answers(self, *arguments: str) -> bool:
        """Whether kubectl succeeds with this."""
        return subprocess.run([*self._kubectl(), *arguments], capture_output=True, check=False).returncode == 0

    def last_words(self) -> str:
        """The end of every log of every host."""
        nodes = [self.layout.disk(name) / "var/log" for name in self.plan.nodes]
        return "\n".join(filter(None, (last_words(logs) for logs in [self.layout.logs, *nodes])))

    def known(self, host: str) -> str:
        """The name of a host, if it is one."""
        hosts = [CONTROL_PLANE, ORIGIN, *self.plan.nodes]
        if host not in hosts:
            raise ClusterError(f"{self.layout.name} has no host {host}; it has {', '.join(hosts)}")
        return host

    def _first_process(self, node: str) -> int:
        """The process that is number 1 in the node's own process namespace, and in no further one (NSpid in proc(5))."""
        for pid in self.network.inhabitants(node):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{pid}/status").read_text()
                numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
                if len(numbers) == 2 and numbers[1] == "1":
                    return pid
        raise ClusterError(f"{node} is not running")

    def _kubectl(self) -> list[str]:
        return [str(self.programs.kubernetes / "kubectl"), "--kubeconfig", str(self.layout.kubeconfig)]


def _output(command: Sequence[str], timeout_seconds: float, given: str = "") -> str:
    try:
        done = subprocess.run(command, input=given, text=True, capture_output=True, timeout=timeout_seconds, check=False)
    except subprocess.TimeoutExpired as expired:
        raise ClusterError(f"{' '.join(command)} goes on after {timeout_seconds:g} s\n{expired.output!r}") from None
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
