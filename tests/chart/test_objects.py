"""What the objects of the chart promise each other, and how little each of them may do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hack.chart.helm import Object, one, pod_template

Render = Callable[..., list[Object]]
COMPONENTS = ("agent", "supernode", "webhook")


def container(objects: list[Object], component: str) -> Object:
    (found,) = pod_template(objects, component)["spec"]["containers"]
    return found  # type: ignore[no-any-return]


def every(objects: list[Object], kind: str) -> list[Object]:
    return [item for item in objects if item["kind"] == kind]


# Who finds whom.


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_service_finds_the_pods_of_its_component_and_their_ports(default: list[Object], component: str) -> None:
    service = one(default, "Service", component)["spec"]
    found = [
        name for name in COMPONENTS if service["selector"].items() <= pod_template(default, name)["metadata"]["labels"].items()
    ]
    assert found == [component]
    ports = {port["name"]: port["containerPort"] for port in container(default, component)["ports"]}
    for port in service["ports"]:
        assert port["targetPort"] in ports
        # a headless Service does not translate: who looks up its pods connects to the container's port
        assert service.get("clusterIP") != "None" or port["port"] == ports[port["targetPort"]]


@pytest.mark.parametrize("component", COMPONENTS)
def test_probes_ask_for_health_and_readiness_on_the_http_port(default: list[Object], component: str) -> None:
    asked = {name: container(default, component)[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {name: probe["path"] for name, probe in asked.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert {probe["port"] for probe in asked.values()} == {"http"}
    port = {item["name"]: item["containerPort"] for item in container(default, component)["ports"]}["http"]
    assert port == (8080 if component == "webhook" else 65003)


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("component", COMPONENTS)
def test_every_volume_is_mounted_and_every_mount_has_a_volume(render: Render, component: str, persistent: bool) -> None:
    objects = render({"supernode": {"persistence": {"enabled": persistent}}})
    volumes = [item["name"] for item in pod_template(objects, component)["spec"].get("volumes", [])]
    if component == "supernode":
        claims = one(objects, "StatefulSet", component)["spec"].get("volumeClaimTemplates", [])
        volumes += [claim["metadata"]["name"] for claim in claims]
        assert len(claims) == persistent
    assert sorted(volumes) == sorted(mount["name"] for mount in container(objects, component).get("volumeMounts", []))


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_directory_that_a_setting_names_is_mounted(render: Render, component: str) -> None:
    objects = render({"webhook": {"certificate": {"existingSecret": "certificate"}}})
    mounted = tuple(mount["mountPath"] for mount in container(objects, component)["volumeMounts"])
    paths = [item["value"] for item in container(objects, component)["env"] if item.get("value", "").startswith("/")]
    assert paths
    assert all(path.startswith(mounted) for path in paths)


def test_agents_and_supernodes_wait_for_the_key_that_the_webhook_makes(default: list[Object]) -> None:
    environment = {item["name"]: item.get("value") for item in container(default, "webhook")["env"]}
    for component in ("agent", "supernode"):
        (volume,) = [item for item in pod_template(default, component)["spec"]["volumes"] if item["name"] == "swarm"]
        assert f"darner-system/{volume['secret']['secretName']}" == environment["DARNER_SWARM_SECRET"]
        keys = ["key", "node-keys"] if component == "supernode" else ["key"]
        assert volume["secret"]["items"] == [{"key": key, "path": key} for key in keys]
        assert "optional" not in volume["secret"]
    for secret in every(default, "Secret"):
        assert set(secret) == {"apiVersion", "kind", "metadata", "type"}, "a key in the text would be another one each time"


@pytest.mark.parametrize("component", COMPONENTS)
def test_no_service_of_the_namespace_becomes_a_variable_that_looks_like_a_setting(default: list[Object], component: str) -> None:
    assert pod_template(default, component)["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("component", ["agent", "supernode"])
def test_a_store_is_a_directory_of_its_own_in_the_volume(default: list[Object], component: str) -> None:
    # the top of a volume is made by the kubelet, for others to see; what a process makes itself is closed
    values = {item["name"]: item.get("value") for item in container(default, component)["env"]}
    (mount,) = [item for item in container(default, component)["volumeMounts"] if item["name"] == "store"]
    assert values["DARNER_STORE"] == mount["mountPath"] + "/store"


# The agents.


def test_an_agent_runs_on_every_node_before_all_else_and_on_its_network(default: list[Object]) -> None:
    pod = pod_template(default, "agent")["spec"]
    assert pod["hostNetwork"] is True
    assert pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert pod["priorityClassName"] == "system-node-critical"
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert "affinity" not in pod
    (store,) = [item for item in pod["volumes"] if item["name"] == "store"]
    assert store["hostPath"] == {"path": "/var/lib/darner", "type": "DirectoryOrCreate"}


def test_an_agent_sees_nothing_of_its_node_but_its_store_and_containerds_content_read_only_unless_it_shall_not(
    render: Render, default: list[Object]
) -> None:
    path = "/var/lib/containerd/io.containerd.content.v1.content"
    with_content = pod_template(default, "agent")["spec"]
    without = pod_template(render({"agent": {"containerd": {"contentPath": ""}}}), "agent")["spec"]
    content = {"name": "containerd-content", "hostPath": {"path": path}}  # no type: nothing is demanded of a node that has none
    for pod, volumes in ((without, []), (with_content, [content])):
        assert [item for item in pod["volumes"] if "hostPath" in item and item["name"] != "store"] == volumes
    (container,) = with_content["containers"]
    (mount,) = [item for item in container["volumeMounts"] if item["name"] == "containerd-content"]
    assert mount["readOnly"] is True
    assert {"name": "DARNER_CONTAINERD_CONTENT", "value": mount["mountPath"]} in container["env"]


def test_in_mirror_mode_an_agent_writes_into_the_directory_that_containerd_reads_and_no_other(render: Render) -> None:
    pod = pod_template(render({"mirror": {"enabled": True, "registries": ["docker.io", "a:5000"]}}), "agent")["spec"]
    (container,) = pod["containers"]
    assert {"name": "containerd-hosts", "hostPath": {"path": "/etc/containerd/certs.d"}} in pod["volumes"]
    (mount,) = [item for item in container["volumeMounts"] if item["name"] == "containerd-hosts"]
    assert {"name": "DARNER_CONTAINERD_HOSTS", "value": mount["mountPath"]} in container["env"]
    assert {"name": "DARNER_MIRROR_OF", "value": "docker.io,a:5000"} in container["env"]
    assert not mount.get("readOnly")


def test_an_agent_reads_what_is_said_to_cri_o_and_writes_among_the_drop_ins_alone(render: Render) -> None:
    pod = pod_template(render({"agent": {"crio": {"configPath": "/etc/containers/"}}}), "agent")["spec"]
    (container,) = pod["containers"]
    paths = {item["name"]: item["hostPath"]["path"] for item in pod["volumes"] if "hostPath" in item}
    mounts = {paths[item["name"]]: item for item in container["volumeMounts"] if item["name"].startswith("containers-")}
    assert mounts["/etc/containers/"]["readOnly"]
    drop_ins = mounts["/etc/containers/registries.conf.d"]
    assert drop_ins["mountPath"] == f"{mounts['/etc/containers/']['mountPath']}/registries.conf.d"
    assert "readOnly" not in drop_ins
    variables = {item["name"]: item.get("value") for item in container["env"]}
    assert variables["DARNER_CONTAINERS_CONFIG"] == mounts["/etc/containers/"]["mountPath"]
    assert variables["DARNER_MIRROR_OF"] == variables["DARNER_CONTAINERD_HOSTS"] == ""


def test_an_agent_has_the_kubelets_credential_providers_if_asked_for_read_only(render: Render) -> None:
    paths = {"config": "/etc/kubernetes/credentials.yaml", "bin": "/opt/credentials"}
    given = {"configPath": paths["config"], "binDir": paths["bin"]}
    pod = pod_template(render({"agent": {"credentialProvider": given}}), "agent")["spec"]
    (container,) = pod["containers"]
    for kind, variable in (("config", "DARNER_CREDENTIAL_PROVIDER_CONFIG"), ("bin", "DARNER_CREDENTIAL_PROVIDER_BIN_DIR")):
        name = f"credential-provider-{kind}"
        assert {"name": name, "hostPath": {"path": paths[kind]}} in pod["volumes"]  # no type, as above
        (mount,) = [item for item in container["volumeMounts"] if item["name"] == name]
        assert mount["readOnly"] is True
        assert {"name": variable, "value": mount["mountPath"]} in container["env"]


def test_agents_are_replaced_a_few_at_a_time(render: Render, default: list[Object]) -> None:
    assert one(default, "DaemonSet", "agent")["spec"]["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "10%"},
    }
    on_delete = one(render({"agent": {"updateStrategy": {"type": "OnDelete"}}}), "DaemonSet", "agent")
    assert on_delete["spec"]["updateStrategy"] == {"type": "OnDelete"}


# The supernodes.


def test_supernodes_have_names_that_stay_and_are_found_before_they_are_ready(default: list[Object]) -> None:
    stateful_set, service = one(default, "StatefulSet", "supernode"), one(default, "Service", "supernode")
    assert stateful_set["spec"]["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert stateful_set["spec"]["podManagementPolicy"] == "Parallel"


def test_a_kubelet_leaves_the_permissions_of_a_supernodes_store_as_they_are(default: list[Object]) -> None:
    # else fsGroup would make the store writable for a group at the next start, and agent.storage.store would refuse it
    assert pod_template(default, "supernode")["spec"]["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_a_volume_of_a_supernode_goes_with_it(render: Render) -> None:
    spec = one(render({"supernode": {"persistence": {"enabled": True}}}), "StatefulSet", "supernode")["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Delete", "whenScaled": "Delete"}
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "60Gi"}}}


# The webhook.


def test_the_webhook_is_asked_about_new_pods_and_ephemeral_containers_and_never_stops_one(default: list[Object]) -> None:
    (webhook,) = one(default, "MutatingWebhookConfiguration", "webhook")["webhooks"]
    service = one(default, "Service", "webhook")
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "scope": "Namespaced"}
    assert webhook == {
        "name": "pods.darner.dev",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {
            "service": {
                "namespace": service["metadata"]["namespace"],
                "name": service["metadata"]["name"],
                "path": "/mutate",
                "port": 443,
            }
        },
        "rules": [
            pods | {"operations": ["CREATE"], "resources": ["pods"]},
            pods | {"operations": ["UPDATE"], "resources": ["pods/ephemeralcontainers"]},
        ],
        "namespaceSelector": {
            "matchExpressions": [
                {"key": "darner.dev/inject", "operator": "In", "values": ["enabled"]},
                {
                    "key": "kubernetes.io/metadata.name",
                    "operator": "NotIn",
                    "values": ["darner-system", "kube-system", "kube-public", "kube-node-lease"],
                },
            ]
        },
        "objectSelector": {"matchExpressions": [{"key": "darner.dev/inject", "operator": "NotIn", "values": ["disabled"]}]},
        "matchPolicy": "Equivalent",
        "reinvocationPolicy": "IfNeeded",
        "failurePolicy": "Ignore",
        "timeoutSeconds": 3,
        "sideEffects": "NoneOnDryRun",
    }


def test_there_are_always_two_webhooks(default: list[Object]) -> None:
    spec = one(default, "Deployment", "webhook")["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_darners_own_pods_are_left_alone_wherever_they_run(default: list[Object]) -> None:
    assert {pod_template(default, name)["metadata"]["labels"]["darner.dev/inject"] for name in COMPONENTS} == {"disabled"}


def test_the_webhook_has_the_swarms_key_and_a_way_to_supernodes_only_where_it_warms(render: Render) -> None:
    policies: dict[bool, Object] = {}
    for warms in (False, True):
        objects = render({"warm": {"onAdmission": warms}, "networkPolicy": {"from": ["10.0.0.0/8"]}})
        volumes = {volume["name"]: volume for volume in pod_template(objects, "webhook")["spec"].get("volumes", [])}
        assert ({"swarm", "supernodes"} <= volumes.keys()) is warms
        policies[warms] = one(objects, "NetworkPolicy", "supernode")
        settings = {item["name"]: item["value"] for item in pod_template(objects, "webhook")["spec"]["containers"][0]["env"]}
        assert bool(settings["DARNER_SWARM_KEY_FILE"]) is warms
    # The webhook itself makes the key: it may not wait for it.
    assert volumes["swarm"]["secret"]["optional"] is True
    assert [item["key"] for item in volumes["swarm"]["secret"]["items"]] == ["key"]
    (more,) = [rule for rule in policies[True]["spec"]["ingress"] if rule not in policies[False]["spec"]["ingress"]]
    assert more["ports"] == [{"port": "channel"}]
    (source,) = more["from"]
    assert source["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "webhook"


def test_without_supernodes_nothing_is_warmed_and_the_key_stays_away(render: Render) -> None:
    objects = render({"warm": {"onAdmission": True}, "supernode": {"enabled": False}})
    assert "swarm" not in {volume["name"] for volume in pod_template(objects, "webhook")["spec"].get("volumes", [])}


def test_warming_takes_no_more_rights(render: Render, default: list[Object]) -> None:
    kinds = {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ServiceAccount"}
    rights = [
        [item for item in objects if item["kind"] in kinds] for objects in (default, render({"warm": {"onAdmission": True}}))
    ]
    assert rights[0] == rights[1]
