"""Real runtimes pull images under their own names through the agent that wrote itself into their configuration, and without it.

After an orderly stop their directories are as they were before, and what an administrator wrote there is never touched.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.lab import Lab, LabError
from hack.lab.darner import Agent, Swarm
from hack.lab.image import PROOF, BuiltImage
from hack.lab.podman import Podman
from hack.lab.runtime import Containerd, Runtime

pytestmark = pytest.mark.needs_root

HOSTS_TOML = 'server = "https://mirror.example.com"\n'
DROP_IN = '[[registry]]\nprefix = "quay.io"\nlocation = "mirror.example.com"\n'


@pytest.fixture
def swarm(lab: Lab, image: BuiltImage) -> Swarm:
    return Swarm(lab, image)


@pytest.mark.parametrize("version", ["1.6", "2"])
def test_containerd_pulls_through_the_agent_and_with_it_killed_from_the_registry(
    lab: Lab, swarm: Swarm, image: BuiltImage, version: str
) -> None:
    host = lab.host("node")
    containerd = Containerd(host, Runtime(version), certs_d=True)
    before = below_with_a_file_of_the_administrators(containerd.certs_d, "quay.io/hosts.toml", HOSTS_TOML)
    mirror_of = f"{swarm.registry.name},quay.io"
    agent = swarm.agent_on(host, "--containerd-hosts", str(containerd.certs_d), "--mirror-of", mirror_of)
    assert before.items() < below(containerd.certs_d).items()

    own_name = f"{swarm.registry.name}/{swarm.repository}:1"
    containerd.pull(own_name)
    assert PROOF in containerd.run(own_name, image.command)
    assert_each_byte_came_once_and_through(agent, swarm)

    agent.kill()
    containerd.remove(own_name)
    containerd.pull(own_name)
    assert PROOF in containerd.run(own_name, image.command)
    assert swarm.registry.blob_bytes_sent(swarm.repository) == {digest: 2 * size for digest, size in image.blobs.items()}

    agent.start()
    agent.process.stop()
    assert below(containerd.certs_d) == before


@pytest.mark.parametrize("version", ["1.6", "2"])
def test_containerd_pulls_from_every_registry_through_the_agent_and_rewritten_names_too(
    lab: Lab, swarm: Swarm, image: BuiltImage, version: str
) -> None:
    host = lab.host("node")
    containerd = Containerd(host, Runtime(version), certs_d=True)
    agent = swarm.agent_on(host, "--containerd-hosts", str(containerd.certs_d), "--mirror-of", "_default")
    for name in (f"{swarm.registry.name}/{swarm.repository}:1", swarm.image_name):
        containerd.pull(name)
        assert PROOF in containerd.run(name, image.command)
    assert_each_byte_came_once_and_through(agent, swarm)
    agent.process.stop()
    assert below(containerd.certs_d) == {}


def test_podman_pulls_through_the_agent_and_with_it_killed_from_the_registry(lab: Lab, swarm: Swarm, image: BuiltImage) -> None:
    host = lab.host("node")
    podman = Podman(host)
    before = below_with_a_file_of_the_administrators(podman.config, "registries.conf.d/quay.conf", DROP_IN)
    mirror_of = f"{swarm.registry.name},quay.io"
    agent = swarm.agent_on(host, "--containers-config", str(podman.config), "--mirror-of", mirror_of)
    assert before.items() < below(podman.config).items()

    own_name = f"{swarm.registry.name}/{swarm.repository}:1"
    podman.pull(own_name)
    assert_each_byte_came_once_and_through(agent, swarm)

    agent.kill()
    podman.remove(own_name)
    podman.pull(own_name)
    assert swarm.registry.blob_bytes_sent(swarm.repository) == {digest: 2 * size for digest, size in image.blobs.items()}

    agent.start()
    agent.process.stop()
    assert below(podman.config) == before


def test_podman_pulls_rewritten_names_once_the_agent_has_said_that_it_is_asked_in_plain_http(
    lab: Lab, swarm: Swarm, image: BuiltImage
) -> None:
    host = lab.host("node")
    podman = Podman(host)
    agent = swarm.agent_on(host)
    with pytest.raises(LabError, match="server gave HTTP response to HTTPS client"):
        podman.pull(swarm.image_name)
    agent.process.stop()
    agent = swarm.agent_on(host, "--containers-config", str(podman.config))
    podman.pull(swarm.image_name)
    assert_each_byte_came_once_and_through(agent, swarm)


def assert_each_byte_came_once_and_through(agent: Agent, swarm: Swarm) -> None:
    assert swarm.registry.blob_bytes_sent(swarm.repository) == swarm.image.blobs
    received = agent.received_bytes()
    assert received["supernode"] + received["origin"] == swarm.image.size


def below_with_a_file_of_the_administrators(directory: Path, name: str, text: str) -> dict[str, bytes | None]:
    """What is in the directory after an administrator has put a file there."""
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_text(text)
    return below(directory)


def below(directory: Path) -> dict[str, bytes | None]:
    """Each file with its bytes, and each directory."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}
