"""A digest as it travels in messages: the 32 bytes of its SHA-256. How it is spelled is known to `agent.values.reference`."""

from __future__ import annotations


def raw_digest(digest: str) -> bytes:
    """The 32 bytes of a sha256 digest."""
    return bytes.fromhex(digest.removeprefix("sha256:"))


def spelled(raw: bytes) -> str:
    """The digest that `raw_digest` made these 32 bytes of."""
    return "sha256:" + raw.hex()
