"""Row 69, on a filesystem of its own that somebody else fills: the store makes room within seconds, and pulls go on."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.gc import GarbageCollector
from agent.registry.manifests import Manifests
from agent.values.space import Percent
from hack.origin import Fault, Origin
from tests.endpoint import Endpoint, push, wait_until
from tests.swarm import noise

pytestmark = pytest.mark.needs_root

MEBIBYTE = 1 << 20
DISK = 64 * MEBIBYTE
LAYERS = [noise(2 * MEBIBYTE, seed) for seed in range(6)]
SECONDS = 10.0
"""A kubelet looks every 10 s."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "none", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture
def endpoint(disk: Path, origin: Origin) -> Iterator[Endpoint]:
    (disk / "store").mkdir(mode=0o700)
    with Endpoint(disk / "store", origin, quota=Percent(20), free=Percent(20)) as endpoint:
        collector = GarbageCollector(
            endpoint.store, Manifests(disk / "store", endpoint.client, interval=30.0, stale_if_error=60.0)
        )
        collector.start()
        yield endpoint
        collector.stop()


def free_percent(disk: Path) -> float:
    usage = shutil.disk_usage(disk)
    return usage.free * 100 / usage.total


def fill(disk: Path, percent: float) -> None:
    """Somebody else writes until so much is free."""
    with open(disk / "somebody-else", "ab") as file:
        while free_percent(disk) > percent:
            file.write(bytes(64 << 10))
            file.flush()


def test_the_store_gives_its_room_to_others_who_fill_the_disk_and_pulls_go_on(
    endpoint: Endpoint, origin: Origin, disk: Path
) -> None:
    """FAULTS 69: somebody else fills the disk to 12 % free."""
    image = push(origin, *LAYERS)
    assert endpoint.ask("manifests/1").status == 200
    for digest, layer in zip(image.layers, LAYERS, strict=True):
        assert endpoint.ask(f"blobs/{digest}").body == layer
    wait_until(lambda: len(endpoint.store.holdings()) == 6)
    fill(disk, 12)
    wait_until(lambda: free_percent(disk) > 20, SECONDS)
    assert list(endpoint.store.holdings()) == image.layers[3:], "12 MiB, 20 % of the disk, less what it takes"
    fill(disk, 12)
    wait_until(lambda: not endpoint.store.holdings(), SECONDS)
    fill(disk, 12)
    for digest, layer in zip(image.layers, LAYERS, strict=True):
        assert endpoint.ask(f"blobs/{digest}").body == layer, "past a disk that has no room"
    assert free_percent(disk) > 11
    os.remove(disk / "somebody-else")
    assert endpoint.ask(f"blobs/{image.layers[0]}").body == LAYERS[0]
    wait_until(lambda: list(endpoint.store.holdings()) == image.layers[:1])


def test_a_pull_that_is_under_way_when_the_disk_fills_goes_on_past_it(endpoint: Endpoint, origin: Origin, disk: Path) -> None:
    """FAULTS 69."""
    layer = noise(12 * MEBIBYTE, 9)
    digest = push(origin, layer).layers[0]
    assert endpoint.ask("manifests/1").status == 200
    origin.fail(Fault(path=digest, bytes_per_second=2 * MEBIBYTE), times=1)
    bodies: list[bytes] = []
    pulling = threading.Thread(target=lambda: bodies.append(endpoint.ask(f"blobs/{digest}").body))
    pulling.start()
    time.sleep(1.0)
    fill(disk, 12)
    pulling.join(30)
    assert bodies == [layer]
    assert not endpoint.store.holdings()
    wait_until(lambda: not os.listdir(endpoint.store.root / "partial"), SECONDS)
