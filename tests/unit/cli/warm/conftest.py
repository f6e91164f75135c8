"""A cluster whose kubelets pull: what becomes of an image on a node is said by the test."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.values.reference import to_local
from hack.lab import apiserver
from tests.unit.cli.podserver import PodServer

SHOP = "/api/v1/namespaces/shop"
Document = dict[str, Any]
RUNNING: Document = {"running": {}}


class Kubelets(PodServer):
    """Pods have their containers' states as soon as they are made, and are rewritten; DaemonSets have a pod on each node."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[tuple[str, str], Document] = {}
        """By node and image, where it is not running."""
        self.most_at_once = 0

    def put(self, path: str, document: Document) -> Document:
        made = super().put(path, document)
        if path.startswith(f"{SHOP}/pods/") and "status" not in document:
            self.most_at_once = max(self.most_at_once, len(self.paths("pods")))
            super().put(path, self.started(copy.deepcopy(document)))
        if "/daemonsets/" in path and "status" not in document:
            template = document["spec"]["template"]
            nodes = [name.rpartition("/")[2] for name in self.objects if name.startswith("/api/v1/nodes/")]
            for node in nodes if document["metadata"]["name"].endswith("amd64") else []:
                field = {"key": "metadata.name", "operator": "In", "values": [node]}
                term = {"nodeSelectorTerms": [{"matchFields": [field]}]}
                pod = copy.deepcopy(template)
                pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = term
                self.put(f"{SHOP}/pods/{document['metadata']['name']}-{node}", pod)
        return made

    def started(self, pod: Document) -> Document:
        spec = pod["spec"]
        terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        node = terms[0]["matchFields"][0]["values"][0]
        statuses = []
        for container in spec["containers"]:
            image = container["image"]
            statuses.append({"name": container["name"], "state": self.states.get((node, image), RUNNING)})
            container["image"] = to_local(image)
        return {**pod, "spec": {**spec, "nodeName": node}, "status": {"phase": "Running", "containerStatuses": statuses}}

    def paths(self, resource: str) -> list[str]:
        with self.lock:
            return [path for path in self.objects if path.split("/")[-2] == resource and "/namespaces/" in path]


@pytest.fixture
def kubelets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubelets]:
    """Two nodes, and a namespace called shop."""
    server = Kubelets()
    with apiserver.running(server):
        for name in ("n0", "n1"):
            labels = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "pool": name}
            status = {"conditions": [{"type": "Ready", "status": "True"}]}
            server.put(f"/api/v1/nodes/{name}", {"metadata": {"name": name, "labels": labels}, "status": status})
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        monkeypatch.setenv("HOME", str(tmp_path))
        yield server
