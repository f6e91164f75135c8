"""Which proxy a registry is asked through, by the environment variables that container runtimes read for the same purpose.

HTTPS_PROXY, HTTP_PROXY and NO_PROXY mean here what they mean to containerd (golang.org/x/net/http/httpproxy), so that whoever has
set them for a node can set the same for Darner. They are for registries alone: nodes, supernodes and the API server are spoken to
directly. It decides and connects to nothing.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from agent.values.address import Address
from agent.values.errors import UsageError

HTTP_PORT = 80
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Proxy:
    """Where it is, and the header that it wants to see; empty, if it wants none."""

    server: Address
    authorization: str = ""

    @classmethod
    def of(cls, name: str, url: str) -> Proxy:
        """The proxy of a variable. Raises UsageError, without the password that the URL may hold."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname, parts.port or HTTP_PORT
        except ValueError:
            host, port = None, 0
        if not host:
            raise UsageError(f"{name} is not the URL of a proxy; write http://HOST:PORT")
        if parts.scheme != "http":
            raise UsageError(f"{name} names a proxy that speaks {parts.scheme}; only http:// proxies are used")
        authorization = ""
        if parts.username is not None:
            word = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = f"Basic {base64.b64encode(word.encode()).decode()}"
        return cls(Address(host, port), authorization)


@dataclass(frozen=True)
class _NoProxyItem:
    """One item of NO_PROXY."""

    network: Network | None
    suffix: str
    alone: bool
    """Whether the domain itself is meant as well as all below it."""
    port: int | None

    @classmethod
    def of(cls, item: str) -> _NoProxyItem:
        text, port = item.lower(), None
        host, colon, number = text.rpartition(":")
        if colon and number.isdecimal() and (":" not in host or host.endswith("]")):
            text, port = host, int(number)
        text = text.strip("[]")
        try:
            return cls(ipaddress.ip_network(text, strict=False), "", False, port)
        except ValueError:
            text = text.removeprefix("*")
            return cls(None, f".{text.removeprefix('.')}", not text.startswith("."), port)

    def covers(self, host: str, port: int) -> bool:
        if self.port not in (None, port):
            return False
        if self.network is not None:
            ip = _ip(host)
            return ip is not None and ip in self.network
        return host.endswith(self.suffix) or (self.alone and host == self.suffix[1:])


class Proxies:
    """Of one process. Without an environment there is none."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        given = {
            name: text
            for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
            if (text := ((environment or {}).get(name) or (environment or {}).get(name.lower(), "")).strip())
        }
        self._proxies = {name[:-6].lower(): Proxy.of(name, url) for name, url in given.items() if name != "NO_PROXY"}
        items = [item.strip() for item in given.get("NO_PROXY", "").split(",") if item.strip()]
        self._nowhere = "*" in items
        self._exceptions = [_NoProxyItem.of(item) for item in items if item != "*"]

    def before(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy to ask for this server; None for one that is asked directly, as this machine always is."""
        proxy = self._proxies.get(scheme)
        host = host.lower().rstrip(".")
        ip = _ip(host)
        here = host == "localhost" or (ip is not None and ip.is_loopback)
        if proxy is None or self._nowhere or here or any(item.covers(host, port) for item in self._exceptions):
            return None
        return proxy


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
