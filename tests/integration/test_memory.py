"""The agent's memory while it serves a blob of 2 GiB: to several readers while it arrives, and from its store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hack.lab import Lab
from hack.lab.darner import REGISTRY_PORT, Agent
from hack.origin import Image, Origin

BLOB_BYTES = 2 << 30
MEMORY_BYTES_MAX = 150 << 20
READERS = 2


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


def read_digest(agent: Agent, path: str) -> str:
    """The digest of all that comes, read into one buffer."""
    connection = agent.connection(agent.host.port(REGISTRY_PORT))
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    while count := answer.readinto(buffer):
        digest.update(buffer[:count])
    connection.close()
    return f"sha256:{digest.hexdigest()}"


@pytest.mark.timeout(180)
def test_memory_stays_under_150_mib_while_a_blob_of_2_gib_is_served(blob: Path) -> None:
    image = Image.of([blob])
    digest = image.layers[0]
    with Lab() as lab, Origin() as origin:
        origin.push("team/app", "1", image)
        agent = Agent(lab.loopback("node"), insecure_registries=[origin.address])
        repository = f"/v2/{origin.address.replace(':', '_')}/team/app"
        manifest = agent.connection(agent.host.port(REGISTRY_PORT))
        manifest.request("GET", f"{repository}/manifests/1")
        assert manifest.getresponse().status == 200
        manifest.close()

        with ThreadPoolExecutor(READERS) as pool:
            arriving = list(pool.map(lambda _: read_digest(agent, f"{repository}/blobs/{digest}"), range(READERS)))
        assert arriving == [digest] * READERS
        assert origin.blob_bytes_sent == BLOB_BYTES
        assert agent.process.memory_bytes("VmHWM") < MEMORY_BYTES_MAX

        assert read_digest(agent, f"{repository}/blobs/{digest}") == digest, "now from the store"
        assert origin.blob_bytes_sent == BLOB_BYTES
        assert agent.process.memory_bytes("VmHWM") < MEMORY_BYTES_MAX
