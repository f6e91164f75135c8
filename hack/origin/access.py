"""Who may pull: the Basic and the Bearer token flow of registries, as far as a test needs them.

Decides from an Authorization header alone; knows nothing of sockets. The tokens are readable on purpose: a token names the
user and the repositories that it is good for, so that a failing test shows what was sent.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from hack.secrecy import secret


@dataclass
class Access:
    """The rules of one origin. What is not `private` is open to everyone, though a Bearer origin wants a token even so."""

    users: Mapping[str, str] = field(default_factory=dict)
    private: frozenset[str] = frozenset()
    bearer: bool = False
    """Answers 401 with a Bearer challenge, and issues tokens at /token; otherwise Basic."""
    realm: str = ""
    """The URL of the token service, where it is not the origin's own /token."""
    token_seconds: int = 300

    def allows(self, repository: str, authorization: str | None) -> bool:
        if self.bearer:
            scheme, _, token = (authorization or "").partition(" ")
            user, _, granted = token.partition("/")
            return scheme == "Bearer" and granted == repository and self._may(user, repository)
        return self._may(self._user(authorization), repository)

    def challenge(self, address: str, repository: str) -> str:
        """The WWW-Authenticate header of a refusal (RFC 6750, and the token flow of the distribution project)."""
        if self.bearer:
            realm = self.realm or f"{address}/token"
            return f'Bearer realm="{realm}",service="origin",scope="repository:{repository}:pull"'
        return 'Basic realm="origin"'

    def token(self, query: str, authorization: str | None) -> str | None:
        """A token for the scope in the query, or None where the credentials are wrong. Without any it is anonymous."""
        user = self._user(authorization)
        if authorization and not user:
            return None
        scope = parse_qs(query).get("scope", ["repository::pull"])[0]
        token = f"{user}/{scope.split(':')[1]}"
        return secret(token, "a token") if user else token

    def _may(self, user: str, repository: str) -> bool:
        return repository not in self.private or user in self.users

    def _user(self, authorization: str | None) -> str:
        """The user whom a Basic header proves to be, or an empty string."""
        scheme, _, encoded = (authorization or "").partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return ""
        return user if scheme == "Basic" and user in self.users and self.users[user] == password else ""
