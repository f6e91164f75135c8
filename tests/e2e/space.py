"""A namespace of its own for each test, and images that no node has ever seen: what the tests make in a cluster, and wait for.

A wait that ends in vain says what the pod's containers were waiting for. Nothing here asserts anything.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hack.cluster import ClusterError, images
from hack.cluster.api import Api, Object
from hack.cluster.cluster import Cluster
from hack.cluster.origin import NAME, OPEN, PORTS, PRIVATE_TLS
from hack.lab.process import wait_until
from hack.lab.registry import answers_in, blob_bytes_in
from hack.origin.image import Image, size_of

INJECT = "darner.dev/inject"
ORIGINALS, DECISION = "darner.dev/original-images", "darner.dev/decision"
LOCAL = "127.0.0.1:65001/"
RUNNING_SECONDS_MAX = 40
GARBAGE_SECONDS_MAX = 90
"""Containers of a pod that is gone go at once, or with the kubelet's garbage, which it collects once a minute."""


@dataclass(frozen=True)
class Pushed:
    """An image at the origin, and its names there."""

    image: Image
    repository: str
    tag: str
    origin: str
    """The origin's address."""

    @property
    def new_blobs(self) -> dict[str, int]:
        """Digest and size of those that no other image has: all but the busybox."""
        return {digest: size_of(content) for digest, content in self.image.blobs.items() if digest != self.image.layers[0]}

    @property
    def name(self) -> str:
        """Over TLS, from everybody's registry, which every container runtime can reach by itself."""
        return f"{NAME}/{self.path}"

    @property
    def plain(self) -> str:
        """Over HTTP: no container runtime would pull it by this name."""
        return f"{self.origin}:{OPEN}/{self.path}"

    @property
    def private(self) -> str:
        """Over TLS, for alice alone."""
        return f"{NAME}:{PRIVATE_TLS}/{self.path}"

    @property
    def path(self) -> str:
        return f"{self.repository}:{self.tag}"


class Space:
    def __init__(self, cluster: Cluster, api: Api, name: str, labels: dict[str, str]) -> None:
        self.cluster, self.api, self.name = cluster, api, name
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        wait_until(lambda: api.get("ServiceAccount", name, "default"))

    def push(self, name: str = "app", tag: str = "1", layers: Sequence[int] = (100_000,), below: str = "") -> Pushed:
        """A busybox with layers of so many random bytes on top, pushed to the origin, where its repository is `below` another."""
        content = [images.layer({f"random-{number}": os.urandom(size)}) for number, size in enumerate(layers)]
        pushed = Pushed(images.busybox(content), f"{below}{self.name}/{name}", tag, self.cluster.layout.origin.address)
        images.push(pushed.image, f"{pushed.origin}:{OPEN}", pushed.repository, tag)
        return pushed

    def forget(self, node: str, pushed: Pushed) -> None:
        """The node's runtime has the image no more, by none of its names there. Its containers have to go first."""
        ctr = ["ctr", "--namespace", "k8s.io"]
        wait_until(lambda: pushed.repository not in self.cluster.run(node, [*ctr, "containers", "list"]), GARBAGE_SECONDS_MAX)
        listed = self.cluster.run(node, [*ctr, "images", "list", "--quiet"]).split()
        config = json.loads(pushed.image.manifest)["config"]["digest"]
        names = [name for name in listed if pushed.repository in name or name == config]
        self.cluster.run(node, [*ctr, "images", "remove", "--sync", *names])

    def sent_by_origin(self, pushed: Pushed) -> dict[str, int]:
        """Bytes of each blob that left the origin, whichever of its registries was asked."""
        logs = [self.cluster.origin.access_log(port).read_text() for port in PORTS]
        return blob_bytes_in((answer for log in logs for answer in answers_in(log)), pushed.repository)

    def create(self, kind: str, name: str, spec: Object, **metadata: Any) -> Object:
        """As it is after admission."""
        versions = {"DaemonSet": "apps/v1", "Deployment": "apps/v1", "Job": "batch/v1"}
        return self.api.create(
            {
                "apiVersion": versions.get(kind, "v1"),
                "kind": kind,
                "metadata": {"name": name, "namespace": self.name, **metadata},
                "spec": spec,
            }
        )

    def pod(self, name: str, *image_names: str, node: str = "", owner: Object | None = None, **spec: Any) -> Object:
        """A pod with a container for each image; bound to a node, if one is named, without asking the scheduler."""
        bound = {"nodeName": node} if node else {}
        owners = [{**_identity(owner), "controller": True}] if owner else []
        return self.create("Pod", name, {**pod_spec(*image_names), **bound, **spec}, ownerReferences=owners)

    def run(self, name: str, *image_names: str, node: str = "", seconds: float = RUNNING_SECONDS_MAX, **spec: Any) -> Object:
        """The same, once all of its containers run."""
        self.pod(name, *image_names, node=node, **spec)
        return self.wait_running(name, seconds)

    def workload(self, kind: str, name: str, image: str, **spec: Any) -> Object:
        """A DaemonSet, a Deployment or a Job, with the label app=NAME on its pods."""
        template = {"metadata": {"labels": {"app": name}}, "spec": pod_spec(image)}
        selector = {} if kind == "Job" else {"selector": {"matchLabels": {"app": name}}}
        return self.create(kind, name, {"template": template, **selector, **spec})

    def pods(self, app: str = "") -> list[Object]:
        return self.api.all("Pod", self.name, f"app={app}" if app else "")

    def get(self, name: str) -> Object:
        found = self.api.get("Pod", self.name, name)
        if found is None:
            raise ClusterError(f"there is no pod {name}")
        return found

    def wait_running(self, name: str, seconds: float = RUNNING_SECONDS_MAX) -> Object:
        return self.wait_for(name, running, seconds)

    def wait_all_running(self, app: str, number: int, seconds: float = RUNNING_SECONDS_MAX) -> list[Object]:
        """Until so many pods of a workload run."""
        deadline = time.monotonic() + seconds
        while not (len(pods := self.pods(app)) == number and all(map(running, pods))):
            if time.monotonic() > deadline:
                raise ClusterError(f"{number} pods should run; after {seconds:g} s:\n" + "\n".join(map(state, pods)))
            time.sleep(0.2)
        return pods

    def wait_for(self, name: str, condition: Callable[[Object], object], seconds: float = RUNNING_SECONDS_MAX) -> Object:
        deadline = time.monotonic() + seconds
        while not condition(pod := self.get(name)):
            if time.monotonic() > deadline:
                raise ClusterError(f"still not so after {seconds:g} s: {state(pod)}")
            time.sleep(0.1)
        return pod

    def events(self, name: str) -> list[Object]:
        """Of one object, the oldest first."""
        return [event for event in self.api.events(self.name) if event["involvedObject"]["name"] == name]

    def pull_secret(self, name: str, registry: str, user: str, password: str) -> None:
        self.secret(name, {registry: {"username": user, "password": password}})

    def secret(self, name: str, auths: Object) -> None:
        """A pull secret; `auths` as in Docker's configuration."""
        self.api.create(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "kubernetes.io/dockerconfigjson",
                "metadata": {"name": name, "namespace": self.name},
                "stringData": {".dockerconfigjson": json.dumps({"auths": auths})},
            }
        )

    def delete(self) -> None:
        """It goes while the next test runs."""
        self.api.delete("Namespace", None, self.name)

    def gated(self, name: str, *image_names: str, node: str = "", **more: Any) -> Object:
        """A pod that is admitted and goes no further, until `open`: where it may run is decided, and nothing is started."""
        bound = {"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}
        gates = {"schedulingGates": [{"name": "darner.test/gate"}]}
        return self.pod(name, *image_names, **{**bound, **gates, **more})

    def open(self, name: str) -> None:
        self.api.merge("Pod", self.name, name, {"spec": {"schedulingGates": []}})

    def darners_words(self, name: str) -> list[str]:
        """The events of an object that Darner wrote."""
        return _darners(self.events(name))

    def all_words(self) -> list[str]:
        """The same of the whole namespace."""
        return _darners(self.api.events(self.name))

    def report(self) -> str:
        """What somebody wants to see of this namespace when a test has failed in it."""
        pods = [f"{state(pod)}\n  {notes(pod)}" for pod in self.pods()]
        return "\n".join([*pods, *map(told, self.api.events(self.name))])


def pod_spec(*image_names: str) -> Object:
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(image_names)]
    return {"containers": containers, "terminationGracePeriodSeconds": 0}


