"""`--pull IMAGE`, carried out: a pod on one node, then one on another, and what their agents counted meanwhile.

The pods are removed again whatever happens. What they prove is `cli.doctor.pull`'s to say.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cli.cluster import refusal
from cli.doctor.finding import Finding
from cli.doctor.gather import Gatherer, probe
from cli.doctor.pull import NodePull, difference, failure, judgement, kept_its_name, probe_pod, pulled, received_in, two_nodes
from cli.errors import CommandError
from cli.interrupt import interrupted_by_sigterm
from cli.pods import name_of, node_of
from cli.release import Installation
from cli.troubles import trouble
from webhook.kube.api import Object, mapping_at, text_at

LOOK_SECONDS = 0.5
FAILURE_SECONDS = 5.0
"""A pull that failed is given this time for the webhook to give the pod its original name, which then is what is told."""


@dataclass
class Puller:
    gatherer: Gatherer
    installation: Installation
    namespace: str
    """Where the pods are made: one that has opted in."""
    seconds_max: float
    """For each of the two pulls."""
    said: Callable[[str], None] = lambda _words: None
    """Told what is going on, for people who wait."""

    def findings(self, image: str) -> Iterator[Finding]:
        nodes = self.gatherer.cluster.items("/api/v1/nodes")
        agents = {node_of(pod): pod for pod in self.installation.ready_pods("agent")}
        pulls = []
        with interrupted_by_sigterm():
            for node in two_nodes(nodes, agents.values(), image):
                self.said(f"{node} pulls {image} ...")
                pulls.append(self._pull(image, node, agents[node]))
                if pulls[-1].failed:
                    break
        yield from judgement(image, pulls)

    def _pull(self, image: str, node: str, agent: Object) -> NodePull:
        before = self._received(agent)
        begun = time.monotonic()
        with self._pod(image, node) as pod:
            pod, why = self._settled(pod)
            seconds = time.monotonic() - begun
            if why and not pulled(pod):
                return NodePull(node, failed=why)
            if kept := kept_its_name(pod):
                return NodePull(node, kept_its_name=kept)
        return NodePull(node, seconds, difference(before, self._received(agent)))

    def _received(self, agent: Object) -> dict[str, int]:
        """Raises CommandError: without an agent's word nothing is proven."""
        seen = probe(self.gatherer.cluster, agent)
        if seen.trouble:
            raise CommandError(f"the agent {seen.pod} on {seen.node} cannot be asked what it received: {seen.trouble}")
        return received_in(seen.metrics)

    def _settled(self, pod: Object) -> tuple[Object, str]:
        """The pod once its image is pulled, or why it is not: the kubelet's last word, or that time is over."""
        path, begun, failed_at = _path(pod), time.monotonic(), None
        while True:
            pod = self.gatherer.cluster.get(path)
            if pulled(pod):
                return pod, ""
            now, why = time.monotonic(), failure(pod)
            failed_at = (failed_at or now) if why else None
            if failed_at is not None and now - failed_at > FAILURE_SECONDS:
                return pod, why
            if now - begun > self.seconds_max:
                return pod, why or trouble(pod) or f"it was not pulled within {self.seconds_max:.0f} s"
            time.sleep(LOOK_SECONDS)

    @contextmanager
    def _pod(self, image: str, node: str) -> Iterator[Object]:
        cluster = self.gatherer.cluster
        wanted = probe_pod(f"darner-doctor-{secrets.token_hex(4)}", self.namespace, image, node)
        answer = cluster.ask("POST", f"/api/v1/namespaces/{self.namespace}/pods", wanted)
        if answer.status != 201:
            raise refusal(answer, f"a pod in {self.namespace}")
        try:
            yield answer.document
        finally:
            gone = cluster.ask("DELETE", _path(wanted), query={"gracePeriodSeconds": "0"})
            if gone.status not in (200, 202, 404):
                name = f"{self.namespace} {name_of(wanted)}"
                raise CommandError(f"the pod that pulled stays: kubectl delete pod -n {name} ({refusal(gone, name)})")


def namespace_for(gatherer: Gatherer, wanted: str) -> str:
    """A namespace that has opted in: `wanted`, or `default`, or the first. Raises CommandError if there is none."""
    if wanted:
        return wanted
    opted_in = gatherer.opted_in(gatherer.configuration())
    if not opted_in:
        words = (
            "no namespace has opted in, so no pod would be rewritten: kubectl label namespace NAMESPACE darner.dev/inject=enabled"
        )
        raise CommandError(f"--pull has nowhere to make its pods: {words}")
    return "default" if "default" in opted_in else opted_in[0]


def _path(pod: Object) -> str:
    metadata = mapping_at(pod, "metadata")
    return f"/api/v1/namespaces/{text_at(metadata, 'namespace')}/pods/{text_at(metadata, 'name')}"
