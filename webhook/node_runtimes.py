"""Finds the nodes whose container runtime refuses to pull from an agent, so that pods are not rewritten for them.

A node's runtime changes with a restart of the node at the most, so each is looked at when its agent becomes ready, and not again
until it was not ready in between. One that was not looked at yet counts as one that pulls: if it does not, the pod gets its own
images back when the pull has failed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from webhook.admission.runtimes import pulls_from_agents
from webhook.errors import Unreachable
from webhook.kube.api import Api, mapping_at, text_at
from webhook.kube.nodes import nodes_named

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
RETRY_SECONDS = 15.0
"""After an API server that did not answer: where the right to read nodes is missing, that is so until an operator gives it."""


class NodeRuntimes:
    def __init__(self, api: Api, ready: Callable[[], frozenset[str]], tell: Callable[[frozenset[str]], object]) -> None:
        """`ready` are the nodes whose agent is ready now; `tell` hears of all that refuse whenever there are others."""
        self._api = api
        self._ready = ready
        self._tell = tell
        self._seen: frozenset[str] = frozenset()
        self._refusing: frozenset[str] = frozenset()

    def run(self, stopped: threading.Event) -> None:
        seconds = LOOK_SECONDS
        while not stopped.wait(seconds):
            seconds = LOOK_SECONDS
            try:
                self.look()
            except Unreachable as error:
                seconds = RETRY_SECONDS
                log.warning("the container runtimes of new nodes are not known yet: %s", error)

    def look(self) -> None:
        """Raises Unreachable; what is not done then is done the next time."""
        ready = self._ready()
        fresh = ready - self._seen
        refusing = self._refusing & ready - fresh
        for node in nodes_named(self._api, fresh):
            name = text_at(mapping_at(node, "metadata"), "name")
            runtime = text_at(mapping_at(mapping_at(node, "status"), "nodeInfo"), "containerRuntimeVersion")
            if name in fresh and pulls_from_agents(runtime) is False:
                refusing |= {name}
                log.info("node %s: %s does not pull from an agent as it is, so pods are not rewritten for it", name, runtime)
        self._seen = ready
        if refusing != self._refusing:
            self._refusing = refusing
            self._tell(refusing)
