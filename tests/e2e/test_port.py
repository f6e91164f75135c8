"""A node on which somebody else has the port that belongs to the agent."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from hack.cluster import Cluster
from hack.cluster.network import NAMESPACES
from hack.lab.process import wait_until
from tests.e2e.release import NAMESPACE, Release
from tests.e2e.space import Space, container_images

# Takes the port as soon as it is free, before the kubelet has started the next agent; holds it until its input ends.
_SQUATTER = """
import socket, sys, time
while True:
    try:
        taken = socket.create_server(("127.0.0.1", 65001), reuse_port=False)
        break
    except OSError:
        time.sleep(0.001)
print("taken", flush=True)
sys.stdin.read()
"""


def test_the_agents_log_and_its_pods_status_say_so_in_one_line_and_pods_are_admitted_unchanged(
    darner: Release, space: Space, cluster: Cluster
) -> None:
    image = space.push()
    try:
        with port_taken(cluster, "n1"):
            darner.api.delete("Pod", NAMESPACE, darner.agents()["n1"]["metadata"]["name"])
            wait_until(lambda: _ended(darner))
            agent = darner.agents()["n1"]["metadata"]["name"]
            (line,) = darner.api.log(NAMESPACE, agent, 10).splitlines()
            assert "127.0.0.1:65001" in line
            assert _ended(darner).strip() == line
            wait_until(lambda: darner.metric("webhook", "darner_webhook_agents", state="ready") == 2 * 2)
            assert container_images(space.run("web", image.name, node="n1")) == [image.name]
    finally:
        darner.api.delete("Pod", NAMESPACE, darner.agents()["n1"]["metadata"]["name"])  # and with it the kubelet's patience
        darner.wait_ready()


def _ended(darner: Release) -> str:
    """What the status of the agent says of how it ended; nothing, while it has not."""
    statuses = darner.agents()["n1"]["status"].get("containerStatuses", []) if "n1" in darner.agents() else []
    ends = [status[when].get("terminated", {}) for status in statuses for when in ("state", "lastState")]
    return next((end["message"] for end in ends if end.get("message")), "")


@contextlib.contextmanager
def port_taken(cluster: Cluster, node: str) -> Iterator[None]:
    # In the node's network, with this machine's Python: a node need not have any.
    command = ["nsenter", f"--net={NAMESPACES / cluster.layout.namespace(node)}", "--", sys.executable, "-c", _SQUATTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as squatter:
        try:
            yield
        finally:
            squatter.communicate()
