"""Darner in a cluster, as Helm installed it: what its parts say, and how each is taken away for a while and given back.

The parts are lost in ways that no value of the chart expresses: somebody else scales, patches or stops them.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hack.chart.helm import tool
from hack.cluster import Cluster, ClusterError
from hack.cluster.api import Api, Object
from hack.cluster.identity import CONFIG, PROGRAMS
from hack.cluster.layout import ORIGIN
from hack.cluster.origin import OPEN, PORTS, PRIVATE
from hack.lab.darner import metric_in
from hack.lab.process import LabError, wait_until
from tests.e2e.published import knowing_the_origin
from tests.e2e.space import told

NAMESPACE = "darner-system"
HTTP_PORTS = {"agent": 65003, "supernode": 65003, "webhook": 8080}
SOURCES = ("store", "peer", "supernode", "origin")
READY_SECONDS_MAX = 90
HELM_SECONDS_MAX = 3 * READY_SECONDS_MAX
"""Of a whole upgrade or rollback, which goes from node to node."""
LOG_LINES = 25


class Release:
    def __init__(self, cluster: Cluster, api: Api, chart: str, name: str = "darner") -> None:
        self.cluster, self.api, self.chart, self.name = cluster, api, chart, name
        origin = cluster.layout.origin.address
        self.values: Mapping[str, Any] = {
            "registries": {
                "insecure": [f"{origin}:{OPEN}", f"{origin}:{PRIVATE}"],
                "certificateAuthorities": {"configMap": "origin"},
            },
            "agent": {"credentialProvider": {"configPath": CONFIG, "binDir": PROGRAMS}, "socket": {"mode": "0666"}},
            "files": {"allow": [f"{origin}:{OPEN}"]},
        }
        """All that is not a default."""

    def install(self) -> None:
        self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        authority = {"ca.crt": self.cluster.origin.authority.read_text()}
        metadata = {"name": "origin", "namespace": NAMESPACE}
        self.api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": authority})
        self.helm("install", self.name, self.chart, values=self.values)

    def remove(self) -> None:
        """A release of an earlier run, and all that it left in its namespace."""
        if self.api.get("Namespace", None, NAMESPACE):
            with contextlib.suppress(ClusterError):
                self.helm("uninstall", self.name)
            self.api.delete("Namespace", None, NAMESPACE)
            wait_until(lambda: not self.api.get("Namespace", None, NAMESPACE), READY_SECONDS_MAX)

    def helm(self, verb: str, *arguments: object, values: Mapping[str, Any] | None = None) -> str:
        """What Helm prints, once everything that it changed is as it should be."""
        command = [tool("helm"), verb, *arguments, "--namespace", NAMESPACE, "--wait", f"--timeout={HELM_SECONDS_MAX}s"]
        environment = {"HOME": str(self.cluster.layout.directory), "KUBECONFIG": str(self.cluster.layout.kubeconfig)}
        done = subprocess.run(
            knowing_the_origin(self.cluster, [*command, *([] if values is None else ["--values", "-"])]),
            input=json.dumps(values),
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ClusterError(f"helm {verb}: {done.stderr}\n{self.report()}")
        return done.stdout

    def pods(self, component: str) -> list[Object]:
        """agent, supernode or webhook."""
        labels = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={component}"
        return self.api.all("Pod", NAMESPACE, labels)

    def agents(self) -> dict[str, Object]:
        """The agent of each node that has one."""
        return {pod["spec"]["nodeName"]: pod for pod in self.pods("agent") if "nodeName" in pod["spec"]}

    def metric(self, component: str, name: str, **labels: str) -> float:
        """Summed over the pods of a component."""
        return sum(self.metric_of(component, pod, name, **labels) for pod in self.pods(component))

    def metric_of(self, component: str, pod: Object, name: str, **labels: str) -> float:
        text = self.api.proxied(NAMESPACE, pod["metadata"]["name"], HTTP_PORTS[component], "metrics")
        return metric_in(text, name, labels)

    def received(self, node: str) -> dict[str, int]:
        """Bytes that fed the pulls of a node since its agent started, by source."""
        agent = self.agents()[node]
        return {
            source: int(self.metric_of("agent", agent, "darner_agent_received_bytes_total", source=source)) for source in SOURCES
        }

    def unready(self, *components: str) -> list[str]:
        """What is missing or not Ready, of some components or of all and between them; nothing, if all is well."""
        wanted = {"agent": len(self.cluster.plan.nodes), "supernode": 2, "webhook": 2}
        problems = []
        for component in components or wanted:
            pods = self.pods(component)
            if len(pods) != wanted[component]:
                problems.append(f"{len(pods)} of {wanted[component]} {component}s")
            problems += [pod["metadata"]["name"] for pod in pods if not _ready(pod)]
        if problems or components:
            return problems
        channels = wanted["agent"] * wanted["supernode"]
        if self.metric("agent", "darner_agent_supernodes_connected") != channels:
            problems.append("not every agent has a channel to every supernode")
        if self.metric("webhook", "darner_webhook_agents", state="ready") != wanted["webhook"] * wanted["agent"]:
            problems.append("not every webhook knows that all agents are ready")
        return problems

    def wait_ready(self, *components: str) -> None:
        try:
            wait_until(lambda: not self.unready(*components), READY_SECONDS_MAX)
        except LabError:
            raise ClusterError(f"not Ready after {READY_SECONDS_MAX} s: {self.unready(*components)}\n{self.report()}") from None

    @contextlib.contextmanager
    def without_origin(self) -> Iterator[None]:
        """No registry answers."""
        self.cluster.kill(ORIGIN)
        try:
            yield
        finally:
            self.cluster.boot(ORIGIN)
            wait_until(self._origin_answers)

    @contextlib.contextmanager
    def without_supernodes(self) -> Iterator[None]:
        with self._scaled_to_nothing("StatefulSet", "supernode"):
            yield

    @contextlib.contextmanager
    def without_webhook(self) -> Iterator[None]:
        with self._scaled_to_nothing("Deployment", "webhook"):
            yield

    @contextlib.contextmanager
    def without_agents(self, nodes: Sequence[str]) -> Iterator[None]:
        """The DaemonSet leaves these nodes out, and all others as they are: no agent is replaced for its template's sake."""
        terms = [{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in nodes]}]
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
        name = f"{self.name}-agent"
        before = self.api.get("DaemonSet", NAMESPACE, name)
        if before is None:
            raise ClusterError(f"there is no DaemonSet {name}")
        still = {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}
        self.api.merge("DaemonSet", NAMESPACE, name, {"spec": {**still, "template": {"spec": {"affinity": affinity}}}})
        try:
            wait_until(lambda: not set(nodes) & set(self.agents()))
            yield
        finally:
            back = {"updateStrategy": before["spec"]["updateStrategy"], "template": {"spec": {"affinity": None}}}
            self.api.merge("DaemonSet", NAMESPACE, name, {"spec": back})
            self.wait_ready("agent")

    @contextlib.contextmanager
    def stopped(self, component: str) -> Iterator[None]:
        """Every process of a component stands still (SIGSTOP): it holds its connections, and answers nobody."""
        processes = [(pod["spec"]["nodeName"], self._process(pod)) for pod in self.pods(component)]
        for node, pid in processes:
            self.cluster.run(node, ["kill", "-STOP", pid])
        try:
            yield
        finally:
            for node, pid in processes:
                with contextlib.suppress(ClusterError):  # the kubelet may have lost its patience and killed it
                    self.cluster.run(node, ["kill", "-CONT", pid])
            self.wait_ready(component)

    @contextlib.contextmanager
    def slow_supernodes(self, bits_per_second: int) -> Iterator[None]:
        """No supernode sends faster than that; what it receives comes as fast as ever."""
        bucket = ["tbf", "rate", bits_per_second, "burst", max(bits_per_second // 800, 16384), "latency", "100ms"]
        processes = [(pod["spec"]["nodeName"], self._process(pod)) for pod in self.pods("supernode")]
        qdisc = [(node, ["nsenter", "--target", pid, "--net", "tc", "qdisc"]) for node, pid in processes]
        try:
            for node, tc in qdisc:
                self.cluster.run(node, [*tc, "replace", "dev", "eth0", "root", *bucket])
            yield
        finally:
            for node, tc in qdisc:
                with contextlib.suppress(ClusterError):  # not shaped yet, or the pod is gone
                    self.cluster.run(node, [*tc, "delete", "dev", "eth0", "root"])

    def report(self) -> str:
        """The last words of every part, and what happened to it."""
        parts = [self._last_words(pod) for component in HTTP_PORTS for pod in self.pods(component)]
        events = list(map(told, self.api.events(NAMESPACE)))
        return "\n".join([*parts, "--- events", *events[-LOG_LINES:]])

    def _origin_answers(self) -> bool:
        try:
            for port in PORTS:
                socket.create_connection((self.cluster.layout.origin.address, port), 1).close()
        except OSError:
            return False
        return True

    def _process(self, pod: Object) -> str:
        """The process id of the pod's only container, as its node counts."""
        container = pod["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
        tasks = self.cluster.run(pod["spec"]["nodeName"], ["ctr", "--namespace", "k8s.io", "tasks", "list"])
        return next(line.split()[1] for line in tasks.splitlines() if line.startswith(container))

    @contextlib.contextmanager
    def _scaled_to_nothing(self, kind: str, component: str) -> Iterator[None]:
        name = f"{self.name}-{component}"
        self.api.merge(kind, NAMESPACE, name, {"spec": {"replicas": 0}})
        try:
            wait_until(lambda: not self.pods(component))
            yield
        finally:
            self.api.merge(kind, NAMESPACE, name, {"spec": {"replicas": 2}})
            self.wait_ready(component)

    def _last_words(self, pod: Object) -> str:
        name = pod["metadata"]["name"]
        try:
            said = self.api.log(NAMESPACE, name, LOG_LINES)
        except ClusterError as error:
            said = str(error)
        return f"--- {name} on {pod['spec'].get('nodeName')}, {'Ready' if _ready(pod) else 'not Ready'}\n{said}"


def _ready(pod: Object) -> bool:
    conditions = {condition["type"]: condition["status"] for condition in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
