"""What a gate is asked, and what it answers: whether now is the time for the names that would be rewritten.

Pure values, and nothing else. Admission makes the rewrites and asks; gates come from admission and from the breaker, which know
nothing of each other. Leaving alone is always safe: such a pod is what it would have been without Darner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from webhook.pods import ImagePlace, Pod


class Reason(StrEnum):
    """Why an image or a whole pod was left alone, as metrics name it."""

    EXCLUDED_NAMESPACE = "excluded-namespace"
    OPTED_OUT = "opted-out"
    MIRROR_POD = "mirror-pod"
    WINDOWS = "windows"
    DRY_RUN = "dry-run"
    NOT_A_POD = "not-a-pod"
    NO_IMAGE = "no-image"
    NEVER_PULLED = "never-pulled"
    ALREADY_LOCAL = "already-local"
    EXCLUDED_IMAGE = "excluded-image"
    NOT_A_NAME = "not-a-name"
    TOO_LARGE = "too-large"
    AGENT_NOT_READY = "agent-not-ready"
    AGENTS_UNKNOWN = "agents-unknown"
    NO_PULL_SECRET = "no-pull-secret"  # noqa: S105 (a reason, not a password)
    REGISTRY_FAILING = "registry-failing"
    OWNER_DELETES = "owner-deletes"
    EXCLUDED_OWNER = "excluded-owner"
    NOT_PROVEN = "not-proven"
    NODE_CREDENTIAL = "node-credential"
    NO_AGENT_THERE = "no-agent-there"
    REFUSED = "refused"
    NO_RIGHTS = "no-rights"


@dataclass(frozen=True)
class Rewrite:
    place: ImagePlace
    original: str
    local: str
    registry: str
    """That the original is pulled from."""
    repository: str


@dataclass(frozen=True)
class LeftAlone:
    """An image that stays as it is, or with `where` of `pod` all of them."""

    where: str
    reason: Reason
    words: str

    def __str__(self) -> str:
        return f"{self.where}: {self.words}"


Gate = Callable[[str, Pod, Sequence[Rewrite]], Iterable[LeftAlone]]
"""Asked about a namespace's pod and what would be rewritten; tells which of that (`pod`: all) stays this time, and why."""

CredentialGate = Callable[[Sequence[Rewrite], frozenset[str]], Iterable[LeftAlone]]
"""Asked last, about what would be rewritten, and the registries for which the pod has a pull secret."""
