"""A file of a web server, as the swarm knows it: one version of what a URL names.

What tells versions apart is the validator that the server gives (RFC 9110 section 8.8), together with the size: two answers with
one validator have the same bytes, so pieces of one may be put beside pieces of the other. A file whose server gives no such
validator has no version, and no two answers are ever put together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

from agent.values.errors import RequestError
from agent.values.pattern import Pattern
from agent.values.reference import InvalidDigest, parse_digest

URL_CHARACTERS_MAX = 4096
VALIDATOR_CHARACTERS_MAX = 512
SETTLED_SECONDS = 60
"""A Last-Modified that is older than that, by the server's own clock, is a strong validator (RFC 9110 section 8.8.2.2)."""

_URL = re.compile(r"(https?)://([^\s/?#@\\]+)([/?][!-~]*)?", re.ASCII | re.IGNORECASE)
_ETAG = re.compile(r'"[!#-~]*"')
_DATE = re.compile(r"[\w,:+ -]{1,64}", re.ASCII)
"""It goes into headers and messages, so nothing else does that a lenient reader takes for a date."""
_USUAL_PORTS = {"https": ":443", "http": ":80"}


@dataclass(frozen=True)
class WebFile:
    url: str
    validator: str
    """A strong entity tag with its quotes, or a date; "" when the server gives neither."""
    size: int
    """Bytes."""
    digest: str = ""
    """That the bytes must have, `sha256:HEX`; "" when nobody said."""

    @property
    def server(self) -> str:
        """Its scheme, host and port: no registry is called so."""
        return "://".join(urlsplit(self.url)[:2])

    @property
    def path(self) -> str:
        """For the log: queries may hold secrets."""
        return urlsplit(self.url).path.removeprefix("/")

    @property
    def task(self) -> str:
        """By which nodes speak of this version, in the form of a blob's digest, which it is not: no bytes have it.

        Where a digest says what the bytes are, one file at several URLs is one task: but for those with a query, which may prove
        who asks, so that nobody has by the digest what another one has by a signature.
        """
        known_by = (self.digest,) if self.digest and "?" not in self.url else (self.url, self.validator, self.digest)
        said = "\0".join(("a file of a web server", *known_by, str(self.size)))
        return f"sha256:{hashlib.sha256(said.encode()).hexdigest()}"


def parse_url(text: str) -> str:
    """The URL of a file in its one form, without a fragment. Raises RequestError."""
    match = _URL.fullmatch(text.partition("#")[0]) if len(text) <= URL_CHARACTERS_MAX else None
    if not match:
        raise RequestError(400, "NAME_INVALID", "this is no URL of a file; write https://HOST/PATH, with no user in it")
    scheme, host, target = match[1].lower(), match[2].lower(), match[3] or "/"
    path = target.partition("?")[0]
    if any(unquote(part) in (".", "..") for part in re.split("[/\\\\]|%2[fF]|%5[cC]", path)):
        raise RequestError(400, "NAME_INVALID", "the URL's path has . or .. in it; write the path that it leads to")
    try:
        urlsplit(f"{scheme}://{host}").port  # noqa: B018 (raises for what is no port)
    except ValueError:
        raise RequestError(400, "NAME_INVALID", "the URL's port is none") from None
    return f"{scheme}://{host.removesuffix(_USUAL_PORTS[scheme])}{target if target.startswith('/') else '/' + target}"


def parse_contents(text: str) -> str:
    """The digest that a file must have. Raises RequestError."""
    try:
        return parse_digest(text)
    except InvalidDigest:
        words = "this is no digest; write sha256: and 64 hexadecimal digits in lower case"
        raise RequestError(400, "DIGEST_INVALID", words) from None


def files_allowed(patterns: tuple[Pattern, ...], url: str) -> bool:
    """Whether an operator's list has the server of a URL, or a pattern that its path fits as well; an empty list has none."""
    parts = urlsplit(url)
    return any(item.matches(parts.netloc, parts.path.removeprefix("/").lower()) for item in patterns)


def validator_of(headers: Mapping[str, str]) -> str:
    """The strong validator of an answer; "" when it has none. Names of fields are in lower case."""
    etag = headers.get("etag", "")
    if _ETAG.fullmatch(etag) and len(etag) <= VALIDATOR_CHARACTERS_MAX:
        return etag
    modified, now = headers.get("last-modified", ""), headers.get("date", "")
    try:
        age = parsedate_to_datetime(now) - parsedate_to_datetime(modified)
    except (ValueError, TypeError):
        return ""
    return modified if age.total_seconds() >= SETTLED_SECONDS and _DATE.fullmatch(modified) else ""
