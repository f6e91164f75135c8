"""Where a socket is: the address that settings, messages and connections name. Nothing here resolves a name."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

Network = IPv4Network | IPv6Network


class Address(NamedTuple):
    """Where a socket listens or connects to: a host name or an IP address, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def rank(key: str, where: Address) -> bytes:
    """The place of a supernode in a key's own order of them (rendezvous hashing, see `agent.swarm.supernodes`)."""
    return hashlib.sha256(f"{key} {where}".encode()).digest()
