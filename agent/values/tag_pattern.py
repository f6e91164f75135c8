"""Patterns of tags, by which an operator says which ones are asked for at every pull: `:latest`, `quay.io/team/*:dev-*`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate

PATTERN_LENGTH_MAX = 512

_PATTERN = re.compile(r"(?P<name>[A-Za-z0-9*?][A-Za-z0-9*?.:_/-]*|):(?P<tag>[A-Za-z0-9_*?][A-Za-z0-9_.*?-]*)")


@dataclass(frozen=True)
class TagPattern:
    text: str
    expression: re.Pattern[str]

    def matches(self, registry: str, repository: str, reference: str) -> bool:
        """Whether the reference is a tag that is meant. A digest, which always means the same, never is."""
        return ":" not in reference and self.expression.fullmatch(f"{registry}/{repository}:{reference}") is not None


def tag_pattern(text: str) -> TagPattern:
    """`REGISTRY/REPOSITORY:TAG`, in which `*` stands for anything, slashes too; without a name, that tag of every repository.

    Names are those that images have in full (`docker.io/library/nginx`). Raises ValueError for what can match no tag.
    """
    match = _PATTERN.fullmatch(text) if len(text) <= PATTERN_LENGTH_MAX else None
    if not match or (match["name"] and not re.search(r"[/*]", match["name"])):
        raise ValueError(f"{text[:100]!r} is not a pattern of tags; write :latest, or quay.io/team/*:dev-*")
    name = match["name"].lower() or "*"
    return TagPattern(text, re.compile(translate(f"{name}:{match['tag']}")))
