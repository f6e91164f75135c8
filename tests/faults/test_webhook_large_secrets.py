"""FAULTS.md, row 96: a pull secret of 700 KB with hundreds of hosts and wildcards, and what others notice of it.

Work is counted in calls of functions, which do not depend on how busy the machine is.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from webhook.errors import NotDerived, Obstacle
from webhook.kube.api import ObjectName
from webhook.pullsecrets.cache import PENDING_PER_NAMESPACE_MAX, REGISTRIES_PER_POD_MAX, PullSecretCache
from webhook.pullsecrets.dockerconfig import REGISTRIES_MAX, derive, original_of, registries_with_credentials
from webhook.pullsecrets.reconciler import by_turns
from webhook.pullsecrets.shares import WORKERS, WORKERS_PER_NAMESPACE_MAX
from webhook.pullsecrets.writer import Derived

SECRET_BYTES = 700_000
CALLS_PER_COMPARISON_MAX = 12
"""Of a registry with a pattern."""
EXAMPLE = frozenset({"reg.example.com"})
REGISTRIES = [f"r{number}.example.com" for number in range(REGISTRIES_MAX)]


def large(bytes_wanted: int) -> dict[str, Any]:
    """A Secret of exact hosts and patterns, half and half, of which most fit to none of the registries that are asked for."""
    auths: dict[str, Any] = {host: {"auth": "QQ=="} for host in REGISTRIES}
    size = number = 0
    while size < bytes_wanted:
        for host in (f"h{number}.example.com", f"*a*{number}*b.example.com/team"):
            auths[host] = {"auth": base64.b64encode(b"user:" + b"p" * 40).decode()}
            size += len(host) + len(json.dumps(auths[host])) + 6
        number += 1
    data = {".dockerconfigjson": base64.b64encode(json.dumps({"auths": auths}).encode()).decode()}
    return {"type": "kubernetes.io/dockerconfigjson", "metadata": {"name": "large", "namespace": "a"}, "data": data}


HALF, WHOLE = large(SECRET_BYTES // 2), large(SECRET_BYTES)


def calls(work: Callable[[], object]) -> int:
    counted = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return counted


def settled(secret: dict[str, Any], registries: list[str]) -> None:
    """All that a derivation does between two questions to the API server."""
    original = original_of(secret)
    assert original
    assert registries_with_credentials(original, registries)
    derive(original, registries)
    assert registries_with_credentials(original, registries) == frozenset(registries)


def test_a_derivation_takes_work_in_proportion_to_the_secret_and_not_more() -> None:
    """FAULTS 96."""
    half, whole = (calls(partial(settled, secret, REGISTRIES)) for secret in (HALF, WHOLE))
    assert whole < 2.2 * half


def test_a_derivation_for_more_registries_reads_no_key_again() -> None:
    """FAULTS 96."""
    one, all_of_them = (calls(partial(settled, WHOLE, REGISTRIES[:count])) for count in (1, REGISTRIES_MAX))
    patterns = sum("*" in host for host in json.loads(base64.b64decode(WHOLE["data"][".dockerconfigjson"]))["auths"])
    assert all_of_them - one < REGISTRIES_MAX * patterns * CALLS_PER_COMPARISON_MAX


def test_a_wildcard_whose_copies_would_be_more_than_a_secret_holds_is_not_derived_from() -> None:
    """FAULTS 96."""
    auths = {f"*.example.com/team{number}": {"auth": "QQ==" * 10} for number in range(8000)}
    data = {".dockerconfigjson": base64.b64encode(json.dumps({"auths": auths}).encode()).decode()}
    original = original_of(WHOLE | {"data": data})
    assert original
    derive(original, REGISTRIES[:1])
    with pytest.raises(NotDerived, match="it would have more than 1 MiB") as refused:
        derive(original, REGISTRIES)
    assert refused.value.obstacle is Obstacle.TOO_LARGE


def test_one_namespace_whose_secrets_take_for_ever_keeps_no_other_waiting() -> None:
    """FAULTS 96: it has its share of the threads and of the places to wait; the others have theirs meanwhile."""
    free, running, most = threading.Event(), Counter[str](), Counter[str]()
    lock = threading.Lock()

    def settle(namespace: str, _name: str, registries: frozenset[str]) -> Derived:
        with lock:
            running[namespace] += 1
            most[namespace] = max(most[namespace], running[namespace])
        if namespace == "greedy":
            assert free.wait(60)
        with lock:
            running[namespace] -= 1
        return Derived(covered=registries, versions=("1",))

    async def ask(secrets: PullSecretCache, namespace: str, name: str) -> object:
        return await secrets.secrets_for(namespace, (name,), EXAMPLE)

    async def inside() -> None:
        secrets = PullSecretCache(settle, 50.0)
        greedy = [asyncio.ensure_future(ask(secrets, "greedy", f"s{number}")) for number in range(PENDING_PER_NAMESPACE_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(NotDerived, match="of its namespace are being derived") as refused:
            await ask(secrets, "greedy", "one-more")
        assert refused.value.obstacle is Obstacle.BUSY
        for number in range(20):
            assert await ask(secrets, f"modest{number}", "registry") == {"darner-registry": EXAMPLE}
        assert most["greedy"] == WORKERS_PER_NAMESPACE_MAX < WORKERS
        assert not any(asked.done() for asked in greedy)
        free.set()
        assert len(await asyncio.gather(*greedy)) == PENDING_PER_NAMESPACE_MAX
        assert most["greedy"] <= WORKERS_PER_NAMESPACE_MAX
        too_many = frozenset(f"{number}.example.com" for number in range(REGISTRIES_PER_POD_MAX + 1))
        with pytest.raises(NotDerived, match="from more than"):
            await secrets.secrets_for("modest1", ("registry",), too_many)
        secrets.close()

    asyncio.run(inside())


def test_what_is_out_of_step_has_its_turn_by_namespace() -> None:
    """FAULTS 96."""
    many = {ObjectName("greedy", f"s{number}"): EXAMPLE for number in range(1000)}
    order = [key for key, _ in by_turns({**many, ObjectName("modest", "a"): EXAMPLE, ObjectName("modest", "b"): EXAMPLE})]
    assert len(order) == 1002
    assert order.index(ObjectName("modest", "a")) == 1
    assert order.index(ObjectName("modest", "b")) == 3
