"""What the values add to every object and pod, in Kubernetes' own forms, and what is refused because it would never start."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hack.chart.helm import Helm, Object, Values, environment, one, pod_template
from hack.chart.strict import manifests

Render = Callable[..., list[Object]]

COMPONENTS = {"agent": "DaemonSet", "supernode": "StatefulSet", "webhook": "Deployment"}


def container(objects: list[Object], component: str) -> Object:
    (found,) = pod_template(objects, component)["spec"]["containers"]
    return found  # type: ignore[no-any-return]


def configuration(objects: list[Object]) -> Object:
    (webhook,) = one(objects, "MutatingWebhookConfiguration", "webhook")["webhooks"]
    return webhook  # type: ignore[no-any-return]


def every_component(values: Values) -> Values:
    return dict.fromkeys(COMPONENTS, values)


# Every object.


def test_every_object_has_the_common_labels_and_annotations_beside_its_own(render: Render) -> None:
    labels = {"team": "platform", "app.kubernetes.io/owner": "images"}
    values: Values = {"commonLabels": labels, "commonAnnotations": {"example.com/contact": "platform"}}
    managed = {"certificate": {"certManager": {"enabled": True}}}
    parts: Values = {"openshift": {"enabled": True}, "supernode": {"nodeZones": "always"}, "webhook": managed}
    objects = render({**values, **parts})
    for item in objects:
        metadata = item["metadata"]
        assert labels.items() <= metadata["labels"].items(), metadata["name"]
        assert metadata["annotations"]["example.com/contact"] == "platform", metadata["name"]
    hooks = {item["metadata"]["annotations"].get("helm.sh/hook") for item in objects}
    assert hooks == {None, "pre-delete", "test"}


def test_a_workload_has_annotations_of_its_own_and_its_pods_do_not(render: Render) -> None:
    objects = render(every_component({"annotations": {"example.com/reload": "true"}}) | {"commonAnnotations": {"a": "b"}})
    for component, kind in COMPONENTS.items():
        metadata = one(objects, kind, component)["metadata"]
        assert metadata["annotations"] == {"a": "b", "example.com/reload": "true"}
        assert "annotations" not in pod_template(objects, component)["metadata"]


def test_a_label_of_a_component_counts_more_than_a_common_one_and_less_than_darners_own(render: Render) -> None:
    labels = {"team": "nodes", "darner.dev/inject": "enabled"}
    objects = render({"commonLabels": {"team": "platform"}, "agent": {"podLabels": labels}})
    found = pod_template(objects, "agent")["metadata"]["labels"]
    assert (found["team"], found["darner.dev/inject"]) == ("nodes", "disabled")
    assert pod_template(objects, "webhook")["metadata"]["labels"]["team"] == "platform"


def test_another_namespace_is_that_of_every_object_and_of_every_name_in_it(render: Render, helm: Helm) -> None:
    objects = render({"namespaceOverride": "elsewhere"})
    assert {item["metadata"].get("namespace", "elsewhere") for item in objects} == {"elsewhere"}
    assert "darner-system" not in helm.template({"namespaceOverride": "elsewhere"}).stdout


def test_objects_of_ones_own_are_templates_whether_maps_or_text(render: Render) -> None:
    here = {"labels": {"app.kubernetes.io/component": "extra"}}
    mapped = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": here | {"name": "{{ .Release.Name }}-a"},
        "data": {"replicas": "{{ .Values.webhook.replicas }}"},
    }
    text = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-b, labels: {app.kubernetes.io/component: extra}}"
    )
    found = {
        item["metadata"]["name"]: item.get("data")
        for item in render({"extraObjects": [mapped, text]}, release="r")
        if item["metadata"]["labels"]["app.kubernetes.io/component"] == "extra"
    }
    assert found == {"r-a": {"replicas": "2"}, "r-b": None}


# Images.


@pytest.mark.parametrize(
    ("repository", "image"),
    [
        ("darner.dev/darner", "mirror.example.com/darner"),
        ("registry.example.com:5000/tools/darner", "mirror.example.com/tools/darner"),
        ("localhost/darner", "mirror.example.com/darner"),
        ("tools/darner", "mirror.example.com/tools/darner"),
        ("darner", "mirror.example.com/darner"),
    ],
)
def test_another_registry_takes_the_place_of_the_one_in_the_repository(render: Render, repository: str, image: str) -> None:
    objects = render({"image": {"registry": "mirror.example.com", "repository": repository, "tag": "7"}})
    assert {container(objects, component)["image"] for component in COMPONENTS} == {f"{image}:7"}


# Pods.


def test_a_pod_is_placed_and_finds_names_as_the_values_say(render: Render) -> None:
    given: Values = {
        "runtimeClassName": "sandboxed",
        "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
        "hostAliases": [{"ip": "10.0.0.7", "hostnames": ["registry.example.com"]}],
    }
    objects = render(every_component(given))
    specs = [pod_template(objects, component)["spec"] for component in COMPONENTS]
    specs += [item["spec"] for item in objects if item["kind"] == "Pod"]
    specs += [item["spec"]["template"]["spec"] for item in objects if item["kind"] == "Job"]
    assert len(specs) == 5
    assert all(given.items() <= spec.items() for spec in specs)


@pytest.mark.parametrize("component", COMPONENTS)
def test_flags_volumes_and_mounts_come_beside_darners_own(render: Render, default: list[Object], component: str) -> None:
    volume, mount = {"name": "more", "configMap": {"name": "more"}}, {"name": "more", "mountPath": "/etc/more"}
    given = {"extraArgs": ["--log-level=debug"], "extraVolumes": [volume], "extraVolumeMounts": [mount]}
    objects = render({component: given})
    own, now = pod_template(default, component)["spec"], pod_template(objects, component)["spec"]
    assert container(objects, component)["args"] == [component, "--log-level=debug"]
    assert now["volumes"] == [*own.get("volumes", []), volume]
    mounts = container(default, component).get("volumeMounts", [])
    assert container(objects, component)["volumeMounts"] == [*mounts, mount]


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_each_number_of_a_probe_is_a_value(render: Render, default: list[Object], component: str, probe: str) -> None:
    found = container(render({component: {probe: {"failureThreshold": 77}}}), component)[probe]
    assert found == container(default, component)[probe] | {"failureThreshold": 77}


@pytest.mark.parametrize("component", COMPONENTS)
def test_no_earlier_form_of_a_workload_is_kept_where_the_values_say_zero(render: Render, component: str) -> None:
    workload = one(render({component: {"revisionHistoryLimit": 0}}), COMPONENTS[component], component)
    assert workload["spec"]["revisionHistoryLimit"] == 0


@pytest.mark.parametrize("number", [0, 3, "25%"])
def test_a_budget_is_a_number_or_a_share(render: Render, number: int | str) -> None:
    objects = render({"supernode": {"disruptionBudget": {"maxUnavailable": number}}})
    assert one(objects, "PodDisruptionBudget", "supernode")["spec"]["maxUnavailable"] == number


@pytest.mark.parametrize("zero", [0, "0"])
def test_no_limit_is_the_number_zero_or_its_text(render: Render, zero: int | str) -> None:
    variables = environment(render({"agent": {"store": {"free": zero}, "bandwidth": {"upload": zero}}}), "agent", "10.0.0.7")
    assert (variables["DARNER_STORE_FREE"], variables["DARNER_UPLOAD_RATE"]) == ("0", "0")


def test_updates_go_as_the_values_say(render: Render) -> None:
    shares = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 3}}
    from_two = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    objects = render(
        {
            "agent": {"updateStrategy": shares},
            "supernode": {"updateStrategy": from_two},
            "webhook": {"strategy": {"type": "Recreate"}},
        }
    )
    assert one(objects, "DaemonSet", "agent")["spec"]["updateStrategy"] == shares
    assert one(objects, "StatefulSet", "supernode")["spec"]["updateStrategy"] == from_two
    assert one(objects, "Deployment", "webhook")["spec"]["strategy"] == {"type": "Recreate"}


# The cache of a supernode on its node's disk.


def test_a_limit_of_the_volume_is_one_of_the_cache_and_what_its_percentages_are_of(render: Render) -> None:
    objects = render({"supernode": {"store": {"sizeLimit": "60Gi", "quota": "50%"}}})
    (volume,) = [item for item in pod_template(objects, "supernode")["spec"]["volumes"] if item["name"] == "store"]
    assert volume["emptyDir"] == {"sizeLimit": "60Gi"}
    variables = environment(objects, "supernode", "10.0.0.7")
    assert variables["DARNER_STORE_QUOTA"] == f"{30 * 1024}Mi"
    assert variables["DARNER_STORE_LIMIT"] == f"{57 * 1024}Mi"
    objects = render({"supernode": {"store": {"sizeLimit": "1Ti", "quota": "200Gi"}}})
    assert environment(objects, "supernode", "10.0.0.7")["DARNER_STORE_QUOTA"] == "200Gi"


def test_a_volume_of_its_own_knows_no_such_limit(render: Render) -> None:
    objects = render({"supernode": {"store": {"sizeLimit": "60Gi"}, "persistence": {"enabled": True}}})
    variables = environment(objects, "supernode", "10.0.0.7")
    assert (variables["DARNER_STORE_QUOTA"], variables["DARNER_STORE_LIMIT"]) == ("20%", "0")
    assert not [item for item in pod_template(objects, "supernode")["spec"]["volumes"] if "emptyDir" in item]


def test_a_supernode_asks_for_room_on_the_nodes_disk_and_has_no_limit_that_it_would_be_evicted_for(default: list[Object]) -> None:
    resources = container(default, "supernode")["resources"]
    assert resources["requests"]["ephemeral-storage"] == "2Gi"
    assert "ephemeral-storage" not in resources["limits"]


# The way from the API servers to the webhook.


def test_the_webhook_listens_where_the_control_plane_of_private_nodes_reaches_it(render: Render, default: list[Object]) -> None:
    for objects, port in ((default, 10250), (render({"webhook": {"port": 9443}}), 9443)):
        ports = {item["name"]: item["containerPort"] for item in container(objects, "webhook")["ports"]}
        assert ports == {"https": port, "http": 8080}
        assert environment(objects, "webhook", "10.0.0.7")["DARNER_LISTEN"] == f"0.0.0.0:{port}"
        assert one(objects, "Service", "webhook")["spec"]["ports"][0] == {"name": "https", "port": 443, "targetPort": "https"}


def test_on_its_nodes_network_the_webhook_makes_room_before_it_is_replaced_and_asks_the_clusters_dns(render: Render) -> None:
    objects = render({"webhook": {"hostNetwork": True, "port": 10260, "httpPort": 10261}})
    spec = pod_template(objects, "webhook")["spec"]
    assert (spec["hostNetwork"], spec["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert one(objects, "Deployment", "webhook")["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    (test,) = (item for item in objects if item["kind"] == "Pod")
    assert "http://darner-webhook.darner-system.svc.cluster.local:10261/readyz" in test["spec"]["containers"][0]["args"]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"webhook": {}}, "webhook.port: with webhook.hostNetwork choose another port, such as 10260"),
        ({"webhook": {"port": 65001}}, "webhook.port: with webhook.hostNetwork choose another port"),
        ({"webhook": {"port": 10260, "httpPort": 65003}}, "webhook.httpPort: with webhook.hostNetwork choose another port"),
        ({"webhook": {"port": 7002}, "agent": {"ports": {"pieces": 7002}}}, "7002 of a node is the agent's"),
    ],
)
def test_a_port_that_somebody_has_on_every_node_is_refused(helm: Helm, values: Values, complaint: str) -> None:
    refused = helm.template(values | {"webhook": values["webhook"] | {"hostNetwork": True}})
    assert refused.returncode != 0
    assert complaint in refused.stderr


def test_what_api_servers_look_at_first_is_added_to_what_the_chart_says(render: Render, default: list[Object]) -> None:
    expression = {"key": "example.com/tier", "operator": "In", "values": ["batch"]}
    selector = {"matchLabels": {"example.com/tenant": "a"}, "matchExpressions": [expression]}
    conditions = [{"name": "not-mirrors", "expression": "!('kubernetes.io/config.mirror' in object.metadata.annotations)"}]
    given = {"timeoutSeconds": 10, "namespaceSelector": selector, "objectSelector": selector, "matchConditions": conditions}
    before, now = configuration(default), configuration(render({"webhook": given}))
    for name in ("namespaceSelector", "objectSelector"):
        assert now[name] == {
            "matchLabels": selector["matchLabels"],
            "matchExpressions": [*before[name]["matchExpressions"], expression],
        }
    assert (now["timeoutSeconds"], now["matchConditions"]) == (10, conditions)
    assert "matchConditions" not in before


def test_a_release_without_anything_is_no_objects_at_all(helm: Helm) -> None:
    rendered = helm.template({"enabled": False, "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap"}]})
    assert (rendered.returncode, manifests(rendered.stdout)) == (0, [])
