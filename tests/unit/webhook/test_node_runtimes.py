"""The nodes whose runtime refuses: found when their agent is ready, told when they are others, not looked at twice."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from webhook.errors import Unreachable
from webhook.kube.api import ApiAnswer
from webhook.kube.nodes import SINGLE_MAX
from webhook.node_runtimes import LOOK_SECONDS, RETRY_SECONDS, NodeRuntimes

OLD, NEW = "cri-o://1.34.2", "cri-o://1.35.0"


class Runtimes:
    """An API server that has nodes with these runtimes."""

    def __init__(self, **runtimes: str) -> None:
        self.runtimes = runtimes
        self.asked: list[str] = []
        self.status = 200

    def ask(self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None, **_: Any) -> ApiAnswer:
        self.asked.append(path)
        name = path.removeprefix("/api/v1/nodes").strip("/")
        if not name:
            return ApiAnswer(self.status, {"items": [self._node(name) for name in self.runtimes], "metadata": {}})
        return ApiAnswer(self.status, self._node(name)) if name in self.runtimes else ApiAnswer(404, {})

    def _node(self, name: str) -> dict[str, Any]:
        return {"metadata": {"name": name}, "status": {"nodeInfo": {"containerRuntimeVersion": self.runtimes[name]}}}


class Seen:
    def __init__(self, api: Runtimes, *ready: str) -> None:
        self.ready = set(ready)
        self.told: list[frozenset[str]] = []
        self.runtimes = NodeRuntimes(api, lambda: frozenset(self.ready), self.told.append)  # type: ignore[arg-type]


def test_only_nodes_that_refuse_are_told_and_each_node_is_looked_at_once() -> None:
    api = Runtimes(n1="containerd://2.2.9", n2=OLD, n3=NEW, n4="rkt://1")
    seen = Seen(api, "n1", "n2", "n3", "n4", "gone")
    seen.runtimes.look()
    seen.runtimes.look()
    assert seen.told == [{"n3"}]
    assert len(api.asked) == 5


def test_a_node_is_looked_at_again_when_its_agent_was_not_ready_in_between() -> None:
    api = Runtimes(n1=NEW, n2=OLD)
    seen = Seen(api, "n1", "n2")
    seen.runtimes.look()
    seen.ready = {"n2"}
    seen.runtimes.look()
    api.runtimes["n1"] = OLD
    seen.ready = {"n1", "n2"}
    seen.runtimes.look()
    assert seen.told == [{"n1"}, set()]


def test_many_new_nodes_are_read_as_a_list() -> None:
    names = [f"n{number}" for number in range(SINGLE_MAX + 1)]
    api = Runtimes(**dict.fromkeys(names, NEW), other=NEW)
    seen = Seen(api, *names)
    seen.runtimes.look()
    assert seen.told == [set(names)]
    assert api.asked == ["/api/v1/nodes"]


def test_what_could_not_be_read_is_read_the_next_time() -> None:
    api = Runtimes(n1=NEW)
    seen = Seen(api, "n1")
    api.status = 503
    with pytest.raises(Unreachable):
        seen.runtimes.look()
    api.status = 200
    seen.runtimes.look()
    assert seen.told == [{"n1"}]


def test_an_api_server_that_does_not_answer_is_not_asked_every_second() -> None:
    api, waited = Runtimes(n1=NEW), []

    class Stopped(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout)
            api.status = 503 if len(waited) == 1 else 200
            return len(waited) == 4

    Seen(api, "n1").runtimes.run(Stopped())
    assert waited == [LOOK_SECONDS, RETRY_SECONDS, LOOK_SECONDS, LOOK_SECONDS]
