"""What is given while a registry cannot be asked: as `authorization.whenOriginDown` says, and never another registry's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.origin import shown
from agent.origin.shown import WhenDown
from agent.registry import manifests
from hack.origin import Image
from hack.origin.image import LAYER as LAYER_TYPE
from supernode.tracker import seeds
from tests.swarm import PIECE, noise
from tests.tenants import ACCESS, ALICE, BOB, HERS, HIS, Runtime, Tenants

LAYER = noise(2 * PIECE + 77)
IMAGE = Image.of([LAYER])
UNKNOWN = "sha256:" + "4" * 64
DIGEST = IMAGE.layers[0]
HIS_IMAGE = Image(
    json.dumps(
        json.loads(Image.of([noise(PIECE, 9)]).manifest)
        | {"blobs": [{"mediaType": LAYER_TYPE, "digest": digest, "size": len(LAYER)} for digest in (DIGEST, UNKNOWN)]}
    ).encode(),
    {},
)
"""Bob's, which lists what is Alice's."""


@pytest.fixture(params=list(WhenDown), ids=lambda when: when.value)
def when(request: pytest.FixtureRequest) -> WhenDown:
    found: WhenDown = request.param
    return found


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: WhenDown) -> Iterator[Tenants]:
    """Alice has pulled her image; the registry has stopped since, and no verdict is good any more."""
    monkeypatch.setattr(seeds, "FAILURE_SECONDS", 0.0)
    with Tenants(tmp_path) as lab:
        lab.tag_interval = 0.0
        lab.origin.push(HERS, "1", IMAGE)
        lab.origin.push(HIS, "1", HIS_IMAGE)
        lab.runtime(when).pull(lab.origin, HERS, IMAGE, ALICE)
        assert lab.runtimes[0].ask(lab.origin, HIS, "manifests/1", BOB).status == 200
        assert lab.runtime(when).ask(lab.origin, HIS, "manifests/1", BOB).status == 200
        lab.origin.stop()
        monkeypatch.setattr(shown, "REMEMBERED_SECONDS", -1.0)
        monkeypatch.setattr(manifests, "VERDICT_SECONDS", -1.0)
        yield lab


def statuses(runtime: Runtime, lab: Tenants, repository: str, credential: object, digest: str = DIGEST) -> list[int]:
    paths = "manifests/1", f"manifests/{IMAGE.digest}", f"blobs/{digest}"
    return [runtime.ask(lab.origin, repository, path, credential).status for path in paths]  # type: ignore[arg-type]


def test_whoever_was_given_the_image_has_it_again_unless_it_is_to_be_denied(lab: Tenants, when: WhenDown) -> None:
    first = statuses(lab.runtimes[0], lab, HERS, ALICE)
    assert all(status >= 500 for status in first) if when is WhenDown.DENY else first[0] == first[2] == 200


def test_whoever_was_not_has_it_only_if_everybody_is_to_be_allowed(lab: Tenants, when: WhenDown) -> None:
    for credential in (BOB, None):
        there = statuses(lab.runtimes[0], lab, HERS, credential)
        if when is WhenDown.ALLOW:
            assert there[0] == there[2] == 200
        else:
            assert all(status >= 500 for status in there)
            assert there[2] == statuses(lab.runtimes[0], lab, HERS, credential, UNKNOWN)[2]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_repository_that_it_never_came_from_does_not_give_it_although_its_manifest_lists_it(
    lab: Tenants, when: WhenDown, method: str
) -> None:
    """FAULTS 89, on her node and on another one: it waits for the registry to go away. `allow` gives what is listed."""
    for runtime in lab.runtimes:
        there, unknown = (runtime.ask(lab.origin, HIS, f"blobs/{digest}", BOB, method).status for digest in (DIGEST, UNKNOWN))
        assert unknown >= 500
        assert there == (200 if when is WhenDown.ALLOW else unknown)
        assert runtime.ask(lab.origin, HIS, f"blobs/{DIGEST}", ALICE, method).status == unknown, "she was not given his"


def test_a_restart_forgets_no_image(lab: Tenants, when: WhenDown) -> None:
    node = lab.runtimes[0].node
    again = Runtime(node, when)
    try:
        found = statuses(again, lab, HERS, ALICE)
        assert all(status >= 500 for status in found) if when is WhenDown.DENY else found[0] == found[2] == 200
    finally:
        again.close()


def test_a_refusal_is_no_silence(lab: Tenants, when: WhenDown) -> None:
    """When the registry is back and refuses, nothing is given."""
    lab.origin.repositories.access = replace(ACCESS, only={})
    lab.origin.start()
    assert statuses(lab.runtimes[0], lab, HERS, ALICE) == [401, 401, 401]
    lab.origin.stop()
    if when is not WhenDown.ALLOW:
        assert all(status >= 400 for status in statuses(lab.runtimes[0], lab, HERS, ALICE))
