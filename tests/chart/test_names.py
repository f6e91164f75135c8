"""Names: valid whatever the release is called, and never those of another release."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hack.chart.helm import Object, environment, identity, pod_template

Render = Callable[..., list[Object]]

LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
NAMES = {
    "Service": r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?",  # RFC 1035: no digit at the front
    # A pod's label controller-revision-hash is the StatefulSet's name, a dash and ten characters; a label has at most 63.
    "StatefulSet": r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?",
}
SUBDOMAIN = rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})*"
LABEL_VALUE = r"([A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?"
LABEL_KEY = rf"({LABEL}(\.{LABEL})*/)?[A-Za-z0-9]([-_.A-Za-z0-9]{{0,61}}[A-Za-z0-9])?"

LONGEST = "r" * 53
RELEASES = ["d", "darner", LONGEST, "r" * 35 + "-" * 17 + "r", "1.5", "123", "true", "null", "1e3", "my.darner.release"]


def labels_in(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name in ("labels", "matchLabels", "selector") and all(isinstance(item, str) for item in value.values()):
                yield from value.items()
            else:
                yield from labels_in(value)
    elif isinstance(node, list):
        for item in node:
            yield from labels_in(item)


@pytest.mark.parametrize("namespace", ["darner-system", "123", "n" * 63])
@pytest.mark.parametrize("release", RELEASES)
def test_a_release_of_any_name_gives_valid_objects(render: Render, release: str, namespace: str) -> None:
    for item in render(release=release, namespace=namespace):
        kind, _, name = identity(item)
        assert re.fullmatch(NAMES.get(kind, SUBDOMAIN), name), (kind, name)
        for key, value in labels_in(item):
            assert re.fullmatch(LABEL_KEY, key)
            assert re.fullmatch(LABEL_VALUE, value), (key, value)


def test_the_label_of_a_releases_pods_is_a_label_and_no_other_releases(render: Render) -> None:
    given = [(release, namespace) for release in RELEASES for namespace in ("darner-system", "n" * 62, "n" * 63)]
    labels = [
        environment(render(release=release, namespace=namespace), "webhook", "10.0.0.7")["DARNER_RELEASE"]
        for release, namespace in given
    ]
    assert all(value and re.fullmatch(LABEL_VALUE, value) for value in labels)
    assert len(set(labels)) == len(given)


@pytest.mark.parametrize("override", ["nameOverride", "fullnameOverride"])
def test_the_longest_override_gives_valid_objects(render: Render, override: str) -> None:
    for item in render({override: "o" * 63}, release=LONGEST):
        kind, _, name = identity(item)
        assert re.fullmatch(NAMES.get(kind, SUBDOMAIN), name), (kind, name)
        assert all(re.fullmatch(LABEL_VALUE, value) for _, value in labels_in(item))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("one", "darner-system"), ("two", "darner-system")),
        (("darner", "here"), ("darner", "there")),
        # what one name is cut to, or changed to, is no other name
        (("r" * 52 + "a", "darner-system"), ("r" * 52 + "b", "darner-system")),
        (("a.b", "darner-system"), ("a-b", "darner-system")),
        (("1-darner", "darner-system"), ("darner-1-darner", "darner-system")),
        # a name and a namespace, put together, are not another name and another namespace
        (("a-darner", "b"), ("a", "b-darner")),
    ],
)
def test_two_releases_share_no_object(render: Render, one: tuple[str, str], other: tuple[str, str]) -> None:
    def names(release: str, namespace: str) -> set[tuple[str, str, str]]:
        objects = render(release=release, namespace=namespace)
        (container,) = pod_template(objects, "webhook")["spec"]["containers"]
        made = {item["value"] for item in container["env"] if item["name"].endswith("_SECRET")}
        assert len(made) == 2
        return {identity(item) for item in objects} | {("Secret", *name.split("/")) for name in made}

    assert not names(*one) & names(*other)


def test_two_releases_select_none_of_each_others_pods(render: Render) -> None:
    def selectors(release: str) -> list[dict[str, str]]:
        return [item["spec"]["selector"] for item in render(release=release) if item["kind"] == "Service"]

    def pods(release: str) -> list[dict[str, str]]:
        return [pod_template(render(release=release), name)["metadata"]["labels"] for name in ("agent", "supernode", "webhook")]

    assert not [pod for pod in pods("one") for selector in selectors("two") if selector.items() <= pod.items()]
    assert len([pod for pod in pods("one") for selector in selectors("one") if selector.items() <= pod.items()]) == 3
