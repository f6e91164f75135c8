"""What two pulls, one after the other, prove."""

from __future__ import annotations

from typing import Any

import pytest

from agent.values.reference import to_local
from cli.doctor import pull
from cli.doctor.finding import Severity
from cli.doctor.pull import NodePull
from webhook.pods import DECISION

IMAGE = "reg.test/app:1"


def node(name: str, *images: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec, "status": {"images": [{"names": [image]} for image in images]}}


def agent(node_name: str, ready: str = "True") -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready, "message": "not yet"}]
    labels = {"app.kubernetes.io/component": "agent"}
    return {"metadata": {"labels": labels}, "spec": {"nodeName": node_name}, "status": {"conditions": conditions}}


def state(**state: Any) -> dict[str, Any]:
    return {"status": {"containerStatuses": [{"state": state}]}}


def test_nodes_are_taken_that_have_an_agent_and_not_the_image() -> None:
    nodes = [node("a", to_local(IMAGE)), node("b"), node("c", unschedulable=True), node("d"), node("e")]
    agents = [agent(name) for name in "abcd"] + [agent("e", "False")]
    assert pull.two_nodes(nodes, agents, IMAGE) == ["b", "d"]
    assert pull.two_nodes(nodes[:2], agents, IMAGE) == ["b", "a"]
    assert pull.two_nodes(nodes[:1], agents, "no name !") == ["a"]


def test_a_probe_is_admitted_by_the_restricted_standard_and_bound_to_its_node() -> None:
    spec = pull.probe_pod("x", "shop", IMAGE, "n1")["spec"]
    (container,) = spec["containers"]
    assert container["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] == [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
    ]
    assert "affinity" not in pull.probe_pod("x", "shop", IMAGE)["spec"]


@pytest.mark.parametrize(
    ("pod", "done"),
    [
        ({}, False),
        (state(waiting={"reason": "ContainerCreating"}), False),
        (state(waiting={"reason": "ImagePullBackOff"}), False),
        (state(waiting={"reason": "CrashLoopBackOff"}), True),
        (state(waiting={"reason": "CreateContainerConfigError"}), True),
        (state(running={}), True),
        (state(terminated={"exitCode": 1}), True),
    ],
)
def test_an_image_is_pulled_once_its_container_is_beyond_that(pod: dict[str, Any], done: bool) -> None:
    assert pull.pulled(pod) is done


def test_why_a_pull_fails_is_the_kubelets_word() -> None:
    assert pull.failure(state(waiting={"reason": "ErrImagePull", "message": "not found"})) == "not found"
    assert pull.failure(state(running={})) == ""


def test_a_pod_under_its_own_name_says_why() -> None:
    named = {"spec": {"containers": [{"image": IMAGE}]}, "metadata": {"annotations": {DECISION: "pod: it was put back"}}}
    assert pull.kept_its_name(named) == "pod: it was put back"
    assert pull.kept_its_name({"spec": {"containers": [{"image": to_local(IMAGE)}]}}) == ""
    assert pull.kept_its_name({"spec": {"containers": [{"image": IMAGE}]}}) == "the webhook did not answer"


def test_bytes_are_counted_between_two_looks_also_over_a_restart() -> None:
    before = pull.received_in(['darner_agent_received_bytes_total{source="peer"} 100.0', "other 1"])
    after = pull.received_in(
        ['darner_received_bytes_total{source="peer"} 1.5e+03', 'darner_received_bytes_total{source="origin"} 7.0']
    )
    assert pull.difference(before, after) == {"peer": 1400, "origin": 7}
    assert pull.difference({"peer": 100}, {"peer": 40}) == {"peer": 40}


FIRST = NodePull("n0", 2.0, {"origin": 1 << 20})


@pytest.mark.parametrize(
    ("second", "severity", "words"),
    [
        (NodePull("n1", 1.0, {"peer": 3 << 20, "supernode": 1 << 20}), Severity.FINE, "3.0 MiB from other nodes, 75 %"),
        (
            NodePull("n1", 1.0, {"origin": 1 << 20}),
            Severity.PROBLEM,
            "nothing of reg.test/app:1 from n0, but 1.0 MiB from origin",
        ),
        (NodePull("n1", 1.0, {"peer": 0}), Severity.WARNING, "its container runtime had reg.test/app:1 already"),
        (NodePull("n1", 1.0, {"store": 5}), Severity.WARNING, "from its own disk"),
        (NodePull("n1", failed="not found"), Severity.PROBLEM, "n1 cannot pull reg.test/app:1: not found"),
        (NodePull("n1", kept_its_name="opted out"), Severity.PROBLEM, "without Darner: opted out"),
    ],
)
def test_what_the_second_node_took_is_the_proof(second: NodePull, severity: Severity, words: str) -> None:
    last = list(pull.judgement(IMAGE, [FIRST, second]))[-1]
    assert (last.severity, words in last.what) == (severity, True)
    assert last.severity is Severity.FINE or last.symptom


def test_one_node_alone_proves_nothing() -> None:
    assert list(pull.judgement(IMAGE, [FIRST]))[-1].severity is Severity.WARNING
