"""Patterns by which an operator names registries and repositories, at the agent and at the webhook alike. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate


@dataclass(frozen=True)
class Pattern:
    """A registry, or a pattern of `registry/repository`; `*` stands for anything, slashes too."""

    text: str
    expression: re.Pattern[str]

    def matches(self, registry: str, repository: str) -> bool:
        return self.expression.fullmatch(f"{registry}/{repository}" if "/" in self.text else registry) is not None


def pattern(text: str) -> Pattern:
    """`docker.io`, `*.example.com`, `quay.io/team/*`. Raises ValueError for what can match no name."""
    if not re.fullmatch(r"[A-Za-z0-9*?][A-Za-z0-9*?.:_/-]*", text) or text.endswith("/"):
        raise ValueError(f"{text!r} is not a pattern; write a registry such as *.example.com, or quay.io/team/*")
    return Pattern(text, re.compile(translate(text.lower())))


def allowed(patterns: tuple[Pattern, ...], registry: str, repository: str) -> bool:
    """Whether a list allows the repository; an empty one allows all."""
    return not patterns or any(item.matches(registry, repository) for item in patterns)
