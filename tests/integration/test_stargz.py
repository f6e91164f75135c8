"""The real stargz-snapshotter mounts layers that are not there and reads them through the agent; with the registry gone too.

The registry's link is slow until a container has read a file: all that it sent by then is little, however busy the machine is.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hack.lab import Lab, wait_until
from hack.lab.darner import REGISTRY_PORT, Agent, Swarm
from hack.lab.image import PROOF, BuiltImage
from hack.lab.registry import Answer, blob_bytes_in
from hack.lab.runtime import Containerd, Runtime
from hack.lab.stargz import as_estargz
from hack.lab.tap import Heard, Tap

pytestmark = pytest.mark.needs_root

LAZY = Runtime("2", lazy=True)
FILE = Path(sysconfig.get_path("stdlib"), "json/decoder.py")
SLOW_BYTES_PER_SECOND, FAST_BYTES_PER_SECOND = 600_000, 128 << 20
"""All of the image takes 80 seconds, a container is given 60; and what it takes once nobody looks."""
WHOLE_SECONDS_MAX = 120


@dataclass(frozen=True)
class LazyStory:
    """What was seen while one node pulled and ran an image lazily, and after the registry had stopped another one."""

    image: BuiltImage
    asked: list[Heard]
    """What the first node's snapshotter asked its agent for, and its containerd."""
    left_for_the_pull: int
    """Bytes on the registry's link until the image was pulled, and until a container had read a file."""
    left_for_the_file: int
    digest_of_the_file: str
    said_first: str
    sent: list[Answer]
    """By the registry, until all of the image was at the first node."""
    first: str
    """Its address."""
    said_second: str
    received_second: dict[str, int]

    @property
    def ranges(self) -> list[str]:
        return [heard.headers["range"] for heard in self.asked if "/blobs/" in heard.path and "range" in heard.headers]


@pytest.fixture(scope="module")
def estargz(image: BuiltImage) -> Iterator[BuiltImage]:
    """The interpreter and its library: 50 MB in two layers."""
    if not Path("/dev/fuse").exists():
        pytest.skip("the snapshotter mounts layers by FUSE, which is not here")
    command = (image.command[0], "-I", "-c", f"import json, sqlite3; print({PROOF!r})")
    with Lab() as lab:
        yield as_estargz(image, 2, command, lab.directory / "image")


@pytest.fixture(scope="module")
def lazy_story(estargz: BuiltImage) -> Iterator[LazyStory]:
    with Lab() as lab:
        swarm = Swarm(lab, estargz)
        first, second = (swarm.agent(name, "--lazy-pulling", "true") for name in ("first", "second"))
        link = swarm.registry.host
        containerd = Containerd(first.host, LAZY)
        link.shape(SLOW_BYTES_PER_SECOND)
        before = link.sent_bytes()
        with Tap(first.host, REGISTRY_PORT) as asked:
            containerd.pull(swarm.image_name)
            for_the_pull = link.sent_bytes() - before
            digest = containerd.run(swarm.image_name, ("/bin/sh", "-c", f"sha256sum {FILE}")).split()[0]
            for_the_file = link.sent_bytes() - before
            link.shape(FAST_BYTES_PER_SECOND)
            said_first = containerd.run(swarm.image_name, estargz.command)
            wait_until(lambda: holds_all(first, estargz), WHOLE_SECONDS_MAX)
        sent = swarm.registry.answers()
        swarm.registry.stop()

        containerd = Containerd(second.host, LAZY)
        containerd.pull(swarm.image_name)
        said_second = containerd.run(swarm.image_name, estargz.command)
        wait_until(lambda: holds_all(second, estargz), WHOLE_SECONDS_MAX)
        first_saw = for_the_pull, for_the_file, digest, said_first, sent, first.host.address
        yield LazyStory(estargz, asked.requests, *first_saw, said_second, second.received_bytes())


def holds_all(agent: Agent, image: BuiltImage) -> bool:
    return agent.metric("darner_store_bytes") >= image.size


def test_an_image_is_pulled_with_most_of_it_still_at_the_registry(lazy_story: LazyStory) -> None:
    assert lazy_story.left_for_the_pull < lazy_story.image.size / 2


def test_the_snapshotter_reads_parts_and_containerd_pulls_no_layer(lazy_story: LazyStory) -> None:
    blobs = [heard for heard in lazy_story.asked if "/blobs/" in heard.path and heard.method == "GET"]
    by_containerd = [heard for heard in blobs if heard.headers["user-agent"].startswith("containerd/")]
    assert len(by_containerd) == 1, "the config"
    assert len(lazy_story.ranges) == len(blobs) - 1 > 0
    assert not [one for one in lazy_story.ranges if one.endswith("-") or "," in one], "each is one part with both ends"


def test_a_container_reads_a_file_while_the_image_is_on_its_way(lazy_story: LazyStory) -> None:
    assert lazy_story.digest_of_the_file == hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert lazy_story.left_for_the_file < 0.9 * lazy_story.image.size


def test_the_image_runs_and_all_of_it_comes_to_the_agent(lazy_story: LazyStory) -> None:
    """The story waits for the second."""
    assert PROOF in lazy_story.said_first


def test_the_registry_sends_a_node_each_byte_once_and_again_what_could_not_wait(lazy_story: LazyStory) -> None:
    """So it sends a supernode, which fetches a layer too when its bytes are slow to come to a node."""
    by_asker = [[one for one in lazy_story.sent if (one.client == lazy_story.first) is is_first] for is_first in (True, False)]
    to_first, to_supernode = (sum(blob_bytes_in(answers, Swarm.repository).values()) for answers in by_asker)
    assert to_first < lazy_story.image.size + lazy_story.left_for_the_file
    assert to_supernode <= lazy_story.image.size


def test_with_the_registry_stopped_another_node_runs_it_from_the_first(lazy_story: LazyStory) -> None:
    assert PROOF in lazy_story.said_second
    received = lazy_story.received_second
    assert received["origin"] == 0
    assert received["peer"] + received["supernode"] == lazy_story.image.size
