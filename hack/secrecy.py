"""Secrets that tests and labs make, and all that was told while they were known: in no log, metric or state may one of them be.

Both are noted where they come up; `tests/conftest.py` compares them. A secret is looked for as it is, as a URL writes it, in
hexadecimal digits, and in base64 in all three places that it can have among other bytes, such as behind a user's name.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import quote, quote_plus

SECRET_LENGTH_MIN = 6
"""A shorter one is in many a text by chance, and so is a word of letters alone."""

_known: dict[str, tuple[str, str]] = {}
"""What a form of a secret is, and the secret, by the form."""
_beginnings: set[str] = set()
_heard: list[tuple[str, str]] = []

Secret = TypeVar("Secret", str, bytes)


def secret(value: Secret, what: str = "a secret") -> Secret:
    """The same value, which from now on nobody may tell."""
    raw = value.encode() if isinstance(value, str) else value
    text = raw.decode("latin-1")
    if len(raw) >= SECRET_LENGTH_MIN and not re.fullmatch(r"[A-Za-z ]*", text) and text not in _known:
        for form in _forms(raw):
            _known.setdefault(form, (what, text))
            _beginnings.add(form[:SECRET_LENGTH_MIN])
    return value


def heard(where: str, text: str) -> None:
    """Something was told, to whoever reads logs or asks for metrics."""
    if text:
        _heard.append((where, text))


def leaks() -> list[str]:
    """Where a secret was told since this was asked last, and which one it is, without the secret itself."""
    found = [
        f"{where} tells {what}: ...{line.replace(form, '*****')[:200]}..."
        for where, text in _heard
        for form, what in found_in(text)
        for line in [next(line for line in text.splitlines() if form in line)]
    ]
    _heard.clear()
    return list(dict.fromkeys(found))


def found_in(text: str) -> Iterator[tuple[str, str]]:
    """The forms of known secrets in a text, and what they are."""
    there = {text[at : at + SECRET_LENGTH_MIN] for at in range(len(text) - SECRET_LENGTH_MIN + 1)} & _beginnings
    if there:
        yield from ((form, what) for form, (what, _) in _known.items() if form[:SECRET_LENGTH_MIN] in there and form in text)


def _forms(raw: bytes) -> Iterator[str]:
    text = raw.decode("latin-1")
    yield from (text, ascii(text)[1:-1], quote(raw, safe=""), quote_plus(raw), raw.hex())
    for ahead in range(3):
        # The first and the last character depend on the bytes around it.
        encoded = base64.b64encode(bytes(ahead) + raw).decode().rstrip("=")
        inner = encoded[-(-ahead * 8 // 6) : len(encoded) - ((ahead + len(raw)) % 3 != 0)]
        if len(inner) >= SECRET_LENGTH_MIN:
            yield from (inner, inner.translate(str.maketrans("+/", "-_")))
