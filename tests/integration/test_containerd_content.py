"""What a real containerd pulled without Darner is a source for other nodes: from its content store, with no copy of it."""

from __future__ import annotations

import re
from pathlib import Path

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
    wait_until(lambda: holder.metric("darner_agent_containerd_bytes") >= image.size)
    newcomer = swarm.agent("newcomer", "--when-origin-down", "allow")  # nobody knows where containerd had it from
    ask_for_the_manifest(newcomer, swarm)
    assert not swarm.supernode.metric("darner_supernode_origin_received_bytes_total")
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


def test_the_agent_writes_each_byte_once_that_its_runtime_pulls_and_none_that_it_gives_from_containerds(
    lab: Lab, image: BuiltImage
) -> None:
    swarm = Swarm(lab, image)
    host = lab.host("holder")
    containerd = Containerd(host, Runtime("2"))
    containerd.pull_directly(f"{swarm.registry.name}/{swarm.repository}:1")
    holder = swarm.agent_on(host, "--containerd-content", str(containerd.content))
    wait_until(lambda: holder.metric("darner_agent_containerd_bytes") >= image.size)
    newcomer = swarm.agent("newcomer")
    Containerd(newcomer.host, Runtime("2")).pull(swarm.image_name)
    assert newcomer.received_bytes()["peer"] == image.size
    assert written_bytes(holder) < 0.01 * image.size
    assert image.size <= written_bytes(newcomer) < 1.05 * image.size


def written_bytes(agent: Agent) -> int:
    """What the process has had written to the disk since it started (proc(5), /proc/PID/io)."""
    found = re.search(r"^write_bytes: (\d+)$", Path(f"/proc/{agent.process.pid}/io").read_text(), re.MULTILINE)
    assert found
    return int(found[1])
