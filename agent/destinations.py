"""Which addresses a registry's name may lead to.

A pod's author chooses the registry's name, and the agent stands on the host network: so the address that a name resolves to is
checked, and that address is the one connected to. Registries that the operator listed may be anywhere. Pure but for `resolve`.
"""

from __future__ import annotations

import ipaddress
import socket

from agent.errors import OriginError
from agent.settings import Address

HTTPS_PORT = 443
HTTP_PORT = 80


def refusal(address: str) -> str | None:
    """Why an address is no place for a registry that is not listed; None when it may be one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    kinds = {
        "a loopback": ip.is_loopback,
        "a link-local": ip.is_link_local,
        "an unspecified": ip.is_unspecified,
        "a multicast": ip.is_multicast,
        "a reserved": ip.is_reserved,
    }
    return next((f"{kind} address" for kind, holds in kinds.items() if holds), None)


def split(registry: str, default_port: int) -> Address:
    """Host and port of `host[:port]`, an IPv6 address without its brackets."""
    host, colon, port = registry.rpartition(":")
    if not colon or registry.endswith("]"):
        host, port = registry, str(default_port)
    return Address(host.strip("[]"), int(port))


def resolve(where: Address, *, listed: bool) -> Address:
    """The address to connect to. Raises OriginError when the name leads nowhere, or where it may not."""
    try:
        found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise OriginError(502, f"the registry {where} cannot be reached: its name does not resolve") from None
    reasons = []
    for *_, sockaddr in found:
        host = str(sockaddr[0])
        reason = None if listed else refusal(host)
        if reason is None:
            return Address(host, where.port)
        reasons.append(reason)
    raise OriginError(403, f"the registry {where} resolves to {reasons[0]}; only listed registries may have one", "DENIED")
