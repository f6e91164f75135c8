"""A node on which somebody else has the port that belongs to the agent."""

from __future__ import annotations

from hack.cluster import Cluster
from hack.cluster.api import RefusedError
from hack.lab.process import wait_until
from tests.e2e.release import NAMESPACE, Release
from tests.e2e.space import Space, container_images
from tests.e2e.trouble import port_taken


def test_the_agents_log_and_its_pods_status_say_so_in_one_line_and_pods_are_admitted_unchanged(
    darner: Release, space: Space, cluster: Cluster
) -> None:
    image = space.push()
    try:
        with port_taken(cluster, "n1"):
            darner.api.delete("Pod", NAMESPACE, darner.agents()["n1"]["metadata"]["name"])
            lives: list[tuple[str, str]] = []
            wait_until(lambda: lives or lives.extend(filter(None, [_last_life(darner)])))
            said, written = lives[0]
            (line,) = written.splitlines()
            assert "127.0.0.1:65001" in line
            assert said.strip() == line
            wait_until(lambda: darner.metric("webhook", "darner_webhook_agents", state="ready") == 2 * 2)
            assert container_images(space.run("web", image.name, node="n1")) == [image.name]
    finally:
        darner.api.delete("Pod", NAMESPACE, darner.agents()["n1"]["metadata"]["name"])  # and with it the kubelet's patience
        darner.wait_ready()


def _last_life(darner: Release) -> tuple[str, str] | None:
    """Of one start of the agent that has ended: what the pod's status says of its end, and all that it has written.

    None while there is none, while the kubelet shows nothing of its log, or when the next one began between our looks: the log is
    then no longer, or not yet, the one that the status tells of.
    """
    before = _ended(darner)
    if before is None:
        return None
    agent, _container, message, is_previous = before
    try:
        written = darner.api.log(NAMESPACE, agent, 10, is_previous)
    except RefusedError:
        return None
    return (message, written) if written and _ended(darner) == before else None


def _ended(darner: Release) -> tuple[str, str, str, bool] | None:
    """The agent's pod, its container that ended last, what its status says of it, and whether another one has followed."""
    agent = darner.agents().get("n1")
    if agent is None:
        return None
    for status in agent["status"].get("containerStatuses", []):
        for when in ("state", "lastState"):
            end = status[when].get("terminated", {})
            if end.get("message"):
                return agent["metadata"]["name"], end["containerID"], end["message"], when == "lastState"
    return None
