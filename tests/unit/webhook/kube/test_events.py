"""Events: what the API server accepts, whatever a pod is called and however long the words are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from webhook.errors import Unreachable
from webhook.kube.events import MESSAGE_LENGTH_MAX, REVERTED, Events, event

NOW = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)
POD: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "web", "uid": "u1"}}


class Answer(NamedTuple):
    status: int
    document: dict[str, Any]


class Api:
    def __init__(self, status: int) -> None:
        self.status = status
        self.asked: list[tuple[str, str, Any]] = []

    def ask(self, method: str, path: str, body: Any = None, *_: Any, **__: Any) -> Answer:
        self.asked.append((method, path, body))
        if not self.status:
            raise Unreachable("nobody answers")
        return Answer(self.status, {})

    def watch(self, *_: Any) -> Any:
        raise AssertionError("nobody watches events")


def test_an_event_is_a_warning_about_the_pod_and_its_container() -> None:
    told = event(POD, REVERTED, "words", "replica", NOW, "spec.containers{app}")
    assert told["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "shop",
        "name": "web",
        "uid": "u1",
        "fieldPath": "spec.containers{app}",
    }
    assert (told["type"], told["reason"], told["message"]) == ("Warning", "DarnerReverted", "words")
    assert told["firstTimestamp"] == told["lastTimestamp"] == "2026-05-01T12:00:30Z"
    assert told["metadata"]["namespace"] == "shop"


def test_two_events_about_one_pod_have_names_of_their_own_which_fit() -> None:
    long = {**POD, "metadata": {**POD["metadata"], "name": "w" * 253}}
    names = {event(long, REVERTED, "words", "replica", NOW)["metadata"]["name"] for _ in range(10)}
    assert len(names) == 10
    assert max(map(len, names)) <= 253


def test_words_are_cut_to_what_an_event_may_hold() -> None:
    assert event(POD, REVERTED, "x" * MESSAGE_LENGTH_MAX, "r", NOW)["message"] == "x" * MESSAGE_LENGTH_MAX
    message = event(POD, REVERTED, "x" * 5000, "r", NOW)["message"]
    assert len(message) == MESSAGE_LENGTH_MAX
    assert message.endswith(" ...")


@pytest.mark.parametrize(("status", "logged"), [(201, False), (403, True), (409, True), (0, True)])
def test_an_event_that_cannot_be_written_is_logged_and_nothing_else(
    status: int, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    api = Api(status)
    Events(api, "replica").warn(POD, REVERTED, "words")
    assert [(method, path) for method, path, _ in api.asked] == [("POST", "/api/v1/namespaces/shop/events")]
    assert ("was not written" in caplog.text) == logged
