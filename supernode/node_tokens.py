"""Which node an agent is: what a service-account token says that the kubelet of that node got for the agent's pod.

A projected token (KEP-4193) names the pod that it was made for and the node that the pod is on, in a signature of the cluster's
own. It is checked with the cluster's public keys (JWKS, RFC 7517), which the webhook has fetched into a file, so nobody is asked.
Its audience is the channel's own: shown here, it opens nothing else.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jwt

from agent.values.errors import DarnerError, UsageError

AUDIENCE = "darner.dev/channel"
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")
"""Those that API servers sign with. What a forger would choose, such as `none` or one with a shared key, is not among them."""
CLOCK_SECONDS_MAX = 900.0
"""By so much a supernode's clock may differ from the API server's. Kubelets renew a token when a fifth of its life is left."""
KEYS_BYTES_MAX = 1 << 20


class TokenError(DarnerError):
    """The agent does not prove that it runs on the node that it names."""


class Proven(NamedTuple):
    """Whose token it was."""

    pod: str
    """Its UID."""
    issued_at: int
    """Unix time. A pod that took another one's place has a later token."""


class NodeTokens:
    """Checks tokens. The file with the keys is somebody else's, and is read again when it changes."""

    def __init__(self, keys: str, account: str) -> None:
        """`account` is the agents' service account, as NAMESPACE/NAME. Raises UsageError for what is none."""
        self._path = Path(keys)
        self._namespace, separator, self._account = account.partition("/")
        if not (separator and self._namespace and self._account):
            raise UsageError(f"--node-token-account {account!r} is no service account; write NAMESPACE/NAME")
        self._read: tuple[int, jwt.PyJWKSet] | None = None

    def check(self, token: str, node: str) -> Proven:
        """Raises TokenError, in words without the token, unless it is of an agent on that node."""
        try:
            key = self._keys()[str(jwt.get_unverified_header(token).get("kid"))]
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=AUDIENCE,
                leeway=CLOCK_SECONDS_MAX,
                options={"require": ["exp", "iat"]},
            )
        except KeyError:
            raise TokenError("its token is signed with a key that is none of the cluster's") from None
        except jwt.PyJWTError as error:
            raise TokenError(f"its token proves nothing: {error or type(error).__name__}") from None
        named = _at(claims, "kubernetes.io")
        account = (_at(named, "namespace"), _at(_at(named, "serviceaccount"), "name"))
        if account != (self._namespace, self._account):
            raise TokenError("its token is not of the agents' service account")
        if _at(_at(named, "node"), "name") != node:
            raise TokenError("its token is of another node than the one that it names")
        return Proven(str(_at(_at(named, "pod"), "uid")), int(claims["iat"]))

    def _keys(self) -> jwt.PyJWKSet:
        try:
            changed = os.stat(self._path).st_mtime_ns
            if self._read is None or self._read[0] != changed:
                with self._path.open("rb") as file:
                    self._read = changed, jwt.PyJWKSet.from_dict(json.loads(file.read(KEYS_BYTES_MAX)))
        except OSError as error:
            raise TokenError(f"the cluster's keys in {self._path} cannot be read: {error.strerror}") from None
        except (ValueError, AttributeError, jwt.PyJWTError):
            raise TokenError(f"{self._path} holds no JWKS") from None
        return self._read[1]


def _at(document: Any, name: str) -> Any:
    return document.get(name) if isinstance(document, dict) else None
