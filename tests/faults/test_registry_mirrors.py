"""FAULTS 68, as runtimes and supernodes see it: a pull-through cache that is up, down, refusing or wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.origin.mirrors import mirror
from agent.values.errors import DigestError
from hack.origin import Access, Fault, Origin
from supernode.tracker.seeds import FAILURE_SECONDS
from tests.endpoint import DIGEST, IMAGE, LAYER, REPOSITORY, Endpoint, push
from tests.swarm import PIECE, Lab, noise

BODY = noise(3 * PIECE)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        push(origin)
        yield origin


@pytest.fixture
def cache() -> Iterator[Origin]:
    with Origin() as cache:
        cache.push(f"hub/{REPOSITORY}", "1", IMAGE)
        yield cache


@pytest.fixture
def endpoint(origin: Origin, cache: Origin, tmp_path: Path) -> Iterator[Endpoint]:
    with Endpoint(tmp_path, origin, mirrors=[mirror(f"{origin.address}={cache.url}/hub")]) as endpoint:
        yield endpoint


def pulled(endpoint: Endpoint) -> None:
    assert endpoint.ask("manifests/1", "HEAD").status == 200
    assert endpoint.ask("manifests/1").body == IMAGE.manifest
    assert endpoint.ask(f"manifests/{IMAGE.digest}").body == IMAGE.manifest
    assert endpoint.ask(f"blobs/{DIGEST}", "HEAD").headers["Content-Length"] == str(len(LAYER))
    assert endpoint.ask(f"blobs/{DIGEST}").body == LAYER


def test_a_runtime_pulls_from_the_mirror_alone(endpoint: Endpoint, origin: Origin) -> None:
    pulled(endpoint)
    assert not origin.requests


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_a_mirror_that_refuses_or_fails_is_not_seen_by_a_runtime(endpoint: Endpoint, cache: Origin, status: int) -> None:
    cache.fail(Fault(status=status))
    pulled(endpoint)


def test_a_mirror_that_is_gone_is_not_seen_by_a_runtime(endpoint: Endpoint, cache: Origin, origin: Origin) -> None:
    cache.stop()
    pulled(endpoint)
    assert origin.blob_bytes_sent == len(LAYER)


def test_a_mirror_that_is_lost_in_a_blob_is_not_seen_by_a_runtime(endpoint: Endpoint, cache: Origin) -> None:
    cache.fail(Fault(path="/blobs/", methods=frozenset({"GET"}), cut_after=len(LAYER) // 2))
    pulled(endpoint)


def test_a_mirror_that_sends_other_bytes_costs_one_try(endpoint: Endpoint, cache: Origin) -> None:
    """The whole is known to be wrong at its end; the next try is the registry's."""
    cache.fail(Fault(path="/blobs/", flip_byte=5))
    endpoint.ask("manifests/1")
    with pytest.raises(Exception, match=r"(?i)reset|incomplete|closed|read"):
        assert endpoint.ask(f"blobs/{DIGEST}").status == 200
    assert endpoint.ask(f"blobs/{DIGEST}").body == LAYER


def test_nobody_is_charged_when_neither_the_mirror_nor_the_registry_answers(
    endpoint: Endpoint, cache: Origin, origin: Origin
) -> None:
    cache.stop()
    origin.stop()
    with endpoint.connect() as sock:
        sock.sendall(f"GET {endpoint.prefix}/manifests/1 HTTP/1.0\r\n\r\n".encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 502 \r\n")


def test_a_credential_that_the_registry_wants_is_asked_for_and_goes_to_the_registry_alone(tmp_path: Path) -> None:
    """The mirror has the image for nobody, so the registry's challenge is what the runtime hears."""
    users = Access({"alice": "s3cret"}, frozenset({REPOSITORY}))
    nobody = Access({}, frozenset({f"hub/{REPOSITORY}"}))
    alice = {"Authorization": "Basic YWxpY2U6czNjcmV0"}
    with Origin(access=users) as origin, Origin(access=nobody) as cache:
        push(origin)
        cache.push(f"hub/{REPOSITORY}", "1", IMAGE)
        with Endpoint(tmp_path, origin, mirrors=[mirror(f"{origin.address}={cache.url}/hub")]) as endpoint:
            assert endpoint.ask("manifests/1").status == 401
            assert endpoint.ask("manifests/1", **alice).body == IMAGE.manifest
            assert endpoint.ask(f"blobs/{DIGEST}", **alice).body == LAYER
            assert endpoint.ask(f"blobs/{DIGEST}").status == 401, "what is here is not for those who may not have it"
            assert not any(request.headers["Authorization"] for request in cache.requests)


def lab_before(root: Path, cache: Origin) -> Lab:
    """A lab whose origin has a mirror."""
    lab = Lab(root)
    lab.origin.start()  # its port stays the same from now on
    lab.origin.stop()
    lab.mirrors.append(mirror(f"{lab.origin.address}={cache.url}/hub"))
    return lab


@pytest.mark.parametrize("fault", [None, Fault(status=503), Fault(path="/blobs/", cut_after=PIECE)], ids=["up", "down", "lost"])
def test_the_supernode_seeds_from_the_mirror_and_from_the_registry_without_it(tmp_path: Path, fault: Fault | None) -> None:
    with Origin() as cache, lab_before(tmp_path, cache) as lab:
        image = lab.push(BODY)
        cache.push(f"hub/{REPOSITORY}", "1", image)
        if fault:
            cache.fail(fault)
        nodes = [lab.node(), lab.node()]
        assert all(node.resolve("1").digest == image.digest for node in nodes)
        assert lab.pull_everywhere(image.layers[0]) == [BODY, BODY]
        if fault is None:
            assert not lab.origin.requests
            assert cache.blob_bytes_sent == len(BODY)
        else:
            assert lab.origin.blob_bytes_sent <= len(BODY)


def test_a_mirror_that_sends_whole_blobs_only_is_asked_for_those_and_the_registry_for_none(tmp_path: Path) -> None:
    """As caches do while they get a blob themselves: nodes that were to get a part of it each get all of it from one of them."""
    with Origin() as cache, lab_before(tmp_path, cache) as lab:
        image = lab.push(BODY)
        cache.push(f"hub/{REPOSITORY}", "1", image)
        cache.fail(Fault(path="/blobs/", ignores_range=True))
        nodes = [lab.node() for _ in range(3)]
        assert [node.resolve("1").digest for node in nodes] == [image.digest] * 3
        assert lab.pull_everywhere(image.layers[0]) == [BODY] * 3
        assert not lab.origin.requests


def test_a_mirror_that_sends_the_supernode_other_bytes_is_not_asked_again(tmp_path: Path) -> None:
    with Origin() as cache, lab_before(tmp_path, cache) as lab:
        image = lab.push(BODY)
        cache.push(f"hub/{REPOSITORY}", "1", image)
        cache.fail(Fault(path="/blobs/", flip_byte=5))
        node = lab.node()
        with pytest.raises(DigestError):
            node.pull(image.layers[0])
        asked = len(cache.asked("/blobs/", "GET"))
        time.sleep(FAILURE_SECONDS)  # so long the supernode remembers that it failed
        assert node.pull(image.layers[0]) == BODY
        assert len(cache.asked("/blobs/", "GET")) == asked
