"""A cluster for the commands that look at one: what they ask is answered from tables, and noted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from cli.cluster import ClusterAccess, refusal
from cli.errors import NotAllowed
from cli.labels import COMPONENT, labels_of
from cli.streams import Executed
from webhook.kube.api import ApiAnswer, Object

CREATED = "2026-01-01T00:00:00Z"
NAMESPACE = "darner-system"
Admission = Callable[[str, dict[str, Any]], ApiAnswer]


def admitted(namespace: str, pod: dict[str, Any]) -> ApiAnswer:
    """As it is."""
    metadata = {**pod.get("metadata", {}), "namespace": namespace, "creationTimestamp": CREATED}
    return ApiAnswer(201, {**pod, "metadata": metadata})


def denied(words: str, status: int = 403) -> ApiAnswer:
    return ApiAnswer(status, {"message": words})


@dataclass
class TableCluster:
    lists: dict[str, list[Object]] = field(default_factory=dict)
    """By path; of a selector, only the component is looked at."""
    objects: dict[str, Any] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    admission: Admission = admitted
    proxied: ApiAnswer = field(default_factory=lambda: ApiAnswer(405, {}))
    probe: Mapping[str, Any] | Exception = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """`METHOD path`, and `?dry` behind it for what is tried alone."""

    def ask(
        self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None, timeout: Any = None
    ) -> ApiAnswer:
        self.asked.append(f"{method} {path}" + ("?dry" if query and query.get("dryRun") == "All" else ""))
        if method == "POST":
            return self.admission(path.split("/")[4], body)
        if "/proxy/" in path:
            return self.proxied
        if method == "DELETE":
            return ApiAnswer(200, {})
        return ApiAnswer(200, self.objects[path]) if path in self.objects else ApiAnswer(404, {"message": "not found"})

    def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        if path in self.lists:
            return {"items": self.lists[path]}
        answer = self.ask("GET", path, query=query)
        if answer.status != 200:
            raise refusal(answer, path)
        return answer.document

    def items(self, path: str, selector: str = "", fields: str = "") -> list[Object]:
        if path in self.forbidden:
            raise NotAllowed(f"{path} is forbidden")
        found = self.lists.get(path, [])
        component = next((part.partition("=")[2] for part in selector.split(",") if part.startswith(COMPONENT)), "")
        return [item for item in found if not component or labels_of(item).get(COMPONENT) == component]

    def execute(self, namespace: str, pod: str, command: Sequence[str], container: str = "", seconds: float = 0) -> Executed:
        self.asked.append(f"EXEC {namespace}/{pod} {' '.join(command[3:])}")
        if isinstance(self.probe, Exception):
            raise self.probe
        return Executed(0, json.dumps(self.probe), "")

    @property
    def access(self) -> ClusterAccess:
        return cast(ClusterAccess, self)


@pytest.fixture
def cluster() -> TableCluster:
    return TableCluster(objects={"/version": {"gitVersion": "v1.36.3"}, f"/api/v1/namespaces/{NAMESPACE}": {"metadata": {}}})
