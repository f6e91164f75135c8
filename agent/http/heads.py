"""Heads of HTTP/1.1 messages, as both sides see them: how long they may be, their fields by name, and how they are written.

h11 alone reads heads (`agent.http.request`, `agent.http.client`). They are written here: that takes no state machine, but each
line has to be one line, whatever somebody puts into a field (RFC 9110 section 5.5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

HEAD_BYTES_MAX = 16 << 10

_TARGET = re.compile(r"[!-~]+")
_LINE = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [ -~\t\x80-\xff]*")


def joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by lower-case name, repeated ones joined by a comma (RFC 9110 section 5.3)."""
    result: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("ascii").lower(), raw_value.decode("latin-1")
        result[name] = f"{result[name]}, {value}" if name in result else value
    return result


def stays_open(http_version: bytes, headers: Mapping[str, str]) -> bool:
    """Whether the sender of a head lets another message follow on its connection; with HTTP/1.0 nobody does here."""
    return http_version == b"1.1" and "close" not in headers.get("connection", "").lower()


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """A request without a body. Raises ValueError for what a request line or a field may not contain."""
    if not _TARGET.fullmatch(target):
        raise ValueError(f"{target!a} is no target of a request")
    return _head(f"{method} {target} HTTP/1.1", headers)


def answer_head(status: int, headers: Mapping[str, str]) -> bytes:
    """The head of an answer. Raises ValueError for what a field may not contain."""
    return _head(f"HTTP/1.1 {status} ", headers)


def _head(first: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    for line in lines:
        if not _LINE.fullmatch(line):
            raise ValueError(f"{line!a} is no field of HTTP")
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1")
