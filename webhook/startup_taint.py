"""Takes the startup taint from nodes whose agent is ready, so that pods come to a new node only when it can serve them.

Whoever makes the node puts the taint on it as it registers; agents have no access to the API server, so the leader takes it away.
A node is looked at when its agent becomes ready, and not again until it was not ready in between.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from webhook.errors import Unreachable
from webhook.kube.api import Api, mapping_at, mappings_at, text_at
from webhook.kube.nodes import nodes_named
from webhook.metrics import STARTUP_TAINTS

log = logging.getLogger(__name__)

TAINT = "darner.dev/agent-not-ready"
LOOK_SECONDS = 1.0


class StartupTaint:
    def __init__(self, api: Api, ready: Callable[[], frozenset[str]], leading: Callable[[], bool]) -> None:
        self._api = api
        self._ready = ready
        """The nodes whose agent is ready now."""
        self._leading = leading
        self._done: frozenset[str] = frozenset()

    def run(self, stopped: threading.Event) -> None:
        while not stopped.wait(LOOK_SECONDS):
            if not self._leading():
                self._done = frozenset()
                continue
            try:
                self.look()
            except Unreachable as error:
                log.warning("startup taints cannot be taken away yet: %s", error)

    def look(self) -> None:
        """Raises Unreachable; what is not done then is done the next time."""
        ready = self._ready()
        self._done &= ready
        fresh = ready - self._done
        for node in nodes_named(self._api, fresh):
            name = text_at(mapping_at(node, "metadata"), "name")
            if name in fresh and self._freed(name, node):
                self._done |= {name}

    def _freed(self, name: str, node: Mapping[str, Any]) -> bool:
        taints = list(mappings_at(mapping_at(node, "spec"), "taints"))
        if not any(text_at(taint, "key") == TAINT for taint in taints):
            return True
        # Others write taints too: the list is replaced only if it is the one that was looked at.
        operations: list[dict[str, Any]] = [
            {"op": "test", "path": "/spec/taints", "value": taints},
            {"op": "replace", "path": "/spec/taints", "value": [taint for taint in taints if text_at(taint, "key") != TAINT]},
        ]
        answered = self._api.ask("PATCH", f"/api/v1/nodes/{name}", operations)
        if answered.status in (404, 409, 422):
            return False
        if answered.status != 200:
            raise Unreachable(f"the API server answered {answered.status} about the taints of node {name}")
        log.info("node %s: its agent is ready, and the taint %s is taken away", name, TAINT)
        STARTUP_TAINTS.inc()
        return True
