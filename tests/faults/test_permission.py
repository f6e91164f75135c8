"""FAULTS 22, 88, 89: a tenant is given what his registry gives him, and learns nothing of what others have."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.registry import endpoint
from agent.registry.target import BlobResource
from agent.values.errors import OriginError
from hack.origin import Fault, Image
from supernode.tracker import seeds
from tests.swarm import PIECE, noise, wait_until
from tests.tenants import ALICE, BOB, HERS, HIS, Runtime, Tenants, asked

LAYER = noise(5 * PIECE + 77)
HER_IMAGE = Image.of([LAYER], {"Env": ["SECRET=1"]})
HIS_IMAGE = Image.of([noise(PIECE, 9)])
DIGEST = HER_IMAGE.layers[0]
UNKNOWN = "sha256:" + "4" * 64


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tenants]:
    """Alice has pulled her image on the first node, and on the second one nobody has pulled anything.

    The first node may give her blobs to others at once: that a supernode could not get them itself is forgotten.
    """
    monkeypatch.setattr(seeds, "FAILURE_SECONDS", 0.0)
    with Tenants(tmp_path) as lab:
        lab.origin.push(HERS, "1", HER_IMAGE)
        lab.origin.push(HIS, "1", HIS_IMAGE)
        lab.evil.push(HIS, "1", HIS_IMAGE)
        lab.claim(len(LAYER))
        lab.runtime().pull(lab.origin, HERS, HER_IMAGE, ALICE)
        lab.runtime()
        yield lab


@pytest.fixture(params=["on her node", "on another node"])
def runtime(request: pytest.FixtureRequest, lab: Tenants) -> Runtime:
    return lab.runtimes[request.param == "on another node"]


@pytest.mark.parametrize("path", ["manifests/1", f"manifests/{HER_IMAGE.digest}", f"blobs/{DIGEST}"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_another_tenant_is_refused_by_tag_by_digest_and_through_a_peer(
    lab: Tenants, runtime: Runtime, path: str, method: str
) -> None:
    """FAULTS 22: the origin is asked with his credential, and its word is passed on."""
    answer = runtime.ask(lab.origin, HERS, path, BOB, method)
    assert answer.status == 401
    assert lab.origin.requests[-1].headers["Authorization"] == BOB.header
    assert runtime.ask(lab.origin, HERS, path, None, method).status == 401


@pytest.mark.parametrize("path", ["manifests/{}", "blobs/{}"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_another_repository_does_not_tell_what_is_cached(lab: Tenants, runtime: Runtime, path: str, method: str) -> None:
    """FAULTS 22: Bob asks his own repository for what is Alice's, and for what nobody has."""
    there = HER_IMAGE.digest if path.startswith("manifests") else DIGEST
    refused = [runtime.ask(lab.origin, HIS, path.format(digest), BOB, method) for digest in (there, UNKNOWN)]
    assert [answer.status for answer in refused] == [404, 404]
    assert refused[0].headers == refused[1].headers
    assert refused[0].body.replace(there.encode(), b"") == refused[1].body.replace(UNKNOWN.encode(), b"")


def test_the_refusal_of_her_repository_is_the_same_for_what_is_there_and_what_is_not(lab: Tenants, runtime: Runtime) -> None:
    """FAULTS 22."""
    refused = [runtime.ask(lab.origin, HERS, f"blobs/{digest}", BOB) for digest in (DIGEST, UNKNOWN)]
    assert refused[0] == refused[1]


def test_a_registry_that_claims_a_blob_has_to_show_its_bytes(lab: Tenants, runtime: Runtime) -> None:
    """FAULTS 88: HEAD says 200, GET has nothing."""
    refused = [runtime.ask(lab.evil, HIS, f"blobs/{digest}", BOB) for digest in (DIGEST, UNKNOWN)]
    assert [answer.status for answer in refused] == [404, 404]
    assert refused[0].headers == refused[1].headers


def test_a_registry_that_sends_other_bytes_gets_none_of_hers(lab: Tenants, runtime: Runtime) -> None:
    """FAULTS 88: its own bytes are passed through, as if hers were not there, and never end cleanly."""
    lab.evil.push(HIS, "2", Image(b"{}", {DIGEST: noise(len(LAYER), 66)}))
    with pytest.raises((http.client.IncompleteRead, ConnectionError)) as broken:
        runtime.ask(lab.evil, HIS, f"blobs/{DIGEST}", BOB)
    assert LAYER[:100] not in getattr(broken.value, "partial", b"")


def test_a_claimed_blob_has_the_size_that_its_own_registry_says(lab: Tenants, runtime: Runtime) -> None:
    """FAULTS 88: asked again and again, HEAD never tells the size of what is here."""
    lab.evil._habits.clear()
    lab.claim(17)
    for _ in range(3):
        answer = runtime.ask(lab.evil, HIS, f"blobs/{DIGEST}", BOB, "HEAD")
        assert (answer.status, answer.headers["content-length"]) == (200, "17")


def test_a_range_beyond_its_end_does_not_tell_the_size_either(lab: Tenants, runtime: Runtime) -> None:
    """FAULTS 88: 416 has the size in it."""
    refused = [runtime.ask(lab.evil, HIS, f"blobs/{digest}", BOB, span="bytes=9999999999-") for digest in (DIGEST, UNKNOWN)]
    assert [answer.status for answer in refused] == [404, 404]
    lab.evil.push(HIS, "2", Image(b"{}", {DIGEST: noise(99)}))
    lab.evil._habits.clear()
    answer = runtime.ask(lab.evil, HIS, f"blobs/{DIGEST}", BOB, span="bytes=9999999999-")
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */99")


