"""How little each part may do: its rights in the cluster, and on the node that it runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hack.chart.helm import CHART, Helm, Object, environment, one, pod_template
from hack.chart.strict import manifests
from webhook.revert.command import read

Render = Callable[..., list[Object]]
IN_NAMESPACES = [
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch", "create", "update", "delete"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
]
COMPONENT = "app.kubernetes.io/component"
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
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        *IN_NAMESPACES,
    ]


def test_rights_to_secrets_and_to_change_pods_may_be_in_some_namespaces_alone(render: Render) -> None:
    objects = render({"rbac": {"namespaces": ["shop", "123"]}})
    (cluster_role,) = every(objects, "ClusterRole")
    assert [(rule["resources"], rule["verbs"]) for rule in cluster_role["rules"]] == [
        (["mutatingwebhookconfigurations"], ["get", "patch"]),
        (["pods"], ["get", "list", "watch"]),
    ]
    roles = {item["metadata"]["namespace"]: item for item in every(objects, "Role")}
    bindings = {item["metadata"]["namespace"]: item for item in every(objects, "RoleBinding")}
    assert roles.keys() == bindings.keys() == {"shop", "123", "darner-system"}
    account = {"kind": "ServiceAccount", "name": "darner-webhook", "namespace": "darner-system"}
    for namespace in ("shop", "123"):
        assert roles[namespace]["rules"] == IN_NAMESPACES
        assert bindings[namespace]["roleRef"]["name"] == roles[namespace]["metadata"]["name"]
        assert bindings[namespace]["subjects"] == [account]
    without = {"pullSecrets": {"enabled": False}, "revert": False}
    (only,) = every(render({"rbac": {"namespaces": ["shop"]}, "webhook": without}), "Role")
    assert only["metadata"]["namespace"] == "darner-system"
    less = {**without, "revert": True}
    role, _ = sorted(
        every(render({"rbac": {"namespaces": ["shop"]}, "webhook": less}), "Role"), key=lambda item: len(item["rules"])
    )
    assert role["rules"] == IN_NAMESPACES[1:]


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

    own = "mutatingwebhookconfigurations"
    assert policies(default) == ["secrets", "pods", own]
    assert policies(render({"webhook": {"revert": False, "nodes": {"startupTaint": True}}})) == ["secrets", "nodes", own]
    given = {"revert": False, "certificate": {"existingSecret": "certificate"}}
    assert policies(render({"webhook": given})) == ["secrets"], "and no right to its configuration either"
    account = pod_template(default, "webhook")["spec"]["serviceAccountName"]
    for policy in every(default, "ValidatingAdmissionPolicy"):
        (condition,) = policy["spec"]["matchConditions"]
        assert condition["expression"] == f"request.userInfo.username == 'system:serviceaccount:darner-system:{account}'"
    bound = [item["spec"]["policyName"] for item in every(default, "ValidatingAdmissionPolicyBinding")]
    assert bound == [item["metadata"]["name"] for item in every(default, "ValidatingAdmissionPolicy")]


def test_supernodes_may_get_single_nodes_where_pods_are_not_told_their_zone_and_nothing_else(render: Render, helm: Helm) -> None:
    def rights(version: str, zones: str = "auto") -> tuple[bool, list[Any], str]:
        values = {"supernode": {"nodeZones": zones}}
        rendered = helm(
            "template", "darner", str(CHART), "--namespace", "darner-system", "--kube-version", version, values=values
        )
        objects = manifests(rendered.stdout)
        roles = [item for item in every(objects, "ClusterRole") if item["metadata"]["labels"][COMPONENT] == "supernode"]
        told = environment(objects, "supernode", "10.0.0.7")["DARNER_NODE_ZONES"]
        token = pod_template(objects, "supernode")["spec"]["automountServiceAccountToken"]
        return token, [rule for role in roles for rule in role["rules"]], told

    get = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]
    assert rights("1.30.0") == rights("v1.34.4-eks-0123456") == rights("1.36.0", "always") == (True, get, "true")
    assert rights("1.35.0") == rights("v1.36.1+k3s1") == rights("1.30.0", "never") == (False, [], "false")
    objects = render({"supernode": {"nodeZones": "always"}})
    (bound,) = (item for item in every(objects, "ClusterRoleBinding") if item["metadata"]["labels"][COMPONENT] == "supernode")
    account = pod_template(objects, "supernode")["spec"]["serviceAccountName"]
    assert bound["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "darner-system"}]
    without = every(render({"supernode": {"nodeZones": "always"}, "rbac": {"create": False}}), "ClusterRole")
    assert not [item for item in without if item["metadata"]["labels"][COMPONENT] == "supernode"]


# OpenShift.


def test_on_openshift_agents_have_constraints_of_their_own_that_allow_what_they_do_and_no_more(render: Render) -> None:
    objects = render({"openshift": {"enabled": True}})
    (constraints,) = every(objects, "SecurityContextConstraints")
    pod = pod_template(objects, "agent")["spec"]
    assert constraints["users"] == [f"system:serviceaccount:darner-system:{pod['serviceAccountName']}"]
    assert {name for name, value in constraints.items() if value is True} == {
        "allowHostNetwork", "allowHostPorts", "allowHostDirVolumePlugin", "readOnlyRootFilesystem",
    }  # fmt: skip
    assert constraints["requiredDropCapabilities"] == ["ALL"]
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= set(constraints["volumes"])
    context = pod["containers"][0]["securityContext"]
    assert context["seLinuxOptions"] == {"type": "spc_t"}
    assert context["readOnlyRootFilesystem"] is True
    own = {"seLinuxOptions": {"type": "darner_t"}}
    objects = render({"openshift": {"enabled": True}, "agent": {"securityContext": own}})
    assert pod_template(objects, "agent")["spec"]["containers"][0]["securityContext"]["seLinuxOptions"] == own["seLinuxOptions"]


def test_on_openshift_no_other_pod_has_a_fixed_user_or_group_and_all_are_as_restricted_as_before(render: Render) -> None:
    objects = render({"openshift": {"enabled": True}})
    pods = [pod_template(objects, name)["spec"] for name in ("supernode", "webhook")]
    pods += [item["spec"] for item in objects if item["kind"] == "Pod"]
    pods += [item["spec"]["template"]["spec"] for item in objects if item["kind"] == "Job"]
    assert len(pods) == 4
    for pod in pods:
        assert restricted_violations(pod) == set()
        contexts = [pod["securityContext"], *(item["securityContext"] for item in pod["containers"])]
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & {name for context in contexts for name in context}


def test_elsewhere_there_is_nothing_of_openshift(default: list[Object]) -> None:
    assert not every(default, "SecurityContextConstraints")


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
    assert on_nodes(runtimes="always") == [["get", "list"]]
    alone = {"certificate": {"existingSecret": "certificate"}, "pullSecrets": {"enabled": False}, "revert": False}
    (role,) = every(render({"webhook": {**alone, "nodes": {"exclude": "pool=spot"}}}), "ClusterRole")
    assert [rule["resources"] for rule in role["rules"]] == [["nodes"]]
