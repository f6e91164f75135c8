"""What a node says of its pulls: of each one line with its sources and who asked, and a state that programs read."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from agent import pulls
from agent.pulls import Pulls
from agent.state import NodeState, alone
from agent.swarm import messages
from agent.swarm.supernodes import Supernodes
from agent.values.address import Address
from agent.values.manifest import Manifest
from hack.origin import Fault, Origin
from tests.endpoint import DIGEST, IMAGE, LAYER, REPOSITORY, Endpoint, push, runtime_at_node, wait_until
from tests.swarm import Lab

BLOB = f"blobs/{DIGEST}"
ASKER = "containerd/v2.2.9"


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        push(origin)
        yield origin


@pytest.fixture
def endpoint(tmp_path: Path, origin: Origin) -> Iterator[Endpoint]:
    with Endpoint(tmp_path, origin) as endpoint:
        yield endpoint


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if record.name == "agent.pulls"]


def ended(endpoint: Endpoint, count: int) -> list[dict[str, Any]]:
    """The pulls, once there are so many, the oldest first."""
    wait_until(lambda: len(endpoint.downloads.pulls.described()["pulls"]) == count, 20.0)
    found: list[dict[str, Any]] = endpoint.downloads.pulls.described()["pulls"]
    return found[::-1]


def sources(**sizes: int) -> dict[str, int]:
    return dict.fromkeys(pulls.SOURCES, 0) | sizes


def test_a_pull_is_one_line_that_says_its_sources_its_time_and_who_asked(
    endpoint: Endpoint, lines: Callable[[], list[str]]
) -> None:
    endpoint.ask(BLOB, User_Agent=ASKER)
    (first,) = ended(endpoint, 1)
    endpoint.ask(BLOB, User_Agent=ASKER)
    _, second = ended(endpoint, 2)
    image = f"{endpoint.origin.address}/{REPOSITORY}"
    for pull, source in ((first, "origin"), (second, "store")):
        assert (pull["image"], pull["digest"], pull["error"]) == (image, DIGEST, None)
        assert pull["sources"] == sources(**{source: len(LAYER)})
        assert pull["bytes"] == len(LAYER)
        assert 0 <= pull["firstByteSeconds"] <= pull["seconds"]
    said = lines()
    assert len(said) == 2
    for line, source in zip(said, ("origin", "store"), strict=True):
        assert line.startswith(f"{image} {DIGEST} for {ASKER}: {len(LAYER)} bytes ({source} {len(LAYER)}) in ")
        assert line.endswith(": pulled")


def test_of_the_ranges_that_a_runtime_asks_for_at_once_one_is_the_pull(endpoint: Endpoint) -> None:
    endpoint.ask(BLOB)
    ended(endpoint, 1)
    third = len(LAYER) // 3
    for start in (2 * third, third, 0):
        with endpoint.reader(BLOB, Range=f"bytes={start}-") as read:
            assert read(third) == LAYER[start : start + third]
    _, again = ended(endpoint, 2)
    assert again["sources"] == sources(store=len(LAYER))


def test_a_pull_that_fails_says_why(endpoint: Endpoint, lines: Callable[[], list[str]]) -> None:
    endpoint.ask("manifests/1")
    endpoint.origin.fail(Fault(path="/blobs/", status=500))
    assert endpoint.ask(BLOB).status >= 500
    (pull,) = ended(endpoint, 1)
    assert (pull["bytes"], pull["firstByteSeconds"]) == (0, None)
    assert "500" in pull["error"]
    assert "(nothing came)" in lines()[0]
    assert lines()[0].endswith(f": not pulled, {pull['error']}")


def test_what_a_client_calls_itself_is_cut(endpoint: Endpoint, lines: Callable[[], list[str]]) -> None:
    endpoint.ask(BLOB, User_Agent="x" * 5000)
    ended(endpoint, 1)
    assert f" for {'x' * pulls.ASKER_CHARACTERS_MAX}: " in lines()[0]


def test_durations_are_measured_by_outcome(endpoint: Endpoint) -> None:
    def count(outcome: str) -> float:
        return REGISTRY.get_sample_value("darner_agent_pull_duration_seconds_count", {"outcome": outcome}) or 0.0

    def first() -> float:
        return REGISTRY.get_sample_value("darner_agent_pull_first_byte_seconds_count") or 0.0

    whole, failed, began = count("whole"), count("failed"), first()
    endpoint.ask("manifests/1")
    endpoint.ask(BLOB)
    ended(endpoint, 1)
    endpoint.origin.fail(Fault(path="/blobs/", status=500))
    endpoint.ask(f"blobs/{json.loads(IMAGE.manifest)['config']['digest']}")
    ended(endpoint, 2)
    assert (count("whole") - whole, count("failed") - failed, first() - began) == (1, 1, 1)


def test_bytes_of_peers_and_of_the_supernode_are_told_apart_and_no_piece_has_a_line(
    tmp_path: Path, lines: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    with Lab(tmp_path) as lab:
        lab.push(LAYER)
        node = lab.node()
        with runtime_at_node(node, lab.origin) as endpoint:
            endpoint.downloads = node.downloads
            assert endpoint.ask(BLOB).body == LAYER
            (pull,) = ended(endpoint, 1)
    assert sum(pull["sources"].values()) == len(LAYER)
    assert pull["sources"]["store"] == 0
    assert len(lines()) == 1
    assert not [record for record in caplog.records if "piece " in record.getMessage()]


# Images.


def index_of(*manifests: bytes) -> Manifest:
    listed = [{"digest": f"sha256:{hashlib.sha256(body).hexdigest()}", "size": len(body)} for body in manifests]
    return Manifest.of("application/vnd.oci.image.index.v1+json", json.dumps({"manifests": listed}).encode())


def manifest_of(size: int) -> Manifest:
    layers = [{"digest": f"sha256:{size:064x}", "size": size}]
    return Manifest.of("application/vnd.oci.image.manifest.v1+json", json.dumps({"layers": layers}).encode())


def images(known: Pulls) -> dict[str, int]:
    return {image["name"]: image["bytes"] for image in known.described()["images"]}


def test_an_image_is_known_by_its_tag_with_the_bytes_of_the_platforms_that_were_asked_for() -> None:
    known, mine, other = Pulls(), manifest_of(1000), manifest_of(7)
    index = index_of(mine.body, other.body)
    known.named("docker.io", "library/nginx", "1.27", index)
    assert images(known) == {"docker.io/library/nginx:1.27": 0}
    known.named("docker.io", "library/nginx", mine.digest, mine)
    assert images(known) == {"docker.io/library/nginx:1.27": 1000 + len(mine.body)}
    assert known.described()["images"][0]["digest"] == index.digest
    known.named("docker.io", "library/other", mine.digest, mine)
    assert list(images(known)) == [f"docker.io/library/other@{mine.digest}", "docker.io/library/nginx:1.27"]


def test_a_tag_that_means_something_else_now_is_one_image() -> None:
    known, then, now = Pulls(), manifest_of(1000), manifest_of(2000)
    for manifest in (then, now, now):
        known.named("r", "a", "latest", manifest)
    assert images(known) == {"r/a:latest": 2000 + len(now.body)}


def test_the_least_recently_used_images_and_the_oldest_pulls_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "IMAGES_MAX", 2)
    known = Pulls()
    for tag in ("1", "2", "1", "3"):
        known.named("r", "a", tag, manifest_of(1))
    assert list(images(known)) == ["r/a:3", "r/a:1"]
    for number in range(pulls.PULLS_MAX + 3):
        known.ended(pulls.BlobPull(None, f"sha256:{number:064x}", ""), None)
    shown = known.described()["pulls"]
    assert len(shown) == pulls.PULLS_MAX
    assert shown[0]["digest"] == f"sha256:{pulls.PULLS_MAX + 2:064x}"


# The state.


def swarm_of(*where: Address) -> Supernodes:
    def hello() -> messages.Hello:
        raise AssertionError("nobody is connected to")

    return Supernodes(where, hello, lambda _: None, lambda _: messages.Recalled(0, None, 0.0, "", b""))


def test_the_state_says_what_a_node_has_and_whom_it_is_connected_to(endpoint: Endpoint) -> None:
    endpoint.ask("manifests/1")
    endpoint.ask(BLOB)
    ended(endpoint, 1)
    swarm = swarm_of(Address("10.0.0.1", 65004))
    state = NodeState("n1", "z1", endpoint.store, swarm, endpoint.downloads.pulls).described()
    assert (state["node"], state["zone"]) == ("n1", "z1")
    assert state["store"]["bytes"] == len(LAYER)
    assert state["store"]["quotaBytes"] == 1 << 30
    assert state["store"]["freeBytes"] > 0
    assert state["supernodes"] == [{"address": "10.0.0.1:65004", "connected": False}]
    assert state["images"][0]["name"] == f"{endpoint.origin.address}/{REPOSITORY}:1"
    assert state["images"][0]["bytes"] >= len(LAYER)
    assert [pull["digest"] for pull in state["pulls"]] == [DIGEST]
    assert json.loads(json.dumps(state)) == state


def test_a_node_without_supernodes_or_without_a_connection_is_alone() -> None:
    assert alone(swarm_of(), 0.0) == {"untilSeconds": None, "why": "no supernode is configured"}
    assert alone(swarm_of(Address("10.0.0.1", 65004)), 0.0) == {"untilSeconds": None, "why": "no supernode is connected"}


def test_a_node_whose_supernode_was_silent_is_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    where = Address("10.0.0.1", 65004)
    swarm = swarm_of(where)
    monkeypatch.setattr(type(swarm.channels[0]), "up", True)
    assert alone(swarm, 100.0) is None
    swarm.memory.failed(("supernode", where), 100.0)
    assert alone(swarm, 110.0) == {"untilSeconds": 50.0, "why": "the supernode 10.0.0.1:65004 did not answer"}
    assert alone(swarm, 161.0) is None
