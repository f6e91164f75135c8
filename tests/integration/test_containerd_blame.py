"""Rows 58 to 60 of FAULTS.md: whose fault a failed pull is, told from the words of a real containerd."""

from __future__ import annotations

import pytest

from hack.lab import Lab
from hack.lab.darner import Swarm
from hack.lab.image import BuiltImage
from hack.lab.process import LabError
from hack.lab.runtime import Containerd, Runtime
from webhook.revert.causes import Cause, cause_of

pytestmark = pytest.mark.needs_root

RUNTIMES = [Runtime("1.6"), Runtime("2"), Runtime("2", parallel="transfer service")]


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
def test_containerd_repeats_that_the_registry_is_at_fault_and_what_is_not_there_is_nobodys_fault(
    lab: Lab, image: BuiltImage, runtime: Runtime
) -> None:
    swarm = Swarm(lab, image)
    agent = swarm.agent("first")
    containerd = Containerd(agent.host, runtime)
    assert cause_of(failure(containerd, swarm.image_name + "-missing")) is Cause.NOT_FOUND
    swarm.registry.stop()
    words = failure(containerd, swarm.image_name)
    assert cause_of(words) is Cause.FAILED, words
    agent.process.stop()
    assert cause_of(failure(containerd, swarm.image_name)) is Cause.AGENT_UNREACHABLE


def failure(containerd: Containerd, image: str) -> str:
    """The runtime's words, as the kubelet has them."""
    with pytest.raises(LabError) as raised:
        containerd.pull(image)
    return str(raised.value).rpartition("pulling image: ")[2]
