"""The tables of metrics, process by process, as the collectors themselves name and explain them."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

import agent.build
import agent.metrics
import supernode.metrics
import webhook.metrics

PARTS: dict[str, tuple[ModuleType, str]] = {
    "Every process": (agent.build, "darner_build_info"),
    "Agents and supernodes": (agent.metrics, "darner_"),
    "Agents": (agent.metrics, "darner_agent_"),
    "Supernodes": (supernode.metrics, "darner_supernode_"),
    "The webhook": (webhook.metrics, "darner_webhook_"),
}
"""Who shows what: a module, and how the names begin there that are theirs."""


def metrics() -> Iterator[tuple[str, MetricWrapperBase]]:
    """All of them, each with the part that it belongs to."""
    for part, (module, _) in PARTS.items():
        for value in vars(module).values():
            if isinstance(value, MetricWrapperBase) and _part_of(module, value) == part:
                yield part, value


def _part_of(module: ModuleType, metric: MetricWrapperBase) -> str:
    """The part of the module whose beginning of a name says most."""
    fits = [(len(begin), part) for part, (its, begin) in PARTS.items() if its is module and metric._name.startswith(begin)]
    return max(fits)[1]


def exposed(metric: MetricWrapperBase) -> str:
    """The name as a scrape has it; a histogram's is that of its family."""
    return f"{metric._name}_total" if isinstance(metric, Counter) else metric._name


def series(metric: MetricWrapperBase) -> set[str]:
    """All names under which a scrape has it."""
    if metric._type == "histogram":
        return {f"{metric._name}{end}" for end in ("_bucket", "_count", "_sum")}
    return {exposed(metric)}


def metric_tables() -> str:
    lines: list[str] = []
    for part in PARTS:
        lines += [f"### {part}", "", "| metric | type | labels | what it counts |", "|---|---|---|---|"]
        for its, metric in metrics():
            if its == part:
                labels = ", ".join(f"`{label}`" for label in metric._labelnames)
                lines.append(f"| `{exposed(metric)}` | {metric._type} | {labels} | {metric._documentation} |")
        lines.append("")
    return "\n".join(lines)
