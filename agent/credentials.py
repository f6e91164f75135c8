"""What proves who asks at a registry: a pull's own credentials, and the challenges that registries answer with.

Pure. Secrets are never part of a `repr`; what is remembered about a credential is remembered under its `key`, a hash.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field

from agent.errors import RequestError

AUTHORIZATION_BYTES_MAX = 8 << 10
CHALLENGE_BYTES_MAX = 4 << 10

_CHALLENGE = re.compile(r"\s*(Bearer|Basic)(?:\s+|\Z)", re.IGNORECASE)
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True)
class Credential:
    """A user name and a password, as a runtime sends them by Basic authentication (RFC 7617)."""

    username: str
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")

    @property
    def key(self) -> str:
        return hashlib.sha256(self.header.encode()).hexdigest()


def key_of(credential: Credential | None) -> str:
    """What a credential is remembered by; the empty string stands for whoever sends none."""
    return credential.key if credential else ""


def from_authorization(header: str | None) -> Credential | None:
    """The credential in a request's Authorization. Raises RequestError for one that is not well-formed Basic."""
    if header is None:
        return None
    scheme, _, encoded = header.partition(" ")
    try:
        if scheme.lower() != "basic" or len(header) > AUTHORIZATION_BYTES_MAX:
            raise ValueError
        username, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        if not colon:
            raise ValueError
    except (ValueError, binascii.Error):
        raise RequestError(401, "UNAUTHORIZED", "send Basic credentials, or none") from None
    return Credential(username, password)


@dataclass(frozen=True)
class Challenge:
    """What a registry asks for with its 401 (RFC 7235; the token flow is that of the distribution project's documentation)."""

    scheme: str
    """`bearer` or `basic`."""
    realm: str
    service: str
    scope: str


def parse_challenge(header: str) -> Challenge | None:
    """The first challenge of a WWW-Authenticate that can be met, or None."""
    match = _CHALLENGE.match(header)
    if not match or len(header) > CHALLENGE_BYTES_MAX:
        return None
    found: dict[str, str] = {}
    position = match.end()
    while parameter := _PARAMETER.match(header, position):
        quoted, plain = parameter[2], parameter[3]
        found.setdefault(parameter[1].lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain)
        position = parameter.end()
    return Challenge(match[1].lower(), found.get("realm", ""), found.get("service", ""), found.get("scope", ""))


def realm_belongs(realm_host: str, registry_host: str) -> bool:
    """Whether credentials for a registry may be sent to a token service: the same host, or one of the same parent domain.

    `auth.docker.io` serves `registry-1.docker.io`. A parent domain has two labels at least, and an address has none.
    """
    if realm_host == registry_host:
        return True
    parent = registry_host.partition(".")[2]
    named = parent.count(".") >= 1 and not parent.replace(".", "").isdigit()
    return named and (realm_host == parent or realm_host.endswith("." + parent))
