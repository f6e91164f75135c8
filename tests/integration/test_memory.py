"""The agent's memory while it serves a blob of 2 GiB: to several readers while it arrives, and from its store."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hack.lab import Lab
from hack.lab.darner import REGISTRY_PORT, Agent
from hack.origin import Image, Origin

BLOB_BYTES = 2 << 30
MEMORY_BYTES_MAX = 150 << 20


@pytest.fixture(scope="module")
def blob(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Sparse, so that the origin reads it from nowhere; every piece of it differs in its first bytes."""
    path = tmp_path_factory.mktemp("blob") / "blob"
    with path.open("wb") as file:
        for offset in range(0, BLOB_BYTES, 1 << 20):
            file.seek(offset)
            file.write(offset.to_bytes(8))
        file.truncate(BLOB_BYTES)
    yield path
    path.unlink()


def read(agent: Agent, path: str, take: Callable[[memoryview], object] = len) -> int:
    """Read all that comes into one buffer, which is all that `take` gets to see; the number of bytes."""
    with contextlib.closing(agent.connection(agent.host.port(REGISTRY_PORT))) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        buffer, total = memoryview(bytearray(1 << 20)), 0
        while count := answer.readinto(buffer):
            take(buffer[:count])
            total += count
        return total


@pytest.mark.timeout(180)
def test_memory_stays_under_150_mib_while_a_blob_of_2_gib_is_served(blob: Path) -> None:
    image = Image.of([blob])
    with Lab() as lab, Origin() as origin:
        origin.push("team/app", "1", image)
        agent = Agent(lab.loopback("node"), insecure_registries=[origin.address])
        repository = f"/v2/{origin.address.replace(':', '_')}/team/app"
        assert read(agent, f"{repository}/manifests/1") == len(image.manifest)
        path = f"{repository}/blobs/{image.layers[0]}"

        digest = hashlib.sha256()
        with ThreadPoolExecutor(2) as pool:
            one, another = pool.submit(read, agent, path, digest.update), pool.submit(read, agent, path)
            assert (one.result(), another.result()) == (BLOB_BYTES, BLOB_BYTES)
        assert f"sha256:{digest.hexdigest()}" == image.layers[0]
        assert origin.blob_bytes_sent == BLOB_BYTES
        assert agent.process.memory_bytes("VmHWM") < MEMORY_BYTES_MAX

        origin.stop()
        assert read(agent, path) == BLOB_BYTES, "now from the store"
        assert agent.process.memory_bytes("VmHWM") < MEMORY_BYTES_MAX
