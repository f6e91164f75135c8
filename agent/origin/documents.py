"""What registries say in JSON, read with bounds and believed as little as possible. Pure.

Encoders in Go write `null` for a list that is empty, so every member may be null.
"""

from __future__ import annotations

import re

import msgspec

from agent.values.credential import SECRET_CHARACTERS_MIN, secrets_in
from agent.values.errors import OriginError
from agent.values.manifest import Descriptor, decoded

SAID_CHARACTERS_MAX = 200
SAID_ERRORS_MAX = 3
TOKEN_CHARACTERS_MAX = 64 << 10
TOKEN_SECONDS_DEFAULT = 60.0
"""When a token service does not say (distribution's token specification)."""
TOKEN_SECONDS_MARGIN = 0.8


_TOKEN = re.compile(r"[!-~]+")
"""With a space at an end it could not be sent."""


class _Shape(msgspec.Struct):
    """The members by which a document is told from a login page."""

    schema_version: int | None = msgspec.field(name="schemaVersion", default=None)
    media_type: str | None = msgspec.field(name="mediaType", default=None)
    tags: list[str] | msgspec.UnsetType | None = msgspec.UNSET
    manifests: list[Descriptor] | msgspec.UnsetType | None = msgspec.UNSET


def is_manifest(body: bytes) -> bool:
    """Whether this is a manifest, an index or an artifact of any type."""
    shape = decoded(body, _Shape)
    return shape is not None and bool(shape.schema_version or shape.media_type)


def is_listing(body: bytes) -> bool:
    """Whether this is a tag list or a list of referrers (OCI distribution specification 1.1)."""
    shape = decoded(body, _Shape)
    return shape is not None and (shape.tags is not msgspec.UNSET or shape.manifests is not msgspec.UNSET)


class _Token(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


def token_of(registry: str, body: bytes) -> tuple[str, float]:
    """The token in a token service's answer, and for how many seconds it may be sent.

    Those are fewer than the service says, for clocks and ways. Raises OriginError when there is no token that can be sent.
    """
    answer = decoded(body, _Token) or _Token()
    value = answer.token or answer.access_token or ""
    if not _TOKEN.fullmatch(value) or len(value) > TOKEN_CHARACTERS_MAX:
        raise OriginError(502, f"the token service of the registry {registry} did not answer with a token")
    seconds = TOKEN_SECONDS_DEFAULT if answer.expires_in is None else answer.expires_in
    return value, max(0.0, seconds) * TOKEN_SECONDS_MARGIN


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Errors(msgspec.Struct):
    errors: list[_Error] | None = None


def what_it_said(body: bytes, *sent: str) -> str:
    """The message of a registry's error, on one line and cut, or nothing when it is not an OCI error.

    Some repeat what they were `sent` as Authorization, or in another header field that says who asks: that is left out.
    """
    answer = decoded(body, _Errors) or _Errors()
    errors = (answer.errors or [])[:SAID_ERRORS_MAX]
    said = "; ".join(" ".join(filter(None, (error.code, error.message))) for error in errors)
    for secret in [secret for value in sent for secret in (*secrets_in(value), value)]:
        if len(secret) >= SECRET_CHARACTERS_MIN:
            said = said.replace(secret, "***")
    return "".join(character if character.isprintable() else " " for character in said[:SAID_CHARACTERS_MAX])
