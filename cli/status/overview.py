"""What `darner status` knows, gathered from a release, and what of it is a problem."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cli.errors import CommandError, NotThere
from cli.pods import is_ready, name_of, node_of
from cli.release import CONFIGURATIONS, INSTANCE, PART_OF, Installation
from cli.state import (
    SetAside,
    bytes_by_source,
    left_alone_by_supernodes,
    pauses,
    quarantines,
    supernode_states,
    webhook_figures,
)
from cli.troubles import crashed, refusals, trouble
from webhook.kube.api import Object, mapping_at, mappings_at, text_at

TROUBLES_MAX = 10
"""Pods of one component whose troubles are told; the others are counted."""
EXPIRES_SOON_SECONDS = 3 * 86400.0


@dataclass(frozen=True)
class PodTrouble:
    pod: str
    node: str
    why: str


@dataclass
class Component:
    name: str
    wanted: int = 0
    ready: int = 0
    troubles: list[PodTrouble] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    """Why pods were not even made."""

    @property
    def all_ready(self) -> bool:
        return self.ready >= self.wanted and not self.refusals


@dataclass
class Overview:
    release: str
    namespace: str
    components: list[Component]
    webhook_trusted: bool | None = None
    """Whether API servers have an authority by which they trust the webhook; None: it is not known, or there is no webhook."""
    certificate_seconds: float | None = None
    """Until it ends."""
    last_admission_seconds: float | None = None
    """Since then; None: never, or not known."""
    bytes_24h: dict[str, int] = field(default_factory=dict)
    unrewritten_pods: int | None = None
    left_alone: list[SetAside] = field(default_factory=list)
    quarantines: list[SetAside] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """What could not be asked, and why."""

    @property
    def problems(self) -> list[str]:
        """In words, one a line; empty when all is as it should be."""
        found = []
        for component in self.components:
            if not component.all_ready:
                found.append(f"{component.ready} of {component.wanted} {component.name}s are ready")
        if self.webhook_trusted is False:
            found.append("API servers do not know yet by which authority to trust the webhook, so no pod is rewritten")
        if self.certificate_seconds is not None and self.certificate_seconds < EXPIRES_SOON_SECONDS:
            ended = self.certificate_seconds <= 0
            found.append("the webhook's certificate has ended" if ended else "the webhook's certificate ends within three days")
        return found


def overview(installation: Installation, clock: Callable[[], float] = time.time) -> Overview:
    """Raises ClusterUnreachable, and NotAllowed where not even the pods may be looked at."""
    now = clock()
    components = [_component(installation, name) for name in ("webhook", "supernode", "agent") if name in installation.workloads]
    seen = Overview(installation.name, installation.namespace, components)
    if "webhook" in installation.workloads:
        _look(seen, lambda: _look_at_webhook(installation, seen, now))
        _look(seen, lambda: _look_at_configuration(installation, seen))
        _look(seen, lambda: seen.left_alone.extend(pauses(installation, now)))
    asked = supernode_states(installation)
    states = list(asked.answers.values())
    seen.unknown += asked.failures
    seen.bytes_24h = bytes_by_source(states)
    seen.left_alone += left_alone_by_supernodes(states)
    seen.quarantines = quarantines(states)
    return seen


def _look(seen: Overview, look: Callable[[], Any]) -> None:
    """What cannot be seen is said, and hides nothing else."""
    try:
        look()
    except CommandError as error:
        seen.unknown.append(str(error))


def _component(installation: Installation, name: str) -> Component:
    workload = installation.workloads[name]
    spec, status = mapping_at(workload, "spec"), mapping_at(workload, "status")
    wanted = status.get("desiredNumberScheduled", 0) if name == "agent" else spec.get("replicas", 1)
    pods = installation.pods(name)
    component = Component(name, int(wanted or 0), sum(map(is_ready, pods)))
    unready = [pod for pod in pods if not is_ready(pod)]
    for pod in unready[:TROUBLES_MAX]:
        why = trouble(pod, _last_words(installation, pod))
        if why:
            component.troubles.append(PodTrouble(name_of(pod), node_of(pod), why))
    if len(pods) < component.wanted:
        component.refusals = refusals(_events_of(installation, name_of(workload)))
    return component


def _events_of(installation: Installation, workload: str) -> list[Object]:
    """Of the workload, and of the ReplicaSets that a Deployment has made."""
    events = installation.access.items(f"/api/v1/namespaces/{installation.namespace}/events")
    involved = [(event, text_at(mapping_at(event, "involvedObject"), "name")) for event in events]
    return [event for event, name in involved if name == workload or name.startswith(f"{workload}-")]


def _last_words(installation: Installation, pod: Object) -> str:
    containers = [text_at(item, "name") for item in mappings_at(mapping_at(pod, "spec"), "containers")]
    path = f"/api/v1/namespaces/{installation.namespace}/pods/{name_of(pod)}/log"
    query = {"tailLines": "1", **({"container": containers[0]} if containers else {})}
    try:
        return installation.access.text(path, query | ({"previous": "true"} if crashed(pod) else {}))
    except CommandError:
        return ""  # it has not said anything yet, or nobody may read it


def _look_at_webhook(installation: Installation, seen: Overview, now: float) -> None:
    asked = webhook_figures(installation)
    seen.unknown += asked.failures
    known = list(asked.answers.values())
    ends = [item[name] for item in known for name in item if name.endswith("certificate_expiry_timestamp_seconds") and item[name]]
    last = max((item.get("darner_webhook_last_admission_timestamp_seconds", 0.0) for item in known), default=0.0)
    seen.certificate_seconds = min(ends) - now if ends else None
    seen.last_admission_seconds = now - last if last else None
    if known:
        seen.unrewritten_pods = int(sum(item.get("darner_webhook_reverted_pods_total", 0.0) for item in known))


def _look_at_configuration(installation: Installation, seen: Overview) -> None:
    found = installation.access.items(CONFIGURATIONS, f"{PART_OF},{INSTANCE}={installation.name}")
    webhooks = [webhook for item in found for webhook in mappings_at(item, "webhooks")]
    ours = [mapping_at(webhook, "clientConfig") for webhook in webhooks]
    ours = [item for item in ours if text_at(mapping_at(item, "service"), "namespace") == installation.namespace]
    if not ours:
        raise NotThere("the release's MutatingWebhookConfiguration is not there, so no pod is rewritten; install the chart anew")
    seen.webhook_trusted = all(text_at(item, "caBundle") for item in ours)
