"""What Darner's own processes say of themselves: the state of each supernode and agent, the webhook's figures and its pauses.

One that cannot be asked is named with its reason and the others count on: what is asked here is asked on bad days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from cli.cluster import document_of
from cli.errors import ClusterUnreachable, CommandError, NotThere
from cli.pods import is_ready, name_of, node_of
from cli.release import Installation
from webhook.breaker.pauses import Pauses
from webhook.kube.api import Object, mapping_at, mappings_at, text_at
from webhook.kube.lease import SHARED

AT_ONCE = 16
"""Pods that are asked at a time."""
STATE = "/api/v1/state"
Document = dict[str, Any]


@dataclass
class Asked:
    """Answers by the name of the pod, and why others gave none."""

    answers: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SetAside:
    """Who is left alone, or is no source."""

    kind: str
    name: str
    why: str
    seconds: float | None
    """That are left of it; None: nobody knows."""


def supernode_states(installation: Installation) -> Asked:
    """Through a port-forward: a supernode tells its state to its own loopback."""
    return _asked(
        installation.pods("supernode"),
        lambda pod: installation.access.fetch_json(installation.namespace, pod, installation.http_port("supernode"), STATE),
    )


def agent_states(installation: Installation) -> Asked:
    """By a command in each agent's pod: it listens at its node's address, and port-forwards end at loopback. By node."""
    pods = installation.pods("agent")
    nodes = {name_of(pod): node_of(pod) for pod in pods}
    asked = _asked(pods, lambda pod: document_of(local(installation, pod, "GET", STATE), f"pod {pod}"))
    return Asked({nodes[name]: answer for name, answer in asked.answers.items()}, asked.failures)


def local(installation: Installation, pod: str, method: str, path: str) -> str:
    """The process in a pod is asked from within it. Raises CommandError."""
    ended = installation.access.execute(installation.namespace, pod, ["darner", "local", method, path])
    return ended.ended_well(f"`darner local` in pod {pod}")


def webhook_figures(installation: Installation) -> Asked:
    """By pod, the sum of each metric over its labels."""
    port = installation.http_port("webhook")
    return _asked(
        installation.pods("webhook"),
        lambda pod: figures(installation.access.fetch(installation.namespace, pod, port, "/metrics").decode(errors="replace")),
    )


def figures(exposed: str) -> dict[str, float]:
    """Raises CommandError for what is no page of metrics."""
    found: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(exposed):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    except ValueError as error:
        raise CommandError(f"its metrics cannot be read: {error}") from None
    return found


def pauses(installation: Installation, now: float) -> list[SetAside]:
    """What the webhook leaves alone, from the Lease by which its replicas share it. `now` is Unix time. Raises CommandError."""
    webhook = installation.workloads.get("webhook")
    if webhook is None:
        return []
    path = f"/apis/coordination.k8s.io/v1/namespaces/{installation.namespace}/leases/{name_of(webhook)}"
    try:
        lease = installation.access.get(path)
    except NotThere:
        return []
    shared = Pauses.read(text_at(mapping_at(mapping_at(lease, "metadata"), "annotations"), SHARED), now)
    return [
        SetAside(*_of_key(key), pause.until - now)
        for key, pause in sorted(shared.entries.items())
        if shared.remaining(key, now) > 0
    ]


def left_alone_by_supernodes(states: Iterable[Document]) -> list[SetAside]:
    found: dict[tuple[str, str], SetAside] = {}
    for state in states:
        for item in mappings_at(state, "leftAlone"):
            seconds = item.get("until")
            left = float(seconds) if isinstance(seconds, int | float) else None
            one = SetAside(text_at(item, "kind"), text_at(item, "name"), text_at(item, "why"), left)
            found.setdefault((one.kind, one.name), one)
    return list(found.values())


def quarantines(states: Iterable[Document]) -> list[SetAside]:
    """Each node once, for as long as the supernode that holds it longest says."""
    found: dict[str, SetAside] = {}
    for state in states:
        for item in mappings_at(state, "quarantines"):
            seconds = item.get("until")
            left = float(seconds) if isinstance(seconds, int | float) else None
            one = SetAside("quarantine", text_at(item, "name"), text_at(item, "reason"), left)
            before = found.get(one.name)
            if before is None or (left or 0.0) > (before.seconds or 0.0):
                found[one.name] = one
    return list(found.values())


def bytes_by_source(states: Iterable[Document]) -> dict[str, int]:
    """In the last 24 hours. Nodes tell each supernode all of it, so the one that knows most is right."""
    known = [{source: int(count) for source, count in mapping_at(state, "bytes24h").items()} for state in states]
    return max(known, key=lambda counts: sum(counts.values()), default={})


def _of_key(key: str) -> tuple[str, str, str]:
    kind, _, name = key.partition(" ")
    why = {
        "registry": "pulls from it through the agents keep failing",
        "owner": "its pods are deleted again and again soon after they are rewritten",
        "credential": "pods without a pull secret are refused there through the agents, and run without them",
    }
    return kind, name, why.get(kind, "")


def _asked(pods: list[Object], ask: Callable[[str], Any]) -> Asked:
    """Each of the pods that run, some at a time. Raises ClusterUnreachable, which the others would raise as well."""
    asked = Asked()

    def one(pod: Object) -> Any:
        if text_at(mapping_at(pod, "status"), "phase") != "Running":
            return CommandError(f"pod {name_of(pod)} does not run")
        try:
            return ask(name_of(pod))
        except ClusterUnreachable:
            raise
        except CommandError as error:
            words = str(error) if is_ready(pod) else f"{error} (it is not ready)"
            return CommandError(words)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for pod, answer in zip(pods, threads.map(one, pods), strict=True):
            if isinstance(answer, CommandError):
                asked.failures.append(str(answer))
            else:
                asked.answers[name_of(pod)] = answer
    return asked
