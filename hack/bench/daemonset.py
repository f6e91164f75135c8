"""A rollout as its user sees it: until a DaemonSet of a new image is out in a real cluster, directly and through Darner.

The cluster has three nodes, all of it on this machine, and links without a rate; Darner is installed in it by Helm. A rollout in
a namespace that has not opted in is measured before and after each in one that has, with an image of its own each time: no node
has a byte of it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median

from hack.bench.figures import BY_NAME, Measured
from hack.bench.machine import GB, MEMORY_TIMES, find_memory
from hack.bench.scenario import Options, Tell
from hack.chart.helm import CHART, tool
from hack.cluster import Cluster, ClusterError, images
from hack.cluster.api import Api, Object
from hack.cluster.layout import CLUSTERS_MAX
from hack.cluster.origin import NAME, OPEN
from hack.cluster.programs import HERE
from hack.lab.darner import HTTP_PORT, metric_in
from hack.lab.process import wait_until

NODES = 3
IMAGE_BYTES = 192 << 20
LAYERS = 4
OUT_SECONDS_MAX = 120
INSTALL_SECONDS_MAX = 180
_LOOK_SECONDS = 0.05
_NAMESPACE = "darner-system"
_INJECT = "darner.dev/inject"
_LOCAL = "127.0.0.1:65001/"


def daemonset(options: Options, tell: Tell) -> list[Measured]:
    directs: list[float] = []
    through: list[float] = []
    cpu: dict[str, list[float]] = {"agents": [], "supernodes": []}
    with _cluster() as cluster:
        rollouts = Rollouts(cluster)
        rollouts.install()
        for injected in (False, True):  # what is done for the first time is not what is measured
            rollouts.seconds(injected, layers=1, size=1 << 20)
        before = rollouts.seconds(injected=False)
        for number in range(options.rounds):
            taken = rollouts.cpu_seconds()
            through.append(rollouts.seconds(injected=True))
            for part, seconds in rollouts.cpu_seconds().items():
                cpu[part].append((seconds - taken[part]) * GB / (NODES * IMAGE_BYTES))
            after = rollouts.seconds(injected=False)
            directs.append(mean((before, after)))
            tell(f"daemonset, round {number + 1}: directly {before:.1f} and {after:.1f} s, through Darner {through[-1]:.1f} s")
            before = after
    ratios = [seconds / direct for seconds, direct in zip(through, directs, strict=True)]
    note = ", ".join(f"{part} {median(seconds):.1f}" for part, seconds in cpu.items())
    beside = {"direct, s": directs, "through Darner, s": through}
    return [Measured(BY_NAME["daemonset"], ratios, beside, f"CPU-s for each GB that a node got: {note}")]


@contextlib.contextmanager
def _cluster() -> Iterator[Cluster]:
    """One of a number that nobody uses. It has Darner's image, of this tree."""
    made = subprocess.run([HERE / "image.sh"], stdout=subprocess.PIPE, text=True, check=True)
    for number in range(1, CLUSTERS_MAX):
        cluster = Cluster(number)
        with cluster.locked() as free:
            if not free:
                continue
            try:
                cluster.up(["2"] * NODES)
                cluster.load(Path(made.stdout.strip()))
                yield cluster
            finally:
                cluster.down()
            return
    raise ClusterError("too many clusters")


class Rollouts:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._api = Api(cluster.layout.kubeconfig)

    def install(self) -> None:
        """By Helm, with the certificate authority of the cluster's registry. Raises ClusterError with Helm's words."""
        self._namespace(_NAMESPACE)
        authority = {"ca.crt": self._cluster.origin.authority.read_text()}
        self._api.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "origin", "namespace": _NAMESPACE},
                "data": authority,
            }
        )
        command: list[str | Path] = [tool("helm"), "install", "darner", CHART, "--namespace", _NAMESPACE]
        command += ["--set", "registries.certificateAuthorities.configMap=origin"]
        done = subprocess.run(
            [*command, "--wait", f"--timeout={INSTALL_SECONDS_MAX}s"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self._cluster.layout.directory),
                "KUBECONFIG": str(self._cluster.layout.kubeconfig),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ClusterError(f"helm install: {done.stderr}")

    def seconds(self, injected: bool, layers: int = LAYERS, size: int = IMAGE_BYTES) -> float:
        """From the creation of a DaemonSet of a new image until a pod of it is Ready on every node."""
        space = f"bench-{secrets.token_hex(4)}"
        self._namespace(space, {_INJECT: "enabled"} if injected else {})
        wait_until(lambda: self._api.get("ServiceAccount", space, "default"))
        content = [images.layer({f"random-{number}": os.urandom(size // layers)}) for number in range(layers)]
        images.push(images.busybox(content), f"{self._cluster.layout.origin.address}:{OPEN}", space, "1")
        container = {"name": "app", "image": f"{NAME}/{space}:1"}
        labels = {"app": "app"}
        find_memory(NODES * MEMORY_TIMES * size)
        began = time.monotonic()
        self._api.create(
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": {"name": "app", "namespace": space},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
                    },
                },
            }
        )
        while self._ready(space) < NODES:
            if time.monotonic() - began > OUT_SECONDS_MAX:
                raise ClusterError(f"a DaemonSet was not out after {OUT_SECONDS_MAX} s")
            time.sleep(_LOOK_SECONDS)
        seconds = time.monotonic() - began
        asked = {pod["spec"]["containers"][0]["image"].startswith(_LOCAL) for pod in self._api.all("Pod", space)}
        if asked != {injected}:
            raise ClusterError("not every pod was pulled the way that was to be measured")
        self._api.delete("Namespace", None, space)
        wait_until(lambda: not self._api.get("Namespace", None, space), OUT_SECONDS_MAX)
        return seconds

    def cpu_seconds(self) -> dict[str, float]:
        """That the processes of agents and supernodes have taken so far."""
        taken = {"agents": 0.0, "supernodes": 0.0}
        for part in taken:
            for pod in self._api.all("Pod", _NAMESPACE, f"app.kubernetes.io/component={part.removesuffix('s')}"):
                text = self._api.proxied(_NAMESPACE, pod["metadata"]["name"], HTTP_PORT, "metrics")
                taken[part] += metric_in(text, "process_cpu_seconds_total", {})
        return taken

    def _ready(self, space: str) -> int:
        found: Object = self._api.get("DaemonSet", space, "app") or {}
        return int(found.get("status", {}).get("numberReady", 0))

    def _namespace(self, name: str, labels: dict[str, str] | None = None) -> None:
        self._api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}})
