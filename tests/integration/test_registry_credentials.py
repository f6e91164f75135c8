"""The operator's credentials at a real registry (htpasswd): the cache is filled with them, and nobody else is let in by that."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.swarm import messages
from agent.values.credential import Credential
from agent.values.reference import raw_digest
from hack.lab.registry import PASSWORD
from hack.origin import Image
from supernode.tracker import seeds
from tests.docker_registry import DockerRegistry
from tests.swarm import PIECE, Lab, RawAgent, noise, wait_until
from tests.tenants import Runtime

ALICE = Credential("alice", PASSWORD)
WRONG = Credential("alice", PASSWORD + "x")
REPOSITORY = "alice/app"
BODY = noise(3 * PIECE + 5)
IMAGE = Image.of([BODY])
DIGEST = IMAGE.layers[0]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DockerRegistry]:
    registry = DockerRegistry(tmp_path / "registry", ALICE)
    registry.push(REPOSITORY, "1", IMAGE)
    yield registry
    registry.process.kill()


def lab_with(root: Path, registry: DockerRegistry, credential: Credential) -> Lab:
    auth = base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()
    (root / "config.json").write_text(json.dumps({"auths": {registry.address: {"auth": auth}}}))
    lab = Lab(root, registry_credentials=str(root / "config.json"))
    lab.insecure.append(registry.address)
    return lab


def open_blob(agent: RawAgent, registry: DockerRegistry) -> None:
    """As a node does it that has no way to the registry itself."""
    agent.say(messages.Open(1, raw_digest(DIGEST), registry.address, REPOSITORY, b"", [], len(BODY), True))


def test_a_private_blob_comes_into_the_cache_and_readers_are_asked_for_their_own_permission(
    tmp_path: Path, registry: DockerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds, "RESCUE_SECONDS", 0.0)
    with lab_with(tmp_path, registry, ALICE) as lab:
        store = lab.supernode._store
        with RawAgent.joined(lab.channels[0], "n") as agent:
            open_blob(agent, registry)
            wait_until(lambda: DIGEST in store.holdings())
        blob = store.blob(DIGEST)
        assert blob is not None
        assert blob.private
        runtime = Runtime(lab.node())
        try:
            for credential in (None, WRONG):
                answer = runtime.ask(registry, REPOSITORY, f"blobs/{DIGEST}", credential)
                assert answer.status == 401
                assert BODY[:16] not in answer.body
            runtime.pull(registry, REPOSITORY, IMAGE, ALICE)
        finally:
            runtime.close()


def test_credentials_that_the_registry_refuses_bring_nothing_into_the_cache(
    tmp_path: Path, registry: DockerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds, "RESCUE_SECONDS", 0.0)
    with lab_with(tmp_path, registry, WRONG) as lab:
        store = lab.supernode._store
        with RawAgent.joined(lab.channels[0], "n") as agent:
            open_blob(agent, registry)
            wait_until(lambda: any(task.seed_error for task in lab.supernode._tracker.seeds.tasks.values()))
        assert DIGEST not in store.holdings()
