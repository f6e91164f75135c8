"""The Lease in virtual time: one replica acts, the next one takes over, and a clock that is wrong changes nothing."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest

from webhook.errors import Unreachable
from webhook.kube.api import ObjectName
from webhook.kube.lease import DURATION_SECONDS, LEAD_SECONDS, SHARED, Lease

NAME = ObjectName("darner-system", "darner-webhook")


class Answer(NamedTuple):
    status: int
    document: dict[str, Any]


class Cluster:
    """One Lease, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.away = False
        self.refusal = 0

    def ask(self, method: str, path: str, body: Any = None, *_: Any, **__: Any) -> Answer:
        assert path.startswith("/apis/coordination.k8s.io/v1/namespaces/darner-system/leases")
        if self.away:
            raise Unreachable("nobody answers")
        if self.refusal:
            return Answer(self.refusal, {})
        if method == "GET":
            return Answer(200, copy.deepcopy(self.lease)) if self.lease else Answer(404, {})
        if method == "POST" and self.lease:
            return Answer(409, {})
        if method == "PUT" and body["metadata"]["resourceVersion"] != str(self.version):
            return Answer(409, {})
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return Answer(200, self.lease)

    def watch(self, *_: Any) -> Any:
        raise AssertionError("a Lease is looked at, not watched")

    def replica(self, name: str, **more: Any) -> Lease:
        return Lease(self, NAME, name, clock=lambda: self.now, **more)

    def steps(self, *replicas: Lease, seconds: float = 0) -> list[bool]:
        """Every replica's own pace: a step every two seconds."""
        for _ in range(int(seconds // 2)):
            for replica in replicas:
                replica.step()
            self.now += 2
        for replica in replicas:
            replica.step()
        return [replica.leading() for replica in replicas]


def test_the_first_one_leads_and_stays_it() -> None:
    cluster = Cluster()
    first, second = cluster.replica("first"), cluster.replica("second")
    assert cluster.steps(first, second) == [True, False]
    assert cluster.steps(second, first, seconds=60) == [False, True]
    assert cluster.lease
    assert cluster.lease["spec"]["holderIdentity"] == "first"
    assert cluster.lease["spec"]["leaseTransitions"] == 1


def test_when_the_holder_is_gone_another_one_leads_within_ten_seconds_and_never_both() -> None:
    cluster = Cluster()
    first, second = cluster.replica("first"), cluster.replica("second")
    cluster.steps(first, second)
    begun = cluster.now
    while not second.leading():
        cluster.now += 0.5
        second.step()
        assert not (first.leading() and second.leading())
    assert DURATION_SECONDS <= cluster.now - begun <= 10
    assert cluster.steps(first, second) == [False, True]


def test_a_holder_that_ends_gives_the_lease_back_and_never_takes_it_again() -> None:
    cluster = Cluster()
    first, second = cluster.replica("first"), cluster.replica("second")
    cluster.steps(first, second)
    first.release()
    assert cluster.steps(first, second) == [False, True]
    first.release()
    assert cluster.steps(second, seconds=20) == [True]


def test_who_cannot_renew_stops_acting_before_anybody_else_begins() -> None:
    cluster = Cluster()
    first = cluster.replica("first")
    cluster.steps(first)
    cluster.away = True
    cluster.now += LEAD_SECONDS - 0.1
    first.step()
    assert first.leading()
    cluster.now += 0.1
    assert not first.leading()
    assert LEAD_SECONDS < DURATION_SECONDS
    cluster.away = False
    assert cluster.steps(first) == [True]


@pytest.mark.parametrize("renewed", ["1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z", "soon"])
def test_the_holders_clock_does_not_matter(renewed: str) -> None:
    """FAULTS 43."""
    cluster = Cluster()
    cluster.steps(cluster.replica("first"))
    assert cluster.lease
    cluster.lease["spec"]["renewTime"] = renewed
    second = cluster.replica("second")
    assert cluster.steps(second) == [False]
    assert cluster.steps(second, seconds=DURATION_SECONDS) == [True]


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_who_is_refused_does_not_lead_and_does_not_fail(status: int) -> None:
    cluster = Cluster()
    cluster.refusal = status
    assert cluster.steps(cluster.replica("first")) == [False]


def test_of_two_that_write_at_once_one_is_first() -> None:
    cluster = Cluster()
    second = cluster.replica("second")
    first = cluster.replica("first", told=lambda _: second.step())
    assert cluster.steps(first) == [False]
    assert second.leading()


def test_what_the_holder_publishes_is_told_to_all_and_to_the_next_holder() -> None:
    cluster, told = Cluster(), []
    first = cluster.replica("first", publish=lambda: "known")
    second = cluster.replica("second", publish=lambda: None, told=told.append)
    cluster.steps(first, second)
    assert told == ["known"]
    first.release()
    cluster.steps(second)
    assert cluster.lease
    assert cluster.lease["metadata"]["annotations"] == {SHARED: "known"}


def test_what_others_have_put_on_the_lease_stays() -> None:
    cluster = Cluster()
    first = cluster.replica("first", publish=lambda: "known")
    cluster.steps(first)
    assert cluster.lease
    cluster.lease["metadata"] |= {"labels": {"team": "a"}, "annotations": {"note": "b"}}
    cluster.steps(first)
    assert cluster.lease["metadata"]["labels"] == {"team": "a"}
    assert cluster.lease["metadata"]["annotations"] == {"note": "b", SHARED: "known"}
