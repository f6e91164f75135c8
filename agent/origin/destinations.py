"""Which servers may be asked: where a registry's name, or a redirect, may lead.

A pod's author chooses the registry's name, and the agent stands on the host network: so the address that a name resolves to is
checked, on every hop, and that address is the one connected to. Addresses of this machine and of the link, the cluster's own
networks and names, and Darner's own ports are no place for a registry. Registries that the operator listed may be anywhere,
and may be spoken to in plain HTTP; with `https://` before its name a listed one is spoken to over TLS even so.

Behind a proxy (`agent.origin.proxies`) names are the proxy's to look up, by its own rules; what resolves here as well is checked
here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from agent.http.client import Place, Tunnel
from agent.origin.proxies import Proxies
from agent.origin.shares import Shares
from agent.values.address import Address, Network
from agent.values.errors import OriginError
from agent.values.reference import DOCKER_HUB

HTTPS_PORT = 443
HTTP_PORT = 80
DOCKER_HUB_HOST = "registry-1.docker.io"
ADDRESSES_MAX = 3
"""Of one name that are tried; the system has sorted them (RFC 6724)."""
LOOKUP_SECONDS_MAX = 5.0
PROXIED_LOOKUP_SECONDS_MAX = 1.0
"""For a name that a proxy will look up itself: where proxies are needed, the system's resolver often knows no name outside."""
LOOKUPS_MAX = 512
"""At once. The system's resolver cannot be interrupted: one that does not answer keeps its thread for as long as it likes."""

NOT_ASKED = 421
"""Misdirected Request (RFC 9110 section 15.5.20). No registry's own answer is passed on with this status, so whoever hears it,
as the webhook does, knows that the agent did not ask: what a registry forbids is an image, and this is about the registry."""

_LEGAL = "%/:=&?~#+!$,;'@()*[]"
"""What may stand in a request's target beside letters and digits; what is quoted already stays as it is."""

CLUSTER_NAMES = (".svc", ".cluster.local")
"""How names of Services and pods end that the cluster's DNS knows, whatever else is searched for or configured there."""

LookUp = Callable[[str, int], list[tuple[Any, ...]]]
"""The system's `getaddrinfo`, for host and port."""


class DestinationError(OriginError):
    """A server that is not asked: 421 for one that may not be, 502 and 504 for one that nobody knows."""


@dataclass(frozen=True)
class Hop:
    """One place to ask: the parts of a URL whose host has been looked up and may be connected to."""

    scheme: str
    host: str
    port: int
    target: str
    place: Place
    proxy_authorization: str = ""
    """For the proxy that is asked in the server's place, over plain HTTP."""

    @property
    def server(self) -> tuple[str, str, int]:
        """What a credential is bound to."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The server as its Host header names it."""
        usual = self.port == (HTTPS_PORT if self.scheme == "https" else HTTP_PORT)
        return str(Address(self.host, self.port)).removesuffix(f":{self.port}" if usual else "")


@dataclass(frozen=True)
class Forbidden:
    """Places of this cluster where no registry is, unless the operator listed it.

    A runtime would not look for one there: agent and supernode resolve the cluster's own names, and it does not.
    """

    networks: tuple[Network, ...] = ()
    """Those of the cluster's Services and pods, as far as they are known."""
    ports: frozenset[int] = frozenset()
    """Darner's own: nodes never ask each other, or themselves, as if they were registries."""
    private: bool = False
    """Whether every address that is not of the internet is forbidden. If not, those are spoken to over verified TLS."""

    @classmethod
    def of(
        cls, networks: Iterable[Network], private_registries: str, own: Iterable[Address], environment: Mapping[str, str]
    ) -> Forbidden:
        """As settings have it, and what each container of a cluster is told: the Service of its API server."""
        known = list(networks)
        with contextlib.suppress(ValueError):
            known.append(ipaddress.ip_network(environment.get("KUBERNETES_SERVICE_HOST", "")))
        return cls(tuple(known), frozenset(where.port for where in own) - {0}, private_registries == "refuse")

    def name(self, where: Address) -> str | None:
        """Why a server is no place for a registry, whatever its address."""
        if where.port in self.ports:
            return "has a port of Darner's own"
        if where.host.rstrip(".").endswith(CLUSTER_NAMES):
            return "is a name of the cluster's own"
        return None


