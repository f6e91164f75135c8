"""Tickets, which a node shows to be served a piece, and the key that signs them.

A ticket is `EXPIRY.MAC`: a time in Unix seconds, and the HMAC-SHA-256 (RFC 2104) of a blob's digest, the address of the piece
server that is asked, and the expiry, with the swarm's key, which only Darner's own processes can read. So a ticket that somebody
picks up is good at that one server. The clock is the caller's.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent.values.address import Address
from agent.values.errors import DarnerError

TICKET_SECONDS = 300
"""How long a ticket is good; two nodes' clocks may differ by less than that."""
KEY_BYTES_MIN = 16
KEY_BYTES_MAX = 4096
KEYS_MAX = 2
"""In one file, a line each, while they change: the first signs, and both are good."""

_TICKET = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})")


def _mac(key: bytes, digest: str, server: Address, expiry: int) -> str:
    return hmac.new(key, f"{digest} {server} {expiry}".encode(), hashlib.sha256).hexdigest()


def issue(key: bytes, digest: str, server: Address, now: float) -> str:
    """A ticket for one blob at one piece server. `now` is Unix time in seconds."""
    expiry = int(now) + TICKET_SECONDS
    return f"{expiry}.{_mac(key, digest, server, expiry)}"


def refusal(keys: Iterable[bytes], digest: str, servers: Sequence[Address], ticket: str, clocks: Iterable[float]) -> str:
    """Why this ticket does not open this blob now, on none of these clocks; "" when it does. Compares in constant time.

    `servers` are the addresses of the one that is asked: where it listens, and as what others know it.
    """
    match = _TICKET.fullmatch(ticket)
    if not match:
        return "it shows none: has it a swarm key?"
    expiry = int(match[1])
    if not any(hmac.compare_digest(match[2], _mac(key, digest, server, expiry)) for key in keys for server in servers):
        return "it has another swarm key, or knows this server by an address that is not --piece-address"
    if any(now < expiry <= now + 2 * TICKET_SECONDS for now in clocks):
        return ""
    return "its clock, or that of its supernode, is minutes off"


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
        self._path = Path(path) if path else None
        self._read: tuple[int, tuple[bytes, ...]] | None = None

    def __call__(self) -> bytes | None:
        """The one that signs. Raises SwarmKeyError."""
        return next(iter(self.all()), None)

    def all(self) -> tuple[bytes, ...]:
        """All that are good, the one that signs first; none when no file is configured. Raises SwarmKeyError."""
        if self._path is None:
            return ()
        try:
            changed = os.stat(self._path).st_mtime_ns
            if self._read is None or self._read[0] != changed:
                with self._path.open("rb") as file:
                    self._read = changed, self._parsed(file.read(KEY_BYTES_MAX + 1))
        except OSError as error:
            raise SwarmKeyError(f"the swarm key {self._path} cannot be read: {error.strerror}") from None
        return self._read[1]

    def _parsed(self, content: bytes) -> tuple[bytes, ...]:
        """A key of any bytes may have a line feed in it: two lines are two keys where each is long enough to be one."""
        whole = content.strip()
        lines = [line.strip() for line in whole.split(b"\n")]
        keys = lines if len(lines) == KEYS_MAX and all(len(line) >= KEY_BYTES_MIN for line in lines) else [whole]
        if not KEY_BYTES_MIN <= len(whole) <= KEY_BYTES_MAX:
            raise SwarmKeyError(f"{self._path} holds {len(whole)} bytes; a key has {KEY_BYTES_MIN} to {KEY_BYTES_MAX}")
        return tuple(keys)
