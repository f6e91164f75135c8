"""What the cluster's operator lets the webhook rewrite: namespaces, and patterns of registries and repositories. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate

from agent.values.reference import Reference


@dataclass(frozen=True)
class Pattern:
    """A registry, or a pattern of `registry/repository`; `*` stands for anything, slashes too."""

    text: str
    expression: re.Pattern[str]

    def matches(self, reference: Reference) -> bool:
        subject = f"{reference.registry}/{reference.repository}" if "/" in self.text else reference.registry
        return self.expression.fullmatch(subject) is not None


def pattern(text: str) -> Pattern:
    """`docker.io`, `*.example.com`, `quay.io/team/*`. Raises ValueError for what can match no name."""
    if not re.fullmatch(r"[A-Za-z0-9*?][A-Za-z0-9*?.:_/-]*", text) or text.endswith("/"):
        raise ValueError(f"{text!r} is not a pattern; write a registry such as *.example.com, or quay.io/team/*")
    return Pattern(text, re.compile(translate(text.lower())))


@dataclass(frozen=True)
class Policy:
    excluded_namespaces: frozenset[str] = frozenset()
    include: tuple[Pattern, ...] = ()
    """Empty: every image."""
    exclude: tuple[Pattern, ...] = ()
    release: str = ""
    """The label of rewritten pods."""

    def admits(self, reference: Reference) -> bool:
        included = not self.include or any(item.matches(reference) for item in self.include)
        return included and not any(item.matches(reference) for item in self.exclude)
