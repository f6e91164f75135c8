"""Darner's release in a cluster: found by the labels that the chart writes, with its workloads and their pods."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cli.cluster import ClusterAccess
from cli.errors import NotAllowed, NotThere, WrongUsage
from cli.labels import COMPONENT
from cli.pods import is_ready
from webhook.kube.api import Object, mapping_at, mappings_at, text_at

PART_OF = "app.kubernetes.io/part-of=darner"
INSTANCE = "app.kubernetes.io/instance"
USUAL_NAMESPACE = "darner-system"
"""Looked into where a person may not look into all."""
WORKLOADS = {"agent": "daemonsets", "supernode": "statefulsets", "webhook": "deployments"}
APPS = "/apis/apps/v1"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
HTTP_PORTS = {"supernode": 65003, "webhook": 8080}
"""Of health, metrics and state, on a pod's own loopback. An agent listens at its node's address: `darner local` knows it."""


@dataclass(frozen=True)
class Installation:
    """One release."""

    access: ClusterAccess
    namespace: str
    name: str
    workloads: dict[str, Object] = field(default_factory=dict)
    """By component: the DaemonSet of agents, the StatefulSet of supernodes, the Deployment of webhooks."""

    def http_port(self, component: str) -> int:
        """Of health, metrics and state, as the chart's values have it."""
        template = mapping_at(mapping_at(self.workloads.get(component, {}), "spec"), "template")
        for container in mappings_at(mapping_at(template, "spec"), "containers"):
            for port in mappings_at(container, "ports"):
                number = port.get("containerPort")
                if port.get("name") == "http" and isinstance(number, int):
                    return number
        return HTTP_PORTS[component]

    def pods(self, component: str) -> list[Object]:
        workload = self.workloads.get(component)
        if workload is None:
            return []
        labels = mapping_at(mapping_at(mapping_at(workload, "spec"), "selector"), "matchLabels")
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        return self.access.items(f"/api/v1/namespaces/{self.namespace}/pods", selector)

    def ready_pods(self, component: str) -> list[Object]:
        """Those that can be asked."""
        return [pod for pod in self.pods(component) if is_ready(pod)]


def find(access: ClusterAccess, namespace: str = "", release: str = "") -> Installation:
    """The one release, or that of this name. Raises NotThere; WrongUsage where several fit."""
    found = list(_releases(_workloads(access, namespace), access))
    fitting = [item for item in found if release in ("", item.name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        named = ", ".join(f"{item.namespace}/{item.name}" for item in fitting)
        raise WrongUsage(f"several releases of Darner are here: {named}; choose with --release and --namespace")
    where = f"namespace {namespace}" if namespace else "this cluster"
    if namespace and access.ask("GET", f"/api/v1/namespaces/{namespace}").status == 404:
        raise NotThere(f"there is no namespace {namespace} in this cluster; leave --namespace out, and all are looked into")
    if found:
        named = ", ".join(f"{item.namespace}/{item.name}" for item in found)
        raise NotThere(f"no release {release} of Darner is in {where}; there is {named}")
    raise NotThere(f"Darner is not installed in {where}; docs/install.md says how, and `helm list -A` what there is")


def _workloads(access: ClusterAccess, namespace: str) -> list[tuple[str, Object]]:
    if namespace:
        return list(_listed(access, namespace))
    try:
        return list(_listed(access, ""))
    except NotAllowed as refused:
        # Not all namespaces, then those where it is likely to be.
        for likely in dict.fromkeys(filter(None, (access.namespace, USUAL_NAMESPACE))):
            try:
                if found := list(_listed(access, likely)):
                    return found
            except NotAllowed:
                continue
        raise NotAllowed(f"{refused}; write the namespace of Darner after --namespace") from None


def _listed(access: ClusterAccess, namespace: str) -> Iterable[tuple[str, Object]]:
    for component, resource in WORKLOADS.items():
        where = f"/namespaces/{namespace}/{resource}" if namespace else f"/{resource}"
        for item in access.items(f"{APPS}{where}", f"{PART_OF},{COMPONENT}={component}"):
            yield component, item


def _releases(found: Iterable[tuple[str, Object]], access: ClusterAccess) -> Iterable[Installation]:
    releases: dict[tuple[str, str], Installation] = {}
    for component, item in found:
        metadata = mapping_at(item, "metadata")
        key = text_at(metadata, "namespace"), text_at(mapping_at(metadata, "labels"), INSTANCE)
        releases.setdefault(key, Installation(access, *key)).workloads[component] = item
    return releases.values()
