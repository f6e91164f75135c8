"""A cluster from its first host to its last: made, changed host by host, and removed.

`up` removes whatever an earlier cluster of the same number left, and a lock keeps two processes from doing that to each other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hack.cluster import images
from hack.cluster.access import Access, Plan
from hack.cluster.control import ControlPlane
from hack.cluster.layout import CONTROL_PLANE, NODES_MAX, ORIGIN, ClusterError
from hack.cluster.node import RUNTIMES, Node, remove_control_groups
from hack.cluster.origin import Origin
from hack.cluster.programs import DEFAULT_KUBERNETES, HERE, Programs
from hack.lab.process import LabError, wait_until

READY_SECONDS_MAX = 180


class Cluster(Access):
    def __init__(self, number: int = 0) -> None:
        super().__init__(number)
        self.control = ControlPlane(self.layout)
        self.origin = Origin(self.layout)
        self._images = self.layout.directory / "images"

    def up(self, runtimes: Sequence[str], kubernetes: str = DEFAULT_KUBERNETES, bits_per_second: int = 0) -> None:
        """A node for each runtime. Returns when all are Ready and the cluster's DNS answers."""
        if not 1 <= len(runtimes) <= NODES_MAX or not set(runtimes) <= set(RUNTIMES):
            raise ClusterError(f"a cluster has 1 to {NODES_MAX} nodes with the runtimes {', '.join(RUNTIMES)}")
        programs = Programs.of(kubernetes)
        self.down()
        self.layout.logs.mkdir(parents=True)
        self._images.mkdir()
        self.note(Plan(kubernetes, {}, bits_per_second))
        _allow_many_watches()
        images.write_archive(images.busybox(), images.BUSYBOX, self._images / "busybox.tar")
        images.write_archive(images.coredns(programs.coredns / "coredns"), images.COREDNS, self._images / "coredns.tar")
        self.control.prepare()
        self.origin.prepare()
        self.network.create()
        for host in (self.layout.control_plane, self.layout.origin):
            self._attach(host.name)
        self.control.start_api_server(programs, kubernetes)
        self.origin.start()
        names = [self._add(runtime, control_plane_is_ready=False) for runtime in runtimes]
        self._wait("the API server has no certificate", self.control.authority.exists)
        self.control.kubeconfig(self.layout.kubeconfig, "admin")
        self._start_controllers(programs)
        for name in names:
            self._node(name).control_plane_is_ready()
        dns = (HERE / "coredns.yaml").read_text().replace("ORIGIN_ADDRESS", self.layout.origin.address)
        self.kubectl("apply", "--filename", "-", given=dns)
        self.wait_for_nodes()
        account = ("get", "serviceaccount", "default", "--namespace", "default")
        self._wait("there is no default service account", lambda: self.answers(*account))
        self.kubectl("rollout", "status", "deployment/coredns", "--namespace", "kube-system", f"--timeout={READY_SECONDS_MAX}s")

    def down(self) -> None:
        """Removes all that bears the cluster's number, also what was left half made."""
        self.network.remove()
        remove_control_groups(self.layout)
        shutil.rmtree(self.layout.directory, ignore_errors=True)

    def add(self, runtime: str) -> str:
        """One more node; its name. It joins by itself."""
        return self._add(runtime, control_plane_is_ready=True)

    def remove(self, node: str) -> None:
        """A node leaves for good."""
        self.network.detach(self.known(node))
        plan = self.plan
        self.note(dataclasses.replace(plan, nodes={name: runtime for name, runtime in plan.nodes.items() if name != node}))
        remove_control_groups(self.layout, node)
        shutil.rmtree(self.layout.disk(node))
        self.kubectl("delete", "node", node, "--ignore-not-found")
        # Kubernetes would mourn its pods for most of a minute.
        pods = ["pods", "--all-namespaces", f"--field-selector=spec.nodeName={node}"]
        self.kubectl("delete", *pods, "--force", "--grace-period=0")

    def kill(self, host: str) -> None:
        """The host loses its power: everything on it ends at once."""
        self.network.kill(self.known(host))

    def boot(self, host: str) -> None:
        """And has it again: a node with its disk and without its /run, the origin with its store."""
        if self.network.inhabitants(self.known(host)):
            raise ClusterError(f"{host} is running")
        self._attach(host)
        plan = self.plan
        if host == ORIGIN:
            self.origin.start()
        elif host == CONTROL_PLANE:
            programs = Programs.of(plan.kubernetes)
            self.control.start_api_server(programs, plan.kubernetes)
            self._start_controllers(programs)
        else:
            self._node(host).boot(Programs.of(plan.kubernetes), self.control, self._images, True)

    def shape(self, host: str, bits_per_second: int) -> None:
        self.network.shape(self.layout.host(self.known(host)), bits_per_second)

    def load(self, archive: Path) -> None:
        """An image for all nodes, those included that join or boot later."""
        there = self._images / archive.name
        if not there.exists():
            shutil.copyfile(archive, there)
        loading = [
            subprocess.Popen(
                self.command(node, ["ctr", "--namespace", "k8s.io", "images", "import", f"/opt/images/{archive.name}"]),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for node in self.plan.nodes
        ]
        said = [(process.communicate()[0], process.returncode) for process in loading]
        if failed := [text for text, code in said if code]:
            raise ClusterError(f"{archive} cannot be loaded: {failed[0].strip()}")

    def wait_for_nodes(self, timeout_seconds: float = READY_SECONDS_MAX) -> None:
        """Until all that there should be are Ready."""
        path = "jsonpath={range .items[*]}{.status.conditions[?(@.type=='Ready')].status} {end}"

        def ready() -> bool:
            for name in self.plan.nodes:
                if not self.network.inhabitants(name):
                    raise ClusterError(f"{name} has ended\n{self.last_words()}")
            return self.kubectl("get", "nodes", "--output", path).split().count("True") == len(self.plan.nodes)

        self._wait("the nodes are not Ready", ready, timeout_seconds)

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Whether the number was free; then nobody else has it until this ends, or its holder does.

        A socket's name in the abstract namespace (unix(7)) is such a lock: it leaves no file behind.
        """
        with socket.socket(socket.AF_UNIX) as lock:
            try:
                lock.bind(f"\0{self.layout.name}")
            except OSError:
                yield False
                return
            yield True

    def _start_controllers(self, programs: Programs) -> None:
        """Not before the API server is ready: they end when it is not within seconds, and nobody would start them again."""
        self._wait("the API server is not ready", lambda: self.answers("get", "--raw", "/readyz"))
        self.control.start_controllers(programs)

    def _add(self, runtime: str, control_plane_is_ready: bool) -> str:
        plan = self.plan
        name = next(name for number in range(NODES_MAX) if (name := f"n{number}") not in plan.nodes)
        self._attach(name)
        self.note(dataclasses.replace(plan, nodes={**plan.nodes, name: runtime}))
        node = self._node(name)
        node.prepare(self.control, self.origin, plan.kubernetes)
        node.boot(Programs.of(plan.kubernetes), self.control, self._images, control_plane_is_ready)
        return name

    def _attach(self, host: str) -> None:
        plan = self.plan
        others = [self.layout.host(name) for name in (CONTROL_PLANE, ORIGIN, *plan.nodes) if name != host]
        present = set(self.network.hosts())
        rate = 0 if host == CONTROL_PLANE else plan.bits_per_second
        self.network.attach(self.layout.host(host), [other for other in others if other.name in present], rate)

    def _node(self, name: str) -> Node:
        return Node(self.layout, self.layout.node(name), self.plan.nodes[name])

    def _wait(self, problem: str, condition: Callable[[], object], timeout_seconds: float = READY_SECONDS_MAX) -> None:
        try:
            wait_until(condition, timeout_seconds)
        except LabError as error:
            raise ClusterError(f"{problem}: {error}\n{self.last_words()}") from None


def _allow_many_watches() -> None:
    """Every kubelet and containerd watches files; the usual limit is that of a machine with one of each."""
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(limit.read_text()) < 8192:
        limit.write_text("8192")
