"""Permission: whoever was shown a blob may have it for a while, in that repository, with that credential, and nobody else."""

from __future__ import annotations

import pytest

from agent.origin.shown import REMEMBERED_SECONDS, SHOWN_MAX, Permission
from agent.values.credential import Credential

ALICE, BOB = Credential("alice", "a"), Credential("bob", "b")
LAYER, OTHER = ("sha256:" + digit * 64 for digit in "ab")
NOW = 1000.0


@pytest.fixture
def permission() -> Permission:
    """Alice was shown a layer of quay.io/team/app just now."""
    permission = Permission()
    permission.show("quay.io", "team/app", ALICE, [LAYER], NOW)
    return permission


def test_what_was_shown_may_be_had(permission: Permission) -> None:
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW) is not None
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW + 1) == NOW


@pytest.mark.parametrize(
    ("registry", "repository", "credential", "digest"),
    [
        ("quay.io", "team/app", BOB, LAYER),
        ("quay.io", "team/app", Credential("alice", "b"), LAYER),
        ("quay.io", "team/app", None, LAYER),
        ("quay.io", "team/other", ALICE, LAYER),
        ("quay.io", "team", ALICE, LAYER),
        ("ghcr.io", "team/app", ALICE, LAYER),
        ("quay.io", "team/app", ALICE, OTHER),
    ],
)
def test_another_credential_repository_registry_or_blob_is_not_covered(
    permission: Permission, registry: str, repository: str, credential: Credential | None, digest: str
) -> None:
    assert permission.shown_at(registry, repository, credential, digest, NOW) is None


def test_what_is_public_is_shown_to_whoever_sends_no_credential() -> None:
    permission = Permission()
    permission.show("quay.io", "team/app", None, [LAYER], NOW)
    assert permission.shown_at("quay.io", "team/app", None, LAYER, NOW) is not None
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW) is None


def test_a_permission_ends_and_using_it_makes_it_no_longer(permission: Permission) -> None:
    for seconds in range(0, int(REMEMBERED_SECONDS), 60):
        assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW + seconds) is not None
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW + REMEMBERED_SECONDS) is not None
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW + REMEMBERED_SECONDS + 1) is None


def test_being_shown_it_anew_makes_it_last_anew(permission: Permission) -> None:
    permission.show("quay.io", "team/app", ALICE, [LAYER], NOW + 800)
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW + 800 + REMEMBERED_SECONDS) is not None


def test_what_an_earlier_answer_lists_takes_nothing_from_a_later_one(permission: Permission) -> None:
    permission.show("quay.io", "team/app", ALICE, [LAYER, OTHER], NOW - 800)
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW) == NOW
    assert permission.shown_at("quay.io", "team/app", ALICE, OTHER, NOW) == NOW - 800


def test_only_so_much_is_remembered_and_what_was_shown_last_is(permission: Permission) -> None:
    permission.show("quay.io", "team/app", ALICE, [OTHER], NOW)
    permission.show("quay.io", "team/app", ALICE, [LAYER], NOW + 1)
    permission.show("quay.io", "evil", BOB, (f"sha256:{number:064x}" for number in range(SHOWN_MAX - 1)), NOW + 1)
    assert permission.shown_at("quay.io", "team/app", ALICE, LAYER, NOW + 1) is not None
    assert permission.shown_at("quay.io", "team/app", ALICE, OTHER, NOW + 1) is None
    assert permission.shown_at("quay.io", "evil", BOB, f"sha256:{0:064x}", NOW + 1) is not None
