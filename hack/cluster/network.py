"""The network of a cluster: a switch in a network namespace, hosts in theirs, and one link from this machine to the switch.

By that link this machine is a host like the others and reaches them by their addresses, while two clusters do not meet. A host's
network is made anew whenever the host is started, as a machine's would be. Nodes know each other's pods by plain routes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from hack.cluster.layout import ClusterError, Host, Layout

NAMESPACES = Path("/run/netns")
END_SECONDS_MAX = 20
_SWITCH, _BRIDGE = "switch", "bridge"


class Network:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._switch = layout.namespace(_SWITCH)
        self._machine_link = f"darner-{layout.number}"

    def create(self) -> None:
        run("ip", "netns", "add", self._switch)
        run("ip", "-n", self._switch, "link", "add", _BRIDGE, "type", "bridge", "forward_delay", "0")
        run("ip", "-n", self._switch, "address", "add", f"{self._layout.gateway}/24", "dev", _BRIDGE)
        run("ip", "-n", self._switch, "link", "set", _BRIDGE, "up")
        run("ip", "link", "add", self._machine_link, "type", "veth", "peer", "name", "machine", "netns", self._switch)
        run("ip", "-n", self._switch, "link", "set", "machine", "master", _BRIDGE, "up")
        run("ip", "address", "add", f"{self._layout.machine_address}/24", "dev", self._machine_link)
        run("ip", "link", "set", self._machine_link, "up")

    def attach(self, host: Host, others: Iterable[Host], bits_per_second: int = 0) -> None:
        """A new namespace for the host, whatever it had before; routes between its pods and the others."""
        namespace = self._layout.namespace(host.name)
        if (NAMESPACES / namespace).exists():
            run("ip", "netns", "delete", namespace)
        run("ip", "netns", "add", namespace)
        # The old link goes when the kernel gets round to it.
        subprocess.run(["ip", "-n", self._switch, "link", "delete", host.name], capture_output=True, check=False)
        # The hardware address stays, as that of a machine does: its neighbours have not forgotten it.
        hardware = ["address", "02:00:" + ":".join(f"{int(part):02x}" for part in host.address.split("."))]
        peer = ["peer", "name", "eth0", *hardware, "netns", namespace]
        run("ip", "-n", self._switch, "link", "add", host.name, "type", "veth", *peer)
        run("ip", "-n", self._switch, "link", "set", host.name, "master", _BRIDGE, "up")
        run("ip", "-n", namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run("ip", "-n", namespace, "link", "set", device, "up")
        run("ip", "-n", namespace, "route", "add", "default", "via", self._layout.gateway)
        for other in others:
            self._route(other, host)
            self._route(host, other)
        if bits_per_second:
            self.shape(host, bits_per_second)

    def shape(self, host: Host, bits_per_second: int) -> None:
        """Gives the host's link a rate in each direction; 0 takes it away. The bucket holds 10 ms."""
        ends = [(self._layout.namespace(host.name), "eth0"), (self._switch, host.name)]
        bucket = ["tbf", "rate", bits_per_second, "burst", max(bits_per_second // 800, 16384), "latency", "100ms"]
        for namespace, device in ends:
            if bits_per_second:
                run("tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", *bucket)
            else:
                subprocess.run(
                    ["tc", "-n", namespace, "qdisc", "delete", "dev", device, "root"], capture_output=True, check=False
                )

    def kill(self, host: str) -> None:
        """Ends everything that lives on the host, at once and by surprise."""
        namespace = self._layout.namespace(host)
        deadline = time.monotonic() + END_SECONDS_MAX
        while inhabitants := self.inhabitants(host):
            if time.monotonic() > deadline:
                raise ClusterError(f"processes {inhabitants} of {namespace} do not end")
            for pid in inhabitants:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def inhabitants(self, host: str) -> list[int]:
        """Process ids on this machine. Pods with a network of their own are not among them, and end with their node."""
        namespace = self._layout.namespace(host)
        if not (NAMESPACES / namespace).exists():
            return []
        return [int(pid) for pid in run("ip", "netns", "pids", namespace).split()]

    def hosts(self) -> list[str]:
        """The names of all hosts that there are, the switch among them, also those of a cluster that was never completed."""
        prefix = self._layout.namespace("")
        return [found.name.removeprefix(prefix) for found in NAMESPACES.glob(f"{prefix}*")]

    def detach(self, host: str) -> None:
        """The host and its link are gone."""
        self.kill(host)
        run("ip", "netns", "delete", self._layout.namespace(host))

    def remove(self) -> None:
        subprocess.run(["ip", "link", "delete", self._machine_link], capture_output=True, check=False)
        for host in self.hosts():
            self.detach(host)

    def _route(self, pods: Host, at: Host) -> None:
        if pods.pods:
            arguments = ["replace", pods.pods, "via", pods.address]
            run("ip", "-n", self._layout.namespace(at.name), "route", *arguments)


def run(*argv: object) -> str:
    """What a short command prints; an error with its complaint if it fails."""
    command: Sequence[str] = [str(argument) for argument in argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}; a cluster takes root")
    return done.stdout
