"""A request at the agent's socket, parsed once: which file is wanted, and what its server is told. Pure. There are two:

GET /v1/file?url=URL[&digest=sha256:HEX]      the file; header fields for its server are in `Darner-Headers`, as JSON
GET /v1/file/sha256:HEX                       from where its bytes came so far, by the name in an answer's `Darner-File`
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from agent.origin.web import own_headers
from agent.values.errors import RequestError
from agent.values.web_file import URL_CHARACTERS_MAX, parse_contents, parse_url

TARGET_CHARACTERS_MAX = 3 * URL_CHARACTERS_MAX + 256
HEADERS = "darner-headers"
"""A JSON object; in lower case, as requests have their fields."""

_PROGRESS = re.compile(r"/v1/file/(sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class WantedFile:
    url: str
    digest: str = ""
    headers: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class FileProgress:
    task: str


def parse_request(target: str, headers: dict[str, str]) -> WantedFile | FileProgress:
    """Raises RequestError."""
    if match := _PROGRESS.fullmatch(target):
        return FileProgress(match[1])
    path, _, query = target.partition("?")
    if path != "/v1/file" or len(target) > TARGET_CHARACTERS_MAX:
        raise RequestError(404, "NAME_INVALID", "there is /v1/file?url=URL at this socket")
    try:
        said = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=2))
    except ValueError:
        raise RequestError(400, "NAME_INVALID", "the query is none; write url=URL and perhaps digest=DIGEST") from None
    if not set(said) <= {"url", "digest"} or "url" not in said:
        raise RequestError(400, "NAME_INVALID", "the query has url and perhaps digest, and nothing else")
    digest = parse_contents(said["digest"]) if said.get("digest") else ""
    return WantedFile(parse_url(said["url"]), digest, _headers(headers.get(HEADERS, "{}")))


def _headers(text: str) -> dict[str, str]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise RequestError(400, "UNSUPPORTED", "Darner-Headers is no JSON object of texts")
    return own_headers(list(fields.items()))
