"""Pods are made, looked at and removed until every image is on every node; or DaemonSets are made, and stay.

Nothing is decided here: which images and nodes these are, what is made for them, and what a pod's state means are the other
modules' to say.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cli.cluster import ClusterAccess, refusal
from cli.errors import ClusterUnreachable, CommandError
from cli.interrupt import interrupted_by_sigterm
from cli.pods import name_of
from cli.warm import objects
from cli.warm.program import PROGRAMS
from cli.warm.progress import LEFT, Outcome, PullState, Watched
from cli.warm.wanted import Batch
from webhook.kube.api import Object, mapping_at, text_at

LOOK_SECONDS = 1.0
APPS = "/apis/apps/v1"


@dataclass(frozen=True, eq=False)
class NodeBatch:
    """A batch on one node."""

    number: int
    batch: Batch
    node: str
    architecture: str


@dataclass
class Warming:
    cluster: ClusterAccess
    namespace: str
    name: str
    """Of this call of the command: the label of all that is made."""
    seconds_max: float
    """Until what still waits is given up."""
    told: Callable[[Sequence[Outcome]], None] = lambda _outcomes: None
    """Told of all images of a node, once nothing more is waited for there."""
    watched: dict[NodeBatch, Watched] = field(default_factory=dict)
    """What is waited for."""

    def once(self, node_batches: Sequence[NodeBatch], parallel: int) -> list[Outcome]:
        """A pod for each of them, so many at a time. All of it is removed at the end, whoever brings that about."""
        numbers = itertools.count()
        owner: Object = {}
        pods: dict[NodeBatch, str] = {}

        def begin(node_batch: NodeBatch) -> None:
            pod = pods[node_batch] = f"{objects.object_name_of(self.name)}-{next(numbers)}"
            wanted = objects.pod(
                self.name, pod, node_batch.number, node_batch.batch, node_batch.node, node_batch.architecture, self.seconds_max
            )
            wanted["metadata"]["ownerReferences"] = [objects.owned_by(owner)]
            self._make(f"/api/v1/namespaces/{self.namespace}/pods", wanted)

        def end(node_batch: NodeBatch) -> None:
            _remove(self.cluster, [f"/api/v1/namespaces/{self.namespace}/pods/{pods.pop(node_batch)}"], at_once=True)

        with interrupted_by_sigterm():
            try:
                path = f"/api/v1/namespaces/{self.namespace}/configmaps"
                owner = self._make(path, objects.config_map(self.name))
                return self._followed(node_batches, parallel, begin, end)
            finally:
                # A pod that is made only now goes with its owner.
                left = [f"/api/v1/namespaces/{self.namespace}/pods/{pod}" for pod in pods.values()]
                _remove(self.cluster, [*left, _config_map(self.namespace, self.name)], at_once=True)

    def keep(self, batches: Sequence[Batch], expressions: Sequence[Mapping[str, Any]]) -> None:
        """DaemonSets, one for each batch and architecture, for nodes of any may come.

        One that is there is the same: its name says what is in it. Their pods wait for the ConfigMap. What this call has made
        does not stay where the rest is refused, or is not waited for.
        """
        daemon_sets = f"{APPS}/namespaces/{self.namespace}/daemonsets"
        wanted = [
            (daemon_sets, objects.daemon_set(self.name, number, batch, architecture, expressions))
            for number, batch in enumerate(batches)
            for architecture in PROGRAMS
        ]
        wanted.append((f"/api/v1/namespaces/{self.namespace}/configmaps", objects.config_map(self.name)))
        made: list[str] = []
        try:
            for path, document in wanted:
                made.append(f"{path}/{document['metadata']['name']}")
                answer = self.cluster.ask("POST", path, document)
                if answer.status != 201:
                    made.pop()
                if answer.status not in (201, 409):
                    raise refusal(answer, path)
        except BaseException:
            _remove(self.cluster, made)
            raise

    def kept(self, node_batches: Sequence[NodeBatch]) -> list[Outcome]:
        """Waits until the DaemonSets' pods have their images."""
        return self._followed(node_batches, len(node_batches), lambda _: None, lambda _: None)

    def _followed(
        self,
        node_batches: Sequence[NodeBatch],
        parallel: int,
        begin: Callable[[NodeBatch], None],
        end: Callable[[NodeBatch], None],
    ) -> list[Outcome]:
        waiting, done = deque(node_batches), []
        deadline = time.monotonic() + self.seconds_max
        appeared: set[NodeBatch] = set()
        while waiting or self.watched:
            while waiting and len(self.watched) < parallel:
                node_batch = waiting.popleft()
                begin(node_batch)
                self.watched[node_batch] = Watched(node_batch.node, node_batch.batch.images, time.monotonic())
            pods = self._pods()
            now = time.monotonic()
            for node_batch, watched in list(self.watched.items()):
                pod = pods.get((str(node_batch.number), node_batch.node))
                if pod is not None or node_batch in appeared:
                    appeared.add(node_batch)
                    watched.see(pod, now)
                if now >= deadline:
                    watched.give_up(LEFT)
                if watched.settled(now):
                    end(node_batch)
                    done += self.watched.pop(node_batch).outcomes
                    self.told(watched.outcomes)
            if now >= deadline:
                left = [
                    Outcome(node_batch.node, image, PullState.FAILED, LEFT)
                    for node_batch in waiting
                    for image in node_batch.batch.images
                ]
                self.told(left)
                return done + left
            if self.watched:
                time.sleep(LOOK_SECONDS)
        return done

    def _pods(self) -> dict[tuple[str, str], Object]:
        """Of this call, by batch and node. Those that are ending make room for others."""
        found = self.cluster.items(f"/api/v1/namespaces/{self.namespace}/pods", f"{objects.NAME}={self.name}")
        staying = (pod for pod in found if not text_at(mapping_at(pod, "metadata"), "deletionTimestamp"))
        return {(_label(pod, objects.BATCH), objects.node_wanted_by(pod)): pod for pod in staying}

    def _make(self, path: str, wanted: dict[str, Any]) -> Object:
        answer = self.cluster.ask("POST", path, wanted)
        if answer.status == 201:
            return answer.document
        raise refusal(answer, path)


