"""A real containerd pulls a real image through Darner by its rewritten name; with the origin gone, a second node does too.

Each story is lived once for each runtime and way of fetching, and many tests look at what was seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from agent.values.pieces import piece_length
from hack.lab import Lab
from hack.lab.darner import REGISTRY_PORT, Swarm
from hack.lab.image import IMAGE_BYTES_MIN, PROOF, BuiltImage
from hack.lab.runtime import FETCH_BUFFER_BYTES, Containerd, Runtime
from hack.lab.tap import Heard, Tap

pytestmark = pytest.mark.needs_root

TWICE_PIECES_MAX = 3
"""Of a blob that several nodes want at once: two of the last, by a node that is free, and the one that a request breaks off in
(the fourth promise of docs/simulation.md)."""
RUNTIMES = [Runtime("1.6"), Runtime("2"), Runtime("2", parallel="transfer service"), Runtime("2", parallel="own client")]


@dataclass(frozen=True)
class Story:
    """What was seen while a first node pulled from the registry and, after it had stopped, a second one from the first."""

    runtime: Runtime
    image: BuiltImage
    said_first: str
    said_second: str
    asked: Tap
    """What the first node's runtime asked its agent."""
    left_the_registry: dict[str, int]
    """Bytes of each blob, as the registry's access log says."""
    left_by_the_link: int
    """All bytes on the registry's link, headers and manifests included."""
    received_first: dict[str, int]
    received_second: dict[str, int]

    @property
    def asked_for_layers(self) -> list[Heard]:
        return [heard for heard in self.asked.requests if "/blobs/" in heard.path]


@pytest.fixture(scope="module", params=RUNTIMES, ids=str)
def story(request: pytest.FixtureRequest, image: BuiltImage) -> Iterator[Story]:
    runtime: Runtime = request.param
    with Lab() as lab:
        swarm = Swarm(lab, image)
        first, second = swarm.agent("first"), swarm.agent("second")
        containerd = Containerd(first.host, runtime)
        with Tap(first.host, REGISTRY_PORT) as asked:
            containerd.pull(swarm.image_name)
        said_first = containerd.run(swarm.image_name, image.command)
        left = swarm.registry.blob_bytes_sent(swarm.repository), swarm.registry.host.sent_bytes()
        swarm.registry.stop()

        containerd = Containerd(second.host, runtime)
        containerd.pull(swarm.image_name)
        said_second = containerd.run(swarm.image_name, image.command)
        received = first.received_bytes(), second.received_bytes()
        yield Story(runtime, image, said_first, said_second, asked, *left, *received)


def test_the_image_runs_on_the_node_that_pulled_it(story: Story) -> None:
    assert story.image.size >= IMAGE_BYTES_MIN
    assert len(story.image.blobs) == 3 + 1, "three layers and a config"
    assert PROOF in story.said_first


def test_with_the_registry_stopped_a_second_node_pulls_by_tag_and_runs_the_image(story: Story) -> None:
    assert PROOF in story.said_second
    assert story.received_second["origin"] == 0


def test_each_blob_byte_leaves_the_registry_once(story: Story) -> None:
    assert story.left_the_registry == story.image.blobs
    assert story.left_by_the_link < 1.02 * story.image.size


def test_each_blob_byte_reaches_a_node_once(story: Story) -> None:
    for received in (story.received_first, story.received_second):
        assert received["peer"] + received["supernode"] + received["origin"] == story.image.size


def test_containerd_2_says_hello_in_tls_first_and_goes_on_in_http(story: Story) -> None:
    assert bool(story.asked.tls_greetings) == (story.runtime.version == "2")
    assert story.asked.requests[0].method == "HEAD"
    assert re.fullmatch(r"/v2/10\.77\.0\.1_5000/lab/python/manifests/1", story.asked.requests[0].path)


def test_without_a_fetch_buffer_each_blob_is_one_request_without_a_range(story: Story) -> None:
    if story.runtime.parallel:
        assert len(story.asked_for_layers) > len(story.image.blobs)
    else:
        assert not [heard for heard in story.asked.requests if "range" in heard.headers]
        assert len(story.asked_for_layers) == len(story.image.blobs)


def test_with_a_fetch_buffer_layers_are_asked_for_in_parallel_in_open_ended_ranges(story: Story) -> None:
    ranges = {
        digest: {heard.headers.get("range") for heard in story.asked_for_layers if heard.path.endswith(digest)}
        for digest in story.image.blobs
    }
    if not story.runtime.parallel:
        assert set.union(*ranges.values()) == {None}
        return
    for digest, size in story.image.blobs.items():
        assert ranges[digest] == {f"bytes={start}-" for start in range(0, size, FETCH_BUFFER_BYTES)}
    assert story.asked.open_at_once_max >= 4
    assert story.asked.resets >= 1, "a reader leaves as soon as it has its share"
    manifests = [heard for heard in story.asked.requests if "/manifests/" in heard.path and heard.method == "GET"]
    assert {heard.headers.get("range") for heard in manifests} == {"bytes=0-"}


def test_three_nodes_that_pull_at_once_cost_the_registry_one_image(lab: Lab, image: BuiltImage) -> None:
    swarm = Swarm(lab, image)
    agents = [swarm.agent(name) for name in ("first", "second", "third")]
    runtimes = [Containerd(agent.host, Runtime("2", parallel="transfer service")) for agent in agents]
    with ThreadPoolExecutor(len(runtimes)) as pool:
        list(pool.map(lambda runtime: runtime.pull(swarm.image_name), runtimes))
    assert all(PROOF in runtime.run(swarm.image_name, image.command) for runtime in runtimes)
    sent = swarm.registry.blob_bytes_sent(swarm.repository)
    assert sent.keys() == image.blobs.keys()
    for digest, size in image.blobs.items():
        assert size <= sent[digest] <= size + TWICE_PIECES_MAX * piece_length(size)
    assert sum(agent.received_bytes()["peer"] for agent in agents) > 0
