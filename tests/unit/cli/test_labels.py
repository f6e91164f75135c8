"""Selectors as objects write them."""

from __future__ import annotations

from typing import Any

import pytest

from cli.labels import labels_of, selected, unmet


@pytest.mark.parametrize(
    ("selector", "missed"),
    [
        ({}, []),
        ({"matchLabels": {"a": "1"}}, []),
        ({"matchLabels": {"a": "2"}}, ["a=2"]),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, []),
        ({"matchExpressions": [{"key": "b", "operator": "In", "values": ["1"]}]}, ["b in (1)"]),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, ["a notin (1)"]),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, []),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]}, ["b"]),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}, {"key": "b", "operator": "DoesNotExist"}]}, ["!a"]),
        ({"matchExpressions": [{"key": "a", "operator": "Like", "values": ["1"]}]}, ["a Like"]),
    ],
)
def test_what_labels_do_not_meet_is_named(selector: dict[str, Any], missed: list[str]) -> None:
    assert unmet(selector, {"a": "1"}) == missed
    assert selected(selector, {"a": "1"}) == (not missed)


def test_an_object_without_labels_has_none() -> None:
    assert labels_of({}) == labels_of({"metadata": {"labels": None}}) == {}
