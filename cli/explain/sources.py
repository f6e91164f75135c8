"""Where the bytes of an image came from, and in how many seconds: what agents tell of their last pulls. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.values.reference import InvalidReference, Reference, from_local, is_local
from webhook.kube.api import mapping_at, mappings_at, text_at

SOURCES = ("store", "containerd", "peer", "supernode", "origin")
"""As agents count them."""


@dataclass(frozen=True)
class PullStory:
    """One blob that a node fetched, or had already."""

    node: str
    digest: str
    bytes: int
    seconds: float
    first_byte_seconds: float | None
    """None: nobody was sent any."""
    seconds_ago: float
    sources: Mapping[str, int]
    error: str

    @property
    def share(self) -> str:
        """`peer 60 %, origin 40 %`, the largest first."""
        whole = sum(self.sources.values()) or 1
        largest = sorted(self.sources.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {100 * count / whole:.0f} %" for name, count in largest if count) or "nothing"


def pulls_of(node: str, state: Mapping[str, Any], images: Sequence[str]) -> Iterator[PullStory]:
    """The pulls of any of these images on a node, the newest first, by its agent's state."""
    names = {name for image in images if (name := repository(image))}
    found = [item for item in mappings_at(state, "pulls") if text_at(item, "image") in names]
    for item in sorted(found, key=lambda item: _number(item, "secondsAgo")):
        sources = mapping_at(item, "sources")
        yield PullStory(
            node,
            text_at(item, "digest"),
            int(_number(item, "bytes")),
            _number(item, "seconds"),
            None if item.get("firstByteSeconds") is None else _number(item, "firstByteSeconds"),
            _number(item, "secondsAgo"),
            {name: int(_number(sources, name)) for name in SOURCES},
            text_at(item, "error"),
        )


def repository(image: str) -> str:
    """`docker.io/library/nginx`, by which agents name a pull's image; empty for what is no name."""
    try:
        reference = Reference.parse(from_local(image) if is_local(image) else image)
    except InvalidReference:
        return ""
    return f"{reference.registry}/{reference.repository}"


def _number(holder: Mapping[str, Any], key: str) -> float:
    value = holder.get(key)
    return float(value) if isinstance(value, int | float) else 0.0
