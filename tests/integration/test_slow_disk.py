"""A pull of 1 GiB on a node with little memory and a slow disk: it ends, right, and others on that node go on meanwhile.

How long anything takes is told in docs/decisions/0038: here is what has to come, and in which order.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from hack.lab import Lab, wait_until
from hack.lab.darner import REGISTRY_PORT, Agent
from hack.lab.disk import MemoryLimit, why_not
from hack.origin import Image, Origin

pytestmark = [pytest.mark.needs_root, pytest.mark.skipif(bool(why_not()), reason=why_not()), pytest.mark.timeout(240)]

MEBIBYTE = 1 << 20
MEMORY = 128 * MEBIBYTE
DISK = 3 << 30
BIG = 1 << 30
SMALL = 8 * MEBIBYTE
DISK_RATE = 64 * MEBIBYTE
"""For each second, so that the big blob takes the disk a quarter of a minute, and only an eighth of it has room in memory."""
HEALTH_SECONDS = 0.5
SECONDS = 120.0


class Site:
    """An origin with a big and a small blob, and an agent whose store is on the slow disk."""

    def __init__(self, lab: Lab, origin: Origin, big_bytes: int, rate: int, memory: int | None) -> None:
        self.origin = origin
        big, small = lab.directory / "big", os.urandom(SMALL)
        with big.open("wb") as file:  # sparse; every piece of it differs in its first bytes
            for offset in range(0, big_bytes, MEBIBYTE):
                file.seek(offset)
                file.write(offset.to_bytes(8))
            file.truncate(big_bytes)
        image = Image.of([big, small])
        self.big, self.small = image.layers
        origin.push("team/app", "1", image)
        host = lab.loopback("node")
        self.disk = lab.disk("disk", DISK, rate)
        self.limit = host.memory = MemoryLimit(lab.name, memory) if memory else None
        self.store = self.disk / "store"
        options = ("--store", str(self.store), "--store-quota", str(2 << 30), "--store-free", "0")
        self.agent = Agent(host, insecure_registries=[origin.address], arguments=options)
        self._prefix = f"/v2/{origin.address.replace(':', '_')}/team/app"
        self.read("manifests/1")

    def read(self, path: str) -> str:
        """The digest of what comes."""
        with contextlib.closing(self.agent.connection(self.agent.host.port(REGISTRY_PORT))) as connection:
            assert connection.sock is not None
            connection.sock.settimeout(SECONDS)
            connection.request("GET", f"{self._prefix}/{path}")
            answer = connection.getresponse()
            assert answer.status == 200
            hasher, buffer = hashlib.sha256(), memoryview(bytearray(MEBIBYTE))
            while count := answer.readinto(buffer):
                hasher.update(buffer[:count])
            return f"sha256:{hasher.hexdigest()}"

    def pull(self, digest: str) -> str:
        return self.read(f"blobs/{digest}")

    def told_of(self, digest: str) -> list[str]:
        """The lines of its pulls."""
        return [line for line in self.agent.process.err.read_text().splitlines() if "agent.pulls" in line and digest in line]

    def kept(self, digest: str) -> bool:
        return (self.store / "blobs" / "sha256" / digest.removeprefix("sha256:")).exists()


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


def test_a_blob_of_1_gib_comes_whole_on_128_mib_and_a_slow_disk_and_another_pull_and_health_go_on(
    lab: Lab, origin: Origin
) -> None:
    site = Site(lab, origin, BIG, DISK_RATE, MEMORY)
    assert site.limit
    answers: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        big = pool.submit(site.pull, site.big)
        wait_until(lambda: site.agent.received_bytes()["origin"] > MEMORY, SECONDS)
        assert site.pull(site.small) == site.small
        is_beside = not big.done()
        while wait({big}, HEALTH_SECONDS).not_done:
            answers.append(site.agent.get("/healthz")[0])
        assert big.result() == site.big
    assert is_beside, "the small blob did not wait for the big one"
    assert set(answers) == {200}
    wait_until(lambda: site.kept(site.big) and site.kept(site.small), SECONDS)
    assert site.agent.process.running
    assert site.limit.kills == 0
    assert site.limit.used_max <= MEMORY
    assert origin.blob_bytes_sent == BIG + SMALL, "each once"


def test_a_pull_is_over_before_a_slow_disk_has_all_of_it_and_the_next_one_does_not_ask_the_origin(
    lab: Lab, origin: Origin
) -> None:
    size = 128 * MEBIBYTE
    site = Site(lab, origin, size, 16 * MEBIBYTE, None)
    assert site.pull(site.big) == site.big
    assert not site.kept(site.big), "it takes the disk eight seconds"
    wait_until(lambda: site.told_of(site.big), SECONDS)
    assert [line.endswith(": pulled") for line in site.told_of(site.big)] == [True]
    assert not site.kept(site.big), "nor did the pull's end wait for the disk"
    assert site.pull(site.big) == site.big
    assert origin.blob_bytes_sent == size
    wait_until(lambda: site.kept(site.big), SECONDS)
