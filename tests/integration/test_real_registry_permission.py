"""FAULTS 22, 88, 89 with Debian's docker-registry: two of them, each with a user of its own (htpasswd)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.origin import shown
from agent.origin.shown import WhenDown
from agent.registry import manifests
from agent.values.credential import Credential
from hack.lab.registry import PASSWORD
from hack.origin import Image
from supernode.tracker import seeds
from tests.docker_registry import DockerRegistry, Refused
from tests.swarm import PIECE, Lab, noise
from tests.tenants import Runtime

ALICE, BOB = Credential("alice", PASSWORD), Credential("bob", PASSWORD)
WRONG = Credential("alice", PASSWORD + "x")
HERS, HIS, OTHER = "alice/app", "bob/app", "other/app"
IMAGE = Image.of([noise(2 * PIECE + 5)])
HIS_IMAGE = Image.of([noise(PIECE, 9)])
DIGEST = IMAGE.layers[0]
UNKNOWN = "sha256:" + "4" * 64


@dataclass
class Place:
    """Two registries, a supernode, and two nodes, on the first of which Alice has pulled her image."""

    lab: Lab
    hers: DockerRegistry
    his: DockerRegistry
    runtimes: list[Runtime]


@pytest.fixture(params=list(WhenDown), ids=lambda when: when.value)
def when(request: pytest.FixtureRequest) -> WhenDown:
    found: WhenDown = request.param
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Place]:
    monkeypatch.setattr(seeds, "FAILURE_SECONDS", 0.0)
    when = request.getfixturevalue("when") if "when" in request.fixturenames else WhenDown.SAME_IMAGE
    (tmp_path / "key").write_text(hashlib.sha256(b"a lab").hexdigest())
    hers, his = DockerRegistry(tmp_path / "hers", ALICE), DockerRegistry(tmp_path / "his", BOB)
    lab = Lab(tmp_path, swarm_key_file=str(tmp_path / "key"), tag_interval=0.0)
    lab.insecure += [hers.address, his.address]
    hers.push(HERS, "1", IMAGE)
    hers.push(OTHER, "1", HIS_IMAGE)
    his.push(HIS, "1", HIS_IMAGE)
    with lab:
        runtimes = [Runtime(lab.node(), when) for _ in range(2)]
        try:
            runtimes[0].pull(hers, HERS, IMAGE, ALICE)
            yield Place(lab, hers, his, runtimes)
        finally:
            for runtime in runtimes:
                runtime.close()
    for registry in (hers, his):
        registry.process.kill()


def test_the_right_credential_pulls_none_is_asked_for_one_and_a_wrong_one_is_refused(place: Place) -> None:
    for runtime in place.runtimes:
        runtime.pull(place.hers, HERS, IMAGE, ALICE)
        for path in ("manifests/1", f"manifests/{IMAGE.digest}", f"blobs/{DIGEST}", f"blobs/{UNKNOWN}"):
            for credential in (None, WRONG, BOB):
                answer = runtime.ask(place.hers, HERS, path, credential)
                assert answer.status == 401
                assert answer.headers["www-authenticate"] == 'Basic realm="darner"'
                assert b"sha256" not in answer.body


def test_another_registry_does_not_give_it_and_another_repository_does_not_either(place: Place) -> None:
    """FAULTS 22."""
    for runtime in place.runtimes:
        for registry, repository, credential in ((place.his, HIS, BOB), (place.hers, OTHER, ALICE)):
            for kind, digest in (("blobs", DIGEST), ("manifests", IMAGE.digest)):
                for method in ("GET", "HEAD"):
                    answer, same = (
                        runtime.ask(registry, repository, f"{kind}/{one}", credential, method) for one in (digest, UNKNOWN)
                    )
                    assert answer.status == same.status == 404
                    assert answer.headers == same.headers


@pytest.mark.parametrize("field", ["blobs", "manifests", "Layers", "Digest"])
def test_a_listing_opens_nothing(place: Place, field: str) -> None:
    """FAULTS 89: as far as the registry takes the manifest; it reads keys without regard to case, and may refuse it."""
    hers = {"mediaType": IMAGE.media_type, "digest": DIGEST, "size": len(IMAGE.blobs[DIGEST])}
    (layer,) = json.loads(HIS_IMAGE.manifest)["layers"]
    listed = {
        "Layers": {"layers": [hers], "Layers": [layer]},
        "Digest": {"layers": [hers | {"Digest": layer["digest"], "Size": layer["size"]}]},
    }.get(field, {field: [hers]})
    document = json.dumps(json.loads(HIS_IMAGE.manifest) | listed).encode()
    image = Image(document, HIS_IMAGE.blobs)
    try:
        place.his.push(HIS, "2", image)
    except Refused:
        assert field == "manifests", "it takes the others"
        return
    for runtime in place.runtimes:
        assert runtime.ask(place.his, HIS, "manifests/2", BOB).body == document
        for path in (f"blobs/{DIGEST}", f"manifests/{DIGEST}", f"manifests/{IMAGE.digest}"):
            assert runtime.ask(place.his, HIS, path, BOB).status == 404


def test_what_the_other_registry_has_too_is_given(place: Place) -> None:
    place.his.push(HIS, "2", IMAGE)
    for runtime in place.runtimes:
        runtime.pull(place.his, HIS, IMAGE, BOB, "2")


def test_a_registry_that_was_stopped(place: Place, when: WhenDown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the image, and whoever has another credential, once no verdict is young enough."""
    place.hers.process.kill()
    monkeypatch.setattr(shown, "REMEMBERED_SECONDS", -1.0)
    monkeypatch.setattr(manifests, "VERDICT_SECONDS", -1.0)
    runtime = place.runtimes[0]
    for credential in (ALICE, BOB, WRONG, None):
        statuses = [runtime.ask(place.hers, HERS, path, credential).status for path in ("manifests/1", f"blobs/{DIGEST}")]
        if when is WhenDown.ALLOW or (when is WhenDown.SAME_IMAGE and credential == ALICE):
            assert statuses == [200, 200]
        else:
            assert all(status >= 400 for status in statuses)
