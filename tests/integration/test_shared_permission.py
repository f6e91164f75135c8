"""A cluster asks a registry about one image and one credential once, however many nodes pull it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from agent.download.manager import DownloadManager
from agent.origin.client import Origin as OriginClient
from agent.origin.shown import Permission
from agent.registry.endpoint import Registry
from agent.registry.manifests import Manifests
from agent.registry.target import BlobResource
from agent.storage.store import Store
from agent.swarm import messages, supernodes
from agent.swarm.supernodes import Supernodes
from agent.swarm.tickets import SwarmKey
from agent.values.credential import Credential
from hack.origin import Image
from hack.origin.access import Access
from supernode import verdicts
from tests.swarm import PIECE, REPOSITORY, Lab, noise, wait_until

NODES = 200
IMAGE = Image.of([noise(PIECE, 1), noise(PIECE, 2), noise(PIECE, 3)])
USERS = {f"user-{number}": f"{number:032x}" for number in range(20)}


class Asker:
    """The part of an agent that knows permission: its channel is real, and it has no store."""

    def __init__(self, root: Path, lab: Lab, name: str) -> None:
        self.registry = lab.origin.address
        self.client = OriginClient(lab.insecure, [])
        self.manifests = Manifests(root, self.client, interval=300.0, stale_if_error=3600.0)
        permission = Permission()

        def hello() -> messages.Hello:
            return messages.Hello(messages.VERSION, name, "", "127.0.0.1", 1, 0, [])

        self.swarm = Supernodes(
            tuple(lab.channels),
            hello,
            lambda _: None,
            self.manifests.recall,
            SwarmKey(lab.key),
            on_revoked=permission.refuse,
        )
        self.manifests.shared = self.swarm
        store, downloads = cast(Store, None), cast(DownloadManager, None)
        self.part = Registry(store, downloads, self.manifests, permission, self.swarm, self.client)
        self.swarm.start()

    def pull(self, credential: Credential) -> None:
        manifest = self.manifests.resolve(self.registry, REPOSITORY, "1", credential)
        assert manifest.body == IMAGE.manifest
        for digest in manifest.lists():
            blob = BlobResource(self.registry, REPOSITORY, digest)
            self.part._hear(blob, credential, lambda: False)
            if not self.part._known(blob, credential):
                self.part._judge(blob, credential, None)


@contextmanager
def askers(root: Path, count: int) -> Iterator[tuple[Lab, list[Asker]]]:
    key = root / "key"
    key.write_text("5e" * 32)
    lab = Lab(root, swarm_key_file=str(key), tag_interval=300.0)
    lab.origin.repositories.access = Access(users=USERS, private=frozenset({REPOSITORY}))
    with lab:
        lab.origin.push(REPOSITORY, "1", IMAGE)
        nodes = [Asker(root / f"asker-{number}", lab, f"node-{number}") for number in range(count)]
        try:
            wait_until(lambda: all(channel.up for node in nodes for channel in node.swarm.channels), 120)
            yield lab, nodes
        finally:
            for node in nodes:
                node.swarm.stop()
                node.client.close()


def succeeded(lab: Lab) -> Counter[str]:
    """How often the origin said what was asked for, by method and path: a challenge comes before the first of each node."""
    found = [request for request in lab.origin.requests if request.status in (200, 304)]
    return Counter(f"{request.method} {request.path.removeprefix(f'/v2/{REPOSITORY}/')}" for request in found)


@pytest.fixture(autouse=True)
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a node may wait for longer than a node would, before it asks for itself."""
    monkeypatch.setattr(supernodes, "VERDICT_SECONDS_MAX", 100.0)
    monkeypatch.setattr(verdicts, "ASKER_SECONDS_MAX", 100.0)


def test_two_hundred_nodes_with_one_secret_are_one_question_for_each_blob(tmp_path: Path) -> None:
    """The manifest is asked for once, and its tag confirmed by a HEAD of a second node."""
    credential = Credential("user-0", USERS["user-0"])
    with askers(tmp_path, NODES) as (lab, nodes):
        with ThreadPoolExecutor(NODES) as pool:
            list(pool.map(lambda node: node.pull(credential), nodes))
        blobs = [f"HEAD blobs/{digest}" for digest in IMAGE.blobs]
        assert succeeded(lab) == Counter(["GET manifests/1", "HEAD manifests/1", *blobs])


def test_twenty_nodes_with_twenty_secrets_are_asked_about_once_each(tmp_path: Path) -> None:
    with askers(tmp_path, len(USERS)) as (lab, nodes):
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(lambda node, user: node.pull(Credential(*user)), nodes, USERS.items()))
        blobs = [f"HEAD blobs/{digest}" for digest in IMAGE.blobs]
        assert succeeded(lab) == Counter({question: len(USERS) for question in ["GET manifests/1", *blobs]})
