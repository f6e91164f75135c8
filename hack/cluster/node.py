"""A node: the files that make it one, and its boot. What runs inside, from its first process on, is node.sh.

Its disk is a directory: /var, /opt, /mnt and /srv are its own and survive a loss of power, /run does not. /usr is the machine's,
and so is /etc underneath a layer of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hack.cluster import identity
from hack.cluster.control import ControlPlane, features
from hack.cluster.layout import DNS_ADDRESS, POD_NETWORK, Host, Layout
from hack.cluster.origin import NAME, Origin
from hack.cluster.programs import HERE, SYSTEM_PATH, Programs, containerd, start

RUNTIMES = ("1.6", "2", "2+certs.d")
"""Debian's containerd; containerd 2; and one whose administrator may name registries in /etc/containerd/certs.d."""
PAUSE_IMAGE = "darner.test/busybox:1"
EMPTY_SECONDS_MAX = 10.0
"""What a control group has until it can be removed; a cluster is removed all the same."""
READY = Path("run/control-plane-is-ready")
"""On a node's disk. Kubelets start when it is there, for they wait long after an API server that was not."""

# Where the capability SYS_RESOURCE is missing nobody may lower an oom_score_adj, and runc would die of the sandbox's.
_CONTAINERD_1 = f"""\
version = 2
[plugins.'io.containerd.grpc.v1.cri']
restrict_oom_score_adj = true
sandbox_image = '{PAUSE_IMAGE}'
"""
_CONTAINERD_2 = f"""\
version = 3
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE_IMAGE}'
"""
_CERTS_D = """\
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '/etc/containerd/certs.d'
"""
CONTAINERD = {"1.6": _CONTAINERD_1, "2": _CONTAINERD_2, "2+certs.d": _CONTAINERD_2 + _CERTS_D}


class Node:
    def __init__(self, layout: Layout, host: Host, runtime: str) -> None:
        self._layout, self._host, self._runtime = layout, host, runtime
        self._disk = layout.disk(host.name)

    def prepare(self, control: ControlPlane, origin: Origin, kubernetes: str) -> None:
        """Its /etc."""
        etc = self._disk / "etc"
        for directory in ("cni/net.d", "containerd", "kubernetes", "ssl/certs"):
            (etc / directory).mkdir(parents=True)
        authority = Path("/opt/control-plane", control.authority.name)
        control.kubeconfig(etc / "kubernetes/kubelet.kubeconfig", f"system:node:{self._host.name}", authority)
        control.kubeconfig(etc / "kubernetes/kube-proxy.kubeconfig", "system:kube-proxy", authority)
        files: dict[str, Any] = {
            "hostname": f"{self._host.name}\n",
            "hosts": f"127.0.0.1 localhost\n{self._host.address} {self._host.name}\n{self._layout.origin.address} {NAME}\n",
            "resolv.conf": f"nameserver {self._layout.gateway}\n",  # where nobody answers, and says so at once
            "ssl/certs/origin.pem": origin.authority.read_text(),
            "containerd/config.toml": CONTAINERD[self._runtime],
            "cni/net.d/10-bridge.conflist": self._pod_network(),
            "kubernetes/kubelet.yaml": self._kubelet(kubernetes),
            "kubernetes/kube-proxy.yaml": self._proxy(),
        }
        for name, content in files.items():
            (etc / name).write_text(content if isinstance(content, str) else json.dumps(content))
        identity.install(etc, self._disk / "opt")

    def boot(self, programs: Programs, control: ControlPlane, images: Path, control_plane_is_ready: bool) -> None:
        shutil.rmtree(self._disk / "run", ignore_errors=True)
        (self._disk / "run").mkdir()
        if control_plane_is_ready:
            self.control_plane_is_ready()
        remove_control_groups(
            self._layout, self._host.name
        )  # a kubelet waits seconds for every dead container that still has one
        for group in control_groups(self._layout, self._host.name):
            group.mkdir(parents=True, exist_ok=True)
            _fill_cpuset(group)
        isolated = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        environment = {
            "NODE": self._host.name,
            "DISK": str(self._disk),
            "ADDRESS": self._host.address,
            "KUBERNETES": str(programs.kubernetes),
            "CONTAINERD": str(containerd(self._runtime.partition("+")[0])),
            "CERTIFICATES": str(control.authority.parent),
            "IMAGES": str(images),
            "CREDENTIAL_PROVIDER_CONFIG": identity.CONFIG,
            "CREDENTIAL_PROVIDERS": identity.PROGRAMS,
            "PATH": f"/opt/programs/kubernetes:/opt/programs/containerd:{SYSTEM_PATH}",
        }
        start(self._layout, self._host.name, self._host.name, [*isolated, "bash", HERE / "node.sh"], environment)

    def control_plane_is_ready(self) -> None:
        (self._disk / READY).touch()

    def _pod_network(self) -> dict[str, Any]:
        ranges = [[{"subnet": self._host.pods}]]
        bridge = {
            "type": "bridge",
            "bridge": "pods",
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
        }
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}

    def _kubelet(self, kubernetes: str) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            # The cluster's network is closed, and the API server would have to have a certificate for this alone.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._layout.name}/{self._host.name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "resolvConf": "/etc/resolv.conf",
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            "serializeImagePulls": False,
            "nodeStatusUpdateFrequency": "5s",
            "featureGates": features(kubernetes),
            # The disk and the memory are those of the machine, which the nodes do not have for themselves.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {
                "memory.available": "50Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
            },
        }

    def _proxy(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "hostnameOverride": self._host.name,
            "clusterCIDR": POD_NETWORK,
            "clientConnection": {"kubeconfig": "/etc/kubernetes/kube-proxy.kubeconfig"},
            # These are the machine's, and not for a node to set.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }


def control_groups(layout: Layout, host: str = "") -> Iterable[Path]:
    """Of a cluster, or of one node in it: one in version 2, one for each hierarchy in version 1."""
    root = Path("/sys/fs/cgroup")
    hierarchies = [root] if (root / "cgroup.controllers").exists() else [found for found in root.iterdir() if found.is_dir()]
    return [hierarchy / layout.name / host for hierarchy in hierarchies]


def remove_control_groups(layout: Layout, host: str = "") -> None:
    """They are empty when their processes have ended, and those of pods end a moment after their node."""
    deadline = time.monotonic() + EMPTY_SECONDS_MAX
    while groups := [group for group in control_groups(layout, host) if group.exists()]:
        for group in groups:
            for directory, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)


def _fill_cpuset(group: Path) -> None:
    """In version 1 a new cpuset is empty, and nothing can be put into it; below, the kubelet does this itself."""
    for path in (group.parent, group):
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (path / name).exists() and not (path / name).read_text().strip() and (path.parent / name).exists():
                (path / name).write_text((path.parent / name).read_text())
