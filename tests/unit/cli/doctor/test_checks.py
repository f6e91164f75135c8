"""From facts to findings: each way that a first hour goes wrong, said with what to do about it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from cli.doctor import admission, nodes, registries, swarm, workloads
from cli.doctor.checks import CHECKS, all_findings
from cli.doctor.facts import Facts, PodProbe, PodTrial, RewriteTrial
from cli.doctor.finding import NAMES_SHOWN_MAX, Finding, Severity, found_a_problem, some
from hack.chart.helm import CHART
from webhook.pods import DECISION, ORIGINAL_IMAGES

NAMESPACE = "darner-system"
POD_SECURITY = (
    'pods "darner-agent-x" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true), '
    'hostPath volumes (volume "store")'
)
PULL_FAILED = (
    'Back-off pulling image "reg.test/darner:1": ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack image '
    '"reg.test/darner:1": reg.test/darner:1: not found'
)
NO_LOGIN = (
    'failed to pull and unpack image "127.0.0.1:65001/reg.test/a:1": failed to resolve reference "127.0.0.1:65001/reg.test/a:1": '
    "pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials"
)


def node(name: str = "n0", runtime: str = "containerd://2.2.9", **conditions: str) -> dict[str, Any]:
    status = {
        "nodeInfo": {"containerRuntimeVersion": runtime, "operatingSystem": "linux"},
        "conditions": [{"type": kind, "status": value} for kind, value in conditions.items()],
    }
    return {"metadata": {"name": name}, "status": status}


def pod(name: str, component: str = "agent", *, waiting: Any = None, ended: str = "", **spec: Any) -> dict[str, Any]:
    state: dict[str, Any] = {"waiting": waiting} if waiting else {"running": {}}
    last = {"terminated": {"message": ended}} if ended else {}
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {workloads.COMPONENT: component}},
        "spec": {"nodeName": "n0", **spec},
        "status": {
            "conditions": [{"type": "Ready", "status": "False" if waiting else "True"}],
            "containerStatuses": [{"name": component, "image": "reg.test/darner:1", "state": state, "lastState": last}],
        },
    }


def workload(component: str, wanted: int = 2, ready: int = 2, port: tuple[str, int] = ("https", 10250)) -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"ports": [{"name": port[0], "containerPort": port[1]}]}]}
    return {
        "metadata": {"name": f"darner-{component}", "labels": {workloads.COMPONENT: component}},
        "spec": {"replicas": wanted, "template": {"spec": spec}},
        "status": {"readyReplicas": ready},
    }


def configuration(bundle: str = "abc") -> dict[str, Any]:
    return {"webhooks": [{"clientConfig": {"caBundle": bundle}}]}


def tried(*, annotations: Any = None, **more: Any) -> RewriteTrial:
    values: dict[str, Any] = {"namespace": "shop", "image": "nginx:1", "seconds": 0.1}
    return RewriteTrial(**{**values, "admitted": {"metadata": {"annotations": annotations or {}}}, **more})


def only(check: Any, facts: Facts) -> Finding:
    (found,) = check(facts)
    assert isinstance(found, Finding)
    assert found.severity is Severity.FINE or found.symptom
    return found


HEALTHY = Facts(
    NAMESPACE,
    version="v1.36.3",
    clock_ahead_seconds=0.4,
    nodes=[node("n0"), node("n1", "containerd://1.6.20~ds1")],
    pods=[pod("darner-agent-a"), pod("darner-webhook-a", "webhook")],
    workloads=[workload("agent", port=("registry", 65001)), workload("webhook")],
    configuration=configuration(),
    opted_in=["shop"],
    pod_trials=[PodTrial("agent", NAMESPACE)],
    rewrite_trials=[tried(annotations={ORIGINAL_IMAGES: '{"containers":{"a":"nginx:1"}}'})],
    probes=[
        PodProbe(
            "darner-agent-a",
            "n0",
            "agent",
            addresses={"darner-supernode-0": ["10.0.0.1"]},
            answered={"darner-supernode-0": ""},
            clock_ahead_seconds=0.0,
            disk_bytes=100 << 30,
            disk_free_bytes=60 << 30,
            settings={"DARNER_STORE_QUOTA": "20%", "DARNER_STORE_FREE": "20%"},
        )
    ],
)


def test_a_cluster_where_all_is_well_has_no_finding_but_that() -> None:
    findings = list(all_findings(HEALTHY))
    assert [found for found in findings if found[1].severity is not Severity.FINE] == []
    assert {name for name, _ in findings} == set(CHECKS)


def test_nothing_that_is_malformed_breaks_a_check() -> None:
    broken: list[Any] = [{}, {"metadata": None, "spec": 1, "status": []}, {"status": {"containerStatuses": [{"state": 3}]}}]
    facts = Facts(NAMESPACE, nodes=broken, pods=broken, workloads=broken, configuration={}, strangers=broken, waiting=broken)
    assert list(all_findings(facts))


def test_the_oldest_kubernetes_is_the_charts() -> None:
    least = ".".join(map(str, nodes.KUBERNETES_LEAST))
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={least}.0-0"
    assert only(nodes.kubernetes_version, Facts(NAMESPACE, version="v1.29.9-gke.1")).severity is Severity.PROBLEM
    assert only(nodes.kubernetes_version, Facts(NAMESPACE, version="v1.30.0")).severity is Severity.FINE
    assert only(nodes.kubernetes_version, Facts(NAMESPACE, version="")).severity is Severity.UNKNOWN


@pytest.mark.parametrize(
    ("runtime", "severity"),
    [
        ("containerd://2.2.9", Severity.FINE),
        ("docker://27.3.1", Severity.FINE),
        ("cri-o://1.34.2", Severity.FINE),
        ("cri-o://1.35.0", Severity.PROBLEM),
        ("cri-o://2.0.0", Severity.PROBLEM),
        ("rkt://1.0", Severity.UNKNOWN),
        ("", Severity.UNKNOWN),
    ],
)
def test_which_runtimes_ask_loopback_in_plain_http(runtime: str, severity: Severity) -> None:
    assert only(nodes.runtimes, Facts(NAMESPACE, nodes=[node(runtime=runtime)])).severity is severity


def test_a_node_short_of_disk_is_named() -> None:
    facts = Facts(NAMESPACE, nodes=[node("n0", DiskPressure="False"), node("n1", DiskPressure="True")])
    found = only(nodes.disks, facts)
    assert found.severity is Severity.PROBLEM
    assert "n1" in found.what
    assert "n0" not in found.what


@pytest.mark.parametrize(
    ("settings", "free", "words"),
    [
        ({"DARNER_STORE_QUOTA": "500Gi", "DARNER_STORE_FREE": "0"}, 60, "may hold 500.0 GiB and its disk is one of 100.0 GiB"),
        ({"DARNER_STORE_QUOTA": "20%", "DARNER_STORE_FREE": "20%"}, 19, "keeps nothing: 19.0 GiB of its disk are free"),
    ],
)
def test_a_store_that_cannot_hold_what_it_is_told(settings: dict[str, str], free: int, words: str) -> None:
    probe = replace(HEALTHY.probes[0], settings=settings, disk_free_bytes=free << 30)
    found = [item for item in nodes.disks(replace(HEALTHY, probes=[probe])) if item.severity is Severity.WARNING]
    assert [words in item.what for item in found] == [True]


def test_pod_security_that_refuses_agents_is_told_with_the_label_that_lets_them() -> None:
    found = only(workloads.admission, Facts(NAMESPACE, pod_trials=[PodTrial("agent", NAMESPACE, POD_SECURITY)]))
    assert found.severity is Severity.PROBLEM
    assert "enforces baseline" in found.what
    assert found.remedy == "kubectl label namespace darner-system pod-security.kubernetes.io/enforce=privileged --overwrite"


@pytest.mark.parametrize(
    ("words", "symptom"),
    [
        ('pods "a" is forbidden: exceeded quota: small, requested: pods=1', "a-quota-refuses"),
        ('admission webhook "validate.kyverno.svc" denied the request: no hostPath', "a-policy-refuses-darners-pods"),
    ],
)
def test_whoever_else_refuses_darners_pods_is_quoted(words: str, symptom: str) -> None:
    found = only(workloads.admission, Facts(NAMESPACE, pod_trials=[PodTrial("agent", NAMESPACE, words)]))
    assert found.symptom == symptom
    assert words in found.what


def test_an_image_that_is_not_pulled_is_told_once_for_all_pods() -> None:
    first = pod("darner-agent-a", waiting={"reason": "ImagePullBackOff", "message": PULL_FAILED})
    plain = PULL_FAILED.partition(": ErrImagePull: ")[2]
    second = pod("darner-webhook-b", "webhook", waiting={"reason": "ErrImagePull", "message": plain})
    found = only(workloads.images, Facts(NAMESPACE, pods=[first, second]))
    assert found.severity is Severity.PROBLEM
    assert "reg.test/darner:1 cannot be pulled by darner-agent-a, darner-webhook-b" in found.what
    assert "not found" in found.what


def test_a_port_that_a_process_of_the_node_has() -> None:
    words = "the registry endpoint cannot listen on 127.0.0.1:65001: Address already in use"
    facts = replace(HEALTHY, pods=[pod("darner-agent-a", waiting={"reason": "CrashLoopBackOff"}, ended=words)])
    found = only(workloads.ports, facts)
    assert found.severity is Severity.PROBLEM
    assert "darner-agent-a on n0 cannot listen on 127.0.0.1:65001: Address already in use" in found.what
    assert "ss -ltnp 'sport = :65001'" in found.remedy


def test_a_port_that_another_pod_has_is_seen_before_the_installation_and_a_process_is_not() -> None:
    container = {"ports": [{"containerPort": 65001}]}
    stranger = {
        "metadata": {"name": "x", "namespace": "y"},
        "spec": {"hostNetwork": True, "containers": [container], "nodeName": "n1"},
    }
    found = only(workloads.ports, Facts(NAMESPACE, strangers=[stranger]))
    assert (found.severity, "the pod y/x on n1 has the port 65001" in found.what) == (Severity.PROBLEM, True)
    found = only(workloads.ports, Facts(NAMESPACE))
    assert (found.severity, found.what.endswith("shows when agents start")) == (Severity.UNKNOWN, True)


def test_an_agent_that_finds_no_node_for_its_ports() -> None:
    homeless = pod("darner-agent-a", waiting={"reason": "x"})
    message = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    homeless["status"] = {"conditions": [{"type": "PodScheduled", "status": "False", "message": message}]}
    found = only(workloads.ports, replace(HEALTHY, pods=[homeless]))
    assert message in found.what


def test_pods_that_are_not_ready_say_why_in_the_words_of_status() -> None:
    ended = pod("darner-agent-a", waiting={"reason": "CrashLoopBackOff"}, ended="starting\nthe store cannot be opened\n")
    facts = Facts(NAMESPACE, workloads=[workload("agent", 3, 1)], pods=[ended])
    found = only(workloads.running, facts)
    assert found.what.startswith("agent: 1 of 3 pods are ready: it ends again and again")
    assert found.what.endswith("the store cannot be opened")


def test_a_control_plane_that_is_cut_off_from_the_webhook_is_told_its_port() -> None:
    facts = replace(HEALTHY, rewrite_trials=[tried(seconds=3.0)], webhook_unreached="dial tcp 10.244.0.5:10250: i/o timeout")
    found = only(admission.webhook, facts)
    assert found.severity is Severity.PROBLEM
    assert "i/o timeout" in found.what
    assert "TCP port 10250" in found.remedy
    assert [item.severity for item in admission.rewrites(facts)] == [], "nothing is said of pods that nobody asked about"


@pytest.mark.parametrize(
    ("change", "severity", "words"),
    [
        ({"configuration": None}, Severity.PROBLEM, "no MutatingWebhookConfiguration"),
        ({"configuration": configuration("")}, Severity.PROBLEM, "caBundle is empty"),
        ({"rewrite_trials": [tried(seconds=0.2)], "webhook_unreached": ""}, Severity.PROBLEM, "do not take its answer"),
        ({"rewrite_trials": [], "webhook_unreached": ""}, Severity.FINE, "reach the webhook"),
        ({"rewrite_trials": [], "webhook_unreached": None}, Severity.UNKNOWN, "was not tried"),
        ({"workloads": [workload("agent")]}, Severity.FINE, "no webhook is installed"),
    ],
)
def test_how_an_api_server_stands_with_the_webhook(change: dict[str, Any], severity: Severity, words: str) -> None:
    found = only(admission.webhook, replace(HEALTHY, **change))
    assert (found.severity, words in found.what) == (severity, True)


def test_a_pod_that_keeps_its_name_says_why() -> None:
    trial = tried(annotations={DECISION: "pod: agents are ready on 0 of 3 nodes, and it takes more than 50 %"})
    found = only(admission.rewrites, replace(HEALTHY, rewrite_trials=[trial]))
    assert found.severity is Severity.WARNING
    assert "agents are ready on 0 of 3 nodes" in found.what


def test_a_policy_that_refuses_the_rewritten_name_alone_is_told_from_one_that_refuses_the_pod() -> None:
    refused = tried(admitted=None, refused="denied: images come from registry.test/")
    found = only(admission.rewrites, replace(HEALTHY, rewrite_trials=[refused]))
    assert found.severity is Severity.PROBLEM
    assert found.symptom == "a-policy-refuses-rewritten-pods"
    both = replace(refused, refused_plainly="denied: images come from registry.test/")
    assert only(admission.rewrites, replace(HEALTHY, rewrite_trials=[both])).severity is Severity.UNKNOWN
    assert only(admission.webhook, replace(HEALTHY, rewrite_trials=[refused])).severity is Severity.FINE
    assert only(admission.webhook, replace(HEALTHY, rewrite_trials=[both])).severity is Severity.UNKNOWN
    assert only(admission.webhook, replace(HEALTHY, rewrite_trials=[both], webhook_unreached="")).severity is Severity.FINE


def test_no_namespace_that_has_opted_in_is_a_warning_with_the_label() -> None:
    found = only(admission.opted_in, replace(HEALTHY, opted_in=[]))
    assert found.severity is Severity.WARNING
    assert "darner.dev/inject=enabled" in found.remedy
    assert list(admission.opted_in(replace(HEALTHY, opted_in=[], unread={"namespaces": "forbidden"}))) == []


def test_supernodes_that_dns_does_not_name_and_channels_that_do_not_answer() -> None:
    nameless = replace(HEALTHY.probes[0], addresses={"darner-supernode-0": []}, answered={})
    found = only(swarm.supernodes, replace(HEALTHY, probes=[nameless]))
    assert (found.severity, found.symptom) == (Severity.PROBLEM, "supernodes-are-not-found")
    assert "n0" in found.what
    assert "darner-supernode-0" in found.what
    cut_off = replace(HEALTHY.probes[0], answered={"darner-supernode-0": "timed out"})
    found = only(swarm.supernodes, replace(HEALTHY, probes=[cut_off]))
    assert found.symptom == "supernodes-are-not-reached"
    mute = PodProbe("darner-agent-a", "n0", "agent", "container is restarting")
    assert only(swarm.supernodes, replace(HEALTHY, probes=[mute])).severity is Severity.UNKNOWN


def test_an_agent_that_is_left_alone_says_why_and_until_when() -> None:
    state = {"alone": {"untilSeconds": 12.4, "why": "the supernode 10.0.0.1:65004 did not answer"}}
    (found,) = swarm.supernodes(replace(HEALTHY, probes=[replace(HEALTHY.probes[0], state=state)]))
    assert found.severity is Severity.WARNING
    assert found.what.endswith("for another 12 s: the supernode 10.0.0.1:65004 did not answer")
    well = replace(HEALTHY, probes=[replace(HEALTHY.probes[0], state={"alone": None})])
    assert only(swarm.supernodes, well).severity is Severity.FINE


@pytest.mark.parametrize(("ahead", "words"), [(95.0, "95 s ahead of"), (-400.0, "400 s behind")])
def test_a_clock_that_is_wrong_is_measured_against_the_api_servers(ahead: float, words: str) -> None:
    probe = replace(HEALTHY.probes[0], clock_ahead_seconds=ahead + 30.0)
    found = only(swarm.clocks, replace(HEALTHY, clock_ahead_seconds=30.0, probes=[probe]))
    assert (found.severity, words in found.what) == (Severity.WARNING, True)


@pytest.mark.parametrize(("secrets", "words"), [([], "which bring no pull secret"), ([{"name": "a"}], "no valid credential")])
def test_a_registry_that_refuses_pods_is_named_and_whether_they_brought_a_secret(secrets: Any, words: str) -> None:
    waits = pod("web", "", waiting={"reason": "ErrImagePull", "message": NO_LOGIN}, imagePullSecrets=secrets)
    waits["metadata"]["namespace"] = "shop"
    waits["status"]["containerStatuses"][0]["image"] = "127.0.0.1:65001/reg.test_5000/a:1"
    found = only(registries.credentials, replace(HEALTHY, waiting=[waits]))
    assert found.severity is Severity.PROBLEM
    assert "reg.test:5000 refuses shop/web" in found.what
    assert words in found.what


def test_a_pod_that_waits_for_another_reason_is_no_ones_refusal() -> None:
    waits = pod("web", "", waiting={"reason": "ErrImagePull", "message": "a:1: not found"})
    assert only(registries.credentials, replace(HEALTHY, waiting=[waits])).severity is Severity.FINE


def test_what_may_not_be_read_is_told_and_is_no_problem() -> None:
    findings = [found for _, found in all_findings(replace(HEALTHY, unread={"nodes": "nodes is forbidden"}))]
    assert [found.what for found in findings if found.severity is Severity.UNKNOWN] == [
        "nodes could not be read: nodes is forbidden"
    ]
    assert not found_a_problem(findings)


def test_of_many_names_a_few_are_shown() -> None:
    names = [f"n{number}" for number in range(NAMES_SHOWN_MAX + 3)]
    assert some(names).endswith("and 3 more")
    assert re.fullmatch(r"n0", some(["n0"]))