def forget(cluster: ClusterAccess, namespace: str, name: str) -> int:
    """Removes what was kept; how many DaemonSets there were. Their pods go with them."""
    listed = cluster.items(f"{APPS}/namespaces/{namespace}/daemonsets", f"{objects.NAME}={name}")
    paths = [f"{APPS}/namespaces/{namespace}/daemonsets/{name_of(item)}" for item in listed]
    _remove(cluster, [*paths, _config_map(namespace, name)])
    return len(paths)


def _remove(cluster: ClusterAccess, paths: Sequence[str], at_once: bool = False) -> None:
    """All that can be. Raises CommandError with how to remove the rest."""
    stays: dict[str, CommandError] = {}
    for number, path in enumerate(paths):
        try:
            answer = cluster.ask("DELETE", path, query={"gracePeriodSeconds": "0"} if at_once else None)
        except ClusterUnreachable as error:
            stays |= dict.fromkeys(paths[number:], error)
            break
        if answer.status not in (200, 202, 404):
            stays[path] = refusal(answer, path)
    if stays:
        named = " ".join("/".join(path.split("/")[-2:]) for path in stays)
        namespace = paths[0].split("/namespaces/")[1].split("/")[0]
        raise CommandError(f"what was made stays: kubectl delete -n {namespace} {named} ({next(iter(stays.values()))})")


def _config_map(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps/{objects.object_name_of(name)}"


def _label(item: Object, name: str) -> str:
    return text_at(mapping_at(mapping_at(item, "metadata"), "labels"), name)
