"""The origin is a source: a rollout is as fast as direct pulls however slowly supernodes send, and private images are shared."""

from __future__ import annotations

import time

import pytest

from hack.cluster import Cluster
from hack.cluster.api import Api
from hack.cluster.origin import NAME, PASSWORD, PRIVATE_TLS, USER
from hack.lab.process import wait_until
from tests.e2e.release import Release
from tests.e2e.space import Pushed, Space, container_images, local

LAYERS = (16_000_000, 9_000_000)
NODE_MBIT, SUPERNODE_MBIT = 100, 10
ROLLOUT_SECONDS_MAX = 60
TIMES_DIRECT_MAX = 3.0
"""1.3 on a machine of one's own; most of both is the start of pods."""
SENT_MAX = 1.05
"""Of each blob."""
LOG_SECONDS_MAX = 20


@pytest.mark.parametrize("who", ["private", "public"])
def test_a_daemonset_needs_no_supernodes_link_and_takes_each_byte_from_the_origin_once(
    darner: Release, space: Space, plain_space: Space, cluster: Cluster, api: Api, who: str
) -> None:
    nodes = list(cluster.plan.nodes)
    directly, through = (_pushed(place, api) for place in (plain_space, space))
    for node in nodes:
        cluster.shape(node, NODE_MBIT * 1_000_000)
    try:
        direct_seconds = _rolled_out(plain_space, _name(directly, who), len(nodes))
        with darner.slow_supernodes(SUPERNODE_MBIT * 1_000_000):
            seconds = _rolled_out(space, _name(through, who), len(nodes))
    finally:
        for node in nodes:
            cluster.shape(node, 0)
    wait_until(lambda: _is_logged(space, through), LOG_SECONDS_MAX)
    sent = space.sent_by_origin(through)
    shares = {digest: sent[digest] / size for digest, size in through.new_blobs.items()}
    ratio, told = seconds / direct_seconds, ", ".join(f"{share:.3f}" for share in shares.values())
    print(f"{who}: {seconds:.1f} s, {ratio:.2f} times a direct one; the origin sent of each blob {told}")  # noqa: T201 (`-rP` shows it)
    assert [container_images(pod) for pod in space.pods("web")] == [[local(_name(through, who))]] * len(nodes)
    assert max(shares.values()) <= SENT_MAX
    assert ratio <= TIMES_DIRECT_MAX


def _pushed(space: Space, api: Api) -> Pushed:
    """An image, and the secret of who may pull it where it is private, for all pods of this namespace."""
    space.pull_secret("private", f"{NAME}:{PRIVATE_TLS}", USER, PASSWORD)
    api.merge("ServiceAccount", space.name, "default", {"imagePullSecrets": [{"name": "private"}]})
    return space.push(layers=LAYERS)


def _name(image: Pushed, who: str) -> str:
    return image.private if who == "private" else image.name


def _rolled_out(space: Space, image: str, nodes: int) -> float:
    """Seconds until a DaemonSet's pods run on all nodes."""
    began = time.monotonic()
    space.workload("DaemonSet", "web", image)
    space.wait_all_running("web", nodes, ROLLOUT_SECONDS_MAX)
    return time.monotonic() - began


def _is_logged(space: Space, image: Pushed) -> bool:
    """An answer is logged when it has ended."""
    sent = space.sent_by_origin(image)
    return all(sent.get(digest, 0) >= size for digest, size in image.new_blobs.items())
