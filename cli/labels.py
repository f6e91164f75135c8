"""Whether labels meet a selector, as objects of Kubernetes write it (meta/v1, LabelSelector). Pure."""

from __future__ import annotations

from collections.abc import Mapping

from webhook.kube.api import Object, mapping_at, mappings_at, text_at

COMPONENT = "app.kubernetes.io/component"


def labels_of(item: Object) -> dict[str, str]:
    return {name: value for name, value in mapping_at(mapping_at(item, "metadata"), "labels").items() if isinstance(value, str)}


def labels_of_namespace(namespace: Object) -> dict[str, str]:
    """With its name, as every selector of namespaces sees it (the label that API servers set)."""
    return labels_of(namespace) | {"kubernetes.io/metadata.name": text_at(mapping_at(namespace, "metadata"), "name")}


def selected(selector: Object, labels: Mapping[str, str]) -> bool:
    """An empty selector selects everything; an operator that nobody knows, nothing."""
    return not unmet(selector, labels)


def unmet(selector: Object, labels: Mapping[str, str]) -> list[str]:
    """The requirements that the labels do not meet, as kubectl would write them."""
    wanted = mapping_at(selector, "matchLabels")
    missed = [f"{name}={value}" for name, value in wanted.items() if labels.get(name) != value]
    return missed + [words for item in mappings_at(selector, "matchExpressions") if (words := _unmet_expression(item, labels))]


def _unmet_expression(item: Object, labels: Mapping[str, str]) -> str:
    key, operator, values = text_at(item, "key"), text_at(item, "operator"), item.get("values") or []
    match operator:
        case "In":
            return "" if labels.get(key) in values else f"{key} in ({','.join(values)})"
        case "NotIn":
            return f"{key} notin ({','.join(values)})" if labels.get(key) in values else ""
        case "Exists":
            return "" if key in labels else key
        case "DoesNotExist":
            return f"!{key}" if key in labels else ""
    return f"{key} {operator}"
