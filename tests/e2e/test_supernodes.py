"""Another number of supernodes: agents find the new one by DNS, leave the one that is gone, and are the same agents as before."""

from __future__ import annotations

from hack.cluster.api import Api
from hack.lab.process import wait_until
from tests.e2e.release import NAMESPACE, Release
from tests.e2e.space import Space, container_images, local

FOUND_SECONDS_MAX = 120
"""A new pod, what CoreDNS remembers, and the agents' next look."""


def agents_of(darner: Release) -> dict[str, tuple[str, int]]:
    """By node: which pod it is, and how often it was started again."""
    return {
        node: (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
        for node, pod in darner.agents().items()
    }


def test_agents_connect_to_a_supernode_that_is_new_and_none_is_restarted(darner: Release, api: Api, space: Space) -> None:
    before = agents_of(darner)

    def scale(replicas: int) -> None:
        api.merge("StatefulSet", NAMESPACE, "darner-supernode", {"spec": {"replicas": replicas}})

    def connected() -> float:
        return darner.metric("agent", "darner_agent_supernodes_connected")

    try:
        scale(3)
        wait_until(lambda: connected() == 3 * len(before), FOUND_SECONDS_MAX)
        image = space.push()
        assert container_images(space.run("web", image.name)) == [local(image.name)]
    finally:
        scale(2)
        wait_until(lambda: len(darner.pods("supernode")) == 2, FOUND_SECONDS_MAX)
    wait_until(lambda: connected() == 2 * len(before), FOUND_SECONDS_MAX)
    assert agents_of(darner) == before
