"""How long it takes until a container runs is measured with one that really does, each time on a node that knows nothing."""

from __future__ import annotations

import pytest

from hack.bench.container import container
from hack.bench.scenario import Options
from hack.lab import Lab
from hack.lab.darner import Swarm
from hack.lab.image import BuiltImage
from hack.lab.runtime import Containerd, Runtime

pytestmark = pytest.mark.needs_root


@pytest.mark.timeout(300)
def test_a_container_runs_directly_and_through_darner_cold_and_warm() -> None:
    told: list[str] = []
    cold, warm = container(Options(1), told.append)
    assert [one.figure.name for one in (cold, warm)] == ["container-cold", "container-warm"]
    for one in (cold, warm):
        (direct,) = one.beside["direct, s"]
        assert direct > 0
        assert one.value > 0
        assert "CPU-s/GB: agent " in one.note
        assert "supernode" in one.note
    assert len(told) == 1


def test_a_runtime_that_is_discarded_leaves_its_host_to_one_that_knows_no_image(lab: Lab, image: BuiltImage) -> None:
    swarm = Swarm(lab, image)
    host = swarm.agent("node").host
    runtime = Containerd(host, Runtime("2"))
    runtime.pull(swarm.image_name)
    assert runtime.images()
    runtime.discard()
    assert not runtime.process.running
    assert Containerd(host, Runtime("2")).images() == []