def test_a_claimed_manifest_is_not_given(lab: Tenants, runtime: Runtime) -> None:
    """FAULTS 88: neither after its HEAD, nor after the blob of that digest was claimed."""
    headers = {"Docker-Content-Digest": HER_IMAGE.digest, "Content-Type": HER_IMAGE.media_type}
    lab.evil.behave(Fault(path="/manifests/", methods=frozenset({"HEAD"}), status=200, headers=headers))
    assert runtime.ask(lab.evil, HIS, f"blobs/{HER_IMAGE.digest}", BOB, "HEAD").status == 200
    for reference in (HER_IMAGE.digest, "latest"):
        for method in ("HEAD", "GET", "GET"):
            assert runtime.ask(lab.evil, HIS, f"manifests/{reference}", BOB, method).status == 404


def listing(field: str) -> Image:
    """A manifest of Bob's that lists what is Alice's."""
    theirs = [
        {"mediaType": HER_IMAGE.media_type, "digest": digest, "size": size}
        for digest, size in ((DIGEST, len(LAYER)), (HER_IMAGE.digest, len(HER_IMAGE.manifest)))
    ]
    document = json.loads(HIS_IMAGE.manifest)
    return Image(json.dumps(document | {field: theirs}).encode(), HIS_IMAGE.blobs)


@pytest.mark.parametrize("field", ["blobs", "manifests", "Layers", "LAYERS", "layers"])
def test_a_manifest_that_lists_it_opens_nothing(lab: Tenants, runtime: Runtime, field: str) -> None:
    """FAULTS 89, with a registry that takes every manifest."""
    image = lab.origin.push(HIS, "2", listing(field))
    for _ in range(2):
        assert runtime.ask(lab.origin, HIS, "manifests/2", BOB).body == image.manifest
        for path in (f"blobs/{DIGEST}", f"manifests/{HER_IMAGE.digest}"):
            for method in ("GET", "HEAD"):
                assert runtime.ask(lab.origin, HIS, path, BOB, method).status == 404
    assert runtime.ask(lab.origin, HIS, f"blobs/{HIS_IMAGE.layers[0]}", BOB).body == noise(PIECE, 9)


def test_a_registry_that_waits_for_her_rollout_gets_nothing_of_it(lab: Tenants) -> None:
    """FAULTS 88: his download of her next layer was begun before hers."""
    layer = noise(4 * PIECE + 5, 5)
    image = Image.of([layer])
    digest = image.layers[0]
    lab.evil.behave(Fault(path="/blobs/", methods=frozenset({"GET"}), delay_seconds=1.0, status=404))
    his, hers = lab.runtimes
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(his.ask, lab.evil, HIS, f"blobs/{digest}", BOB)
        wait_until(lambda: his.node.downloads._active)
        lab.origin.push(HERS, "2", image)
        hers.pull(lab.origin, HERS, image, ALICE, "2")
        his.pull(lab.origin, HERS, image, ALICE, "2")
        assert early.result().status == 404
    assert his.ask(lab.evil, HIS, f"blobs/{digest}", BOB).status == 404


def test_what_another_registry_really_has_is_given_for_a_proof(lab: Tenants, runtime: Runtime) -> None:
    """The bytes come from the swarm, and a range of them from the registry."""
    lab.evil.push(HIS, "2", HER_IMAGE)
    sent = lab.origin.blob_bytes_sent
    for _ in range(2):
        assert runtime.ask(lab.evil, HIS, f"blobs/{DIGEST}", BOB).body == LAYER
    assert "GET" in [method for method, _ in asked(lab.evil, DIGEST)]
    assert lab.origin.blob_bytes_sent == sent


def test_another_repository_of_the_registry_is_asked_by_head_alone(lab: Tenants) -> None:
    runtime = lab.runtimes[0]
    lab.origin.push(HIS, "2", HER_IMAGE)
    sent = lab.origin.blob_bytes_sent
    assert runtime.ask(lab.origin, HIS, f"blobs/{DIGEST}", BOB).body == LAYER
    assert (("HEAD", f"/v2/{HIS}/blobs/{DIGEST}")) in asked(lab.origin, HIS)
    assert lab.origin.blob_bytes_sent == sent


def test_a_lost_permission_ends_everywhere_when_one_node_is_refused(lab: Tenants) -> None:
    """Two nodes were allowed, and then the registry changes its mind."""
    first, second = lab.runtimes
    second.pull(lab.origin, HERS, HER_IMAGE, ALICE)
    path = f"blobs/{DIGEST}"
    assert second.permission.shown_at(lab.origin.address, HERS, ALICE, path, 0.0) is not None
    lab.origin.fail(Fault(path=HERS, status=403))
    first.registry._refused(BlobResource(lab.origin.address, HERS, DIGEST), ALICE, OriginError(403, "no more"))
    wait_until(lambda: second.permission.shown_at(lab.origin.address, HERS, ALICE, path, 0.0) is None)
    assert second.ask(lab.origin, HERS, path, ALICE).status == 403


def test_a_rollout_needs_no_proof(lab: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes tell each other, with each piece, that it came from there."""
    proofs: list[object] = []
    monkeypatch.setattr(endpoint, "prove", lambda *about: proofs.append(about))
    image = lab.origin.push("public/app", "1", Image.of([noise(6 * PIECE, 3)]))
    runtimes = [*lab.runtimes, *(lab.runtime() for _ in range(4))]
    with ThreadPoolExecutor(len(runtimes)) as pool:
        list(pool.map(lambda runtime: runtime.pull(lab.origin, "public/app", image, None), runtimes))
    assert any(runtime.node.fetched for runtime in runtimes), "some of it came from other nodes"
    assert proofs == []
