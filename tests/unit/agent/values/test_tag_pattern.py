"""Which tags an operator's patterns mean, and which texts are no patterns."""

from __future__ import annotations

import pytest

from agent.values.tag_pattern import PATTERN_LENGTH_MAX, tag_pattern


@pytest.mark.parametrize(
    ("pattern", "meant", "others"),
    [
        (
            ":latest",
            ["docker.io/library/nginx:latest", "reg.test:5000/a/b:latest"],
            ["docker.io/a/b:latest-1", "docker.io/a/b:Latest"],
        ),
        (
            "docker.io/library/nginx:stable",
            ["docker.io/library/nginx:stable"],
            ["docker.io/other/nginx:stable", "q.io/nginx:stable"],
        ),
        ("Quay.io/team/*:dev-*", ["quay.io/team/a/b:dev-1"], ["quay.io/teams/a:dev-1", "quay.io/team/a:dev"]),
        ("reg.test:5000/a:1", ["reg.test:5000/a:1"], ["reg.test/a:1", "regxtest:5000/a:1"]),
        ("*.test/*:*", ["reg.test/a:1"], ["reg.example/a:1"]),
        ("reg.test/a:v?.x", ["reg.test/a:v1.x"], ["reg.test/a:v10.x", "reg.test/a:v1yx"]),
    ],
)
def test_a_pattern_means_these_tags_and_not_those(pattern: str, meant: list[str], others: list[str]) -> None:
    def matches(name: str) -> bool:
        place, _, tag = name.rpartition(":")
        registry, _, repository = place.partition("/")
        return tag_pattern(pattern).matches(registry, repository, tag)

    assert all(map(matches, meant))
    assert not any(map(matches, others))


def test_no_pattern_means_a_digest() -> None:
    assert not tag_pattern("*:*").matches("reg.test", "a", "sha256:" + "0" * 64)


@pytest.mark.parametrize(
    "text",
    ["", "latest", ":", "*", "nginx:latest", "10.0.0.7:1", "reg.test:5000/a", "reg.test/a:", "/a:1", "a/b:-x", "a/b:[ab]",
     "a/b:1\n", "a/b@sha256:" + "0" * 64, "a/b:" + "1" * PATTERN_LENGTH_MAX],
)  # fmt: skip
def test_a_text_that_can_mean_no_tag_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write :latest, or "):
        tag_pattern(text)
