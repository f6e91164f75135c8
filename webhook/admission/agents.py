"""The view of the agents that admissions go by: a copy of their Service's EndpointSlices, for as long as it can be trusted.

What the slices mean is `webhook.admission.readiness`'s. A view that could not be confirmed for longer than its bound is none.
"""

from __future__ import annotations

import threading

from webhook.admission.readiness import Agents, agents_of, together
from webhook.kube.api import Api, ObjectName
from webhook.kube.informer import Informer
from webhook.kube.worker import Work
from webhook.metrics import AGENTS, AGENTS_VIEW_AGE

SERVICE_NAME = "kubernetes.io/service-name"
"""Label of a Service's EndpointSlices."""


class AgentView:
    def __init__(self, api: Api, service: ObjectName, age_seconds_max: float, excluded: str = "") -> None:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{service.namespace}/endpointslices"
        selector = {"labelSelector": f"{SERVICE_NAME}={service.name}"}
        self._informer: Informer[Agents] = Informer(api, path, selector, agents_of, self._changed)
        self._age_seconds_max = age_seconds_max
        self._excluded: Informer[bool] | None = None
        """The nodes that pods may come to, but no agents: they count as nodes whose agent is not ready."""
        if excluded:
            query = {"labelSelector": excluded}
            self._excluded = Informer(api, "/api/v1/nodes", query, lambda _: True, self._changed, metadata_only=True)
        self._refusing: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._agents = Agents()
        self._changed({})
        AGENTS_VIEW_AGE.set_function(lambda: float("inf") if (age := self._age_seconds()) is None else age)

    def now(self) -> Agents | None:
        """None while nobody knows."""
        age = self._age_seconds()
        return None if age is None or age > self._age_seconds_max else self._agents

    def unready(self) -> str | None:
        """Until there has been a first view; a later loss of it is told by the pods that are then admitted as they are."""
        return "it is not known yet which agents are ready" if self._age_seconds() is None else None

    def ready_nodes(self) -> frozenset[str]:
        """As far as anybody knows; for what may be late, but not wrong for good."""
        return together(self._informer.snapshot().values()).ready

    def refuse(self, nodes: frozenset[str]) -> None:
        """From now on these, and no others, count as nodes whose agent is not ready, because their runtime does not ask it."""
        self._refusing = nodes
        self._changed({})

    def working(self) -> dict[str, Work]:
        excluded = {"excluded nodes": self._excluded.run} if self._excluded else {}
        return {"agents": self._informer.run, **excluded}

    def _age_seconds(self) -> float | None:
        """Of the older view, where there are two."""
        ages = [informer.age_seconds() for informer in (self._informer, self._excluded) if informer]
        known = [age for age in ages if age is not None]
        return max(known) if len(known) == len(ages) else None

    def _changed(self, _changes: object) -> None:
        with self._lock:  # Two threads come here, and the one that looked last has to be the one that is believed.
            self._look()

    def _look(self) -> None:
        agents = together(self._informer.snapshot().values())
        excluded = frozenset(name.name for name in self._excluded.snapshot()) if self._excluded else frozenset()
        self._agents = agents = Agents(agents.nodes | excluded, agents.ready - excluded - self._refusing, self._refusing)
        AGENTS.labels("ready").set(len(agents.ready))
        AGENTS.labels("not-ready").set(len(agents.nodes - agents.ready - excluded - self._refusing))
        AGENTS.labels("excluded").set(len(excluded))
