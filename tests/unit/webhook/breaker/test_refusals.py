"""Rewritten pods that never come to exist (FAULTS 73): their owner's next pods are left alone, as is a bare pod's second try."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.webhook_lab import admitted, container, pod
from webhook.breaker.refusals import BARE_SECONDS, KEPT_MAX, MEMORY_SECONDS, UNSEEN_SECONDS, Refusals
from webhook.gates import Reason
from webhook.kube.api import ObjectName
from webhook.kube.events import LEFT_ALONE
from webhook.pods import DECISION, ORIGINAL_IMAGES

WEB = {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u1", "controller": True}]}


class Told:
    def __init__(self) -> None:
        self.warnings: list[tuple[str, str, str]] = []

    def warn(self, subject: Any, reason: str, message: str, container: str = "") -> None:
        self.warnings.append((f"{subject['kind']}/{subject['metadata']['name']}/{subject['metadata']['uid']}", reason, message))


class Cluster:
    """A webhook's memory, and a cluster in which pods come to exist or do not."""

    def __init__(self) -> None:
        self.now = 5.0  # seconds after the machine was started
        self.view_age: float | None = 1.0
        self.told = Told()
        self.refusals = Refusals(self.told, lambda: self.view_age, lambda: self.now)  # type: ignore[arg-type]

    def create(self, metadata: dict[str, Any], exists: bool = False) -> str | None:
        """Why the pod was left alone; None if it was rewritten, and then it exists or is refused."""
        made = pod(container("a", "nginx"), metadata={"name": "", **metadata})
        annotations = admitted(made, gates=(self.refusals.gate,))["metadata"]["annotations"]
        if ORIGINAL_IMAGES in annotations:
            self.refusals.rewritten("shop", made)
            if exists:
                uid = metadata["ownerReferences"][0]["uid"] if "ownerReferences" in metadata else ""
                name = metadata.get("name") or metadata.get("generateName", "web-1-") + "x7k2p"
                self.refusals.appeared(ObjectName("shop", name), uid)
        decision: str | None = annotations.get(DECISION)
        return decision

    def tell(self) -> None:
        ending = threading.Event()
        thread = threading.Thread(target=self.refusals.run, args=(ending,))
        thread.start()
        while not self.refusals._telling.empty():
            pass
        ending.set()
        thread.join()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_an_owner_whose_rewritten_pods_are_refused_is_left_alone_when_it_tries_again(cluster: Cluster) -> None:
    """FAULTS 73: a ReplicaSet tries again after 5 ms, 10 ms, 20 ms and so on."""
    waited, tries = 0.005, 0
    while (decision := cluster.create(WEB)) is None:
        cluster.now += waited
        waited, tries = 2 * waited, tries + 1
    assert tries == 10
    assert cluster.now - 5.0 < 6
    assert decision == "pod: pods of ReplicaSet web-1 never came to exist while rewritten, so they are left alone for 60 s"
    cluster.now += 59
    assert "for another 1 s" in (cluster.create(WEB) or "")


def test_a_jobs_second_thought_comes_within_seconds(cluster: Cluster) -> None:
    """FAULTS 73: a Job tries again after 1, 2, 4 and 8 s."""
    for waited in (1, 2, 4):
        if cluster.create(WEB):
            break
        cluster.now += waited
    assert cluster.create(WEB)
    assert cluster.now - 5.0 <= 7


def test_the_owner_has_an_event_that_says_so_once(cluster: Cluster) -> None:
    cluster.create(WEB)
    cluster.now += UNSEEN_SECONDS
    for _ in range(5):
        assert cluster.create(WEB)
    cluster.tell()
    ((subject, reason, message),) = cluster.told.warnings
    assert (subject, reason) == ("ReplicaSet/web-1/u1", LEFT_ALONE)
    assert "never came to exist while rewritten" in message
    assert "admission policy" in message


def test_each_further_pause_is_twice_as_long_and_begins_with_one_refusal(cluster: Cluster) -> None:
    for seconds in (60, 120, 240):
        assert cluster.create(WEB) is None
        cluster.now += UNSEEN_SECONDS
        left = {60: "60 s", 120: "2 min", 240: "4 min"}[seconds]
        assert (cluster.create(WEB) or "").endswith(f"for {left}")
        cluster.now += seconds + 1


