"""Which supernodes there are, as the cluster's DNS has it: the SRV records (RFC 2782) of the supernodes' headless Service.

Each record names a pod of the StatefulSet, as a list of them would, so keys belong to the same supernode either way. DNS is
asked from a thread of its own and is believed little: an answer adds supernodes and never takes one away that is connected, for
a pod's name may be missing for a moment, and whoever answers in the place of DNS could otherwise leave this node alone. A
supernode has to show who it is with the swarm's key, over the channel.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import dns.exception
import dns.rdatatype
import dns.resolver

from agent.config import address, listed
from agent.values.address import Address
from agent.values.errors import DarnerError

log = logging.getLogger(__name__)

CHANNEL_PORT = 65004
"""Where supernodes listen, unless their settings say otherwise."""
LOOK_SECONDS = 30.0
"""From one look to the next: CoreDNS answers from what it knows for as long, or for 5 s."""
LOOK_SECONDS_MIN = 2.0
"""As soon as that, when a supernode is lost."""
LOOKUP_SECONDS_MAX = 4.0
"""All servers and tries together."""
TRY_SECONDS_MAX = 1.5
NAMES_MAX = 64
"""Of one answer."""
LIST_BYTES_MAX = 64 << 10

_SERVICE = re.compile(r"(_[a-z0-9-]{1,15})\.(_tcp)\.((?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]+)")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

Found = tuple[Address, ...]
LookUp = Callable[[str], Iterable[Address]]
"""The targets and ports of a name's SRV records. Raises DiscoveryError."""


class DiscoveryError(DarnerError):
    """Nobody says which supernodes there are."""


def service(value: str) -> str:
    """`_channel._tcp.SUPERNODE.NAMESPACE.svc.cluster.local`."""
    name = value.lower().rstrip(".")
    if len(name) > 253 or not _SERVICE.fullmatch(name):
        raise ValueError(f"{value!r} is no service's name; write _channel._tcp.NAME.NAMESPACE.svc.cluster.local")
    return name


def in_service(name: str, answered: Iterable[Address]) -> Found:
    """Those of the records that name pods of the Service: one label below its own name. Others are nobody's business here."""
    domain = name.split(".", 2)[2]
    found = []
    for target, port in answered:
        label, _, rest = target.lower().rstrip(".").partition(".")
        if rest == domain and _LABEL.fullmatch(label) and 0 < port < 65536:
            found.append(Address(f"{label}.{rest}", port))
    return tuple(sorted(set(found)))[:NAMES_MAX]


def look_up(name: str) -> list[Address]:
    """The records that the servers of resolv.conf have now; that file is read anew each time."""
    try:
        resolver = dns.resolver.Resolver()
        resolver.timeout, resolver.lifetime = TRY_SECONDS_MAX, LOOKUP_SECONDS_MAX
        answer = resolver.resolve(f"{name}.", dns.rdatatype.SRV, search=False)
        return [Address(record.target.to_text(omit_final_dot=True), record.port) for record in answer]
    except dns.resolver.NXDOMAIN:
        raise DiscoveryError(f"DNS knows no {name}") from None
    except (dns.exception.DNSException, OSError, ValueError) as error:
        raise DiscoveryError(f"DNS does not tell the supernodes of {name}: {_line(error)}") from None


class Discovery:
    """Looks again and again, and has `use` called with what it finds, in its thread. What it does not find changes nothing."""

    def __init__(self, name: str, list_file: str, use: Callable[[Found], None], look_up: LookUp = look_up) -> None:
        """`list_file` holds the names that the installation expects, for where DNS has no such records; none if empty."""
        self._name = name
        self._list_file = Path(list_file) if list_file else None
        self._use = use
        self._look_up = look_up
        self._complaint = ""
        self._lost = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._live, name="supernode discovery", daemon=True)

    def start(self) -> None:
        """The expected ones are tried at once: DNS may take its time."""
        self._use(self._listed())
        self._thread.start()

    def stop(self) -> None:
        """Does not wait: a look that is under way ends by itself in a few seconds, and nobody hears of what it found."""
        self._stopping.set()
        self._lost.set()

    def look_soon(self) -> None:
        """A supernode is lost: it may have been replaced."""
        self._lost.set()

    def find(self) -> Found:
        """As DNS has them or, where that has none, as the installation expects them."""
        try:
            found = in_service(self._name, self._look_up(self._name))
            words = "" if found else f"DNS has no pod of {self._name} in its answer"
        except DiscoveryError as error:
            found, words = (), str(error)
        if words and words != self._complaint:
            log.warning("%s; the supernodes stay as they are, beside those that the installation expects", words)
        self._complaint = words
        return found or self._listed()

    def _live(self) -> None:
        while not self._stopping.is_set():
            found = self.find()
            if not self._stopping.is_set():
                self._use(found)
            self._stopping.wait(LOOK_SECONDS_MIN)
            self._lost.wait(LOOK_SECONDS - LOOK_SECONDS_MIN)
            self._lost.clear()

    def _listed(self) -> Found:
        if self._list_file is None:
            return ()
        try:
            with self._list_file.open("rb") as file:
                names: Found = listed(address)(file.read(LIST_BYTES_MAX).decode().replace("\n", ","))
        except (OSError, ValueError) as error:
            log.warning("--supernodes-file %s cannot be used: %s", self._list_file, _line(error))
            return ()
        return names[:NAMES_MAX]


def _line(error: Exception) -> str:
    """An error of somebody else's, on one line that is not long."""
    return " ".join(str(error).split())[:200] or type(error).__name__
