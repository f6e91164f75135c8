"""The parts of a cluster that decide: names and addresses, versions, and what is in an image."""

from __future__ import annotations

import ipaddress
import json
import tarfile
from pathlib import Path

import pytest

from hack.cluster import Cluster, ClusterError
from hack.cluster.control import features
from hack.cluster.images import busybox, layer, write_archive
from hack.cluster.layout import CLUSTERS_MAX, NODES_MAX, POD_NETWORK, Layout
from hack.cluster.programs import DEFAULT_KUBERNETES, HERE, kubernetes_module
from hack.origin.image import sha256

NODES = [f"n{number}" for number in range(NODES_MAX)]


def test_no_two_hosts_of_any_two_clusters_share_an_address_or_a_namespace() -> None:
    layouts = [Layout(number) for number in range(CLUSTERS_MAX)]
    hosts = [(layout, layout.host(name)) for layout in layouts for name in ("control-plane", "origin", *NODES)]
    others = [address for layout in layouts for address in (layout.gateway, layout.machine_address)]
    addresses = [host.address for _, host in hosts] + others
    assert len(set(addresses)) == len(addresses)
    assert all(ipaddress.ip_address(address).is_private for address in addresses)
    namespaces = [layout.namespace(host.name) for layout, host in hosts]
    assert len(set(namespaces)) == len(namespaces)


def test_what_one_clusters_name_finds_is_never_anothers() -> None:
    """Namespaces are found by their beginning when a cluster is removed."""
    prefixes = [Layout(number).namespace("") for number in range(CLUSTERS_MAX)]
    assert not [(one, other) for one in prefixes for other in prefixes if one != other and other.startswith(one)]


def test_pods_of_different_nodes_have_networks_of_their_own() -> None:
    networks = [ipaddress.ip_network(Layout(0).node(name).pods) for name in NODES]
    assert len(set(networks)) == len(networks)
    assert all(network.subnet_of(ipaddress.ip_network(POD_NETWORK)) for network in networks)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["n20", "n-1", "node", "", "../n1", "n1 "])
def test_a_host_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="nodes are called n0 to n19"):
        Layout(0).host(name)


@pytest.mark.parametrize("number", [-1, CLUSTERS_MAX])
def test_a_number_that_has_no_addresses_is_refused(number: int) -> None:
    with pytest.raises(ClusterError, match="0 to 199"):
        Layout(number)


def test_a_cluster_that_is_not_there_says_how_one_is_made() -> None:
    with pytest.raises(ClusterError, match="there is no darner-cluster-199; `make cluster-up` makes one"):
        _ = Cluster(CLUSTERS_MAX - 1).plan


@pytest.mark.parametrize("version", [DEFAULT_KUBERNETES, "v1.34.4"])
def test_kubernetes_is_pinned_with_all_of_its_modules(version: str) -> None:
    module = (HERE / "go" / kubernetes_module(version) / "go.mod").read_text()
    staged = {line.split()[-1] for line in module.splitlines() if " => k8s.io/" in line}
    assert staged == {version.replace("v1.", "v0.")}


def test_a_version_that_is_not_pinned_is_refused_with_those_that_are() -> None:
    with pytest.raises(ClusterError, match=r"v1\.29\.0 is not pinned .* there are v1\.34\.4, v1\.36\.3"):
        kubernetes_module("v1.29.0")


def test_what_later_versions_have_by_themselves_is_switched_on_in_earlier_ones() -> None:
    assert features("v1.34.4") == {"ImageVolume": True, "KubeletEnsureSecretPulledImages": True}
    assert features("v1.36.3") == {}


def test_the_same_files_give_the_same_layer_and_others_another() -> None:
    assert layer({"a": b"1"}, {"b": "a"}) == layer({"a": b"1"}, {"b": "a"})
    assert layer({"a": b"1"}) != layer({"a": b"2"})


def test_an_archive_holds_every_blob_of_the_image_under_its_digest(tmp_path: Path) -> None:
    image = busybox([layer({"extra": b"x"})])
    write_archive(image, "darner.test/some:1", tmp_path / "image.tar")
    with tarfile.open(tmp_path / "image.tar") as archive:
        files = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    (named,) = json.loads(files["index.json"])["manifests"]
    assert named["annotations"]["io.containerd.image.name"] == "darner.test/some:1"
    assert sha256(files[f"blobs/{named['digest'].replace(':', '/')}"]) == named["digest"]
    assert {f"blobs/{digest.replace(':', '/')}" for digest in image.blobs} < set(files)
