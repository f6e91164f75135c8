"""A pod, as far as Darner reads it."""

from __future__ import annotations

from typing import Any

from tests.webhook_lab import pod
from webhook.pods import Owner, controller_of, pull_secrets


def test_the_controller_among_several_owners_is_the_one_that_counts() -> None:
    references = [
        {"apiVersion": "a.io/v1", "kind": "A", "name": "a", "uid": "o1", "controller": False},
        {"apiVersion": "v1", "kind": "B", "name": "b", "uid": "o2", "controller": True},
    ]
    assert controller_of(pod(metadata={"ownerReferences": references}), "shop") == Owner("shop", "B", "", "b")


def test_a_pods_pull_secrets_are_read_once_each_and_malformed_ones_never() -> None:
    names: list[Any] = [{"name": "a"}, {"name": "b"}, {"name": "a"}, {"name": ""}, {}, None, "c", {"name": 7}]
    assert pull_secrets(pod(imagePullSecrets=names)) == ("a", "b")
    assert pull_secrets(pod(imagePullSecrets="a")) == ()
    assert pull_secrets({}) == ()
