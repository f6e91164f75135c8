"""The checks, in the order in which what fails first is told first. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cli.doctor import admission, nodes, registries, swarm, workloads
from cli.doctor.facts import Facts
from cli.doctor.finding import Finding, unknown

CHECKS: dict[str, Callable[[Facts], Iterator[Finding]]] = {
    "kubernetes": nodes.kubernetes_version,
    "runtimes": nodes.runtimes,
    "disks": nodes.disks,
    "own pods": workloads.admission,
    "own image": workloads.images,
    "ports": workloads.ports,
    "pods": workloads.running,
    "webhook": admission.webhook,
    "namespaces": admission.opted_in,
    "rewriting": admission.rewrites,
    "supernodes": swarm.supernodes,
    "clocks": swarm.clocks,
    "registries": registries.credentials,
}


def all_findings(facts: Facts) -> Iterator[tuple[str, Finding]]:
    """Each finding with the name of the check that made it."""
    for name, check in CHECKS.items():
        for finding in check(facts):
            yield name, finding
    for what, why in facts.unread.items():
        yield "rights", unknown(f"{what} could not be read: {why}", "ask somebody who may", "rights-are-missing")
