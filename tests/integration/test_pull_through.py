"""FAULTS 68 and 79, with Debian's docker-registry as the pull-through cache: its own TLS, its own idea of a proxy.

The cache asks for a client certificate, and has its own certificate from an authority that no system knows.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.origin.mirrors import mirror
from agent.origin.tls import TlsFiles
from agent.values.address import Address
from agent.values.errors import OriginError
from hack.lab.process import Process
from hack.origin import Image, Origin
from tests.origins import Authority
from tests.swarm import PIECE, REPOSITORY, Lab, free_address, noise, wait_until

BODY = noise(3 * PIECE)


class Cache:
    """docker-registry on loopback, in front of an origin; `localhost` is the name that it proves."""

    def __init__(self, root: Path, upstream: str) -> None:
        self.root, self.upstream, self.where = root, upstream, free_address()
        self.url = f"https://localhost:{self.where.port}"
        servers, clients = Authority(root, "servers"), Authority(root, "clients")
        self.files = root / "files"
        self.files.mkdir()
        for directory, (certificate, key), ca in (
            (root, servers.certificate("localhost"), None),
            (self.files, clients.certificate("node"), servers.file),
        ):
            (directory / "tls.crt").write_bytes(certificate)
            (directory / "tls.key").write_bytes(key)
            if ca:
                (directory / "ca.crt").write_bytes(ca.read_bytes())
        config = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(root / "storage")}},
            "http": {
                "addr": str(self.where),
                "tls": {"certificate": f"{root}/tls.crt", "key": f"{root}/tls.key", "clientcas": [str(clients.file)]},
            },
            "proxy": {"remoteurl": upstream},
        }
        (root / "config.yml").write_text(json.dumps(config))  # a registry reads YAML, and JSON is YAML
        self.start()

    def start(self) -> None:
        self.process = Process("cache", ["docker-registry", "serve", str(self.root / "config.yml")], self.root)
        self.process.wait_until(lambda: _listens(self.where))


def _listens(where: Address) -> bool:
    try:
        socket.create_connection(where, 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def upstream() -> Iterator[Origin]:
    with Origin() as upstream:
        yield upstream


@pytest.fixture
def cache(upstream: Origin, tmp_path: Path) -> Iterator[Cache]:
    root = tmp_path / "cache"
    root.mkdir()
    cache = Cache(root, upstream.url)
    yield cache
    cache.process.kill()


@contextmanager
def lab_of(root: Path, cache: Cache, *, with_files: bool = True) -> Iterator[Lab]:
    """A lab whose origin is not what the cache gets its images from, so that it shows who was asked."""
    lab = Lab(root / "lab")
    lab.origin.start()  # its port stays the same from now on
    lab.origin.stop()
    lab.mirrors.append(mirror(f"{lab.origin.address}={cache.url}"))
    if with_files:
        lab.registry_tls.append(TlsFiles(f"localhost:{cache.where.port}", cache.files))
    with lab:
        try:
            yield lab
        finally:
            cache.process.kill()  # it keeps connections, and so threads, of the upstream


@pytest.mark.parametrize("supernodes", [0, 1])
def test_images_come_through_a_real_cache_that_wants_a_client_certificate(
    tmp_path: Path, cache: Cache, upstream: Origin, supernodes: int
) -> None:
    with lab_of(tmp_path, cache) as lab:
        if not supernodes:
            lab.stop_supernode()
            lab.channels.clear()
        image = upstream.push(REPOSITORY, "1", Image.of([BODY]))
        nodes = [lab.node() for _ in range(2 if supernodes else 1)]
        assert [node.resolve("1").digest for node in nodes] == [image.digest] * len(nodes)
        assert lab.pull_everywhere(image.layers[0]) == [BODY] * len(nodes)
        assert not lab.origin.requests
        assert nodes[0].client.digest_of(lab.origin.address, REPOSITORY, "1", None) == image.digest
        assert nodes[0].client.blob_size(lab.origin.address, REPOSITORY, image.layers[0], None) == len(BODY)


def test_a_cache_whose_authority_nobody_knows_is_passed_over(tmp_path: Path, cache: Cache, upstream: Origin) -> None:
    with lab_of(tmp_path, cache, with_files=False) as lab:
        image = lab.push(BODY)
        upstream.push(REPOSITORY, "1", image)
        node = lab.node()
        assert node.pull(node.resolve("1").lists()[1]) == BODY
        assert lab.origin.blob_bytes_sent == len(BODY)
        assert not upstream.asked(REPOSITORY)


def test_a_cache_that_goes_away_and_comes_back(tmp_path: Path, cache: Cache, upstream: Origin) -> None:
    with lab_of(tmp_path, cache) as lab:
        image = lab.push(BODY)
        upstream.push(REPOSITORY, "1", image)
        cache.process.kill()
        wait_until(lambda: not _listens(cache.where))
        node = lab.node()
        assert node.resolve("1").digest == image.digest
        assert node.pull(image.layers[0]) == BODY
        cache.start()
        lab.origin.stop()
        second = upstream.push(REPOSITORY, "2", Image.of([noise(PIECE)]))
        assert node.resolve("2").digest == second.digest, "the registry is away, so the cache is asked at once"
        lab.origin.start()


def test_an_image_that_neither_has_is_the_registrys_404(tmp_path: Path, cache: Cache, upstream: Origin) -> None:
    with lab_of(tmp_path, cache) as lab:
        lab.push(BODY)
        upstream.push(REPOSITORY, "1", Image.of([BODY]))
        node = lab.node()
        with pytest.raises(OriginError) as refused:
            node.resolve("9")
        assert refused.value.status == 404
