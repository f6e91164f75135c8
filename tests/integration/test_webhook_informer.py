"""A informer of objects, against an API server that pages, forgets, falls silent and comes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hack.lab.apiserver import ApiServer, running
from hack.lab.process import wait_until
from webhook.kube import informer as module
from webhook.kube.api import ObjectName
from webhook.kube.client import Cluster
from webhook.kube.informer import Changes, Informer

SECRETS = "/api/v1/namespaces/shop/secrets"


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with running() as server:
        yield server


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RETRY_SECONDS": 0.1, "WATCH_SECONDS_MIN": 0.05, "WATCH_SECONDS": 1, "SILENCE_SECONDS_MAX": 0.5}.items():
        monkeypatch.setattr(module, name, value)


@contextmanager
def followed(api: ApiServer, directory: Path, **more: Any) -> Iterator[Informer[str]]:
    cluster = Cluster({"KUBECONFIG": str(api.kubeconfig(directory / "kubeconfig"))})
    informer: Informer[str] = Informer(cluster, "/api/v1/secrets", {}, lambda item: item["metadata"]["resourceVersion"], **more)
    stopped = threading.Event()
    thread = threading.Thread(target=informer.run, args=(stopped,))
    thread.start()
    try:
        yield informer
    finally:
        stopped.set()
        thread.join()


def secret(api: ApiServer, name: str, **more: Any) -> None:
    api.put(f"{SECRETS}/{name}", {"metadata": {"name": name}, "data": {"a": "c2VjcmV0"}, **more})


def held(informer: Informer[str]) -> set[str]:
    return {key.name for key in list(informer.objects)}


def test_what_is_there_what_comes_what_changes_and_what_goes_is_followed(api: ApiServer, tmp_path: Path) -> None:
    told: list[tuple[str, bool, bool]] = []
    secret(api, "a")

    def changed(changes: Changes[str]) -> None:
        told.extend((key.name, before is not None, after is not None) for key, (before, after) in changes.items())

    with followed(api, tmp_path, changed=changed) as informer:
        wait_until(lambda: held(informer) == {"a"})
        secret(api, "b")
        wait_until(lambda: held(informer) == {"a", "b"})
        before = informer.objects[ObjectName("shop", "a")]
        secret(api, "a")
        wait_until(lambda: informer.objects[ObjectName("shop", "a")] != before)
        api.remove(f"{SECRETS}/a")
        wait_until(lambda: held(informer) == {"b"})
    assert told == [("a", False, True), ("b", False, True), ("a", True, True), ("a", True, False)]


def test_a_list_of_many_pages_is_read_to_its_end(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_ITEMS", 2)
    for name in "abcde":
        secret(api, name)
    with followed(api, tmp_path) as informer:
        wait_until(lambda: held(informer) == set("abcde"))
    assert len([request for request in api.requests if "watch" not in request]) == 3


def test_only_metadata_is_asked_for_where_nothing_else_is_needed(api: ApiServer, tmp_path: Path) -> None:
    secret(api, "a")
    cluster = Cluster({"KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig"))})
    seen: list[Any] = []
    informer: Informer[None] = Informer(cluster, "/api/v1/secrets", {}, lambda item: seen.append(item), metadata_only=True)
    stopped = threading.Event()
    thread = threading.Thread(target=informer.run, args=(stopped,))
    thread.start()
    wait_until(lambda: len(seen) == 1)
    secret(api, "b")
    wait_until(lambda: len(seen) == 2)
    stopped.set()
    thread.join()
    assert all(set(item) == {"metadata"} for item in seen)


def test_a_mirror_that_is_confirmed_again_and_again_stays_young(api: ApiServer, tmp_path: Path) -> None:
    with followed(api, tmp_path) as informer:
        wait_until(lambda: len(api.asked("GET /api/v1/secrets?watch")) >= 3)
        age = informer.age_seconds()
    assert age is not None
    assert age < 2.5


def test_a_mirror_before_its_first_list_has_no_age(api: ApiServer, tmp_path: Path) -> None:
    api.refusal = 403
    with followed(api, tmp_path) as informer:
        wait_until(lambda: len(api.requests) >= 2)
        assert informer.age_seconds() is None
        api.refusal = 0
        wait_until(lambda: informer.age_seconds() is not None)


def test_a_connection_that_has_gone_dead_makes_the_mirror_older_until_it_is_replaced(api: ApiServer, tmp_path: Path) -> None:
    with followed(api, tmp_path) as informer:
        wait_until(lambda: informer.age_seconds() is not None)
        with api.lock:
            api.silent = True
            api.delay_seconds = 6
            secret(api, "late")
        wait_until(lambda: (informer.age_seconds() or 0) > 2.5)
        assert "late" not in held(informer)
        with api.lock:
            api.silent = False
            api.delay_seconds = 0
        wait_until(lambda: "late" in held(informer))
        wait_until(lambda: (informer.age_seconds() or 9) < 2)


def test_a_version_that_the_api_server_has_forgotten_is_listed_anew(api: ApiServer, tmp_path: Path) -> None:
    secret(api, "a")
    with followed(api, tmp_path) as informer:
        wait_until(lambda: held(informer) == {"a"})
        with api.lock:
            api.refusals["GET /api/v1/secrets?watch"] = 410
            api.objects.pop(f"{SECRETS}/a")
            secret(api, "b")
        wait_until(lambda: held(informer) == {"b"})
        with api.lock:
            api.refusals.clear()
            api.oldest = api.version + 1
        wait_until(lambda: len(api.asked("GET /api/v1/secrets?limit")) >= 3)


def test_an_api_server_that_refuses_is_asked_again_without_a_flood_and_told_once(
    api: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api.refusal = 500
    with followed(api, tmp_path) as informer:
        wait_until(lambda: len(api.requests) >= 5)
        api.refusal = 0
        wait_until(lambda: informer.age_seconds() is not None)
    assert [record.levelname for record in caplog.records if record.name == "webhook.kube.informer"] == ["WARNING"]
    assert "answered 500" in caplog.text
