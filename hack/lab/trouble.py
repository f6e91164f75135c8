"""Trouble between hosts: what firewalls, tunnels with too small an MTU and bad moments do to connections.

It is made by the packet filter of the host that connects, so that each host of a lab can have another one. Takes root and the
Debian package nftables.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from hack.lab.network import Host

LARGE_BYTES = 600
"""More than this, headers included, is a large packet: neither an empty one nor the head of a request."""

Trouble = Callable[[Host, Iterable[Host], int], None]
"""From now on, one host's connections to a port of some others are in this trouble."""


def refused(host: Host, servers: Iterable[Host], port: int) -> None:
    """Answered with a reset, as where nothing listens."""
    _filter(host, "output", f"ip daddr {_addresses(servers)} tcp dport {port} reject with tcp reset")


def dropped(host: Host, servers: Iterable[Host], port: int) -> None:
    """No answer comes, whatever is sent."""
    _filter(host, "input", f"ip saddr {_addresses(servers)} tcp sport {port} drop")


def swallowed(host: Host, servers: Iterable[Host], port: int) -> None:
    """Large packets do not come, and their sender is not told: a path with a smaller MTU whose ICMP is filtered away."""
    _filter(host, "input", f"ip saddr {_addresses(servers)} tcp sport {port} meta length > {LARGE_BYTES} drop")


def reset(server: Host, port: int, count: int = 0) -> int:
    """Abort connections to a port of a host, all of them or so many, which both ends see as a reset. How many there were."""
    ours = ("state", "established", "sport", "=", f":{port}")
    others = [line.split()[-1] for line in server.run(["ss", "-Htn", *ours]).splitlines()]
    for other in others[: count or None]:
        server.run(["ss", "-HtnK", *ours, "dst", other])
    return len(others[: count or None])


def away(host: Host, seconds: float) -> None:
    """A host is without its link for so long, and nobody is told."""
    host.cut()
    time.sleep(seconds)
    host.mend()


def _filter(host: Host, hook: str, rule: str) -> None:
    """In place of what was filtered before."""
    chain = f"chain {hook} {{ type filter hook {hook} priority 0; {rule}; }}"
    host.run(["nft", f"add table ip trouble\nflush table ip trouble\ntable ip trouble {{\n{chain}\n}}\n"])


def _addresses(hosts: Iterable[Host]) -> str:
    return f"{{ {', '.join(host.address for host in hosts)} }}"
