"""Tickets, which a node shows to be served a piece, and the key that signs them.

A ticket is `EXPIRY.MAC`: a time in Unix seconds, and the HMAC-SHA-256 (RFC 2104) of a blob's digest, the address of the piece
server that is asked, the expiry, and whether it is shown inside TLS, with the swarm's key, which only Darner's own processes can
read. So a ticket that somebody picks up is good at that one server, for what this sends in clear. The clock is the caller's.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path

from agent.files import Reread
from agent.values.address import Address
from agent.values.errors import DarnerError

TICKET_SECONDS = 300
"""How long a ticket is good; two nodes' clocks may differ by less than that."""
KEY_BYTES_MIN = 16
KEY_BYTES_MAX = 4096
KEYS_MAX = 2
"""In one file, a line each, while they change: the first signs, and both are good."""

MARK_CHARACTERS = 32

_TICKET = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})")


class Encryption(Enum):
    """Which pieces travel between nodes inside TLS (docs/decisions/0026). What is written in the settings is the value."""

    PRIVATE = "private"
    ALWAYS = "always"
    NEVER = "never"

    def seals(self, private: bool) -> bool:
        """Whether pieces of a blob do that is private, or is not."""
        return self is Encryption.ALWAYS or (private and self is Encryption.PRIVATE)


def _mac(key: bytes, digest: str, server: Address, expiry: int, sealed: bool) -> str:
    return hmac.digest(key, f"{digest} {server} {expiry} {'sealed' if sealed else 'clear'}".encode(), "sha256").hex()


def issue(key: bytes, digest: str, server: Address, now: float, *, sealed: bool = False) -> str:
    """A ticket for one blob at one piece server, to be shown inside TLS or in clear. `now` is Unix time in seconds."""
    expiry = int(now) + TICKET_SECONDS
    return f"{expiry}.{_mac(key, digest, server, expiry, sealed)}"


def refusal(
    keys: Iterable[bytes], digest: str, servers: Sequence[Address], ticket: str, clocks: Iterable[float], *, sealed: bool = False
) -> str:
    """Why this ticket does not open this blob now, on none of these clocks; "" when it does. Compares in constant time.

    `servers` are the addresses of the one that is asked: where it listens, and as what others know it. `sealed` says whether the
    ticket came inside TLS.
    """
    match = _TICKET.fullmatch(ticket)
    if not match:
        return "it shows none: has it a swarm key?"
    expiry = int(match[1])
    if not any(hmac.compare_digest(match[2], _mac(key, digest, server, expiry, sealed)) for key in keys for server in servers):
        return "it has another swarm key, or knows this server by an address that is not --piece-address"
    if any(now < expiry <= now + 2 * TICKET_SECONDS for now in clocks):
        return ""
    return "its clock, or that of its supernode, is minutes off"


def who(key: bytes | None, credential: str) -> bytes | None:
    """What the swarm knows a credential by, of which it tells nothing to whoever has no key; None where there is no key.

    Who has it still cannot tell a good password from this, but can try bad ones.
    """
    derived = hmac.digest(key, b"darner credentials", "sha256") if key else None
    return hmac.digest(derived, credential.encode(), "sha256") if derived else None


def mark(key: bytes | None, place: str) -> str:
    """A registry, or a repository of one, as two nodes that know its name speak of it."""
    return hmac.digest(key or b"none", f"from {place}".encode(), "sha256").hex()[:MARK_CHARACTERS]


def node_proof(key: bytes | None, node: str, nonce: str) -> str:
    """What a piece server answers to show that it is this node's. `nonce` is the asker's, and new each time."""
    return hmac.digest(key or b"none", f"piece server of {node} {nonce}".encode(), "sha256").hex()


class SwarmKeyError(DarnerError):
    """The key cannot be read now: nothing is served to, or fetched from, other nodes until it can."""

    status = 503
    code = "UNAVAILABLE"


class SwarmKey:
    """Calling it gives the key, or None when no file is configured, which is for laboratories only.

    The file is somebody else's, such as a mounted Secret, and is read again when it changes. While keys change it holds two, a
    line each: first the new one behind the old one, everywhere, then the other way round, then the new one alone.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._keys = Reread(self._read, path) if path else None

    def __call__(self) -> bytes | None:
        """The one that signs. Raises SwarmKeyError."""
        return next(iter(self.all()), None)

    def all(self) -> tuple[bytes, ...]:
        """All that are good, the one that signs first; none when no file is configured. Raises SwarmKeyError."""
        if self._keys is None:
            return ()
        try:
            return self._keys()
        except OSError as error:
            raise SwarmKeyError(f"the swarm key {self._path} cannot be read: {error.strerror}") from None

    def _read(self, _: tuple[bytes, ...] | None) -> tuple[bytes, ...]:
        with self._path.open("rb") as file:
            return self._parsed(file.read(KEY_BYTES_MAX + 1))

    def _parsed(self, content: bytes) -> tuple[bytes, ...]:
        """A key of any bytes may have a line feed in it: two lines are two keys where each is long enough to be one."""
        whole = content.strip()
        lines = [line.strip() for line in whole.split(b"\n")]
        keys = lines if len(lines) == KEYS_MAX and all(len(line) >= KEY_BYTES_MIN for line in lines) else [whole]
        if not KEY_BYTES_MIN <= len(whole) <= KEY_BYTES_MAX:
            raise SwarmKeyError(f"{self._path} holds {len(whole)} bytes; a key has {KEY_BYTES_MIN} to {KEY_BYTES_MAX}")
        return tuple(keys)
