"""Checks of Darner's own pods: whether they are admitted, their image is pulled, their ports are free, and they run. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cli.doctor.facts import Facts, PodTrial
from cli.doctor.finding import Finding, fine, problem, some, unknown
from cli.labels import COMPONENT
from cli.pods import NOT_PULLED, name_of, node_of
from cli.troubles import trouble
from webhook.kube.api import Object, mapping_at, mappings_at, text_at

PORTS = (65001, 65002, 65003)
"""Of an agent, on the host's network; a chart's values may move the last two."""
WORDS_LENGTH_MAX = 400
_POD_SECURITY = re.compile(r'violates PodSecurity "([a-z]+)')
_PORT_TAKEN = re.compile(r"cannot listen on (\S+): (.+)")


def admission(facts: Facts) -> Iterator[Finding]:
    """Whether the API server admits the pods of each component."""
    for trial in facts.pod_trials:
        where = f"{trial.namespace}, once it is there" if trial.elsewhere else trial.namespace
        yield _refused(trial) if trial.refused else fine(f"pods of the {trial.component} are admitted in {where}")


def _refused(trial: PodTrial) -> Finding:
    who, words = f"pods of the {trial.component} are refused in {trial.namespace}", shown(trial.refused)
    if match := _POD_SECURITY.search(trial.refused):
        what = f"{who}: Pod Security enforces {match[1]} there, and an agent uses the host's network and a directory of the host"
        remedy = f"kubectl label namespace {trial.namespace} pod-security.kubernetes.io/enforce=privileged --overwrite"
        if trial.elsewhere:
            remedy = f"kubectl create namespace {trial.namespace}, then {remedy}"
        return problem(what, remedy, "pod-security-refuses")
    if "exceeded quota" in trial.refused or "insufficient quota" in trial.refused:
        return problem(f"{who}: {words}", "raise the ResourceQuota, or install Darner into another namespace", "a-quota-refuses")
    remedy = f"exempt the namespace {trial.namespace} from the policy that says so"
    return problem(f"{who}: {words}", remedy, "a-policy-refuses-darners-pods")


def images(facts: Facts) -> Iterator[Finding]:
    """Whether nodes can pull Darner's own image."""
    waits: dict[tuple[str, str], list[str]] = {}
    for pod in facts.pods:
        for status in statuses(pod):
            waiting = mapping_at(mapping_at(status, "state"), "waiting")
            if text_at(waiting, "reason") in NOT_PULLED:
                words = text_at(waiting, "message")
                waits.setdefault((text_at(status, "image"), _cause(words)), []).append(name_of(pod))
    for (image, words), pods in sorted(waits.items()):
        what = f"the image {image} cannot be pulled by {some(pods)}: {shown(words)}"
        remedy = "push it there, or set image.* in the values to where it is; a private one needs imagePullSecrets in the values"
        yield problem(what, remedy, "darners-image-is-not-pulled")
    if facts.pods and not waits:
        yield fine("Darner's image is pulled")


def ports(facts: Facts) -> Iterator[Finding]:
    """Whether the agents' ports are theirs. Another process on a node shows only when an agent has tried."""
    declared = {number for workload in facts.workloads for number in _ports_of(workload)} or set(PORTS)
    taken = list(_taken(facts.pods)) + list(_declared_by_strangers(facts.strangers, declared))
    for what, remedy in taken:
        yield problem(what, remedy, "a-port-is-taken")
    if not taken and facts.pods:
        yield fine(f"the ports {', '.join(map(str, sorted(declared)))} of the nodes are the agents'")
    elif not taken and not facts.installed:
        which = ", ".join(map(str, PORTS))
        words = f"no pod declares the ports {which}; whether another process of a node has one shows when agents start"
        yield unknown(words, "", "a-port-is-taken")


