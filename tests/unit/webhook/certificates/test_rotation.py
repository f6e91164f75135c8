"""The rotation of the certificate, with a clock of its own and a cluster that fails as it is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.values.errors import DarnerError
from webhook.certificates.authority import Lifetimes
from webhook.certificates.rotation import Rotation
from webhook.certificates.stores import DirectoryStore
from webhook.errors import KeyStoreError

DAY = 24 * 3600.0
LIFETIMES = Lifetimes(serving=90 * DAY, authority=3650 * DAY, overlap=600)


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class ClusterThatFails:
    def __init__(self) -> None:
        self.trusted: list[bytes] = []
        self.fails = True

    def publish(self, authorities: bytes) -> None:
        if self.fails:
            raise KeyStoreError("the API server did not answer")
        self.trusted.append(authorities)


def test_a_webhook_that_the_cluster_does_not_trust_yet_is_not_ready(tmp_path: Path) -> None:
    cluster = ClusterThatFails()
    rotation = Rotation(DirectoryStore(str(tmp_path)), ("localhost",), LIFETIMES, cluster.publish)
    assert rotation.unready() == "there is no certificate yet"
    with pytest.raises(DarnerError):
        asyncio.run(rotation.step())
    assert rotation.unready() == "the cluster does not trust the certificate yet"
    cluster.fails = False
    asyncio.run(rotation.step())
    assert rotation.unready() is None
    assert cluster.trusted == [(tmp_path / "ca.crt").read_bytes()]


def test_a_cluster_that_goes_away_later_does_not_make_it_unready_but_an_expired_certificate_does(tmp_path: Path) -> None:
    cluster, clock = ClusterThatFails(), Clock()
    cluster.fails = False
    rotation = Rotation(DirectoryStore(str(tmp_path)), ("localhost",), LIFETIMES, cluster.publish, clock)
    asyncio.run(rotation.step())
    cluster.fails = True
    with pytest.raises(DarnerError):
        asyncio.run(rotation.step())
    assert rotation.unready() is None
    clock.now += 91 * DAY
    assert rotation.unready() == "the certificate has expired"
    with pytest.raises(DarnerError):
        asyncio.run(rotation.step())
    assert rotation.unready() is None


def test_what_fails_is_tried_again_and_is_no_end_of_the_process(tmp_path: Path) -> None:
    async def story() -> None:
        cluster = ClusterThatFails()
        rotation = Rotation(DirectoryStore(str(tmp_path)), ("localhost",), LIFETIMES, cluster.publish)
        running = asyncio.create_task(rotation.run(0.01))
        await asyncio.sleep(0.1)
        assert rotation.unready()
        cluster.fails = False
        async with asyncio.timeout(5):
            while rotation.unready():
                await asyncio.sleep(0.01)
        assert not running.done()
        running.cancel()

    asyncio.run(story())


def test_two_replicas_serve_certificates_of_one_authority(tmp_path: Path) -> None:
    async def story() -> None:
        replicas = [Rotation(DirectoryStore(str(tmp_path)), ("localhost",), LIFETIMES) for _ in range(4)]
        await asyncio.gather(*(replica.step() for replica in replicas))
        assert not any(replica.unready() for replica in replicas)

    asyncio.run(story())
    assert (tmp_path / "ca.crt").read_bytes().count(b"BEGIN") == 1
