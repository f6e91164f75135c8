"""What proves who asks at a registry: a pull's own credentials, and the challenges that registries answer with.

Pure. Secrets are never part of a `repr`; what is remembered about a credential is remembered under its `key`, a hash. Where a
credential may be sent is known to `agent.origin.realm`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field

from agent.values.errors import RequestError

AUTHORIZATION_BYTES_MAX = 8 << 10
CHALLENGE_BYTES_MAX = 4 << 10
SECRET_CHARACTERS_MIN = 4
"""A shorter password is in every text, and no secret."""

# Each item begins with its own characters and none is tried twice, so that reading takes time in proportion to the length.
_PARAMETER = re.compile(r'[\s,]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')
_SCHEME = re.compile(r"[\s,]*([A-Za-z0-9_-]+)(?=[\s,]|\Z)")


@dataclass(frozen=True)
class Credential:
    """A user name and a password, as a runtime sends them by Basic authentication (RFC 7617)."""

    username: str = field(repr=False)
    """Not shown either: some registries take a token as the name."""
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")

    @property
    def key(self) -> str:
        """What it is remembered by."""
        return hashlib.sha256(self.header.encode()).hexdigest()


def from_authorization(header: str) -> Credential:
    """The credential in a request's Authorization. Raises RequestError for one that is not well-formed Basic."""
    scheme, _, encoded = header.partition(" ")
    try:
        if scheme.lower() != "basic" or len(header) > AUTHORIZATION_BYTES_MAX:
            raise ValueError
        return from_base64(encoded.strip())
    except ValueError:
        raise RequestError(401, "UNAUTHORIZED", "send Basic credentials, or none") from None


def from_base64(encoded: str) -> Credential:
    """That of `USERNAME:PASSWORD` in base64 (RFC 7617, section 2). Raises ValueError for what is not that."""
    username, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    if not colon:
        raise ValueError("no colon is between a user's name and a password")
    return Credential(username, password)


def secrets_in(authorization: str) -> list[str]:
    """What nobody may read of an Authorization: a token, or a user's name and password in base64, and the password alone."""
    shown = authorization.partition(" ")[2].strip()
    try:
        password = from_authorization(authorization).password
    except RequestError:
        password = ""
    return [secret for secret in (shown, password) if len(secret) >= SECRET_CHARACTERS_MIN]


@dataclass(frozen=True)
class Challenge:
    """What a registry asks for with its 401 (RFC 7235; the token flow is that of the distribution project's documentation)."""

    scheme: str
    """`bearer` or `basic`."""
    realm: str
    service: str
    scope: str


def parse_challenge(header: str) -> Challenge | None:
    """The challenge of a WWW-Authenticate that can be met, Bearer before Basic; None when there is none, or the header is absurd.

    Unlike Basic, Bearer can be met by whoever has no credential.
    """
    if len(header) > CHALLENGE_BYTES_MAX:
        return None
    found = [
        Challenge(scheme, fields.get("realm", ""), fields.get("service", ""), fields.get("scope", ""))
        for scheme, fields in _challenges(header)
    ]
    bearer = next((challenge for challenge in found if challenge.scheme == "bearer" and challenge.realm), None)
    return bearer or next((challenge for challenge in found if challenge.scheme == "basic"), None)


def _challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    """Schemes, and their parameters by lower-case name, as far as the header can be read (RFC 9110 section 11.6.1)."""
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while True:
        if found and (parameter := _PARAMETER.match(header, position)):
            name, quoted, plain = parameter.groups()
            found[-1][1].setdefault(name.lower(), plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
            position = parameter.end()
        elif scheme := _SCHEME.match(header, position):
            found.append((scheme[1].lower(), {}))
            position = scheme.end()
        else:
            return found