def _taken(pods: Iterable[Object]) -> Iterator[tuple[str, str]]:
    for pod in pods:
        for words in _last_words(pod):
            if match := _PORT_TAKEN.search(words):
                node = node_of(pod)
                what = f"{name_of(pod)} on {node} cannot listen on {match[1]}: {match[2]}"
                port = match[1].rpartition(":")[2]
                remedy = (
                    f"see who has it, on the node: ss -ltnp 'sport = :{port}'; 65001 has to be free, agent.ports moves the others"
                )
                yield what, remedy
                break
        if "free ports" in (message := _unscheduled(pod)):
            what = f"{name_of(pod)} finds no node, because another pod has its ports: {shown(message)}"
            yield what, "see which: darner list nodes; two releases of Darner cannot share a node"


def _declared_by_strangers(pods: Iterable[Object], wanted: set[int]) -> Iterator[tuple[str, str]]:
    for pod in pods:
        both = sorted(wanted & set(_host_ports(pod)))
        if both:
            where = f"{text_at(mapping_at(pod, 'metadata'), 'namespace')}/{name_of(pod)}"
            node = node_of(pod)
            what = f"the pod {where} on {node} has the port {', '.join(map(str, both))} of the host's network"
            yield what, "move that pod off the nodes, or its port; agent.ports moves all but 65001"


def running(facts: Facts) -> Iterator[Finding]:
    """Whether every component has the pods that it should, and why those that are not ready are not."""
    for workload in facts.workloads:
        component = component_of(workload)
        status = mapping_at(workload, "status")
        wanted = _number(status, "desiredNumberScheduled", _number(mapping_at(workload, "spec"), "replicas", 0))
        ready = _number(status, "numberReady", _number(status, "readyReplicas", 0))
        if ready >= wanted:
            yield fine(f"{component}: {ready} of {wanted} pods are ready")
            continue
        why = sorted({why for pod in facts.pods if component_of(pod) == component and (why := trouble(pod))})
        what = f"{component}: {ready} of {wanted} pods are ready" + (f": {shown('; '.join(why))}" if why else "")
        yield problem(what, "darner status says more of each; what the others here say may be its cause", "pods-are-not-ready")


def component_of(item: Object) -> str:
    return text_at(mapping_at(mapping_at(item, "metadata"), "labels"), COMPONENT)


def statuses(pod: Object) -> Iterator[Object]:
    for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        yield from mappings_at(mapping_at(pod, "status"), kind)


def shown(words: str) -> str:
    """In one line, cut in the middle where there is too much of it: the reason is at the end."""
    line = " ".join(words.split())
    return line if len(line) <= WORDS_LENGTH_MAX else f"{line[: WORDS_LENGTH_MAX // 4]} ... {line[-3 * WORDS_LENGTH_MAX // 4 :]}"


def _last_words(pod: Object) -> Iterator[str]:
    for status in statuses(pod):
        for when in ("state", "lastState"):
            if words := text_at(mapping_at(mapping_at(status, when), "terminated"), "message"):
                yield words


def _unscheduled(pod: Object) -> str:
    for item in mappings_at(mapping_at(pod, "status"), "conditions"):
        if (item.get("type"), item.get("status")) == ("PodScheduled", "False"):
            return text_at(item, "message")
    return ""


def _ports_of(workload: Object) -> Iterator[int]:
    if component_of(workload) == "agent":
        yield from _host_ports(mapping_at(mapping_at(workload, "spec"), "template"))


def _host_ports(pod: Object) -> Iterator[int]:
    spec = mapping_at(pod, "spec")
    for container in mappings_at(spec, "containers"):
        for port in mappings_at(container, "ports"):
            number = port.get("hostPort") or (port.get("containerPort") if spec.get("hostNetwork") is True else None)
            if isinstance(number, int):
                yield number


def _cause(words: str) -> str:
    """The same for every pod: the kubelet says `Back-off pulling image "...": ` before the words of its last try."""
    return re.sub(r'^Back-off pulling image "[^"]*"(: ErrImagePull)?:? ?', "", words)


def _number(holder: Object, key: str, otherwise: int) -> int:
    value = holder.get(key)
    return value if isinstance(value, int) else otherwise
