"""Pods get a file by the agents' sockets: `darner get` on every node at once, and its server sends it once."""

from __future__ import annotations

from hack.cluster import Cluster
from hack.cluster.origin import OPEN
from hack.lab.process import wait_until
from tests.e2e.release import Release
from tests.e2e.space import Space

FILE_BYTES = 24 << 20
DONE_SECONDS_MAX = 60
LOG_SECONDS_MAX = 20
SOCKET_DIRECTORY = "/run/darner"


def test_pods_on_all_nodes_get_a_file_at_once_and_its_server_sends_it_once(
    darner: Release, plain_space: Space, cluster: Cluster
) -> None:
    pushed = plain_space.push(layers=[FILE_BYTES])
    digest = next(digest for digest, size in pushed.new_blobs.items() if size >= FILE_BYTES)
    url = f"http://{cluster.layout.origin.address}:{OPEN}/v2/{pushed.repository}/blobs/{digest}"
    image = darner.pods("agent")[0]["spec"]["containers"][0]["image"]
    for node in cluster.plan.nodes:
        _getting(plain_space, f"get-{node}", node, image, ["darner", "get", url, "-o", "/files/a", "--digest", digest])
    for node in cluster.plan.nodes:
        pod = plain_space.wait_for(f"get-{node}", lambda pod: pod["status"]["phase"] in ("Succeeded", "Failed"), DONE_SECONDS_MAX)
        said = plain_space.api.text("GET", f"/api/v1/namespaces/{plain_space.name}/pods/get-{node}/log")
        assert pod["status"]["phase"] == "Succeeded", said
        assert "server itself" not in said
    wait_until(lambda: plain_space.sent_by_origin(pushed).get(digest, 0) >= pushed.new_blobs[digest], LOG_SECONDS_MAX)
    assert plain_space.sent_by_origin(pushed)[digest] == pushed.new_blobs[digest]


def _getting(space: Space, name: str, node: str, image: str, command: list[str]) -> None:
    mounts = [{"name": "darner", "mountPath": SOCKET_DIRECTORY, "readOnly": True}, {"name": "files", "mountPath": "/files"}]
    container = {"name": "get", "image": image, "command": command, "volumeMounts": mounts}
    volumes = [{"name": "darner", "hostPath": {"path": SOCKET_DIRECTORY}}, {"name": "files", "emptyDir": {}}]
    pod = {"nodeName": node, "restartPolicy": "Never", "containers": [container], "volumes": volumes}
    space.create("Pod", name, pod)
