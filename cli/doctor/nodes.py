"""Checks of the cluster and its nodes: versions, container runtimes, disks. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agent.config import space
from agent.values.space import Percent
from cli.doctor.facts import Facts, PodProbe
from cli.doctor.finding import Finding, fine, problem, some, unknown, warning
from cli.pods import name_of
from webhook.admission.runtimes import pulls_from_agents
from webhook.kube.api import Object, mapping_at, mappings_at, text_at

KUBERNETES_LEAST = (1, 30)
"""The chart's kubeVersion; a test holds both together."""


def kubernetes_version(facts: Facts) -> Iterator[Finding]:
    version = _version(facts.version)
    least = ".".join(map(str, KUBERNETES_LEAST))
    if version is None:
        yield unknown(f"the API server says no version, and Darner needs Kubernetes {least}", "", "kubernetes-is-too-old")
    elif version < KUBERNETES_LEAST:
        what = f"this is Kubernetes {facts.version}, and Darner needs {least} or later"
        yield problem(what, "upgrade the cluster", "kubernetes-is-too-old")
    else:
        yield fine(f"Kubernetes {facts.version}")


def runtimes(facts: Facts) -> Iterator[Finding]:
    """Whether each node's container runtime asks 127.0.0.1 in plain HTTP as it is."""
    by_runtime: dict[str, list[str]] = {}
    for node in facts.nodes:
        info = mapping_at(mapping_at(node, "status"), "nodeInfo")
        if text_at(info, "operatingSystem") in ("", "linux"):
            by_runtime.setdefault(text_at(info, "containerRuntimeVersion"), []).append(name_of(node))
    for runtime, names in sorted(by_runtime.items()):
        yield _runtime(runtime, some(names))


def _runtime(runtime: str, nodes: str) -> Finding:
    shown = runtime.replace("cri-o", "CRI-O").replace("://", " ") or "the container runtime"
    pulls = pulls_from_agents(runtime)
    if pulls:
        return fine(f"{shown} pulls from 127.0.0.1 in plain HTTP as it is ({nodes})")
    if pulls is None:
        what = f"whether {shown} pulls from 127.0.0.1 in plain HTTP is not known ({nodes})"
        return unknown(what, "try it: darner doctor --pull IMAGE", "the-runtime-does-not-pull-from-the-agent")
    what = f"{shown} does not pull from 127.0.0.1 in plain HTTP as it is ({nodes})"
    remedy = "set agent.crio.configPath to /etc/containers, by which agents tell it, and reload CRI-O on these nodes"
    return problem(what, remedy, "the-runtime-does-not-pull-from-the-agent")


def disks(facts: Facts) -> Iterator[Finding]:
    """Nodes whose kubelet is short of disk, and stores that can hold nothing."""
    short = [name_of(node) for node in facts.nodes if _has_condition(node, "DiskPressure")]
    if short:
        what = f"the kubelet has too little disk and deletes images and pods ({some(short)})"
        yield problem(what, "free disk there, or give these nodes a larger one", "a-disk-is-full")
    elif facts.nodes:
        yield fine("no node is short of disk")
    for probe in facts.probes:
        yield from _store(probe)


def _store(probe: PodProbe) -> Iterator[Finding]:
    if not probe.disk_bytes or probe.disk_free_bytes is None:
        return
    quota = _bytes_of(probe.settings.get("DARNER_STORE_QUOTA", ""), probe.disk_bytes)
    least_free = _bytes_of(probe.settings.get("DARNER_STORE_FREE", ""), probe.disk_bytes)
    where = f"{probe.pod} on {probe.node}"
    if quota is not None and quota > probe.disk_bytes:
        what = f"the store of {where} may hold {_shown(quota)} and its disk is one of {_shown(probe.disk_bytes)}"
        yield warning(what, f"set {probe.component}.store.quota to less, such as 20%", "a-disk-is-full")
    if least_free is not None and probe.disk_free_bytes < least_free:
        free, least = _shown(probe.disk_free_bytes), _shown(least_free)
        what = f"{where} keeps nothing: {free} of its disk are free, and {probe.component}.store.free is {least}"
        yield warning(what, "free disk there; images still arrive, each from its registry or from others", "a-disk-is-full")


def _bytes_of(setting: str, disk_bytes: int) -> int | None:
    try:
        wanted = space(setting)
    except ValueError:
        return None
    return disk_bytes * wanted.number // 100 if isinstance(wanted, Percent) else wanted


def _shown(number: int) -> str:
    return f"{number / (1 << 30):.1f} GiB"


def _has_condition(node: Object, kind: str) -> bool:
    conditions = mappings_at(mapping_at(node, "status"), "conditions")
    return any((item.get("type"), item.get("status")) == (kind, "True") for item in conditions)


def _version(text: str) -> tuple[int, int] | None:
    match = re.match(r"v?(\d{1,4})\.(\d{1,4})", text)
    return (int(match[1]), int(match[2])) if match else None
