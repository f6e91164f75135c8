"""HTTP/1.1 as our own nodes write it: heads without anything unusual, read and written without a state machine.

What one node asks another for a piece, and what that answers, is a few short lines. What is read here, h11 would read to mean the
same (a test holds that); of everything else these functions say None, and h11 reads it. Why: docs/decisions/0012.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_REQUEST_LINE = re.compile(rb"GET ([!-~]+) HTTP/1\.1")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2}) [ -~]*")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}): ?([!-~](?:[ -~]*[!-~])?)")
_LENGTH = re.compile(r"[0-9]{1,19}")
_TARGET = re.compile(r"[!-~]+")
_LINE = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [ -~\t\x80-\xff]*")

# RFC 9110 and 9112: fields that change how a message is framed, or what becomes of the connection.
_UNUSUAL_IN_REQUESTS = {"connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"}
_UNUSUAL_IN_ANSWERS = {"connection", "keep-alive", "trailer", "transfer-encoding", "upgrade"}
_WITHOUT_BODY = {204, 205, 304}

END = b"\r\n\r\n"


class PlainRequest(NamedTuple):
    """A GET without a body, whose connection stays."""

    target: str
    headers: dict[str, str]
    """By lower-case name."""


class PlainAnswer(NamedTuple):
    """An answer whose connection stays."""

    status: int
    headers: dict[str, str]
    length: int
    """Bytes of the body, or those that it would have had if it were not the answer to a HEAD."""
    rest: bytes
    """What came behind the head."""


def read_request(data: bytes) -> PlainRequest | None:
    """The request that `data` is, and nothing more than it."""
    if not data.endswith(END) or data.find(END) != len(data) - len(END):
        return None
    first, *lines = data[: -len(END)].split(b"\r\n")
    match, headers = _REQUEST_LINE.fullmatch(first), _fields(lines)
    if match is None or headers is None or "host" not in headers or _UNUSUAL_IN_REQUESTS & headers.keys():
        return None
    return PlainRequest(match[1].decode("ascii"), headers)


def read_answer(data: bytes) -> PlainAnswer | None:
    """The answer whose head `data` begins with."""
    head, end, rest = data.partition(END)
    first, *lines = head.split(b"\r\n")
    match, headers = _STATUS_LINE.fullmatch(first), _fields(lines)
    if not end or match is None or headers is None or _UNUSUAL_IN_ANSWERS & headers.keys():
        return None
    status, length = int(match[1]), headers.get("content-length", "")
    if status in _WITHOUT_BODY or not _LENGTH.fullmatch(length):
        return None
    return PlainAnswer(status, headers, int(length), rest)


def _fields(lines: list[bytes]) -> dict[str, str] | None:
    """The fields by name, if each is there once."""
    headers: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        headers[field[1].decode("ascii").lower()] = field[2].decode("ascii")
    return headers if len(headers) == len(lines) else None


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
