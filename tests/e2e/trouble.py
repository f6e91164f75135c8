"""What goes wrong in somebody's first hour, done to a cluster for a while and taken back."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterable, Iterator

from hack.cluster import Cluster
from hack.cluster.api import Api
from hack.cluster.layout import CONTROL_PLANE
from hack.cluster.network import NAMESPACES
from hack.lab.process import wait_until

# Takes the port as soon as it is free, before the kubelet has started the next agent; holds it until its input ends.
_SQUATTER = """
import socket, sys, time
while True:
    try:
        taken = socket.create_server(("127.0.0.1", 65001), reuse_port=False)
        break
    except OSError:
        time.sleep(0.001)
print("taken", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def port_taken(cluster: Cluster, node: str) -> Iterator[None]:
    # In the node's network, with this machine's Python: a node need not have any.
    command = ["nsenter", f"--net={NAMESPACES / cluster.layout.namespace(node)}", "--", sys.executable, "-c", _SQUATTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as squatter:
        try:
            yield
        finally:
            squatter.communicate()


@contextlib.contextmanager
def control_plane_cut_off(cluster: Cluster, addresses: Iterable[str], port: int) -> Iterator[None]:
    """No packet of the control plane reaches that port of these pods, as where a cloud's firewall stands between."""
    rules = [
        ["OUTPUT", "--destination", address, "--protocol", "tcp", "--dport", str(port), "--jump", "DROP"] for address in addresses
    ]
    for rule in rules:
        cluster.run(CONTROL_PLANE, ["iptables", "--insert", *rule])
    try:
        yield
    finally:
        for rule in rules:
            cluster.run(CONTROL_PLANE, ["iptables", "--delete", *rule])


@contextlib.contextmanager
def without_dns(cluster: Cluster, api: Api) -> Iterator[None]:
    """Nobody answers at the address of the cluster's DNS."""
    coredns = ["deployment/coredns", "--namespace", "kube-system"]
    cluster.kubectl("scale", *coredns, "--replicas=0")
    try:
        wait_until(lambda: not api.all("Pod", "kube-system", "k8s-app=kube-dns"), 60)
        yield
    finally:
        cluster.kubectl("scale", *coredns, "--replicas=1")
        cluster.kubectl("rollout", "status", *coredns, "--timeout=90s")


@contextlib.contextmanager
def labelled(cluster: Cluster, namespace: str, label: str, value: str) -> Iterator[None]:
    cluster.kubectl("label", "namespace", namespace, f"{label}={value}")
    try:
        yield
    finally:
        cluster.kubectl("label", "namespace", namespace, f"{label}-")
