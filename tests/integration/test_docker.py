"""A real dockerd pulls a real image through Darner by its rewritten name, as it is; with the registry gone, a second one too."""

from __future__ import annotations

import pytest

from hack.lab import Lab
from hack.lab.darner import Swarm
from hack.lab.docker import Docker
from hack.lab.image import PROOF, BuiltImage

pytestmark = pytest.mark.needs_root


def test_dockerd_pulls_and_runs_a_rewritten_name_and_so_does_the_next_node_without_a_registry(
    lab: Lab, image: BuiltImage
) -> None:
    swarm = Swarm(lab, image)
    first, second = swarm.agent("first"), swarm.agent("second")
    docker = Docker(first.host)
    docker.pull(swarm.image_name)
    assert PROOF in docker.run(swarm.image_name, image.command)
    assert swarm.registry.blob_bytes_sent(swarm.repository) == image.blobs

    swarm.registry.stop()
    docker = Docker(second.host)
    docker.pull(swarm.image_name)
    assert PROOF in docker.run(swarm.image_name, image.command)
    assert second.received_bytes()["origin"] == 0
