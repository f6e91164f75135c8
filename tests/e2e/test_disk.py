"""FAULTS 69: a node whose disk somebody else fills. Its agent's store makes room before the kubelet would, and pods start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hack.cluster import Cluster
from hack.cluster.api import Api
from hack.lab.process import wait_until
from tests.e2e.release import NAMESPACE, Release
from tests.e2e.space import Space, container_images, local

NODE = "n1"
DISK_BYTES = 96_000_000
KUBELET_FREE_PERCENT = 16
"""What kubelets want is 15, for images, and 10."""
FULL_PERCENT = 12
"""Free, when somebody else has had his way."""
LOOK_SECONDS = 10.0
"""A kubelet looks every 10 s."""
PLACE = "/var/lib/darner"
"""agent.store.hostPath; the agent's store is a directory in it."""


class Disk:
    """A small filesystem for the store of one node's agent, and for others."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def mount(self) -> None:
        self._run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "none", PLACE)

    def unmount(self) -> None:
        self._run("umount", "-l", PLACE)

    @property
    def free_percent(self) -> float:
        free, blocks = map(int, self._run("stat", "--file-system", "--format", "%a %b", PLACE).split())
        return free * 100 / blocks

    @property
    def blobs(self) -> list[str]:
        return self._run("ls", f"{PLACE}/store/blobs/sha256").split()

    def fill(self, percent: float) -> None:
        """Another process writes until so much is free."""
        free = max(0, int(DISK_BYTES * (self.free_percent - percent) / 100))
        self._run("sh", "-c", f"head -c {free} /dev/zero >>{PLACE}/somebody-else")

    def _run(self, *argv: str) -> str:
        return self._cluster.run(NODE, argv)


@pytest.fixture
def disk(darner: Release, cluster: Cluster, api: Api) -> Iterator[Disk]:
    """The agent of the node has it from its start."""
    disk = Disk(cluster)
    disk.mount()
    try:
        _begin_anew(darner, api)
        yield disk
    finally:
        disk.unmount()
        _begin_anew(darner, api)


def _begin_anew(darner: Release, api: Api) -> None:
    """The node's agent is replaced: a container keeps the mounts that were there when it was made."""
    old = darner.agents()[NODE]["metadata"]
    api.delete("Pod", NAMESPACE, old["name"])
    wait_until(lambda: NODE in darner.agents() and darner.agents()[NODE]["metadata"]["uid"] != old["uid"], 60)
    darner.wait_ready()


def test_a_store_whose_disk_others_fill_makes_room_within_seconds_and_pods_start(
    darner: Release, disk: Disk, space: Space
) -> None:
    first = space.push("first", layers=(4_000_000,) * 3)
    space.run("first", first.name, node=NODE)
    wait_until(lambda: len(disk.blobs) >= len(first.new_blobs))
    before = disk.blobs
    second, third = space.push("second", layers=(4_000_000,)), space.push("third", layers=(4_000_000,))

    disk.fill(FULL_PERCENT)
    space.pod("second", second.name, node=NODE)
    wait_until(lambda: disk.free_percent > KUBELET_FREE_PERCENT, LOOK_SECONDS)
    assert set(before) - set(disk.blobs), "what nobody used for longest has gone"
    assert container_images(space.wait_running("second")) == [local(second.name)]

    while disk.blobs:  # nothing is left that could go
        disk.fill(FULL_PERCENT)
        wait_until(lambda: not disk.blobs or disk.free_percent > KUBELET_FREE_PERCENT, LOOK_SECONDS)
    disk.fill(FULL_PERCENT)
    before_third = darner.received(NODE)["origin"]
    assert container_images(space.run("third", third.name, node=NODE)) == [local(third.name)]
    assert darner.received(NODE)["origin"] - before_third == sum(third.new_blobs.values()), "past a disk that has no room"
    assert disk.free_percent > FULL_PERCENT - 1