def local(name: str) -> str:
    """How the registry and the repository of this suite's images are written in a rewritten name."""
    registry, _, path = name.partition("/")
    return f"{LOCAL}{registry.replace(':', '_')}/{path}"


def container_images(pod: Object) -> list[str]:
    return [container["image"] for container in pod["spec"]["containers"]]


def notes(pod: Object) -> dict[str, str]:
    """Those that Darner wrote."""
    return {name: text for name, text in pod["metadata"].get("annotations", {}).items() if name.startswith("darner.dev/")}


def running(pod: Object) -> bool:
    statuses = pod["status"].get("containerStatuses", [])
    return len(statuses) == len(pod["spec"]["containers"]) and all("running" in status["state"] for status in statuses)


def waiting_reasons(pod: Object) -> list[str]:
    """Why containers wait, in the kubelet's one word."""
    return [status["state"]["waiting"]["reason"] for status in _statuses(pod) if "waiting" in status["state"]]


def state(pod: Object) -> str:
    """A pod in a line or two."""
    where = pod["spec"].get("nodeName", "no node")
    containers = [f"{status['name']}: {status['image']} {json.dumps(status['state'])}" for status in _statuses(pod)]
    return f"{pod['metadata']['name']} on {where}, {pod['status'].get('phase')}: " + "; ".join(containers)


def told(event: Object) -> str:
    """An event in a line."""
    when, subject = event.get("lastTimestamp") or event.get("eventTime"), event["involvedObject"]
    return f"{when} {subject['kind']}/{subject['name']} {event['reason']}: {event.get('message', '')}"


def _identity(item: Object) -> Object:
    """As an owner reference says whose something is."""
    return {name: item[name] for name in ("apiVersion", "kind")} | {name: item["metadata"][name] for name in ("name", "uid")}


def _darners(events: Iterable[Object]) -> list[str]:
    return [f"{event['reason']}: {event['message']}" for event in events if "darner" in _author(event)]


def _author(event: Object) -> str:
    return str(event.get("reportingComponent") or event["source"].get("component", ""))


def _statuses(pod: Object) -> Iterable[Object]:
    for name in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        yield from pod["status"].get(name, [])
