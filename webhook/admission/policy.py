"""What the cluster's operator lets the webhook rewrite: namespaces, and patterns of registries and repositories. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent.values.pattern import Pattern, allowed
from agent.values.reference import Reference


@dataclass(frozen=True)
class Policy:
    excluded_namespaces: frozenset[str] = frozenset()
    include: tuple[Pattern, ...] = ()
    """Empty: every image."""
    exclude: tuple[Pattern, ...] = ()
    release: str = ""
    """The label of rewritten pods."""
    allow: tuple[Pattern, ...] = ()
    """The agents' own list: what they would refuse is not sent to them."""

    def admits(self, reference: Reference) -> bool:
        name = reference.registry, reference.repository
        return (
            allowed(self.allow, *name) and allowed(self.include, *name) and not any(item.matches(*name) for item in self.exclude)
        )
