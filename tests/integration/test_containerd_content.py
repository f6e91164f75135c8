"""What a real containerd pulled without Darner is a source for other nodes: from its content store, with no copy of it."""

from __future__ import annotations

import pytest

from hack.lab import Lab, wait_until
from hack.lab.darner import REGISTRY_PORT, Agent, Swarm
from hack.lab.image import PROOF, BuiltImage
from hack.lab.runtime import Containerd, Runtime

pytestmark = pytest.mark.needs_root


def ask_for_the_manifest(agent: Agent, swarm: Swarm) -> None:
    """So that the supernode knows what the tag means; nothing of the image is pulled."""
    prefix = swarm.registry.local_prefix.partition("/")[2]
    connection = agent.connection(agent.host.port(REGISTRY_PORT))
    connection.request("GET", f"/v2/{prefix}/{swarm.repository}/manifests/1")
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize("version", ["1.6", "2"])
def test_with_the_registry_stopped_a_node_pulls_what_another_nodes_containerd_has_by_itself(
    lab: Lab, image: BuiltImage, version: str
) -> None:
    swarm = Swarm(lab, image)
    host = lab.host("holder")
    containerd = Containerd(host, Runtime(version))
    containerd.pull_directly(f"{swarm.registry.name}/{swarm.repository}:1")
    before = {path: path.stat() for path in containerd.content.rglob("*")}

    holder = swarm.agent_on(host, "--containerd-content", str(containerd.content))
    wait_until(lambda: holder.metric("darner_containerd_bytes") >= image.size)
    newcomer = swarm.agent("newcomer")
    ask_for_the_manifest(newcomer, swarm)
    assert not swarm.supernode.metric("darner_origin_received_bytes_total")
    swarm.registry.stop()

    other = Containerd(newcomer.host, Runtime(version))
    other.pull(swarm.image_name)
    assert PROOF in other.run(swarm.image_name, image.command)
    received = newcomer.received_bytes()
    assert received["origin"] == 0
    assert received["peer"] + received["supernode"] == image.size
    assert holder.metric("darner_uploaded_bytes_total") >= image.size
    assert holder.metric("darner_store_bytes") == 0, "it took no copy of its own"
    after = {path: path.stat() for path in containerd.content.rglob("*")}
    assert {path: (status.st_mode, status.st_mtime_ns) for path, status in before.items()} == {
        path: (status.st_mode, status.st_mtime_ns) for path, status in after.items()
    }
