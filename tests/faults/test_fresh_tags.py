"""FAULTS 75: a tag is pushed again, and pods that always pull it want the new image at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.values.tag_pattern import tag_pattern
from hack.origin import Fault
from tests.swarm import Lab

NODES = 5


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path, tag_interval=3600.0, fresh_tags=(tag_pattern(":latest"),)) as lab:
        yield lab


def test_a_fresh_tag_that_is_pushed_is_new_at_once_for_every_node(lab: Lab) -> None:
    """FAULTS 75: `:latest` pushed, listed as fresh. Another tag means what it meant, for the interval."""
    first = {tag: lab.push(b"old", tag=tag).digest for tag in ("latest", "1")}
    nodes = [lab.node() for _ in range(3)]
    for tag, digest in first.items():
        assert {node.resolve(tag).digest for node in nodes} == {digest}
    second = {tag: lab.push(b"new", tag=tag).digest for tag in ("latest", "1")}
    assert {node.resolve("latest").digest for node in nodes} == {second["latest"]}
    assert {node.resolve("1").digest for node in nodes} == {first["1"]}


def test_nodes_that_pull_a_fresh_tag_together_cost_its_registry_one_head(lab: Lab) -> None:
    """FAULTS 75: one HEAD for those that come together, and another for whoever comes after its answer."""
    image = lab.push(b"layer", tag="latest")
    nodes = [lab.node() for _ in range(NODES)]
    nodes[0].resolve("latest")
    lab.origin.requests.clear()
    lab.origin.fail(Fault(path="/manifests/", delay_seconds=2.0))
    with ThreadPoolExecutor(4 * NODES) as pool:
        answers = list(pool.map(lambda number: nodes[number % NODES].resolve("latest"), range(4 * NODES)))
    assert {(answer.digest, answer.stale) for answer in answers} == {(image.digest, False)}
    assert [request.method for request in lab.origin.asked("/manifests/")] == ["HEAD"]
    lab.origin.heal()
    nodes[0].resolve("latest")
    assert [request.method for request in lab.origin.asked("/manifests/")] == ["HEAD", "HEAD"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_fresh_tag_whose_registry_cannot_be_asked_means_what_it_last_meant_and_says_so(lab: Lab, status: int) -> None:
    """FAULTS 75, with the registry down or at its limit: the last answer, marked as such, as for other tags."""
    image = lab.push(b"layer", tag="latest")
    node = lab.node()
    assert not node.resolve("latest").stale
    lab.origin.fail(Fault(path="/manifests/", status=status))
    answer = node.resolve("latest")
    assert (answer.digest, answer.stale) == (image.digest, True)
