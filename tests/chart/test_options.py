"""Every value of the chart, with another than its default: rendered by Helm, valid, and not without effect.

ci/every-option-values.yaml has the other values. A value that depends on another gets it from NEEDS.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest
import yaml

from hack.chart.helm import CHART, Helm, Object, Values, one, pod_template
from hack.chart.strict import manifests

Render = Callable[..., list[Object]]
Path = tuple[str, ...]

DEFAULTS: Values = yaml.safe_load((CHART / "values.yaml").read_text())
OTHERS: Values = yaml.safe_load((CHART / "ci" / "every-option-values.yaml").read_text())

WHOLE = {"podSecurityContext", "securityContext", "resources", "startupProbe", "livenessProbe", "readinessProbe"}
"""Maps that are one value, passed on to Kubernetes as they are."""

PROVIDER: Values = {"agent": {"credentialProvider": {"configPath": "/etc/credentials.yaml", "binDir": "/opt/credentials"}}}
CLIENTS: Values = {"webhook": {"clients": {"configMap": "clients", "names": ["kube-apiserver"]}}}
MIRROR: Values = {"mirror": {"enabled": True}}
PERSISTENT: Values = {"supernode": {"persistence": {"enabled": True}}}
CERT_MANAGER: Values = {"webhook": {"certificate": {"certManager": {"enabled": True}}}}
NEEDS: dict[Path, Values] = {
    ("webhook", "certificate", "certManager", "issuerRef"): CERT_MANAGER,
    ("webhook", "certificate", "certManager", "duration"): CERT_MANAGER,
    ("registries", "certificateAuthorities", "keys"): {"registries": {"certificateAuthorities": {"configMap": "authorities"}}},
    ("webhook", "certificate", "caBundle"): {"webhook": {"certificate": {"existingSecret": "certificate"}}},
    ("agent", "credentialProvider", "configPath"): PROVIDER,
    ("agent", "credentialProvider", "binDir"): PROVIDER,
    ("agent", "containerd", "hostsPath"): MIRROR,
    ("mirror", "registries"): MIRROR,
    ("agent", "socket", "hostPath"): {"files": {"allow": ["files.example.com"]}},
    ("webhook", "hostNetwork"): {"webhook": {"port": 10260}},
    ("monitoring", "interval"): {"monitoring": {"monitor": "ServiceMonitor"}},
    ("monitoring", "labels"): {"monitoring": {"monitor": "ServiceMonitor"}},
    ("monitoring", "rules", "runbooks"): {"monitoring": {"rules": {"enabled": True}}},
    ("monitoring", "dashboard", "label"): {"monitoring": {"dashboard": {"enabled": True}}},
    ("monitoring", "dashboard", "annotations"): {"monitoring": {"dashboard": {"enabled": True}}},
    ("networkPolicy", "from"): {"networkPolicy": {"enabled": True}},
    ("webhook", "clients", "configMap"): {"webhook": {"clients": {"names": ["kube-apiserver"]}}},
    ("webhook", "clients", "key"): CLIENTS,
    ("webhook", "clients", "names"): CLIENTS,
    ("webhook", "enabled"): {"swarm": {"existingSecret": "swarm-key"}},
    ("supernode", "persistence", "size"): PERSISTENT,
    ("supernode", "persistence", "storageClassName"): PERSISTENT,
    ("supernode", "persistence", "accessModes"): PERSISTENT,
    ("supernode", "persistence", "whenDeleted"): PERSISTENT,
    ("supernode", "persistence", "whenScaled"): PERSISTENT,
}


def leaves(values: Values, path: Path = ()) -> list[Path]:
    found: list[Path] = []
    for name, value in values.items():
        below = isinstance(value, dict) and value and name not in WHOLE
        found += leaves(value, (*path, name)) if below else [(*path, name)]
    return found


def at(values: Values, path: Path) -> Any:
    return reduce(lambda inner, name: inner[name], path, values)


def nested(path: Path, value: Any) -> Values:
    return reduce(lambda inner, name: {name: inner}, reversed(path), value)


def merged(base: Values, over: Values) -> Values:
    """As Helm merges values: maps by key, anything else as a whole."""
    result = copy.deepcopy(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = merged(result[name], value) if both else value
    return result


PATHS = leaves(DEFAULTS)


def test_the_file_of_options_has_another_value_for_each() -> None:
    for path in PATHS:
        assert at(OTHERS, path) != at(DEFAULTS, path), ".".join(path)
    rest = copy.deepcopy(OTHERS)
    for path in PATHS:
        del at(rest, path[:-1])[path[-1]]
    assert all(at(rest, path) == {} for path in leaves(rest)), "there are options that values.yaml does not have"


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_each_option_alone_renders_valid_objects_and_changes_some(render: Render, path: Path) -> None:
    base = NEEDS.get(path, {})
    assert render(merged(base, nested(path, at(OTHERS, path)))) != render(base)


@pytest.mark.parametrize("supernode", [True, False])
@pytest.mark.parametrize("webhook", [True, False])
def test_all_options_together_render_valid_objects(render: Render, webhook: bool, supernode: bool) -> None:
    objects = render(merged(OTHERS, {"enabled": True, "webhook": {"enabled": webhook}, "supernode": {"enabled": supernode}}))
    workloads = {item["kind"] for item in objects} & {"DaemonSet", "StatefulSet", "Deployment"}
    assert workloads == {"DaemonSet"} | ({"StatefulSet"} if supernode else set()) | ({"Deployment"} if webhook else set())


def test_an_agent_without_supernodes_is_told_of_none(render: Render) -> None:
    objects = render({"supernode": {"enabled": False}})
    (container,) = pod_template(objects, "agent")["spec"]["containers"]
    for name in ("DARNER_SUPERNODE_SERVICE", "DARNER_SUPERNODES_FILE"):
        assert {"name": name, "value": ""} in container["env"]
    assert not [item for item in objects if item["metadata"]["name"].endswith("-supernodes")]
    assert not [item for item in objects if item["metadata"]["labels"]["app.kubernetes.io/component"] == "supernode"]


def test_without_a_webhook_the_key_of_the_swarm_has_to_be_given(helm: Helm) -> None:
    refused = helm.template({"webhook": {"enabled": False}})
    assert refused.returncode != 0
    assert "swarm.existingSecret: write the name of a Secret" in refused.stderr


def test_an_authority_without_its_certificate_is_refused(helm: Helm) -> None:
    refused = helm.template({"webhook": {"certificate": {"caBundle": "PEM"}}})
    assert refused.returncode != 0
    assert "webhook.certificate.caBundle: leave it empty" in refused.stderr


def test_an_authority_of_clients_without_their_names_is_refused(helm: Helm) -> None:
    refused = helm.template({"webhook": {"clients": {"configMap": "clients"}}})
    assert refused.returncode != 0
    assert "webhook.clients: write names too" in refused.stderr


@pytest.mark.parametrize("path", ["configPath", "binDir"])
def test_half_of_a_credential_provider_is_refused(helm: Helm, path: str) -> None:
    refused = helm.template({"agent": {"credentialProvider": {path: "/opt/credentials"}}})
    assert refused.returncode != 0
    assert "agent.credentialProvider: write configPath and binDir" in refused.stderr


def test_mirror_mode_without_a_runtime_to_tell_is_refused(helm: Helm) -> None:
    refused = helm.template({"mirror": {"enabled": True}, "agent": {"containerd": {"hostsPath": ""}}})
    assert refused.returncode != 0
    assert "mirror.enabled: write agent.containerd.hostsPath or agent.crio.configPath" in refused.stderr


def test_a_digest_is_used_instead_of_the_tag_and_the_tag_instead_of_the_version(render: Render) -> None:
    def image(**values: str) -> str:
        objects = render({"image": {"repository": "r.example.com/darner", **values}})
        images = {pod_template(objects, name)["spec"]["containers"][0]["image"] for name in ("agent", "supernode", "webhook")}
        return images.pop() if len(images) == 1 else ""

    digest = "sha256:" + "0" * 64
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert image() == f"r.example.com/darner:{version}"
    assert image(tag="7") == "r.example.com/darner:7"
    assert image(tag="7", digest=digest) == f"r.example.com/darner@{digest}"


def test_opt_out_takes_every_namespace_that_does_not_say_no(render: Render) -> None:
    (webhook,) = one(render({"webhook": {"namespaces": {"mode": "opt-out"}}}), "MutatingWebhookConfiguration", "webhook")[
        "webhooks"
    ]
    first, excluded = webhook["namespaceSelector"]["matchExpressions"]
    assert first == {"key": "darner.dev/inject", "operator": "NotIn", "values": ["disabled"]}
    assert {"darner-system", "kube-system"} <= set(excluded["values"])


def test_two_renders_print_the_same_bytes(helm: Helm) -> None:
    for values in ({}, merged(OTHERS, {"enabled": True, "webhook": {"enabled": True}, "supernode": {"enabled": True}})):
        first, second = helm.template(values), helm.template(values)
        assert first.returncode == 0
        assert first.stdout == second.stdout
        assert manifests(first.stdout)


def test_older_versions_of_kubernetes_are_refused(helm: Helm) -> None:
    def rendered(version: str) -> str:
        return helm("template", "darner", str(CHART), "--kube-version", version).stderr

    assert "requires kubeVersion: >=1.30" in rendered("1.29.14")
    assert rendered("1.30.0") == ""
    assert rendered("v1.31.2-eks-0123456") == ""


def test_with_a_startup_taint_all_parts_tolerate_it_beside_what_the_values_say(render: Render) -> None:
    """Otherwise the webhook, which takes the taint away, would wait for itself in a cluster of new nodes."""
    startup = {"key": "darner.dev/agent-not-ready", "operator": "Exists"}
    mine = {"key": "dedicated", "operator": "Exists"}
    objects = render({"webhook": {"nodes": {"startupTaint": True}, "tolerations": [mine]}, "agent": {"tolerations": [mine]}})
    tolerated = {name: pod_template(objects, name)["spec"]["tolerations"] for name in ("agent", "supernode", "webhook")}
    assert tolerated == {"agent": [mine, startup], "supernode": [startup], "webhook": [mine, startup]}
    (job,) = (item for item in objects if item["kind"] == "Job")
    assert job["spec"]["template"]["spec"]["tolerations"] == [mine, startup]


def test_the_name_of_the_configuration_is_the_same_wherever_it_is_named(render: Render) -> None:
    objects = render({"webhook": {"configurationName": "zz-darner"}})
    assert one(objects, "MutatingWebhookConfiguration", "webhook")["metadata"]["name"] == "zz-darner"
    env = pod_template(objects, "webhook")["spec"]["containers"][0]["env"]
    assert {"name": "DARNER_WEBHOOK_CONFIGURATION", "value": "zz-darner"} in env
    named = [
        rule["resourceNames"]
        for item in objects
        if item["kind"] == "ClusterRole"
        for rule in item["rules"]
        if "mutatingwebhookconfigurations" in rule["resources"]
    ]
    assert named == [["zz-darner"]] * 2
    (job,) = (item for item in objects if item["kind"] == "Job")
    assert "--webhook-configuration=zz-darner" in job["spec"]["template"]["spec"]["containers"][0]["args"]
