"""Images that nobody can put back: Kubernetes lets no one change those of image volumes and ephemeral containers.

Pure. A failed pull of theirs would leave the pod worse off than without us, so the gate lets them be rewritten only where it is
proven that pulls through the agents succeed (docs/decisions/0010). Who has the proofs is its caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum

from webhook.admission.readiness import Agents, bound_nodes
from webhook.gates import Gate, LeftAlone, Reason, Rewrite
from webhook.pods import IMMUTABLE_KINDS, Pod


class ImmutableImages(StrEnum):
    """The operator's choice when images are rewritten that cannot be put back."""

    PROVEN = "proven"
    ALWAYS = "always"
    NEVER = "never"


def proven_only(
    proves: Callable[[str, float], bool],
    agents: Callable[[], Agents | None] | None,
    when: ImmutableImages,
    clock: Callable[[], float],
) -> Gate:
    """The gate; `proves` tells of a registry whether, at this time, its pulls are known to succeed."""

    def gate(_namespace: str, pod: Pod, rewrites: Sequence[Rewrite]) -> Iterator[LeftAlone]:
        for item in rewrites:
            if item.place.kind in IMMUTABLE_KINDS and when is not ImmutableImages.ALWAYS:
                words = _why_not(item.registry, pod)
                if words:
                    yield LeftAlone(item.place.where, Reason.NOT_PROVEN, f"nobody could put its image back, and {words}")

    def _why_not(registry: str, pod: Pod) -> str | None:
        if when is ImmutableImages.NEVER:
            return "such images are left alone"
        if not proves(registry, clock()):
            return f"no image of {registry} was pulled through an agent in the last 24 h, or a later pull failed"
        view = agents() if agents else None
        if view is None:
            return None
        nodes = bound_nodes(pod) or view.nodes
        ready = len(nodes & view.ready)
        return None if ready == len(nodes) else f"agents are ready on {ready} of the {len(nodes)} nodes that it may come to"

    return gate
