"""The facts for the checks: what the API server tells, what dry runs are answered, and what Darner's own pods see.

Nothing is changed: objects are read, pods are created in dry runs alone, and a probe in a pod only looks (`cli.doctor.probe`).
What may not be read is noted, and the checks go on without.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from cli.cluster import ClusterAccess, refusal
from cli.doctor.facts import Facts, PodProbe, PodTrial, RewriteTrial
from cli.doctor.pull import probe_pod
from cli.doctor.workloads import component_of
from cli.errors import ClusterUnreachable, CommandError, NotAllowed, NotThere
from cli.labels import labels_of, labels_of_namespace, selected
from cli.pods import is_ready, name_of, node_of
from cli.release import CONFIGURATIONS, PART_OF, Installation
from webhook.admission.rewrite import DRY_RUN
from webhook.kube.api import Object, mapping_at, mappings_at, text_at
from webhook.pods import DECISION, EVERY_KIND, ORIGINAL_IMAGES, original_images, places

SOME_IMAGE = "registry.k8s.io/pause:3.10"
"""Shown to the webhook in a namespace where nothing runs. Nobody pulls it."""
NAMESPACES_TRIED_MAX = 5
PODS_ASKED_MAX = 10
"""Of each component, by a probe: each takes a second of somebody's node."""
PROBES_AT_ONCE_MAX = 4
TRIAL_SECONDS = (5.0, 20.0)
"""A webhook has up to ten."""
REACH_SECONDS = (5.0, 10.0)
CHANNEL_PORT = 65004
DRY = {"dryRun": "All"}


