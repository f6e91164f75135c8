"""Rewriting, for pods of any form: nothing raises, one pass is enough, and every original can be put back."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.values.reference import is_local
from tests.webhook_lab import admitted, originals, respond, review
from webhook.pods import EVERY_KIND, ORIGINAL_IMAGES, places

names = st.sampled_from(["a", "b", "c/d", "~x"])
images = st.sampled_from(
    ["nginx", "nginx:1", "quay.io/a/b", "127.0.0.1:65001/quay.io/a/b", "host:5000/a", "[::1]/a", "no name", "", None, 7]
)
policies = st.sampled_from(["Never", "Always", None, 7])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3) | images,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["image", "name", "reference", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
containers = st.lists(
    st.fixed_dictionaries({"name": names}, optional={"image": images, "imagePullPolicy": policies}) | json_values,
    max_size=4,
    unique_by=lambda item: (
        item.get("name", id(item)) if isinstance(item, dict) and isinstance(item.get("name"), str) else id(item)
    ),
)
volumes = st.lists(
    st.fixed_dictionaries(
        {"name": names, "image": st.fixed_dictionaries({}, optional={"reference": images, "pullPolicy": policies})}
    )
    | json_values,
    max_size=3,
    unique_by=lambda item: (
        item.get("name", id(item)) if isinstance(item, dict) and isinstance(item.get("name"), str) else id(item)
    ),
)
kinds = dict.fromkeys(EVERY_KIND[:-1], containers) | {"volumes": volumes, "os": json_values}
annotations = st.dictionaries(
    st.sampled_from([ORIGINAL_IMAGES, "darner.dev/decision", "team"]),
    st.text(max_size=5) | st.just('{"containers":{"a":"nginx"}}'),
)
pods = st.fixed_dictionaries(
    {"spec": st.fixed_dictionaries({}, optional=kinds)},
    optional={"metadata": st.fixed_dictionaries({}, optional={"annotations": annotations, "labels": json_values}) | json_values},
)


def images_of(subject: dict[str, Any]) -> dict[str, str]:
    return {place.pointer: place.image for place in places(subject, EVERY_KIND)}


@given(json_values | pods)
def test_no_pod_whatever_makes_an_answer_fail(subject: Any) -> None:
    respond(review(subject))


@given(pods)
def test_a_second_pass_changes_nothing(subject: dict[str, Any]) -> None:
    once = admitted(subject)
    assert "patch" not in respond(review(once))


@given(pods)
def test_nothing_changes_but_images_and_our_own_annotations(subject: dict[str, Any]) -> None:
    untouched = copy.deepcopy(subject)
    once = admitted(subject)
    assert subject == untouched
    for place in places(once, EVERY_KIND):
        container = once["spec"][place.kind][int(place.pointer.split("/")[3])]
        if place.image != images_of(subject)[place.pointer]:
            assert is_local(place.image)
            noted = originals(once)[place.kind][place.name]
            assert noted == images_of(subject)[place.pointer]
            holder, key = (container["image"], "reference") if place.kind == "volumes" else (container, "image")
            holder[key] = noted
    if once != subject:
        noted_annotations = once["metadata"].pop("annotations")
        before = subject.get("metadata", {}).pop("annotations", {}) if isinstance(subject.get("metadata"), dict) else {}
        ours = {ORIGINAL_IMAGES, "darner.dev/decision"}
        assert {name: text for name, text in noted_annotations.items() if name not in ours} == {
            name: text for name, text in before.items() if name not in ours
        }
    assert once.get("spec") == subject.get("spec")