class Destinations:
    """The rules, with the names that the operator listed."""

    def __init__(
        self,
        insecure_registries: Iterable[str],
        look_up: LookUp | None = None,
        proxies: Proxies | None = None,
        forbidden: Forbidden | None = None,
    ) -> None:
        names = [name.lower() for name in insecure_registries]
        self._plain = frozenset(name for name in names if not name.startswith("https://"))
        self._anywhere = self._plain | {name.removeprefix("https://") for name in names}
        self._look_up = look_up or _getaddrinfo
        self._proxies = proxies or Proxies()
        self._forbidden = forbidden or Forbidden()
        self._lookups = Shares(LOOKUPS_MAX)

    def url(self, registry: str, path: str) -> str:
        scheme = "http" if registry in self._plain else "https"
        return f"{scheme}://{server_of(registry)}{path}"

    def hop(self, url: str, until: float) -> Hop:
        """Where a URL leads. `until` is monotonic time. Raises DestinationError."""
        try:
            parts = urlsplit(url)
            port = parts.port or (HTTP_PORT if parts.scheme == "http" else HTTPS_PORT)
        except ValueError:
            raise DestinationError(502, "it sends its users to a URL that is none") from None
        host = parts.hostname or ""
        if parts.scheme not in ("https", "http") or not host or parts.username is not None:
            by = "by other means than HTTPS alone"
            raise DestinationError(NOT_ASKED, f"it sends its users to {host or 'nowhere'}, {by}", "DENIED")
        if parts.scheme == "http" and not _lists(self._plain, host, port):
            raise DestinationError(NOT_ASKED, f"{host} is asked over HTTPS only; list it as insecure if it has none", "DENIED")
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        target = quote(target, _LEGAL, encoding="latin-1", errors="replace")
        where, listed = Address(host, port), _lists(self._anywhere, host, port)
        if not listed and (reason := self._forbidden.name(where)):
            raise DestinationError(NOT_ASKED, f"{where} {reason}; only listed registries may be there", "DENIED")
        proxy = self._proxies.before(parts.scheme, host, port)
        if proxy is None:
            place = Place(self._resolve(where, listed, until), host if parts.scheme == "https" else "")
            return Hop(parts.scheme, host, port, target, place)
        self._check(where, listed, until)
        addresses = self._resolve(proxy.server, True, until)
        if parts.scheme == "https":
            place = Place(addresses, host, Tunnel(where, proxy.authorization))
            return Hop(parts.scheme, host, port, target, place)
        return Hop(parts.scheme, host, port, f"http://{where}{target}", Place(addresses), proxy.authorization)

    def _check(self, where: Address, listed: bool, until: float) -> None:
        """That a name which a proxy will look up does not lead, as far as is known here, where it may not."""
        try:
            self._resolve(where, listed, min(until, time.monotonic() + PROXIED_LOOKUP_SECONDS_MAX))
        except DestinationError as error:
            if error.status == NOT_ASKED:
                raise

    def _resolve(self, where: Address, listed: bool, until: float) -> tuple[Address, ...]:
        """The addresses that may be connected to."""
        allowed, reasons = [], []
        for host in self._addresses(where, until):
            reason = None if listed else refusal(host, self._forbidden)
            if reason is None:
                allowed.append(Address(host, where.port))
            else:
                reasons.append(reason)
        if not allowed:
            raise DestinationError(NOT_ASKED, f"{where} resolves to {reasons[0]}; only listed registries may have one", "DENIED")
        return tuple(dict.fromkeys(allowed))[:ADDRESSES_MAX]

    def _addresses(self, where: Address, until: float) -> list[str]:
        """What a name resolves to: at least one address. In a thread, because the system's resolver takes as long as it likes."""
        end = min(until, time.monotonic() + LOOKUP_SECONDS_MAX)
        place = self._lookups.take(where.host, seconds=max(0.0, end - time.monotonic()))
        if place is None:
            words = f"the name {where.host} is not looked up: too many are waited for already"
            raise DestinationError(504, words, asked=self._lookups.has_its_part(where.host))
        answer: Future[list[tuple[Any, ...]]] = Future()

        def ask() -> None:
            with place:
                try:
                    answer.set_result(self._look_up(where.host, where.port))
                except Exception as error:
                    answer.set_exception(error)

        try:
            threading.Thread(target=ask, name=f"look up {where.host[:40]}", daemon=True).start()
        except RuntimeError as error:  # the system has no thread left; what it did not start gives no place back
            place.give_back()
            raise DestinationError(502, f"the name {where.host} is not looked up: {error}", asked=False) from None
        try:
            found = answer.result(max(0.0, end - time.monotonic()))
        except TimeoutError:
            raise DestinationError(504, f"the name {where.host} was not resolved in time") from None
        except (OSError, ValueError):
            raise DestinationError(502, f"the name {where.host} does not resolve") from None
        if not found:
            raise DestinationError(502, f"the name {where.host} does not resolve")
        return [str(sockaddr[0]) for *_, sockaddr in found]


def server_of(registry: str) -> str:
    """Host and port, as in a URL, of the server that speaks for a registry."""
    return DOCKER_HUB_HOST if registry == DOCKER_HUB else registry


def refusal(address: str, forbidden: Forbidden = Forbidden()) -> str | None:
    """Why an address is no place for a registry that is not listed; None when it may be one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or _translated(ip) or ip
    kinds = {
        "a loopback": ip.is_loopback,
        "a link-local": ip.is_link_local,
        "an unspecified": ip.is_unspecified or ip in _THIS_NETWORK,
        "a multicast": ip.is_multicast,
        "a reserved": ip.is_reserved,
        "the cluster's own": any(ip in network for network in forbidden.networks),
        "a private": forbidden.private and not ip.is_global,
    }
    return next((f"{kind} address" for kind, holds in kinds.items() if holds), None)


_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
"""Linux connects to this machine itself for some of it (RFC 1122 section 3.2.1.3)."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 addresses behind a translator (RFC 6052)."""


def _translated(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _NAT64 else None


def _lists(names: frozenset[str], host: str, port: int) -> bool:
    """Whether a server is listed: with its port, or without one for the ports that are usual."""
    return str(Address(host, port)) in names or (host in names and port in (HTTP_PORT, HTTPS_PORT))


def _getaddrinfo(host: str, port: int) -> list[tuple[Any, ...]]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