@dataclass
class Gatherer:
    cluster: ClusterAccess
    namespace: str
    """Where Darner is, or is to be."""
    installation: Installation | None = None
    """None: before it is there, or in spite of it."""
    unread: dict[str, str] = field(default_factory=dict)

    def facts(self) -> Facts:
        """Raises ClusterUnreachable."""
        facts = Facts(
            self.namespace,
            version=text_at(self.cluster.get("/version"), "gitVersion"),
            clock_ahead_seconds=self._clock(),
            nodes=self._items("nodes", "/api/v1/nodes"),
            strangers=self._strangers(),
            unread=self.unread,
        )
        if self.installation is None:
            return replace(facts, pod_trials=self._trial_before())
        return self._installed(facts, self.installation)

    def configuration(self) -> Object | None:
        """That which names a Service of the release's namespace."""
        for item in self._items("mutatingwebhookconfigurations", CONFIGURATIONS, PART_OF):
            for webhook in mappings_at(item, "webhooks"):
                if text_at(mapping_at(mapping_at(webhook, "clientConfig"), "service"), "namespace") == self.namespace:
                    return item
        return None

    def probes(self, pods: Sequence[Object], channels: Sequence[str] = ()) -> list[PodProbe]:
        """What these pods see, several at a time."""
        with ThreadPoolExecutor(PROBES_AT_ONCE_MAX) as threads:
            return list(threads.map(lambda pod: probe(self.cluster, pod, channels), pods))

    def _installed(self, facts: Facts, installation: Installation) -> Facts:
        pods = _staying(pod for component in installation.workloads for pod in installation.pods(component))
        configuration = self.configuration()
        opted_in = self.opted_in(configuration)
        known = list(self._rewrite_trials(opted_in[:NAMESPACES_TRIED_MAX]))
        reached = None if any(map(_answered, known)) else self._reached(configuration)
        supernodes = [pod for pod in pods if component_of(pod) == "supernode" and is_ready(pod)]
        asked = [*_running(pods, "agent")[:PODS_ASKED_MAX], *_running(pods, "supernode")[:PODS_ASKED_MAX]]
        return replace(
            facts,
            workloads=list(installation.workloads.values()),
            pods=pods,
            waiting=_staying(self._items("pods", "/api/v1/pods", fields="status.phase=Pending")),
            configuration=configuration,
            opted_in=opted_in,
            pod_trials=[trial for item in installation.workloads.values() if (trial := self._trial_of(item))],
            rewrite_trials=known,
            webhook_unreached=reached,
            probes=self.probes(asked, [channel_of(pod) for pod in supernodes]),
        )

    def opted_in(self, configuration: Object | None) -> list[str]:
        """The namespaces that every selector of the configuration selects, and that are there to stay."""
        if configuration is None:
            return []
        selectors = [mapping_at(item, "namespaceSelector") for item in mappings_at(configuration, "webhooks")]
        namespaces = self._items("namespaces", "/api/v1/namespaces")
        return sorted(
            name_of(item)
            for item in namespaces
            if text_at(mapping_at(item, "status"), "phase") != "Terminating"
            and all(selected(selector, labels_of_namespace(item)) for selector in selectors)
        )

    def _rewrite_trials(self, namespaces: Sequence[str]) -> Iterator[RewriteTrial]:
        """Of these, up to the first that no webhook answered: the others would only wait as long."""
        for name in namespaces:
            trial = self.rewrite_trial(name)
            if trial is not None:
                yield trial
                if not _answered(trial):
                    return

    def rewrite_trial(self, namespace: str, image: str = "") -> RewriteTrial | None:
        """A dry run of a pod there; None: we may not."""
        image = image or self._image_in(namespace)
        pod = probe_pod(f"darner-doctor-{secrets.token_hex(4)}", namespace, image)
        shown = {**pod, "metadata": {**pod["metadata"], "annotations": {DRY_RUN: "rewrite"}}}
        begun = time.monotonic()
        try:
            admitted, refused = self._dry(namespace, shown)
        except NotAllowed as error:
            self.unread[f"what becomes of a pod in {namespace}"] = str(error)
            return None
        seconds = time.monotonic() - begun
        plainly = ""
        if refused:
            _, plainly = self._dry(namespace, pod)  # a dry run that does not ask keeps its names
        return RewriteTrial(namespace, image, seconds, admitted, refused, plainly)

    def _trial_of(self, workload: Object) -> PodTrial | None:
        template = mapping_at(mapping_at(workload, "spec"), "template")
        metadata = {**mapping_at(template, "metadata"), "generateName": f"{name_of(workload)}-"}
        # A StatefulSet's controller adds the volumes of its claims to each pod.
        claims = [
            {"name": name_of(item), "emptyDir": {}} for item in mappings_at(mapping_at(workload, "spec"), "volumeClaimTemplates")
        ]
        spec = mapping_at(template, "spec")
        pod = {"metadata": metadata, "spec": {**spec, "volumes": [*mappings_at(spec, "volumes"), *claims]}}
        return self._pod_trial(component_of(workload), pod, self.namespace)

    def _trial_before(self) -> list[PodTrial]:
        """A pod that asks for what an agent asks for. Where its namespace is yet to be made, another one stands for it, unless
        somebody has labelled that one."""
        pod = _like_an_agent()
        try:
            there = self.cluster.ask("GET", f"/api/v1/namespaces/{self.namespace}").status != 404
            other = {} if there else self.cluster.get("/api/v1/namespaces/default")
        except NotAllowed as error:
            self.unread["namespaces"] = str(error)
            return []
        if any(name.startswith("pod-security.kubernetes.io/") for name in labels_of(other)):
            self.unread[f"whether agents are admitted in {self.namespace}"] = "it is not there yet"
            return []
        trial = self._pod_trial("agent", pod, self.namespace if there else "default")
        return [replace(trial, namespace=self.namespace, elsewhere=not there)] if trial else []

    def _pod_trial(self, component: str, pod: Object, namespace: str) -> PodTrial | None:
        try:
            _, refused = self._dry(namespace, {**pod, "apiVersion": "v1", "kind": "Pod"})
        except NotAllowed as error:
            self.unread[f"whether pods of the {component} are admitted"] = str(error)
            return None
        if 'serviceaccount "default" not found' in refused:
            self.unread[f"whether pods of the {component} are admitted"] = f"{namespace} has just been made; try again"
            return None
        return PodTrial(component, namespace, refused)

    def _dry(self, namespace: str, pod: Object) -> tuple[Object | None, str]:
        """The pod as it would be, or the API server's words. Raises NotAllowed where RBAC refuses, and no policy does."""
        answer = self.cluster.ask("POST", f"/api/v1/namespaces/{namespace}/pods", dict(pod), DRY, TRIAL_SECONDS)
        if answer.status == 201:
            return answer.document, ""
        words = text_at(answer.document, "message") or f"it answered {answer.status}"
        if answer.status == 403 and "cannot create resource" in words:
            raise refusal(answer, namespace)
        return None, words

    def _reached(self, configuration: Object | None) -> str | None:
        """What the API server says when it is to hand a request to the webhook's Service, as for an admission."""
        services = [
            mapping_at(mapping_at(item, "clientConfig"), "service") for item in mappings_at(configuration or {}, "webhooks")
        ]
        if not services:
            return None
        service = services[0]
        where = f"https:{text_at(service, 'name')}:{service.get('port', 443)}"
        path = f"/api/v1/namespaces/{text_at(service, 'namespace')}/services/{where}/proxy/mutate"
        try:
            answer = self.cluster.ask("GET", path, timeout=REACH_SECONDS)
        except ClusterUnreachable:
            return f"it had no answer of the webhook's Service within {REACH_SECONDS[1]:.0f} s"
        if answer.status == 403:
            self.unread["services/proxy"] = text_at(answer.document, "message")
            return None
        return text_at(answer.document, "message") or "nobody answers there" if answer.status in (502, 503, 504) else ""

    def _image_in(self, namespace: str) -> str:
        """One that runs there, as its author wrote it."""
        try:
            page = self.cluster.get(f"/api/v1/namespaces/{namespace}/pods", {"limit": "1"})
        except CommandError:
            return SOME_IMAGE
        for pod in mappings_at(page, "items"):
            originals = original_images(pod)
            for place in places(pod, EVERY_KIND):
                if image := originals.get(str(place)) or place.image:
                    return image
        return SOME_IMAGE

    def _strangers(self) -> list[Object]:
        pods = self._items("pods", "/api/v1/pods", fields="spec.hostNetwork=true")
        return [pod for pod in pods if labels_of(pod).get("app.kubernetes.io/part-of") != "darner"]

    def _clock(self) -> float | None:
        """By the date of an object that is never kept."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"darner-doctor-{secrets.token_hex(4)}"}}
        before = time.time()
        answer = self.cluster.ask("POST", "/api/v1/namespaces/default/configmaps", body, DRY)
        middle = (before + time.time()) / 2
        created = text_at(mapping_at(answer.document, "metadata"), "creationTimestamp")
        # It is cut to a whole second.
        return datetime.fromisoformat(created).timestamp() + 0.5 - middle if answer.status == 201 and created else None

    def _items(self, what: str, path: str, selector: str = "", fields: str = "") -> list[Object]:
        try:
            return self.cluster.items(path, selector, fields)
        except NotAllowed as error:
            self.unread[what] = str(error)
        except NotThere:
            pass
        return []


def probe(cluster: ClusterAccess, pod: Object, channels: Sequence[str] = ()) -> PodProbe:
    """What one pod of Darner's sees."""
    name, node = name_of(pod), node_of(pod)
    nothing = PodProbe(name, node, component_of(pod))
    before = time.time()
    try:
        command = ["python3", "-c", _PROBE.read_text(), *channels]
        executed = cluster.execute(text_at(mapping_at(pod, "metadata"), "namespace"), name, command)
        told = msgspec.json.decode(executed.ended_well("the probe"), type=_Told)
    except ClusterUnreachable:
        raise
    except CommandError as error:
        return replace(nothing, trouble=str(error))
    except msgspec.DecodeError as error:
        return replace(nothing, trouble=f"the probe in it told what cannot be read: {error}")
    return replace(
        nothing,
        addresses=told.addresses,
        answered=told.answered,
        clock_ahead_seconds=told.clock - (before + time.time()) / 2,
        disk_bytes=told.disk.bytes,
        disk_free_bytes=told.disk.free,
        settings=told.settings,
        state=told.state,
        metrics=told.metrics,
    )


