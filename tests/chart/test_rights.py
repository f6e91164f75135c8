"""How little each part may do: its rights in the cluster, and on the node that it runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hack.chart.helm import Object, environment, one, pod_template
from webhook.revert.command import read

Render = Callable[..., list[Object]]
COMPONENTS = ("agent", "supernode", "webhook")


def every(objects: list[Object], kind: str, while_deleting: bool = False) -> list[Object]:
    """All of a kind that are there while the release lives, or while it is being deleted."""
    return [item for item in objects if item["kind"] == kind and while_deleting == (hook_of(item) == "pre-delete")]


def hook_of(item: Object) -> str:
    found: str = item["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    return found


def test_the_webhook_may_keep_its_own_objects_look_at_agents_and_copy_pull_secrets(default: list[Object]) -> None:
    (role,) = every(default, "Role")
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["darner-webhook"],
            "verbs": ["get", "update"],
        },
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["darner-webhook-certificate", "darner-swarm"],
            "verbs": ["get", "update"],
        },
    ]
    (cluster_role,) = every(default, "ClusterRole")
    assert cluster_role["rules"] == [
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations"],
            "resourceNames": [one(default, "MutatingWebhookConfiguration", "webhook")["metadata"]["name"]],
            "verbs": ["get", "patch"],
        },
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch", "create", "update", "delete"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
    ]


def test_only_the_webhook_has_rights_and_a_token(default: list[Object]) -> None:
    accounts = {name: pod_template(default, name)["spec"]["serviceAccountName"] for name in COMPONENTS}
    assert len(set(accounts.values())) == 3
    assert {item["metadata"]["name"] for item in every(default, "ServiceAccount")} == set(accounts.values())
    assert not [item for item in every(default, "ServiceAccount") if item["automountServiceAccountToken"] is not False]
    bindings = every(default, "RoleBinding") + every(default, "ClusterRoleBinding")
    assert [item["subjects"] for item in bindings] == [
        [{"kind": "ServiceAccount", "name": accounts["webhook"], "namespace": "darner-system"}]
    ] * 2
    for binding in bindings:
        kind = binding["kind"].removesuffix("Binding")
        assert binding["roleRef"]["kind"] == kind
        assert binding["roleRef"]["name"] in {item["metadata"]["name"] for item in every(default, kind)}
    tokens = {name: pod_template(default, name)["spec"]["automountServiceAccountToken"] for name in COMPONENTS}
    assert tokens == {"agent": False, "supernode": False, "webhook": True}


def test_a_webhook_that_keeps_no_secret_has_no_right_to_any(render: Render) -> None:
    given = {"certificate": {"existingSecret": "certificate"}, "pullSecrets": {"enabled": False}, "revert": False}
    objects = render({"swarm": {"existingSecret": "key"}, "webhook": given})
    (role,) = every(objects, "Role")
    assert [rule["resources"] for rule in role["rules"]] == [["endpointslices"], ["leases"]]
    assert not every(objects, "ClusterRole")
    only_the_key = render({"webhook": given})
    (role,) = every(only_the_key, "Role")
    assert role["rules"][-1]["resourceNames"] == ["darner-swarm"]


def test_an_uninstallation_may_take_back_what_the_webhook_did_and_leaves_nothing_of_its_own(default: list[Object]) -> None:
    (role,) = every(default, "ClusterRole", while_deleting=True)
    assert [(rule["resources"], rule["verbs"]) for rule in role["rules"]] == [
        (["mutatingwebhookconfigurations"], ["delete"]),
        (["pods"], ["get", "list", "patch"]),
        (["secrets"], ["list", "delete"]),
    ]
    (job,) = every(default, "Job", while_deleting=True)
    pod = job["spec"]["template"]["spec"]
    assert restricted_violations(pod) == set()
    configuration = one(default, "MutatingWebhookConfiguration", "webhook")["metadata"]["name"]
    assert pod["containers"][0]["args"] == [
        "revert",
        "--uninstall",
        f"--release={environment(default, 'webhook', '10.0.0.7')['DARNER_RELEASE']}",
        f"--webhook-configuration={configuration}",
    ]
    hooks = [item for item in default if hook_of(item) == "pre-delete"]
    assert {item["kind"] for item in hooks} == {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Job"}
    policies = {item["metadata"]["annotations"]["helm.sh/hook-delete-policy"] for item in hooks}
    assert policies == {"before-hook-creation,hook-succeeded"}, "what has failed stays, with its log"
    read(pod["containers"][0]["args"][1:])


def test_api_servers_hold_the_account_to_what_its_rights_cannot_say(render: Render, default: list[Object]) -> None:
    def policies(objects: list[Object]) -> list[str]:
        return [item["metadata"]["name"].partition(".")[0] for item in every(objects, "ValidatingAdmissionPolicy")]

    assert policies(default) == ["secrets", "pods"]
    assert policies(render({"webhook": {"revert": False, "nodes": {"startupTaint": True}}})) == ["secrets", "nodes"]
    account = pod_template(default, "webhook")["spec"]["serviceAccountName"]
    for policy in every(default, "ValidatingAdmissionPolicy"):
        (condition,) = policy["spec"]["matchConditions"]
        assert condition["expression"] == f"request.userInfo.username == 'system:serviceaccount:darner-system:{account}'"
    bound = [item["spec"]["policyName"] for item in every(default, "ValidatingAdmissionPolicyBinding")]
    assert bound == [item["metadata"]["name"] for item in every(default, "ValidatingAdmissionPolicy")]


@pytest.mark.parametrize("component", ["supernode", "webhook"])
def test_supernode_and_webhook_meet_the_restricted_pod_security_standard(default: list[Object], component: str) -> None:
    assert restricted_violations(pod_template(default, component)["spec"]) == set()


def test_an_agent_departs_from_the_restricted_standard_where_its_work_demands_it_and_nowhere_else(default: list[Object]) -> None:
    pod = pod_template(default, "agent")["spec"]
    assert restricted_violations(pod) == {"hostNetwork", "hostPorts", "volume type hostPath", "runAsNonRoot", "runAsUser"}
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def restricted_violations(pod: dict[str, Any]) -> set[str]:
    """What the Pod Security Standard "restricted" (and with it "baseline") has against a pod, by the names of its controls."""
    found = {name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)}
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    found |= {f"volume type {kind}" for volume in pod.get("volumes", []) for kind in set(volume) - allowed - {"name"}}
    for item in pod["containers"]:
        context = pod.get("securityContext", {}) | item.get("securityContext", {})
        if pod.get("hostNetwork") and item.get("ports"):
            found.add("hostPorts")  # the API server gives every port of a pod on the host's network to the host
        if context.get("privileged"):
            found.add("privileged")
        if context.get("allowPrivilegeEscalation") is not False:
            found.add("allowPrivilegeEscalation")
        if context.get("runAsNonRoot") is not True:
            found.add("runAsNonRoot")
        if context.get("runAsUser") == 0:
            found.add("runAsUser")
        if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.add("seccompProfile")
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            found.add("capabilities")
        found |= {name for name in ("seLinuxOptions", "procMount", "sysctls", "hostProcess") if context.get(name)}
    return found


def test_the_webhook_has_rights_on_nodes_only_where_an_option_takes_them(render: Render) -> None:
    def on_nodes(**nodes: Any) -> list[list[str]]:
        (role,) = every(render({"webhook": {"nodes": nodes}}), "ClusterRole")
        return [rule["verbs"] for rule in role["rules"] if "nodes" in rule["resources"]]

    assert on_nodes() == []
    assert on_nodes(exclude="pool=spot") == [["list", "watch"]]
    assert on_nodes(startupTaint=True) == [["get", "list", "patch"]]
    alone = {"certificate": {"existingSecret": "certificate"}, "pullSecrets": {"enabled": False}, "revert": False}
    (role,) = every(render({"webhook": {**alone, "nodes": {"exclude": "pool=spot"}}}), "ClusterRole")
    assert [rule["resources"] for rule in role["rules"]] == [["nodes"]]
