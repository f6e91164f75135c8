"""The view of the agents that admissions go by: a copy of their Service's EndpointSlices, for as long as it can be trusted.

What the slices mean is `webhook.admission.readiness`'s. A view that could not be confirmed for longer than its bound is none.
"""

from __future__ import annotations

import threading

from webhook.admission.readiness import Agents, agents_of, together
from webhook.kube.api import Api, ObjectName
from webhook.kube.informer import Changes, Informer
from webhook.metrics import AGENTS, AGENTS_VIEW_AGE

SERVICE_NAME = "kubernetes.io/service-name"
"""Label of a Service's EndpointSlices."""


class AgentView:
    def __init__(self, api: Api, service: ObjectName, age_seconds_max: float) -> None:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{service.namespace}/endpointslices"
        selector = {"labelSelector": f"{SERVICE_NAME}={service.name}"}
        self._informer: Informer[Agents] = Informer(api, path, selector, agents_of, self._changed)
        self._age_seconds_max = age_seconds_max
        self._agents = Agents()
        self._changed({})
        AGENTS_VIEW_AGE.set_function(lambda: float("inf") if (age := self._informer.age_seconds()) is None else age)

    def now(self) -> Agents | None:
        """None while nobody knows."""
        age = self._informer.age_seconds()
        return None if age is None or age > self._age_seconds_max else self._agents

    def unready(self) -> str | None:
        """Until there has been a first view; a later loss of it is told by the pods that are then admitted as they are."""
        return "it is not known yet which agents are ready" if self._informer.age_seconds() is None else None

    def run(self, stopped: threading.Event) -> None:
        self._informer.run(stopped)

    def _changed(self, _changes: Changes[Agents]) -> None:
        self._agents = agents = together(self._informer.objects.values())
        AGENTS.labels("ready").set(len(agents.ready))
        AGENTS.labels("not-ready").set(len(agents.nodes - agents.ready))
