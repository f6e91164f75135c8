"""What is told of a pod that was just admitted: the names of its images in full, and for which machines. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from agent.swarm.messages import ARCHITECTURES_MAX
from agent.values.reference import Reference
from webhook.gates import Rewrite
from webhook.kube.api import mapping_at, mappings_at, text_at
from webhook.pods import Pod

ARCHITECTURE = "kubernetes.io/arch"
ARCHITECTURE_CHARACTERS_MAX = 64


class WarmName(NamedTuple):
    registry: str
    repository: str
    reference: str
    architectures: tuple[str, ...]
    """Of the nodes that the pod may come to; none: it does not say."""

    @property
    def key(self) -> str:
        """By which agents find the supernode that they ask for the name."""
        return f"{self.registry}/{self.repository}:{self.reference}"


def warm_names(pod: Pod, rewrites: Sequence[Rewrite]) -> list[WarmName]:
    """Each image once, as a node will ask for it: by its digest if it has one, or by its tag. Raises InvalidReference."""
    architectures = tuple(sorted(set(_architectures(pod)))[:ARCHITECTURES_MAX])
    found = [Reference.parse(item.original) for item in rewrites]
    names = [WarmName(name.registry, name.repository, name.digest or name.tag or "latest", architectures) for name in found]
    return list(dict.fromkeys(names))


def _architectures(pod: Pod) -> Iterator[str]:
    """As the pod's own words limit it to nodes; what a controller or the scheduler knows besides is not looked at."""
    spec = mapping_at(pod, "spec")
    if selected := text_at(mapping_at(spec, "nodeSelector"), ARCHITECTURE):
        yield selected[:ARCHITECTURE_CHARACTERS_MAX]
        return
    affinity = mapping_at(mapping_at(spec, "affinity"), "nodeAffinity")
    for term in mappings_at(mapping_at(affinity, "requiredDuringSchedulingIgnoredDuringExecution"), "nodeSelectorTerms"):
        for needed in mappings_at(term, "matchExpressions"):
            values = needed.get("values")
            if (text_at(needed, "key"), text_at(needed, "operator")) == (ARCHITECTURE, "In") and isinstance(values, list):
                yield from (value[:ARCHITECTURE_CHARACTERS_MAX] for value in values if isinstance(value, str))