def test_five_hundred_pods_at_once_are_not_taken_for_refused(cluster: Cluster) -> None:
    """They are all made before the first of them is seen."""
    for _ in range(500):
        assert cluster.create(WEB) is None
        cluster.now += UNSEEN_SECONDS / 501
    cluster.refusals.appeared(ObjectName("shop", "web-1-x7k2p"), "u1")
    cluster.now += UNSEEN_SECONDS
    assert cluster.create(WEB) is None


def test_an_owner_whose_pods_come_to_exist_is_rewritten_for_ever(cluster: Cluster) -> None:
    for _ in range(10):
        assert cluster.create(WEB, exists=True) is None
        cluster.now += 100


def test_a_refusal_of_long_ago_is_forgotten(cluster: Cluster) -> None:
    cluster.create(WEB)
    cluster.now += MEMORY_SECONDS + 1
    assert cluster.create(WEB) is None
    cluster.now += 1
    assert cluster.create(WEB) is None


def test_while_nobody_knows_which_pods_exist_no_owner_is_suspected(cluster: Cluster) -> None:
    cluster.create(WEB)
    cluster.now += UNSEEN_SECONDS
    for age in (None, 30.0):
        cluster.view_age = age
        assert cluster.create(WEB) is None
    cluster.view_age = 1.0
    assert cluster.create(WEB)


def test_a_bare_pod_that_is_sent_again_within_a_minute_is_admitted_as_it_is(cluster: Cluster) -> None:
    """FAULTS 73."""
    assert cluster.create({"name": "web"}) is None
    cluster.now += 0.5
    assert cluster.create({"name": "other"}) is None
    assert (cluster.create({"name": "web"}) or "").startswith("pod: it was rewritten 0 s ago and never came to exist")
    cluster.now += 1
    assert cluster.create({"name": "web"})
    cluster.now += BARE_SECONDS
    assert cluster.create({"name": "web"}) is None


def test_a_bare_pod_that_was_there_and_is_made_again_is_rewritten_again(cluster: Cluster) -> None:
    assert cluster.create({"name": "web"}, exists=True) is None
    assert cluster.create({"name": "web"}) is None


def test_bare_pods_of_a_generated_name_may_be_made_at_once_and_are_left_alone_when_none_is_seen(cluster: Cluster) -> None:
    for _ in range(20):
        assert cluster.create({"generateName": "run-"}) is None
    cluster.refusals.appeared(ObjectName("shop", "run-x7k2p"), "")
    cluster.now += UNSEEN_SECONDS
    assert cluster.create({"generateName": "run-"}) is None
    cluster.now += UNSEEN_SECONDS
    assert cluster.create({"generateName": "run-"})


def test_an_ephemeral_container_that_was_refused_is_added_as_it_is_at_the_second_try(cluster: Cluster) -> None:
    """FAULTS 73: `kubectl debug` gives it another name each time."""

    def debugged(*names: str) -> bool:
        made = pod(container("a", "nginx"), metadata=WEB, ephemeralContainers=[container(name, "busybox") for name in names])
        before = pod(container("a", "nginx"), ephemeralContainers=[container(name, "busybox") for name in names[:-1]])
        asked = {"operation": "UPDATE", "subResource": "ephemeralcontainers", "oldObject": before}
        image: str = admitted(made, gates=(cluster.refusals.gate,), **asked)["spec"]["ephemeralContainers"][-1]["image"]
        if image != "busybox":
            cluster.refusals.rewritten("shop", made)
        return image != "busybox"

    assert debugged("debugger-1")
    cluster.now += 1
    assert debugged("debugger-1", "debugger-2"), "the first is there"
    cluster.now += 1
    assert not debugged("debugger-1", "debugger-3")
    cluster.now += BARE_SECONDS
    assert debugged("debugger-1", "debugger-3")


def test_no_more_is_remembered_than_a_bound(cluster: Cluster) -> None:
    for number in range(KEPT_MAX + 5):
        cluster.refusals.rewritten("shop", pod(metadata={"name": f"web-{number}"}))
    assert len(cluster.refusals._unseen) == KEPT_MAX
    assert Reason.REFUSED.value == "refused"
