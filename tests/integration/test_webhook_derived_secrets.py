"""Derived pull secrets and the API server: made once, kept in step, never anybody else's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hack.lab.apiserver import ApiServer, running
from hack.lab.process import wait_until
from tests.pull_secrets import LOGIN, PASSWORD, derived, found_for, path_of, put
from webhook.errors import NotDerived, Obstacle
from webhook.kube.api import ObjectName
from webhook.kube.client import Cluster
from webhook.pullsecrets import reconciler
from webhook.pullsecrets.dockerconfig import registries_of
from webhook.pullsecrets.reconciler import PullSecretReconciler
from webhook.pullsecrets.writer import PullSecretWriter

EXAMPLE = frozenset({"reg.example.com"})
IMAGE = "reg.example.com/team/app:1"


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with running() as server:
        yield server


@pytest.fixture
def cluster(api: ApiServer, tmp_path: Path) -> Cluster:
    return Cluster({"KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig"))})


@pytest.fixture
def writer(cluster: Cluster) -> PullSecretWriter:
    return PullSecretWriter(cluster)


@contextmanager
def in_step(cluster: Cluster, leading: bool = True) -> Iterator[list[tuple[ObjectName, str]]]:
    """The controller at work; what it tells the admissions."""
    told: list[tuple[ObjectName, str]] = []
    controller = PullSecretReconciler(
        cluster, PullSecretWriter(cluster).settle, lambda key, version: told.append((key, version)), lambda: leading
    )
    stopped = threading.Event()
    threads = [threading.Thread(target=work, args=(stopped,), daemon=True) for work in controller.working().values()]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(informer.age_seconds() is not None for informer in controller._informers.values()))
    yield told
    stopped.set()
    controller._due.set()


def test_a_derived_secret_is_made_once_and_then_found(api: ApiServer, writer: PullSecretWriter) -> None:
    put(api, "reg.example.com")
    first = writer.settle("shop", "registry", EXAMPLE)
    assert (first.covered, first.without, first.missing) == (EXAMPLE, frozenset(), False)
    assert found_for(derived(api), IMAGE) == [LOGIN]
    assert writer.settle("shop", "registry", EXAMPLE) == first
    assert len(api.asked("POST")) == 1
    assert api.asked("PUT") == []


def test_a_registry_more_is_added_and_those_before_it_stay(api: ApiServer, writer: PullSecretWriter) -> None:
    put(api, "reg.example.com", "quay.io")
    writer.settle("shop", "registry", EXAMPLE)
    settled = writer.settle("shop", "registry", ["quay.io", "ghcr.io"])
    assert (settled.covered, settled.without) == (EXAMPLE | {"quay.io"}, {"ghcr.io"})
    assert registries_of(derived(api)["metadata"]) == EXAMPLE | {"quay.io"}
    assert found_for(derived(api), IMAGE) == found_for(derived(api), "quay.io/a/b") == [LOGIN]


def test_an_original_that_holds_nothing_for_the_registries_is_not_derived_from(api: ApiServer, writer: PullSecretWriter) -> None:
    put(api, "reg.example.com")
    assert writer.settle("shop", "registry", ["quay.io"]).without == {"quay.io"}
    assert [request.split()[0] for request in api.requests] == ["GET", "GET"]


def test_an_original_that_does_not_exist_is_told(api: ApiServer, writer: PullSecretWriter) -> None:
    settled = writer.settle("shop", "registry", EXAMPLE)
    assert (settled.missing, settled.without) == (True, EXAMPLE)


@pytest.mark.parametrize("name", ["../../x", "a/b", "A", "", "-a", "a" * 254, "a?b", "a%2fb"])
def test_a_name_that_no_secret_has_is_not_asked_about(api: ApiServer, writer: PullSecretWriter, name: str) -> None:
    assert writer.settle("shop", name, EXAMPLE).without == EXAMPLE
    assert writer.settle(name, "registry", EXAMPLE).without == EXAMPLE or name == "a" * 254
    assert api.requests == []


def test_a_changed_original_is_followed(api: ApiServer, writer: PullSecretWriter) -> None:
    put(api, "reg.example.com", older=True)
    writer.settle("shop", "registry", EXAMPLE)
    put(api, "reg.example.com", login="bmV3", older=True)
    writer.settle("shop", "registry", ())
    assert found_for(derived(api), IMAGE) == ["bmV3"]
    put(api, "quay.io", older=True)
    settled = writer.settle("shop", "registry", EXAMPLE)
    assert (settled.covered, settled.without) == (frozenset(), EXAMPLE)
    assert found_for(derived(api), IMAGE) == []


def test_a_secret_that_somebody_else_has_made_is_never_overwritten(api: ApiServer, writer: PullSecretWriter) -> None:
    put(api, "reg.example.com")
    before = put(api, "quay.io", name="darner-registry", login="dGhlaXJz")
    with pytest.raises(NotDerived, match="darner-registry that is not Darner's") as refused:
        writer.settle("shop", "registry", EXAMPLE)
    assert refused.value.obstacle == Obstacle.FOREIGN
    assert writer.settle("shop", "registry", ["ghcr.io"]).without == {"ghcr.io"}
    assert api.objects[path_of("darner-registry")]["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_many_at_once_agree_on_one(api: ApiServer, cluster: Cluster) -> None:
    put(api, "reg.example.com", "quay.io")
    registries = ["reg.example.com", "quay.io"]
    settled: list[frozenset[str]] = []
    threads = [
        threading.Thread(
            target=lambda r=registry: settled.append(PullSecretWriter(cluster).settle("shop", "registry", [r]).covered)
        )
        for registry in registries * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(settled) == 8
    assert registries_of(derived(api)["metadata"]) == set(registries)


def test_one_original_is_derived_for_only_so_many_registries(api: ApiServer, writer: PullSecretWriter) -> None:
    put(api, "*.example.com")
    writer.settle("shop", "registry", [f"r{index}.example.com" for index in range(64)])
    with pytest.raises(NotDerived, match="more than 64 registries"):
        writer.settle("shop", "registry", ["one-more.example.com"])


@pytest.mark.parametrize("refused", ["GET", "POST", "PUT"])
@pytest.mark.parametrize("status", [403, 429, 500])
def test_a_refusal_is_told_with_the_name_of_the_secret_and_nothing_that_is_in_it(
    api: ApiServer, writer: PullSecretWriter, refused: str, status: int
) -> None:
    put(api, "reg.example.com")
    if refused == "PUT":
        writer.settle("shop", "registry", EXAMPLE)
        put(api, "reg.example.com", login="bmV3")
    api.refusals[refused] = status
    with pytest.raises(NotDerived, match=f"answered {status} about the Secret (darner-)?registry") as raised:
        writer.settle("shop", "registry", EXAMPLE)
    assert raised.value.obstacle == Obstacle.REFUSED
    assert LOGIN not in repr(raised.value)
    assert PASSWORD not in repr(raised.value)


def test_conflicts_that_do_not_end_are_told(api: ApiServer, writer: PullSecretWriter) -> None:
    put(api, "reg.example.com")
    api.refusals["POST"] = 409
    with pytest.raises(NotDerived) as raised:
        writer.settle("shop", "registry", EXAMPLE)
    assert raised.value.obstacle == Obstacle.CONFLICT


def test_the_controller_follows_a_changed_original_within_a_moment(
    api: ApiServer, cluster: Cluster, writer: PullSecretWriter
) -> None:
    put(api, "reg.example.com")
    writer.settle("shop", "registry", EXAMPLE)
    with in_step(cluster) as told:
        put(api, "reg.example.com", login="bmV3")
        wait_until(lambda: found_for(derived(api), IMAGE) == ["bmV3"], 5)
        key = ObjectName("shop", "registry")
        original, copy = (api.objects[path_of(name)]["metadata"] for name in ("registry", "darner-registry"))
        wait_until(lambda: {(key, f"{item['uid']}/{item['resourceVersion']}") for item in (original, copy)} <= set(told), 5)


def test_the_controller_brings_in_step_what_changed_before_it_began(
    api: ApiServer, cluster: Cluster, writer: PullSecretWriter
) -> None:
    put(api, "reg.example.com", older=True)
    writer.settle("shop", "registry", EXAMPLE)
    put(api, "reg.example.com", login="bmV3", older=True)
    with in_step(cluster):
        wait_until(lambda: found_for(derived(api), IMAGE) == ["bmV3"], 5)


def test_a_replica_that_does_not_lead_changes_nothing_and_still_tells_its_admissions(
    api: ApiServer, cluster: Cluster, writer: PullSecretWriter
) -> None:
    put(api, "reg.example.com")
    writer.settle("shop", "registry", EXAMPLE)
    with in_step(cluster, leading=False) as told:
        told.clear()
        put(api, "reg.example.com", login="bmV3")
        wait_until(lambda: told, 5)
        assert [key for key, _ in told] == [ObjectName("shop", "registry")]
        assert not threading.Event().wait(0.5)
        assert found_for(derived(api), IMAGE) == [LOGIN]


def test_a_refused_write_is_tried_again(
    api: ApiServer, cluster: Cluster, writer: PullSecretWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "RETRY_SECONDS", 0.2)
    put(api, "reg.example.com")
    writer.settle("shop", "registry", EXAMPLE)
    with in_step(cluster):
        api.refusals["PUT"] = 500
        put(api, "reg.example.com", login="bmV3")
        wait_until(lambda: len(api.asked("PUT")) >= 2, 5)
        api.refusals.clear()
        wait_until(lambda: found_for(derived(api), IMAGE) == ["bmV3"], 5)


def test_an_original_that_is_deleted_and_made_again_is_derived_again(
    api: ApiServer, cluster: Cluster, writer: PullSecretWriter
) -> None:
    put(api, "reg.example.com")
    writer.settle("shop", "registry", EXAMPLE)
    with in_step(cluster) as told:
        api.remove(path_of("registry"))
        api.remove(path_of("darner-registry"))  # the garbage collector's part
        wait_until(lambda: (ObjectName("shop", "registry"), "") in told, 5)
        uid = put(api, "reg.example.com", login="bmV3")["metadata"]["uid"]
        wait_until(lambda: path_of("darner-registry") in api.objects, 5)
        assert derived(api)["metadata"]["ownerReferences"][0]["uid"] == uid
        assert found_for(derived(api), IMAGE) == ["bmV3"]


def test_a_derived_secret_that_is_deleted_while_its_original_stays_is_not_made_again_by_the_controller(
    api: ApiServer, cluster: Cluster, writer: PullSecretWriter
) -> None:
    put(api, "reg.example.com")
    writer.settle("shop", "registry", EXAMPLE)
    with in_step(cluster) as told:
        api.remove(path_of("darner-registry"))
        wait_until(lambda: (ObjectName("shop", "registry"), "") in told, 5)
        put(api, "reg.example.com", login="bmV3")
        assert not threading.Event().wait(0.5)
        assert path_of("darner-registry") not in api.objects


def test_the_controller_never_asks_for_what_is_in_a_secret_but_to_derive_from_it(api: ApiServer, cluster: Cluster) -> None:
    put(api, "reg.example.com")
    with in_step(cluster):
        put(api, "quay.io")
        assert not threading.Event().wait(0.4)
    assert {request.partition("?")[0] for request in api.requests} == {"GET /api/v1/secrets"}
    assert all("fieldSelector=type%3Dkubernetes.io%2Fdocker" in request for request in api.requests)
