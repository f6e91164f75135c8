"""Objects of a cluster that Darner is installed in, as the chart and the controllers write them."""

from __future__ import annotations

from typing import Any

from hack.lab.apiserver import ApiServer

NAMESPACE = "darner-system"
KINDS = {"agent": "daemonsets", "supernode": "statefulsets", "webhook": "deployments"}
Document = dict[str, Any]


def selector(component: str, release: str = "darner") -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "darner",
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": component,
    }


def install(api: ApiServer, release: str = "darner", namespace: str = NAMESPACE, nodes: int = 2) -> None:
    """All three workloads, with a Ready pod of each replica."""
    api.put(f"/api/v1/namespaces/{namespace}", {})
    for component, resource in KINDS.items():
        name = f"{release}-{component}"
        labels = selector(component, release)
        count = nodes if component == "agent" else 1
        status = {"desiredNumberScheduled": count, "numberReady": count, "readyReplicas": count}
        metadata = {"labels": labels | {"app.kubernetes.io/part-of": "darner"}}
        ports = [{"name": "http", "containerPort": 8081 if component == "webhook" else 65003}]
        template = {"spec": {"containers": [{"name": component, "ports": ports}]}}
        spec = {"replicas": count, "selector": {"matchLabels": labels}, "template": template}
        document = {"metadata": metadata, "spec": spec, "status": status}
        api.put(f"/apis/apps/v1/namespaces/{namespace}/{resource}/{name}", document)
        for number in range(count):
            put_pod(api, f"{name}-{number}", component, release, namespace, node=f"n{number}")


def put_pod(
    api: ApiServer, name: str, component: str, release: str = "darner", namespace: str = NAMESPACE, node: str = "n0"
) -> Document:
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "podIP": "10.0.0.1"}
    document = {"metadata": {"labels": selector(component, release)}, "spec": {"nodeName": node}, "status": status}
    return api.put(f"/api/v1/namespaces/{namespace}/pods/{name}", document)
