"""Permission: whoever was allowed a blob may have it for a while, in that repository, with that credential, and nobody else."""

from __future__ import annotations

import pytest

from agent.origin.shown import IMAGES_MAX, LISTED_MAX, REMEMBERED_SECONDS, SHOWN_MAX, Permission, key_of
from agent.values.credential import Credential

ALICE, BOB = Credential("alice", "a"), Credential("bob", "b")
DIGESTS = ["sha256:" + digit * 64 for digit in "abc"]
LAYER, OTHER = (f"blobs/{digest}" for digest in DIGESTS[:2])
NOW = 1000.0


@pytest.fixture
def permission() -> Permission:
    """Alice was allowed a layer of quay.io/team/app just now."""
    permission = Permission()
    permission.show("quay.io", "team/app", ALICE, LAYER, NOW)
    return permission


def test_what_was_allowed_may_be_had(permission: Permission) -> None:
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW) is not None
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW + 1) == NOW


@pytest.mark.parametrize(
    ("registry", "repository", "credential", "path"),
    [
        ("quay.io", "team/app", BOB, LAYER),
        ("quay.io", "team/app", Credential("alice", "b"), LAYER),
        ("quay.io", "team/app", None, LAYER),
        ("quay.io", "team/other", ALICE, LAYER),
        ("quay.io", "team", ALICE, LAYER),
        ("ghcr.io", "team/app", ALICE, LAYER),
        ("quay.io", "team/app", ALICE, OTHER),
        ("quay.io", "team/app", ALICE, LAYER.replace("blobs", "manifests")),
    ],
)
def test_another_credential_repository_registry_blob_or_a_manifest_is_not_covered(
    permission: Permission, registry: str, repository: str, credential: Credential | None, path: str
) -> None:
    assert permission.shown_at(registry, repository, credential, path, NOW) is None


def test_what_is_public_is_shown_to_whoever_sends_no_credential() -> None:
    permission = Permission()
    permission.show("quay.io", "team/app", None, LAYER, NOW)
    assert permission.shown_at("quay.io", "team/app", None, LAYER, NOW) is not None
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW) is None


def test_a_permission_ends_and_using_it_makes_it_no_longer(permission: Permission) -> None:
    for seconds in range(0, int(REMEMBERED_SECONDS), 60):
        assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW + seconds) is not None
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW + REMEMBERED_SECONDS) is not None
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW + REMEMBERED_SECONDS + 1) is None


def test_an_older_answer_takes_nothing_from_a_later_one(permission: Permission) -> None:
    permission.show("quay.io", "team/app", ALICE, LAYER, NOW - 200)
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW) == NOW


def test_a_refusal_ends_it(permission: Permission) -> None:
    permission.show_image("quay.io", "team/app", ALICE, DIGESTS)
    permission.refuse("quay.io", "team/app", LAYER, key_of(ALICE))
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW) is None
    assert permission.is_of_image("quay.io", "team/app", ALICE, DIGESTS[0])
    permission.refuse_images("quay.io", "team/app", ALICE)
    assert not permission.is_of_image("quay.io", "team/app", ALICE, DIGESTS[0])


def test_a_listing_opens_nothing(permission: Permission) -> None:
    """FAULTS 89."""
    permission.show_image("quay.io", "team/app", BOB, DIGESTS)
    assert permission.is_of_image("quay.io", "team/app", BOB, DIGESTS[0])
    assert not permission.is_of_image("quay.io", "team/app", None, DIGESTS[0])
    assert not permission.is_of_image("quay.io", "team/other", BOB, DIGESTS[0])
    assert permission.shown_at("quay.io", "team/app", BOB, LAYER, NOW) is None


def test_only_so_much_is_remembered_and_what_was_shown_last_is(permission: Permission) -> None:
    permission.show("quay.io", "team/app", ALICE, OTHER, NOW)
    permission.show("quay.io", "team/app", ALICE, LAYER, NOW + 1)
    for number in range(SHOWN_MAX - 1):
        permission.show("quay.io", "evil", BOB, f"blobs/sha256:{number:064x}", NOW + 1)
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW + 1) is not None
    assert permission.shown_at("quay.io", "team/app", ALICE, OTHER, NOW + 1) is None
    permission.show_image("quay.io", "team/app", ALICE, [f"sha256:{number:064x}" for number in range(LISTED_MAX + 1)])
    assert not permission.is_of_image("quay.io", "team/app", ALICE, f"sha256:{0:064x}")
    assert permission.is_of_image("quay.io", "team/app", ALICE, f"sha256:{1:064x}")
    for number in range(IMAGES_MAX):
        permission.show_image("quay.io", f"evil/{number}", BOB, DIGESTS)
    assert not permission.is_of_image("quay.io", "team/app", ALICE, f"sha256:{1:064x}")
