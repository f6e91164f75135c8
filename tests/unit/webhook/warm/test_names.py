"""What is told of a pod: its images' names in full, and its machines."""

from __future__ import annotations

from typing import Any

import pytest

from agent.swarm.messages import ARCHITECTURES_MAX
from tests.webhook_lab import container, pod
from webhook.gates import Rewrite
from webhook.pods import ImagePlace
from webhook.warm.names import WarmName, warm_names

DIGEST = "sha256:" + "a" * 64


def told(*images: str, **spec: Any) -> list[WarmName]:
    places = [ImagePlace("containers", f"c{number}", "", image, False) for number, image in enumerate(images)]
    rewrites = [Rewrite(place, place.image or "", "", "", "") for place in places]
    return warm_names(pod(*(container("c", image) for image in images), **spec), rewrites)


def affinity(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


@pytest.mark.parametrize(
    ("image", "registry", "repository", "reference"),
    [
        ("nginx", "docker.io", "library/nginx", "latest"),
        ("nginx:1.27", "docker.io", "library/nginx", "1.27"),
        ("QUAY.io/a/b:1", "quay.io", "a/b", "1"),
        (f"quay.io/a/b@{DIGEST}", "quay.io", "a/b", DIGEST),
        (f"quay.io/a/b:1@{DIGEST}", "quay.io", "a/b", DIGEST),
    ],
)
def test_a_name_is_told_as_a_node_asks_for_it(image: str, registry: str, repository: str, reference: str) -> None:
    assert told(image) == [WarmName(registry, repository, reference, ())]
    assert told(image)[0].key == f"{registry}/{repository}:{reference}"


def test_an_image_that_several_containers_have_is_told_once() -> None:
    assert len(told("nginx", "docker.io/library/nginx:latest", "redis")) == 2


@pytest.mark.parametrize(
    ("spec", "architectures"),
    [
        ({}, ()),
        ({"nodeSelector": {"kubernetes.io/arch": "arm64"}}, ("arm64",)),
        ({"nodeSelector": {"kubernetes.io/os": "linux"}}, ()),
        ({"nodeSelector": "arm64"}, ()),
        (
            {
                "affinity": affinity(
                    {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["s390x", "amd64"]}]}
                )
            },
            ("amd64", "s390x"),
        ),
        (
            {
                "affinity": affinity(
                    {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "NotIn", "values": ["arm64"]}]}
                )
            },
            (),
        ),
        (
            {"affinity": affinity({"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": [1, None]}]})},
            (),
        ),
        ({"affinity": {"nodeAffinity": 7}}, ()),
    ],
)
def test_the_machines_are_those_that_the_pod_itself_names(spec: dict[str, Any], architectures: tuple[str, ...]) -> None:
    assert told("nginx", **spec)[0].architectures == architectures


def test_there_are_never_more_machines_than_a_message_takes_nor_longer_names() -> None:
    values = [f"{number:02}" + "x" * 100 for number in range(40)]
    spec = {"affinity": affinity({"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": values}]})}
    found = told("nginx", **spec)[0].architectures
    assert len(found) == ARCHITECTURES_MAX
    assert max(map(len, found)) == 64
