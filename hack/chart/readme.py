"""The chart's README: a table of every value with its default and its meaning, read out of values.yaml and its comments.

    python -m hack.chart.readme > charts/darner/README.md

What a value means is written once, in the comment above it; this module adds words to none but those that are Kubernetes' own. A
test holds that the page in the tree is what this prints.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from hack.chart.helm import CHART

HEAD = """\
# The chart's values

Made from [values.yaml](values.yaml) by `python -m hack.chart.readme`. [install.md](../../docs/install.md) says how the chart is
used, [chart.md](../../docs/chart.md) what it installs and why. A value that does not exist, or has the wrong type, is refused by
its name.
"""
AS_IN_KUBERNETES = {
    "podSecurityContext": "a pod's `securityContext`",
    "securityContext": "a container's `securityContext`",
    "resources": "a container's `resources`",
    "extraEnv": "a container's `env`: more variables",
    "tolerations": "a pod's `tolerations`",
    "nodeSelector": "a pod's `nodeSelector`",
    "affinity": "a pod's `affinity`",
    "podLabels": "more labels of the pods",
    "podAnnotations": "more annotations of the pods",
    "priorityClassName": "a pod's `priorityClassName`",
    "startupProbe": "the numbers of a container's `startupProbe`",
    "livenessProbe": "the numbers of a container's `livenessProbe`",
    "readinessProbe": "the numbers of a container's `readinessProbe`",
    "extraArgs": "more flags of the process; they count more than its variables",
    "extraVolumes": "more of a pod's `volumes`",
    "extraVolumeMounts": "more of a container's `volumeMounts`",
    "runtimeClassName": "a pod's `runtimeClassName`",
    "dnsConfig": "a pod's `dnsConfig`",
    "hostAliases": "a pod's `hostAliases`",
}
"""Values that are handed on as they are. They are one row each, and may go without a comment."""


@dataclass(frozen=True)
class Value:
    path: str
    default: str
    """As JSON; empty for a group of values."""
    meaning: str
    depth: int

    @property
    def row(self) -> str:
        return f"| `{self.path}` | {f'`{self.default}`' if self.default else ''} | {self.meaning} |"


def comment_above(lines: list[str], line: int) -> str:
    """The comment that ends right above a line, as one line."""
    found: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].strip().removeprefix("#").strip())
    return " ".join(found).replace("|", "\\|")


def values(text: str) -> Iterator[Value]:
    """In the order of the file, each group before what is in it."""
    lines = text.splitlines()

    def walk(node: yaml.MappingNode, defaults: dict[str, Any], path: tuple[str, ...]) -> Iterator[Value]:
        for key, below in node.value:
            name, default = key.value, defaults[key.value]
            here = (*path, name)
            meaning = comment_above(lines, key.start_mark.line) or AS_IN_KUBERNETES.get(name, "")
            if isinstance(below, yaml.MappingNode) and below.value and name not in AS_IN_KUBERNETES:
                yield Value(".".join(here), "", meaning, len(here))
                yield from walk(below, default, here)
            else:
                yield Value(".".join(here), json.dumps(default), meaning, len(here))

    yield from walk(yaml.compose(text), yaml.safe_load(text), ())


def page(text: str) -> str:
    """Groups at the top of the file are sections, other groups are rows if they say something."""
    parts, table = [HEAD], False
    for value in values(text):
        if value.depth == 1 and not value.default:
            parts.append(f"\n## {value.path}\n" + (f"\n{value.meaning}\n" if value.meaning else ""))
            table = False
        elif value.default or value.meaning:
            if not table:
                parts.append("\n| value | default | meaning |\n|---|---|---|\n")
                table = True
            parts.append(value.row + "\n")
    return "".join(parts)


if __name__ == "__main__":
    print(page((CHART / "values.yaml").read_text()), end="")
