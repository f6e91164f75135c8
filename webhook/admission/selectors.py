"""Label selectors as Kubernetes writes them, and what a pod itself demands of its node's labels. Pure.

The question here is whether a demand can only be met by nodes that a selector selects: it is answered from the pod alone, so it
holds as well for a node pool that has no node yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from webhook.kube.api import mapping_at, mappings_at, text_at
from webhook.pods import Pod

_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"
_REQUIREMENT = re.compile(
    rf"\s*(?P<absent>!\s*)?(?P<key>[A-Za-z0-9](?:[A-Za-z0-9._/-]{{0,315}}[A-Za-z0-9])?)"
    rf"(?:\s*(?P<sign>==?|!=)\s*(?P<value>{_VALUE})|\s+(?P<word>in|notin)\s*\((?P<values>\s*{_VALUE}\s*(?:,\s*{_VALUE}\s*)*)\))?"
    r"\s*(?:,|$)"
)


class Requirement(NamedTuple):
    """Of a selector, or of a pod's node affinity."""

    key: str
    operator: str
    """In, NotIn, Exists or DoesNotExist, as in Kubernetes' own objects; a pod's may be another."""
    values: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Selector:
    text: str
    requirements: tuple[Requirement, ...]

    def has_to_hold(self, demands: Sequence[Requirement]) -> bool:
        """Whether every node that meets all of these demands is selected."""
        if not demands:  # as of most pods: they may come to any node
            return not self.requirements
        return all(any(_implies(demand, wanted) for demand in demands) for wanted in self.requirements)


def selector(text: str) -> Selector:
    """`pool=spot`, `pool in (spot, batch),arch!=arm64`, `gpu`, `!agents`: all of it has to hold. Raises ValueError."""
    requirements, at = [], 0
    while at < len(text):
        match = _REQUIREMENT.match(text, at)
        if not match or (match["absent"] and (match["sign"] or match["word"])):
            raise ValueError(f"{text!r} is no selector of labels; write it as for kubectl, such as pool in (spot,batch)")
        at = match.end()
        if match["sign"]:
            requirements.append(
                Requirement(match["key"], "NotIn" if match["sign"] == "!=" else "In", frozenset({match["value"]}))
            )
        elif match["word"]:
            values = frozenset(value.strip() for value in match["values"].split(","))
            requirements.append(Requirement(match["key"], "In" if match["word"] == "in" else "NotIn", values))
        else:
            requirements.append(Requirement(match["key"], "DoesNotExist" if match["absent"] else "Exists"))
    if text and text.rstrip().endswith(","):
        raise ValueError(f"{text!r} ends with a comma")
    return Selector(text, tuple(requirements))


def selector_or_none(text: str) -> Selector | None:
    return selector(text) if text.strip() else None


def demands_of(pod: Pod) -> list[list[Requirement]]:
    """The ways to a node that the pod leaves open: of each, all that it demands of the node's labels. Without demands: any node.

    Its nodeSelector holds in all of them; of its required node affinity, one term has to (core/v1, NodeSelector).
    """
    spec = mapping_at(pod, "spec")
    always = [
        Requirement(key, "In", frozenset({value}))
        for key, value in mapping_at(spec, "nodeSelector").items()
        if isinstance(value, str)
    ]
    affinity = mapping_at(mapping_at(spec, "affinity"), "nodeAffinity")
    terms = mappings_at(mapping_at(affinity, "requiredDuringSchedulingIgnoredDuringExecution"), "nodeSelectorTerms")
    return [always + [_requirement(item) for item in mappings_at(term, "matchExpressions")] for term in terms] or [always]


def _requirement(item: Mapping[str, Any]) -> Requirement:
    values = item.get("values")
    texts = (value for value in (values if isinstance(values, list) else ()) if isinstance(value, str))
    return Requirement(text_at(item, "key"), text_at(item, "operator"), frozenset(texts))


def _implies(demand: Requirement, wanted: Requirement) -> bool:
    if demand.key != wanted.key:
        return False
    match wanted.operator, demand.operator:
        case "In", "In":
            return bool(demand.values) and demand.values <= wanted.values
        case "NotIn", "In":
            return bool(demand.values) and not demand.values & wanted.values
        case "NotIn", "NotIn":
            return wanted.values <= demand.values
        case "Exists", "In" | "Exists" | "Gt" | "Lt":
            return True
        case "NotIn" | "DoesNotExist", "DoesNotExist":
            return True
    return False