class _Disk(msgspec.Struct):
    bytes: int
    free: int


class _Told(msgspec.Struct):
    """What `cli.doctor.probe` prints."""

    addresses: dict[str, list[str]]
    answered: dict[str, str]
    clock: float
    disk: _Disk
    settings: dict[str, str]
    state: dict[str, Any] | None
    metrics: list[str]


_PROBE = Path(__file__).with_name("probe.py")


def channel_of(supernode: Object) -> str:
    """The name of a StatefulSet's pod, which the search list of every pod completes with the cluster's domain."""
    metadata, spec = mapping_at(supernode, "metadata"), mapping_at(supernode, "spec")
    name = f"{name_of(supernode)}.{text_at(spec, 'subdomain')}.{text_at(metadata, 'namespace')}.svc"
    return f"{name}:{CHANNEL_PORT}"


def _staying(pods: Iterable[Object]) -> list[Object]:
    """Without those that are being deleted."""
    return [pod for pod in pods if not text_at(mapping_at(pod, "metadata"), "deletionTimestamp")]


def _running(pods: Sequence[Object], component: str) -> list[Object]:
    return [pod for pod in pods if component_of(pod) == component and mapping_at(pod, "status").get("phase") == "Running"]


def _answered(trial: RewriteTrial) -> bool:
    annotations = mapping_at(mapping_at(trial.admitted, "metadata"), "annotations")
    return trial.refused_rewritten or DECISION in annotations or ORIGINAL_IMAGES in annotations


def _like_an_agent() -> dict[str, Any]:
    container = {
        "name": "agent",
        "image": "darner",
        "securityContext": {"runAsUser": 0, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "store", "mountPath": "/var/lib/darner"}],
    }
    volume = {"name": "store", "hostPath": {"path": "/var/lib/darner", "type": "DirectoryOrCreate"}}
    spec = {"hostNetwork": True, "containers": [container], "volumes": [volume], "automountServiceAccountToken": False}
    return {"metadata": {"generateName": "darner-doctor-"}, "spec": spec}
