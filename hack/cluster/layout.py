"""What the parts of a cluster are called, and where they are: names, addresses and directories. It makes none of them.

Clusters differ by their number, from which all of it follows, so any number of them can run on one machine.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

CLUSTERS_MAX = 200
NODES_MAX = 20
CONTROL_PLANE, ORIGIN = "control-plane", "origin"

SERVICE_NETWORK, POD_NETWORK, DNS_ADDRESS = "10.96.0.0/16", "10.244.0.0/16", "10.96.0.10"
"""The same in every cluster: the machine itself has no route to them."""


class ClusterError(Exception):
    """Something that a cluster was asked for and could not do; what failed said why."""


@dataclass(frozen=True)
class Host:
    name: str
    address: str
    pods: str = ""
    """The network of a node's pods; empty for what is not a node."""


@dataclass(frozen=True)
class Layout:
    number: int

    def __post_init__(self) -> None:
        if not 0 <= self.number < CLUSTERS_MAX:
            raise ClusterError(f"clusters have the numbers 0 to {CLUSTERS_MAX - 1}, not {self.number}")

    @property
    def name(self) -> str:
        return f"darner-cluster-{self.number}"

    @property
    def directory(self) -> Path:
        """Everything that is written while the cluster runs, the disks of its nodes included."""
        return Path(tempfile.gettempdir(), self.name)

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def gateway(self) -> str:
        return self._address(1)

    @property
    def machine_address(self) -> str:
        """Under which this machine is in the cluster's network."""
        return self._address(254)

    @property
    def control_plane(self) -> Host:
        return Host(CONTROL_PLANE, self._address(2))

    @property
    def origin(self) -> Host:
        return Host(ORIGIN, self._address(3))

    def node(self, name: str) -> Host:
        """n0, n1, ..."""
        number = int(name.removeprefix("n")) if name.removeprefix("n").isdecimal() else NODES_MAX
        if number >= NODES_MAX:
            raise ClusterError(f"nodes are called n0 to n{NODES_MAX - 1}, not {name}")
        return Host(name, self._address(10 + number), f"10.244.{number}.0/24")

    def host(self, name: str) -> Host:
        fixed = {host.name: host for host in (self.control_plane, self.origin)}
        return fixed[name] if name in fixed else self.node(name)

    def namespace(self, host: str) -> str:
        return f"{self.name}-{host}"

    def disk(self, host: str) -> Path:
        """The directory of one host: the disk of a node, what the origin holds."""
        return self.directory / host

    def _address(self, last: int) -> str:
        return f"10.89.{self.number}.{last}"
