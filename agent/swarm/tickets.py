"""Tickets: what a node shows to be served a piece.

A ticket is `EXPIRY.MAC`: a time in Unix seconds, and the HMAC-SHA-256 (RFC 2104) of digest and expiry with the swarm's key,
which only Darner's own processes can read. Pure: the clock is the caller's.
"""

from __future__ import annotations

import hashlib
import hmac
import re

TICKET_SECONDS = 300
"""How long a ticket is good; two nodes' clocks may differ by less than that."""

_TICKET = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})")


def _mac(key: bytes, digest: str, expiry: int) -> str:
    return hmac.new(key, f"{digest} {expiry}".encode(), hashlib.sha256).hexdigest()


def issue(key: bytes, digest: str, now: float) -> str:
    """A ticket for one blob. `now` is Unix time in seconds."""
    expiry = int(now) + TICKET_SECONDS
    return f"{expiry}.{_mac(key, digest, expiry)}"


def valid(key: bytes, digest: str, ticket: str, now: float) -> bool:
    """Whether this ticket opens this blob now. Compares in constant time."""
    match = _TICKET.fullmatch(ticket)
    if not match:
        return False
    expiry = int(match[1])
    return hmac.compare_digest(match[2], _mac(key, digest, expiry)) and now < expiry <= now + 2 * TICKET_SECONDS
