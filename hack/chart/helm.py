"""Helm as a function: the real one, on this project's chart, as on a machine where nobody has used it and without a cluster.

Owns how the tools of tool.sh are called from Python, and the few things that every reader of rendered objects needs.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "darner"
TOOL_SECONDS_MAX = 1800
"""A tool is built from source, once on a machine."""
HELM_SECONDS_MAX = 60

Object = dict[str, Any]
Values = dict[str, Any]
Environment = dict[str, str]


def tool(name: str) -> Path:
    """Where tool.sh has the tool, which it makes first if it must."""
    command = [str(ROOT / "hack" / "chart" / "tool.sh"), name]
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=TOOL_SECONDS_MAX, check=True)
    return Path(made.stdout.strip())


class Helm:
    """Calling it runs Helm with the values on its standard input; `home` is the only directory that it may write to."""

    def __init__(self, home: Path) -> None:
        self._path = tool("helm")
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": os.devnull}

    def __call__(self, *arguments: str, values: Values | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._path), *arguments, "--values", "-"],
            input=json.dumps(values or {}),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=HELM_SECONDS_MAX,
        )

    def template(
        self, values: Values | None = None, *, release: str = "darner", namespace: str = "darner-system"
    ) -> subprocess.CompletedProcess[str]:
        return self("template", release, str(CHART), "--namespace", namespace, values=values)


def identity(manifest: Object) -> tuple[str, str, str]:
    """Kind, namespace and name: what makes two objects the same one."""
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]


def one(objects: list[Object], kind: str, component: str) -> Object:
    """The one object of a kind that a component has."""
    (found,) = (
        item
        for item in objects
        if item["kind"] == kind and item["metadata"]["labels"]["app.kubernetes.io/component"] == component
    )
    return found


def pod_template(objects: list[Object], component: str) -> Object:
    kind = {"agent": "DaemonSet", "supernode": "StatefulSet", "webhook": "Deployment"}[component]
    template: Object = one(objects, kind, component)["spec"]["template"]
    return template


def environment(objects: list[Object], component: str, address: str) -> Environment:
    """A component's variables as the kubelet of a node with this address would set them: fields looked up, $(NAME) replaced."""
    downward = {
        "spec.nodeName": "node-7",
        "metadata.name": "darner-supernode-0",
        "metadata.labels['topology.kubernetes.io/zone']": "",
        "status.hostIP": address,
        "status.podIP": address,
    }
    (container,) = pod_template(objects, component)["spec"]["containers"]
    found: Environment = {}
    for item in container["env"]:
        value = item["value"] if "value" in item else downward[item["valueFrom"]["fieldRef"]["fieldPath"]]
        for name, earlier in found.items():
            value = value.replace(f"$({name})", earlier)
        found[item["name"]] = value
    return found
