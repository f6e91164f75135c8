"""`darner status`: what it shows of a cluster that is well, and why it is not when it is not."""

from __future__ import annotations

import json

from cli.errors import ExitCode
from tests.unit.cli.installed import NAMESPACE, Document, put_pod
from tests.unit.cli.podserver import PodServer
from tests.unit.cli.typed import Typed

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


def unready(api: PodServer, pod: str, component: str, **status: object) -> None:
    document = put_pod(api, pod, component)
    document["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}], **status}
    api.put(f"{PODS}/{pod}", document)


def waiting(reason: str, message: str = "", **container: object) -> Document:
    return {
        "containerStatuses": [
            {"image": "reg/darner:1", "state": {"waiting": {"reason": reason, "message": message}}, **container}
        ]
    }


def test_a_cluster_that_is_well_is_shown_at_a_glance(darner: PodServer, typed: Typed) -> None:
    status, shown, said = typed("status")
    assert (status, said) == (ExitCode.FINE, "")
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0] == "Release darner in darner-system: ready"
    assert {"webhook 1/1", "supernode 1/1", "agent 2/2"} <= set(lines)
    assert "Bytes in 24 h 3.0 GiB from peer (75 %), 1.0 GiB from supernode (25 %), 0 B from origin (0 %)" in lines
    assert "Pods that got their images back 3" in lines
    assert "slow.test is left alone, for another 60s: it asked for it" in lines
    assert "n1 is no source, for another 60m: its disk" in lines
    assert "\x1b" not in shown


def test_programs_get_the_same_as_json(darner: PodServer, typed: Typed) -> None:
    _, shown, _ = typed("status", "-o", "json")
    seen = json.loads(shown)
    assert (seen["ready"], seen["problems"], seen["unknown"]) == (True, [], [])
    assert seen["components"]["agent"]["wanted"] == 2
    assert seen["bytes24h"]["peer"] == 3 << 30
    assert seen["certificateSeconds"] > 0
    assert seen["unrewrittenPods"] == 3


def test_a_pod_that_is_not_ready_is_named_with_its_reason(darner: PodServer, typed: Typed) -> None:
    darner.logs["darner-agent-1"] = "darner agent: 127.0.0.1:65001 is taken\n"
    ended = {"lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    unready(darner, "darner-agent-0", "agent", **waiting("ImagePullBackOff", "no such host"))
    unready(darner, "darner-agent-1", "agent", **waiting("CrashLoopBackOff", **ended))
    status, shown, _ = typed("status")
    assert status == ExitCode.PROBLEM
    assert "Problem: 0 of 2 agents are ready" in shown
    assert "darner-agent-0 on n0: its image reg/darner:1 cannot be pulled: no such host" in shown
    last = "it ends again and again (Error, status 1); its last words: darner agent: 127.0.0.1:65001 is taken"
    assert f"darner-agent-1 on n0: {last}" in shown


def test_pods_that_pod_security_refuses_are_told_with_the_label_that_lets_them_in(darner: PodServer, typed: Typed) -> None:
    for number in range(2):
        darner.remove(f"{PODS}/darner-agent-{number}")
        message = (
            f'Error creating: pods "darner-agent-x{number}" is forbidden: violates PodSecurity "baseline:latest": host namespaces'
        )
        event = {"involvedObject": {"name": "darner-agent"}, "reason": "FailedCreate", "message": message}
        darner.put(f"/api/v1/namespaces/{NAMESPACE}/events/e{number}", event)
    status, shown, _ = typed("status")
    assert status == ExitCode.PROBLEM
    assert shown.count("violates PodSecurity") == 1
    assert "pod-security.kubernetes.io/enforce=privileged" in shown


def test_waiting_ends_when_all_is_ready(darner: PodServer, typed: Typed) -> None:
    unready(darner, "darner-agent-0", "agent", phase="Pending")
    refused = darner.ports.pop("darner-supernode-0")
    assert refused
    before = darner.logs
    assert typed("status", "--wait", "1ms")[0] == ExitCode.TIMED_OUT

    class Heals(dict[str, str]):
        def get(self, pod: str, default: str = "") -> str:  # type: ignore[override]
            put_pod(darner, "darner-agent-0", "agent")  # its log is read while it is not ready
            return before.get(pod, default)

    darner.logs = Heals()
    status, shown, said = typed("status", "--wait", "5m")
    assert (status, said) == (ExitCode.FINE, "waiting: 1 of 2 agents are ready\n")
    assert "Not known: pod darner-system/darner-supernode-0 does not answer" in shown


def test_a_webhook_without_an_authority_is_a_problem(darner: PodServer, typed: Typed) -> None:
    path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/darner"
    document = darner.objects[path]
    del document["webhooks"][0]["clientConfig"]["caBundle"]
    darner.put(path, document)
    status, shown, _ = typed("status")
    assert status == ExitCode.PROBLEM
    assert "no pod is rewritten" in shown


def test_what_may_not_be_asked_is_said_and_hides_nothing_else(darner: PodServer, typed: Typed) -> None:
    darner.refused_streams = 403
    status, shown, _ = typed("status")
    assert status == ExitCode.FINE
    assert shown.count("Not known: Kubernetes does not allow it") == 2
    assert "agent" in shown


def test_errors_have_their_exit_codes(darner: PodServer, typed: Typed) -> None:
    assert typed("status", "--wait", "soon")[0] == ExitCode.USAGE
    assert typed("status", "-n", "nowhere")[0] == ExitCode.PROBLEM
    assert typed("status", "--kubeconfig", "/none")[0] == ExitCode.UNREACHABLE
    darner.refusal = 401
    status, _, said = typed("status")
    assert (status, said.count("\n")) == (ExitCode.UNREACHABLE, 1)
