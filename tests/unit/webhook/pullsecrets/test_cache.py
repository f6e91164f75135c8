"""Derived pull secrets while an admission waits: one look for all, no wait without end, and nothing believed for too long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from webhook.errors import NotDerived, Obstacle
from webhook.kube.api import ObjectName
from webhook.pullsecrets import cache
from webhook.pullsecrets.cache import CONFIRM_SECONDS, FAILURE_SECONDS, KNOWN_SECONDS_MAX, MISSING_SECONDS_MAX, PullSecretCache
from webhook.pullsecrets.writer import Derived

REGISTRY = ObjectName("shop", "registry")
EXAMPLE = frozenset({"reg.example.com"})
OTHER = frozenset({"quay.io"})


class Cluster:
    """Secrets as `settle` finds them, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[tuple[str, str, frozenset[str]]] = []
        self.held = {"registry": EXAMPLE}
        self.failure: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def settle(self, namespace: str, name: str, registries: frozenset[str]) -> Derived:
        self.asked.append((namespace, name, registries))
        held = self.held.get(name)
        failure = self.failure
        assert self.open.wait(10)
        if failure:
            raise failure
        if held is None:
            return Derived(without=registries, missing=True)
        return Derived(registries & held, registries - held, ("1",))


def sentence(test: Callable[[Cluster, PullSecretCache], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test, in an event loop of its own."""

    def run() -> None:
        async def inside() -> None:
            cluster = Cluster()
            secrets = PullSecretCache(cluster.settle, 20.0, lambda: cluster.now)
            try:
                await test(cluster, secrets)
            finally:
                cluster.open.set()
                secrets.close()

        asyncio.run(inside())

    run.__name__ = test.__name__
    return run


@contextmanager
def closed(cluster: Cluster) -> Iterator[None]:
    """Whoever asks the cluster meanwhile waits."""
    cluster.open.clear()
    yield
    cluster.open.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def refused(asking: Awaitable[object]) -> Obstacle:
    with pytest.raises(NotDerived) as raised:
        await asking
    return raised.value.obstacle


async def ask(secrets: PullSecretCache, *names: str, registries: frozenset[str] = EXAMPLE) -> tuple[str, ...]:
    return tuple(await secrets.secrets_for("shop", names or ("registry",), registries))


@sentence
async def test_a_pod_is_told_the_derived_secrets_that_hold_something_for_its_registries(
    cluster: Cluster, secrets: PullSecretCache
) -> None:
    cluster.held["quay"] = OTHER
    assert await ask(secrets, "registry", "quay", "missing") == ("darner-registry",)
    assert await ask(secrets, "registry", "quay", registries=EXAMPLE | OTHER) == ("darner-registry", "darner-quay")
    held = await secrets.secrets_for("shop", ("registry", "quay"), EXAMPLE | OTHER)
    assert held == {"darner-registry": EXAMPLE, "darner-quay": OTHER}


@sentence
async def test_a_rollout_of_a_thousand_pods_asks_once(cluster: Cluster, secrets: PullSecretCache) -> None:
    answers = await asyncio.gather(*(ask(secrets) for _ in range(1000)))
    assert set(answers) == {("darner-registry",)}
    assert len(cluster.asked) == 1


@sentence
async def test_a_registry_that_nobody_has_asked_for_yet_is_asked_for_together_with_the_others(
    cluster: Cluster, secrets: PullSecretCache
) -> None:
    await ask(secrets)
    assert await ask(secrets, registries=OTHER) == ()
    assert cluster.asked[1:] == [("shop", "registry", EXAMPLE | OTHER)]
    assert await ask(secrets) == ("darner-registry",)
    assert len(cluster.asked) == 2


@sentence
async def test_two_pods_with_different_registries_at_once_both_get_what_they_need(
    cluster: Cluster, secrets: PullSecretCache
) -> None:
    cluster.held["registry"] = EXAMPLE | OTHER
    answers = await asyncio.gather(ask(secrets), ask(secrets, registries=OTHER), ask(secrets, registries=EXAMPLE | OTHER))
    assert set(answers) == {("darner-registry",)}
    assert len(cluster.asked) == 2


@sentence
async def test_what_comes_too_late_for_one_pod_serves_the_next(cluster: Cluster, secrets: PullSecretCache) -> None:
    secrets._deadline_seconds = 0.3
    with closed(cluster):
        assert await refused(ask(secrets)) == Obstacle.LATE
    await until(lambda: not secrets._pending)
    assert await ask(secrets) == ("darner-registry",)
    assert len(cluster.asked) == 1


@sentence
async def test_once_some_have_waited_in_vain_others_are_told_at_once(cluster: Cluster, secrets: PullSecretCache) -> None:
    secrets._deadline_seconds = 0.3
    with closed(cluster):
        assert await refused(ask(secrets)) == Obstacle.LATE
        cluster.now += 0.31
        asking = asyncio.ensure_future(refused(ask(secrets)))
        for _ in range(3):
            await asyncio.sleep(0)
        assert asking.done(), "without waiting"
        assert asking.result() == Obstacle.LATE


@sentence
async def test_a_failure_is_told_to_everybody_for_a_moment_and_then_tried_again(
    cluster: Cluster, secrets: PullSecretCache
) -> None:
    cluster.failure = NotDerived(Obstacle.REFUSED, "the API server answered 403 about the Secret registry")
    causes = await asyncio.gather(*(refused(ask(secrets)) for _ in range(100)))
    assert set(causes) == {Obstacle.REFUSED}
    assert await refused(ask(secrets)) == Obstacle.REFUSED
    assert len(cluster.asked) == 1
    cluster.failure = None
    cluster.now += FAILURE_SECONDS
    assert await ask(secrets) == ("darner-registry",)


@sentence
async def test_a_fault_of_our_own_is_raised_and_not_kept(cluster: Cluster, secrets: PullSecretCache) -> None:
    cluster.failure = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await ask(secrets)
    cluster.failure = None
    assert await ask(secrets) == ("darner-registry",)


@sentence
async def test_what_is_known_is_confirmed_meanwhile_before_it_is_too_old(cluster: Cluster, secrets: PullSecretCache) -> None:
    await ask(secrets)
    cluster.now += CONFIRM_SECONDS + 1
    with closed(cluster):
        assert await ask(secrets) == ("darner-registry",)
        await until(lambda: len(cluster.asked) == 2)
        assert await ask(secrets) == ("darner-registry",)
    await until(lambda: not secrets._pending)
    cluster.now += CONFIRM_SECONDS - 1
    assert await ask(secrets) == ("darner-registry",)
    assert len(cluster.asked) == 2


@sentence
async def test_what_could_not_be_confirmed_for_too_long_is_not_used_any_more(cluster: Cluster, secrets: PullSecretCache) -> None:
    await ask(secrets)
    cluster.now += KNOWN_SECONDS_MAX + 1
    cluster.failure = NotDerived(Obstacle.UNREACHABLE, "the API server did not answer")
    assert await refused(ask(secrets)) == Obstacle.UNREACHABLE


@sentence
async def test_an_original_that_does_not_exist_is_looked_for_again_soon(cluster: Cluster, secrets: PullSecretCache) -> None:
    assert await ask(secrets, "new") == ()
    cluster.held["new"] = EXAMPLE
    assert await ask(secrets, "new") == ()
    cluster.now += MISSING_SECONDS_MAX + 0.1
    assert await ask(secrets, "new") == ("darner-new",)


@sentence
async def test_a_change_in_the_cluster_is_believed_at_once_and_our_own_is_no_news(
    cluster: Cluster, secrets: PullSecretCache
) -> None:
    await ask(secrets)
    secrets.changed(REGISTRY, "1")
    await asyncio.sleep(0)
    await ask(secrets)
    assert len(cluster.asked) == 1
    for version in ("2", ""):
        secrets.changed(REGISTRY, version)
        await asyncio.sleep(0)
        await ask(secrets)
    assert len(cluster.asked) == 3


@sentence
async def test_what_was_read_before_a_change_is_not_kept_after_it(cluster: Cluster, secrets: PullSecretCache) -> None:
    with closed(cluster):
        asking = asyncio.ensure_future(ask(secrets))
        await until(lambda: bool(cluster.asked))
        secrets.changed(REGISTRY, "2")
        await asyncio.sleep(0)
    assert await asking == ("darner-registry",)
    await ask(secrets)
    assert len(cluster.asked) == 2


@sentence
async def test_namespaces_are_kept_apart(cluster: Cluster, secrets: PullSecretCache) -> None:
    await ask(secrets)
    await secrets.secrets_for("bank", ("registry",), EXAMPLE)
    assert [namespace for namespace, _, _ in cluster.asked] == ["shop", "bank"]


@sentence
async def test_a_pod_with_very_many_pull_secrets_is_refused_before_anybody_is_asked(
    cluster: Cluster, secrets: PullSecretCache
) -> None:
    assert await refused(ask(secrets, *(f"s{index}" for index in range(33)))) == Obstacle.TOO_MANY
    assert cluster.asked == []


def test_only_so_many_secrets_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "PENDING_MAX", 4)

    @sentence
    async def held_back(cluster: Cluster, secrets: PullSecretCache) -> None:
        with closed(cluster):
            asking = [asyncio.ensure_future(ask(secrets, f"s{index}")) for index in range(4)]
            await asyncio.sleep(0)
            assert await refused(ask(secrets, "another")) == Obstacle.BUSY
        await asyncio.gather(*asking)

    held_back()


def test_what_is_known_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "KNOWN_MAX", 3)

    @sentence
    async def forgets_the_oldest(cluster: Cluster, secrets: PullSecretCache) -> None:
        for name in "abcd":
            await ask(secrets, name)
        assert [key.name for key in secrets._known] == ["b", "c", "d"]

    forgets_the_oldest()
