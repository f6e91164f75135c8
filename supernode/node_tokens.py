"""Which node an agent is: what a service-account token says that the kubelet of that node got for the agent's pod.

A projected token (KEP-4193) names the pod that it was made for and the node that the pod is on, in a signature of the cluster's
own. It is checked with the cluster's public keys (JWKS, RFC 7517), which the webhook has fetched into a file, so nobody is asked.
Its audience is the channel's own: shown here, it opens nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jwt

from agent.files import Reread
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

    def __init__(self, keys: str, account: str, clocks: Sequence[Callable[[], float]] = (time.time,)) -> None:
        """`account` is the agents' service account, as NAMESPACE/NAME. A token is good if it is so on one of the clocks, in Unix
        time. Raises UsageError for what is no account."""
        self._path = Path(keys)
        self._clocks = clocks
        self._namespace, separator, self._account = account.partition("/")
        if not (separator and self._namespace and self._account):
            raise UsageError(f"--node-token-account {account!r} is no service account; write NAMESPACE/NAME")
        self._keys = Reread(self._read, keys)

    def check(self, token: str, node: str) -> Proven:
        """Raises TokenError, in words without the token, unless it is of an agent on that node."""
        try:
            key = self._keys()[str(jwt.get_unverified_header(token).get("kid"))]
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=AUDIENCE,
                options={"require": ["exp", "iat"], "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except KeyError:
            raise TokenError("its token is signed with a key that is none of the cluster's") from None
        except jwt.PyJWTError as error:
            raise TokenError(f"its token proves nothing: {error or type(error).__name__}") from None
        begins, ends = (_seconds(claims, name) for name in ("nbf" if "nbf" in claims else "iat", "exp"))
        if not any(begins - CLOCK_SECONDS_MAX <= clock() < ends + CLOCK_SECONDS_MAX for clock in self._clocks):
            raise TokenError("its token has expired, or is not good yet")
        named = _at(claims, "kubernetes.io")
        account = (_at(named, "namespace"), _at(_at(named, "serviceaccount"), "name"))
        if account != (self._namespace, self._account):
            raise TokenError("its token is not of the agents' service account")
        if _at(_at(named, "node"), "name") != node:
            raise TokenError("its token is of another node than the one that it names")
        return Proven(str(_at(_at(named, "pod"), "uid")), int(_seconds(claims, "iat")))

    def _read(self, _: jwt.PyJWKSet | None) -> jwt.PyJWKSet:
        try:
            with self._path.open("rb") as file:
                return jwt.PyJWKSet.from_dict(json.loads(file.read(KEYS_BYTES_MAX)))
        except OSError as error:
            raise TokenError(f"the cluster's keys in {self._path} cannot be read: {error.strerror}") from None
        except (ValueError, AttributeError, jwt.PyJWTError):
            raise TokenError(f"{self._path} holds no JWKS") from None


def _seconds(claims: dict[str, Any], name: str) -> float:
    """A time among the claims. Raises TokenError."""
    try:
        return float(claims[name])
    except (TypeError, ValueError, OverflowError):
        raise TokenError(f"its token has a time that is none: {name}") from None


def _at(document: Any, name: str) -> Any:
    return document.get(name) if isinstance(document, dict) else None
