"""The settings that the chart writes are those that the processes read, and none is forgotten on either side."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from agent.config import address, listed, load, variable
from agent.origin.mirrors import Mirror
from agent.origin.proxies import Proxies, Proxy
from agent.origin.tls import TlsFiles
from agent.settings import AgentSettings
from agent.swarm.discovery import in_service
from agent.values.address import Address
from hack.chart.helm import ROOT, Environment, Object, environment, one, pod_template
from supernode.settings import SupernodeSettings
from webhook.kube.api import ObjectName
from webhook.settings import WebhookSettings, load_webhook_settings

Render = Callable[..., list[Object]]

SETTINGS: dict[str, type[Any]] = {"agent": AgentSettings, "supernode": SupernodeSettings, "webhook": WebhookSettings}
ADDRESS = "10.0.0.7"


def loaded(component: str, values: Environment) -> Any:
    if component == "webhook":
        return load_webhook_settings([], values)
    return load(SETTINGS[component], component, [], values)


@pytest.fixture(scope="session")
def with_options(render: Render) -> list[Object]:
    """Another way to everything that depends on a value being there."""
    return render(
        {
            "swarm": {"existingSecret": "swarm-key"},
            "agent": {
                "containerd": {"contentPath": "/var/lib/containerd/io.containerd.content.v1.content"},
                "crio": {"configPath": "/etc/containers"},
                "credentialProvider": {"configPath": "/etc/kubernetes/credentials.yaml", "binDir": "/opt/credentials"},
                "bandwidth": {"upload": "1Mi", "download": "4Mi", "origin": ""},
            },
            "supernode": {"bandwidth": {"upload": "1Gi", "origin": "1Mi"}},
            "webhook": {
                "certificate": {"existingSecret": "certificate"},
                "clients": {"configMap": "clients", "names": ["kube-apiserver", "another"]},
            },
            "mirror": {"enabled": True, "registries": ["_default", "docker.io", "b:5000"]},
            "tagCache": {"fresh": [":latest", "quay.io/team/*:dev-*"]},
            "warm": {"onAdmission": True, "architectures": ["amd64", "arm64"]},
            "files": {"allow": ["huggingface.co", "files.example.com:8443/models/*"]},
            "registries": {
                "insecure": ["a:5000", "b:5000"],
                "trustedRealms": ["a:5000=login.example.net"],
                "mirrors": [
                    {"registry": "docker.io", "endpoints": ["https://m.example.com", "http://10.0.0.7:5000"], "prefix": "hub"},
                    {"registry": "quay.io", "endpoints": ["https://n.example.com"]},
                ],
                "tls": [{"registry": "m.example.com", "secretName": "m-tls"}],
                "certificateAuthorities": {"configMap": "authorities", "keys": ["a.pem"]},
                "credentials": "operators-credentials",
                "proxy": {"https": "http://proxy:3128", "http": "http://[fd00::7]", "exceptions": [".example.com", "10.0.0.0/8"]},
            },
        }
    )


@pytest.mark.parametrize("component", SETTINGS)
def test_every_variable_is_a_setting_and_every_setting_a_variable(
    default: list[Object], with_options: list[Object], component: str
) -> None:
    known = {variable(field.name) for field in fields(SETTINGS[component])}
    written: set[str] = set()
    for objects in (default, with_options):
        variables = {name for name in environment(objects, component, ADDRESS) if name.startswith("DARNER_")}
        assert variables - known == set(), "the process knows no such setting"
        written |= variables
    # The chart gives every swarm a key, and agents hear of supernodes from DNS or from a file.
    assert known - written - {"DARNER_INSECURE_SWARM", "DARNER_SUPERNODES"} == set(), "the chart has no value for it"


@pytest.mark.parametrize("component", SETTINGS)
def test_the_processes_read_what_the_chart_writes(default: list[Object], with_options: list[Object], component: str) -> None:
    for objects in (default, with_options):
        loaded(component, environment(objects, component, ADDRESS))


CHOSEN_BY_THE_CHART = {
    # where the pod is and what is mounted into it
    "node_name", "zone", "store", "piece_listen", "piece_address", "http_listen", "supernodes", "swarm_key_file",
    "supernode_service", "supernodes_file",
    "node_token_file", "node_token_keys", "node_token_account", "containerd_content",
    # what the release is called
    "certificate_secret", "certificate_names", "webhook_configuration", "swarm_secret", "namespace", "excluded_namespaces",
    "agent_service", "lease", "release",
    # what the replicas share
    "registry_connections",
    # what needs rights in the cluster, which the chart gives
    "pull_secrets",
}  # fmt: skip


@pytest.mark.parametrize("component", SETTINGS)
def test_the_defaults_of_the_values_are_those_of_the_process(default: list[Object], component: str) -> None:
    settings = loaded(component, environment(default, component, ADDRESS))
    for field in fields(SETTINGS[component]):
        if field.name not in CHOSEN_BY_THE_CHART:
            assert field.default is not MISSING
            assert getattr(settings, field.name) == field.default, field.name


def test_the_arguments_name_the_process(default: list[Object]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for component in SETTINGS:
        (container,) = pod_template(default, component)["spec"]["containers"]
        assert container["args"] == [component]
        assert component in project["entry-points"]["darner.processes"]


@pytest.mark.parametrize("address", [ADDRESS, "fd00::7"])
def test_an_agent_listens_at_its_nodes_address_and_for_the_runtime_on_loopback_only(default: list[Object], address: str) -> None:
    settings = loaded("agent", environment(default, "agent", address))
    assert settings.node_name == "node-7"
    assert settings.registry_listen == Address("127.0.0.1", 65001)
    assert settings.piece_listen == settings.piece_address == Address(address, 65002)
    assert settings.http_listen == Address(address, 65003)


def test_a_cluster_of_ipv6_only_is_listened_to_as_well(render: Render) -> None:
    objects = render({"listenAddress": "::"})
    supernode = loaded("supernode", environment(objects, "supernode", "fd00::7"))
    assert supernode.piece_address == Address("fd00::7", 65002)
    assert (supernode.piece_listen, supernode.channel_listen) == (Address("::", 65002), Address("::", 65004))
    webhook = loaded("webhook", environment(objects, "webhook", ADDRESS))
    assert (webhook.listen, webhook.http_listen) == (Address("::", 10250), Address("::", 8080))


@pytest.mark.parametrize("replicas", [0, 1, 3])
def test_the_agents_list_of_supernodes_follows_the_number_of_replicas_and_names_what_dns_does(
    render: Render, replicas: int
) -> None:
    objects = render({"supernode": {"replicas": replicas}, "clusterDomain": "example.org"}, release="r", namespace="ns")
    settings = loaded("agent", environment(objects, "agent", ADDRESS))
    names = one(objects, "ConfigMap", "agent")["data"]["supernodes"]
    expected = listed(address)(names)
    assert expected == tuple(
        Address(f"r-darner-supernode-{number}.r-darner-supernode.ns.svc.example.org", 65004) for number in range(replicas)
    )
    assert settings.supernode_service == "_channel._tcp.r-darner-supernode.ns.svc.example.org"
    assert in_service(settings.supernode_service, expected) == expected
    service = one(objects, "Service", "supernode")
    assert f".{service['metadata']['name']}.ns.svc." in settings.supernode_service
    assert ("channel", 65004) in {(port["name"], port["port"]) for port in service["spec"]["ports"]}


def test_another_number_of_supernodes_changes_nothing_that_restarts_agents(render: Render) -> None:
    templates = [pod_template(render({"supernode": {"replicas": replicas}}), "agent") for replicas in (0, 1, 3)]
    assert templates[0] == templates[1] == templates[2]
    pod = templates[0]["spec"]
    assert pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    (volume,) = (item for item in pod["volumes"] if item["name"] == "supernodes")
    assert volume["configMap"] == {"name": "darner-supernodes", "optional": True}
    (mount,) = (item for item in pod["containers"][0]["volumeMounts"] if item["name"] == "supernodes")
    assert "subPath" not in mount, "a kubelet never updates those"
    (variable,) = (item for item in pod["containers"][0]["env"] if item["name"] == "DARNER_SUPERNODES_FILE")
    assert variable["value"] == f"{mount['mountPath']}/supernodes"


def test_no_pod_is_replaced_because_a_secret_or_a_config_map_has_changed(with_options: list[Object]) -> None:
    """The processes take up all of their files, as docs/chart.md has it."""
    for component in SETTINGS:
        template = pod_template(with_options, component)
        assert not [name for name in template["metadata"].get("annotations", {}) if "checksum" in name]
        mounts = template["spec"]["containers"][0].get("volumeMounts", [])
        assert not [mount for mount in mounts if "subPath" in mount], "a kubelet never updates those"


def test_the_operators_credentials_are_mounted_into_supernodes_alone(with_options: list[Object]) -> None:
    holders = [
        component
        for component in SETTINGS
        for volume in pod_template(with_options, component)["spec"].get("volumes", [])
        if volume.get("secret", {}).get("secretName") == "operators-credentials"
    ]
    assert holders == ["supernode"]
    settings = loaded("supernode", environment(with_options, "supernode", ADDRESS))
    assert settings.registry_credentials == "/etc/darner/registry-credentials/.dockerconfigjson"


def test_registries_and_their_authorities_reach_agents_and_supernodes(with_options: list[Object]) -> None:
    for component in ("agent", "supernode"):
        settings = loaded(component, environment(with_options, component, ADDRESS))
        assert settings.insecure_registries == ("a:5000", "b:5000")
        assert settings.trusted_realms == ("a:5000=login.example.net",)
        assert settings.mirrors == (
            Mirror("docker.io", "m.example.com", "hub", is_plain=False),
            Mirror("docker.io", "10.0.0.7:5000", "hub", is_plain=True),
            Mirror("quay.io", "n.example.com", "", is_plain=False),
        )
        assert settings.registry_tls == (TlsFiles("m.example.com", Path("/etc/darner/registry-tls/0")),)
        assert settings.ca_files == ("/etc/darner/authorities/a.pem",)
        (container,) = pod_template(with_options, component)["spec"]["containers"]
        paths = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert "/etc/darner/authorities" in paths
        volumes = {volume["name"]: volume for volume in pod_template(with_options, component)["spec"]["volumes"]}
        assert volumes[paths["/etc/darner/registry-tls/0"]]["secret"]["secretName"] == "m-tls"


@pytest.mark.parametrize(
    ("values", "looks"),
    [
        ({}, False),
        ({"openshift": {"enabled": True}}, True),
        ({"openshift": {"enabled": True}, "agent": {"crio": {"configPath": "/etc/containers"}}}, False),
        ({"openshift": {"enabled": True}, "webhook": {"nodes": {"runtimes": "never"}}}, False),
        ({"webhook": {"nodes": {"runtimes": "always"}}}, True),
    ],
)
def test_the_webhook_looks_at_runtimes_where_some_may_refuse_and_agents_do_not_tell_them(
    render: Render, values: dict[str, Any], looks: bool
) -> None:
    assert loaded("webhook", environment(render(values), "webhook", ADDRESS)).node_runtimes is looks


def test_servers_of_files_reach_agents_and_supernodes_and_only_then_there_is_a_socket(
    default: list[Object], with_options: list[Object]
) -> None:
    for component in ("agent", "supernode"):
        settings = loaded(component, environment(with_options, component, ADDRESS))
        assert [item.text for item in settings.files_allow] == ["huggingface.co", "files.example.com:8443/models/*"]
    agent = loaded("agent", environment(with_options, "agent", ADDRESS))
    assert (agent.socket, agent.socket_mode) == ("/run/darner/agent.sock", 0o660)
    for objects, there in ((default, []), (with_options, ["/run/darner"])):
        volumes = pod_template(objects, "agent")["spec"]["volumes"]
        assert [volume["hostPath"]["path"] for volume in volumes if volume["name"] == "socket"] == there


def test_the_webhook_is_told_whose_client_certificates_are_api_servers(with_options: list[Object]) -> None:
    settings = loaded("webhook", environment(with_options, "webhook", ADDRESS))
    assert (settings.client_ca_file, settings.client_names) == ("/etc/darner/clients/ca.crt", ("kube-apiserver", "another"))
    pod = pod_template(with_options, "webhook")["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mounts["/etc/darner/clients"]]
    assert volume["configMap"]["name"] == "clients"


@pytest.mark.parametrize("component", ["agent", "supernode"])
def test_fresh_tags_reach_agents_and_supernodes(with_options: list[Object], component: str) -> None:
    fresh = loaded(component, environment(with_options, component, ADDRESS)).fresh_tags
    assert [pattern.text for pattern in fresh] == [":latest", "quay.io/team/*:dev-*"]


@pytest.mark.parametrize("component", ["agent", "supernode"])
def test_agents_and_supernodes_ask_registries_through_the_proxies_that_the_values_name(
    default: list[Object], with_options: list[Object], component: str
) -> None:
    proxies = Proxies(environment(with_options, component, ADDRESS))
    assert proxies.before("https", "registry.test", 443) == Proxy(Address("proxy", 3128))
    assert proxies.before("http", "registry.test", 80) == Proxy(Address("fd00::7", 80))
    assert proxies.before("https", "registry.example.com", 443) is proxies.before("https", "10.0.0.7", 443) is None
    assert not {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"} & environment(default, component, ADDRESS).keys()
    assert not {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"} & environment(with_options, "webhook", ADDRESS).keys()


def test_what_is_given_to_one_component_counts_more_than_the_common_proxies(render: Render) -> None:
    own = {"name": "HTTPS_PROXY", "value": "http://own:1"}
    objects = render({"registries": {"proxy": {"https": "http://proxy:3128"}}, "agent": {"extraEnv": [own]}})
    assert environment(objects, "agent", ADDRESS)["HTTPS_PROXY"] == "http://own:1"


def test_the_narrowest_bandwidths_that_the_chart_takes_are_taken_by_the_processes(with_options: list[Object]) -> None:
    agent = loaded("agent", environment(with_options, "agent", ADDRESS))
    assert (agent.upload_rate, agent.download_rate, agent.origin_rate) == (1 << 20, 4 << 20, 0)
    supernode = loaded("supernode", environment(with_options, "supernode", ADDRESS))
    assert (supernode.upload_rate, supernode.origin_rate) == (1 << 30, 1 << 20)


def test_the_webhook_leaves_its_own_namespace_and_kube_system_alone(render: Render) -> None:
    objects = render({"webhook": {"namespaces": {"exclude": ["monitoring"]}}}, namespace="elsewhere")
    settings = loaded("webhook", environment(objects, "webhook", ADDRESS))
    assert settings.policy.excluded_namespaces == {"elsewhere", "kube-system", "monitoring"}


def test_the_webhook_is_told_of_its_secrets_only_where_nobody_else_keeps_them(
    default: list[Object], with_options: list[Object]
) -> None:
    settings = loaded("webhook", environment(default, "webhook", ADDRESS))
    assert settings.certificate_secret == ObjectName("darner-system", "darner-webhook-certificate")
    assert settings.swarm_secret == ObjectName("darner-system", "darner-swarm")
    assert settings.webhook_configuration == "darner-webhook.darner-system"
    assert settings.certificate_names == ("darner-webhook.darner-system.svc",)
    settings = loaded("webhook", environment(with_options, "webhook", ADDRESS))
    assert (settings.certificate_secret, settings.swarm_secret, settings.webhook_configuration) == (None, None, "")
    assert settings.certificate_dir == "/etc/darner/certificate"
