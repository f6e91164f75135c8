"""What proves who asks: registries' challenges, met with a pull's credentials or without any, and remembered for a while.

Basic authentication and the token flow of the distribution project ("Token Authentication Specification"). Credentials go to the
registry itself and to a token service that belongs to it, and to nobody else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from agent.origin.destinations import NOT_ASKED, DestinationError, server_of
from agent.origin.documents import token_of
from agent.origin.realm import realm_belongs
from agent.origin.redirects import Redirects
from agent.origin.shown import key_of
from agent.values.credential import Challenge, Credential, parse_challenge
from agent.values.errors import OriginError

REMEMBERED_MAX = 1024
REMEMBERED_SECONDS_MAX = 300.0
TOKEN_ANSWER_BYTES_MAX = 4 << 20


class Access(NamedTuple):
    """Who asks, and for what."""

    registry: str
    repository: str
    credential: Credential | None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.registry, self.repository, key_of(self.credential)


class Authorizer:
    """Authorizations by access. Raises OriginError and, where the network fails, TransferError."""

    def __init__(self, redirects: Redirects, trusted_realms: Iterable[str] = ()) -> None:
        """`trusted_realms` are pairs REGISTRY=HOST: token services of another domain that a registry's users may be sent to."""
        self._trusted = frozenset(pair.lower() for pair in trusted_realms)
        self._redirects = redirects
        self._lock = threading.Lock()
        self._remembered: dict[tuple[str, str, str], tuple[float, str]] = {}

    def remembered(self, access: Access) -> str | None:
        """The Authorization that was good for this access not long ago."""
        with self._lock:
            expires, authorization = self._remembered.get(access.key, (0.0, ""))
        return authorization if time.monotonic() < expires else None

    def meet(self, access: Access, challenge: str, sent: str | None, until: float) -> str | None:
        """The Authorization that answers a WWW-Authenticate, or None when there is none, beside the one that was `sent`."""
        asked = parse_challenge(challenge)
        if asked is None:
            return None
        if asked.scheme == "basic":
            if access.credential is None or access.credential.header == sent:
                return None
            authorization, seconds = access.credential.header, REMEMBERED_SECONDS_MAX
        else:
            token, seconds = self._token(access, asked, until)
            authorization = f"Bearer {token}"
        with self._lock:
            while len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered[access.key] = (time.monotonic() + min(seconds, REMEMBERED_SECONDS_MAX), authorization)
        return authorization

    def _token(self, access: Access, challenge: Challenge, until: float) -> tuple[str, float]:
        """A token, and for how many seconds it may be sent."""
        registry, repository, credential = access
        try:
            realm, server = urlsplit(challenge.realm), urlsplit(f"//{server_of(registry)}")
            realm_host, registry_host = realm.hostname or "", server.hostname or ""
        except ValueError:
            realm_host = ""
        if not realm_host:
            raise OriginError(401, f"the registry {registry} names a token service that is none", "UNAUTHORIZED")
        trusted = f"{registry}={realm_host}".lower() in self._trusted or realm_belongs(realm_host, registry_host)
        if credential and not trusted:
            how = f"list {registry}={realm_host} as a trusted realm if it is right"
            raise OriginError(
                NOT_ASKED, f"{registry} sends its users to {realm_host}, which is not of its domain; {how}", "DENIED"
            )
        fields = {"service": challenge.service, "scope": challenge.scope or f"repository:{repository}:pull"}
        query = urlencode({name: value for name, value in fields.items() if value})
        url = f"{challenge.realm}{'&' if realm.query else '?'}{query}"
        try:
            reply = self._redirects.ask("GET", url, {}, credential.header if credential else None, until)
        except DestinationError as error:  # what the registry wants is not done, and its first answer stands
            raise OriginError(401, f"{registry} has its tokens where none are asked for: {error}", "UNAUTHORIZED") from None
        with reply:
            if reply.status != 200:
                raise reply.refusal(f"the token service of the registry {registry}", repository, credential is None)
            return token_of(registry, reply.read(TOKEN_ANSWER_BYTES_MAX))
