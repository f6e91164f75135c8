"""`helm install` with default values and the registries listed: everything is Ready, and finds each other."""

from __future__ import annotations

from hack.cluster import Cluster
from tests.e2e.release import NAMESPACE, Release


def test_everything_is_ready(darner: Release) -> None:
    assert darner.unready() == []
    assert set(darner.agents()) == {"n0", "n1", "n2"}
    versions = {pod["spec"]["containers"][0]["image"] for part in ("agent", "supernode", "webhook") for pod in darner.pods(part)}
    assert len(versions) == 1


def test_agents_know_all_supernodes_by_name_and_reach_them_from_the_hosts_network(darner: Release) -> None:
    service = f"_channel._tcp.darner-supernode.{NAMESPACE}.svc.cluster.local"
    for agent in darner.agents().values():
        environment = {item["name"]: item.get("value") for item in agent["spec"]["containers"][0]["env"]}
        assert environment["DARNER_SUPERNODE_SERVICE"] == service
        assert agent["spec"]["hostNetwork"]
        assert darner.metric_of("agent", agent, "darner_agent_supernodes_connected") == 2
    for supernode in darner.pods("supernode"):
        assert darner.metric_of("supernode", supernode, "darner_supernode_connected_nodes") == 3


def test_the_clusters_dns_answers_a_node_that_asks_it(darner: Release, cluster: Cluster) -> None:
    name = f"darner-supernode-0.darner-supernode.{NAMESPACE}.svc.cluster.local"
    for node in cluster.plan.nodes:
        assert "Address" in cluster.run(node, ["busybox", "nslookup", "-type=a", name, "10.96.0.10"])


def test_nodes_run_both_containerds_without_a_line_about_any_registry(cluster: Cluster) -> None:
    path = "jsonpath={.items[*].status.nodeInfo.containerRuntimeVersion}"
    versions = cluster.kubectl("get", "nodes", "--output", path).split()
    assert [version.rpartition("/")[2].partition(".")[0] for version in versions] == ["1", "2", "2"]
    for node in cluster.plan.nodes:
        config = cluster.run(node, ["cat", "/etc/containerd/config.toml"])
        assert not [word for word in ("mirrors", "configs", "127.0.0.1", cluster.layout.origin.address) if word in config]
        assert not cluster.run(node, ["find", "/etc/containerd", "-name", "hosts.toml"])
