"""What registries say in JSON, read with bounds and believed as little as possible. Pure."""

from __future__ import annotations

import msgspec

from agent.errors import OriginError

SAID_CHARACTERS_MAX = 200
TOKEN_CHARACTERS_MAX = 64 << 10
TOKEN_SECONDS_DEFAULT = 60
"""When a token service does not say (distribution's token specification)."""
TOKEN_SECONDS_MARGIN = 0.8


class Descriptor(msgspec.Struct):
    digest: str = ""


class Listing(msgspec.Struct):
    """The members of a manifest or an index by which it lists other contents (OCI image specification 1.1)."""

    config: Descriptor | None = None
    layers: list[Descriptor] = []
    manifests: list[Descriptor] = []
    blobs: list[Descriptor] = []
    subject: Descriptor | None = None
    media_type: str = msgspec.field(name="mediaType", default="")


def listing_of(body: bytes) -> Listing:
    """What a manifest lists; nothing when it is not a manifest of a known form."""
    try:
        return msgspec.json.decode(body, type=Listing)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return Listing()


class _Shape(msgspec.Struct):
    """The members by which a document is told from a login page."""

    schema_version: int = msgspec.field(name="schemaVersion", default=0)
    media_type: str = msgspec.field(name="mediaType", default="")
    tags: list[str] | None = None
    manifests: list[Descriptor] | None = None


def is_manifest(body: bytes) -> bool:
    """Whether this is a manifest, an index or an artifact of any type."""
    shape = _shape_of(body)
    return bool(shape and (shape.schema_version or shape.media_type))


def is_listing(body: bytes) -> bool:
    """Whether this is a tag list or a list of referrers (OCI distribution specification 1.1)."""
    shape = _shape_of(body)
    return bool(shape and (shape.tags is not None or shape.manifests is not None or b'"tags"' in body))


def _shape_of(body: bytes) -> _Shape | None:
    try:
        return msgspec.json.decode(body, type=_Shape)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


class TokenAnswer(msgspec.Struct):
    value: str
    seconds: float


def token_of(registry: str, body: bytes) -> TokenAnswer:
    """The token in a token service's answer. Raises OriginError when there is none that can be sent."""
    try:
        answer = msgspec.json.decode(body, type=_Token)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise OriginError(502, f"the token service of the registry {registry} did not answer with a token") from None
    value = answer.token or answer.access_token
    if not value.isascii() or not value.isprintable() or not 0 < len(value) <= TOKEN_CHARACTERS_MAX:
        raise OriginError(502, f"the token service of the registry {registry} did not answer with a token")
    return TokenAnswer(value, max(0.0, answer.expires_in or TOKEN_SECONDS_DEFAULT) * TOKEN_SECONDS_MARGIN)


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


def what_it_said(body: bytes) -> str:
    """The message of a registry's error, on one line and cut, or nothing when it is not an OCI error."""
    try:
        errors = msgspec.json.decode(body, type=_Errors).errors
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return ""
    said = "; ".join(f"{error.code} {error.message}".strip() for error in errors[:3])
    return "".join(character if character.isprintable() else " " for character in said)[:SAID_CHARACTERS_MAX]
