"""The parts of the demo: what it believes, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from agent.values.reference import Reference
from hack.demo import cluster as demo_cluster
from hack.demo.__main__ import holds
from hack.demo.admission import AdmissionError, patched, pod_of
from hack.demo.cluster import Cluster, DemoError, Node, blob_bytes_sent, bytes_by_source, check_addresses, last_complaint
from hack.demo.puller import PullError, pull
from hack.demo.screen import Row, Screen
from hack.lab.process import Process
from hack.origin import Fault, Image, Origin

LAYERS = [bytes([number]) * 400_000 for number in range(1, 5)]
APP = Reference.parse("127.0.0.1:65001/team/app:1.0")


@pytest.fixture
def image() -> Image:
    return Image.of(LAYERS)


@pytest.fixture
def origin(image: Image) -> Iterator[Origin]:
    with Origin() as running:
        running.push("team/app", "1.0", image)
        yield running


def test_a_pull_brings_every_blob_once_and_tells_how_far_it_is(origin: Origin, image: Image) -> None:
    heard: list[int] = []
    pulled = pull(origin.address, APP, heard.append)
    assert (pulled.digest, pulled.size) == (image.digest, image.size)
    assert sum(heard) == image.size == origin.blob_bytes_sent
    assert len(origin.asked("/blobs/")) == len(LAYERS) + 1


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (Fault(path="/blobs/", flip_byte=7), "came with the digest sha256:"),
        (Fault(path="/blobs/", cut_after=100_000), "of 400000 bytes: [Errno 104]"),
        (Fault(path="/blobs/", headers={"Content-Length": "300000"}), "ended after 300000 of 400000 bytes"),
        (Fault(path="/blobs/", status=502, body=b'{"errors":[{"message":"no way"}]}'), "502 no way"),
        (Fault(path="/blobs/", status=502, body=b"<html>"), "502 <html>"),
        (Fault(path="/manifests/", headers={"Docker-Content-Digest": "sha256:other"}), "the manifest is said to be sha256:other"),
    ],
)
def test_a_pull_that_is_not_whole_and_right_says_what_is_wrong(
    origin: Origin, image: Image, fault: Fault, complaint: str
) -> None:
    origin.fail(fault)
    with pytest.raises(PullError) as refused:
        pull(origin.address, APP, lambda _: None)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_pull_from_nowhere_names_what_it_asked_for() -> None:
    with pytest.raises(PullError, match=r"GET /v2/team/app/manifests/1\.0: .*refused"):
        pull(demo_cluster.free_address(), APP, lambda _: None)


def test_the_patch_of_the_webhook_is_applied() -> None:
    patch = [{"op": "replace", "path": "/spec/containers/0/image", "value": "127.0.0.1:65001/docker.io/library/nginx"}]
    response = {"uid": "1", "allowed": True, "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
    assert patched(pod_of("nginx"), response, "1")["spec"]["containers"][0]["image"] == patch[0]["value"]


@pytest.mark.parametrize(
    ("response", "complaint"),
    [
        ({"uid": "1", "allowed": False}, "the webhook answered"),
        ({"uid": "2", "allowed": True, "patch": ""}, "the webhook answered"),
        ({"uid": "1", "allowed": True, "warnings": ["darner: no"]}, "left the pod as it is: darner: no"),
    ],
)
def test_a_pod_that_is_not_rewritten_ends_the_demo_with_the_webhooks_own_words(response: dict, complaint: str) -> None:
    with pytest.raises(AdmissionError, match=complaint):
        patched(pod_of("nginx"), response, "1")


def test_the_sources_of_a_node_are_read_from_its_metrics() -> None:
    registry = CollectorRegistry()
    counter = Counter("darner_agent_received_bytes", "as the agent has it", ["source"], registry=registry)
    counter.labels("peer").inc(3 << 30)
    counter.labels("origin").inc(7)
    metrics = generate_latest(registry).decode()
    assert bytes_by_source(metrics) == {"store": 0, "peer": 3 << 30, "supernode": 0, "origin": 7}


def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.41", 65002)), pytest.raises(DemoError, match=r"listens on 127\.0\.0\.41:65002;"):
        check_addresses([Node(40)])


def test_a_cluster_leaves_no_process_and_no_file_behind_whatever_happens() -> None:
    processes: list[Process] = []

    def cut_short() -> None:
        with Cluster() as cluster:
            processes.append(cluster.start("sleeper", ["-c", "import time; print('ready', flush=True); time.sleep(600)"]))
            cluster.store_of("sleeper").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_short()
    assert not processes[0].running
    assert not processes[0].out.parent.exists()


def test_a_process_that_does_not_start_is_quoted() -> None:
    with Cluster() as cluster, pytest.raises(DemoError, match="broken did not start: no such luck"):
        cluster.start("broken", ["-c", "raise SystemExit('no such luck')"])


def test_a_node_that_fails_is_quoted_with_its_last_complaint() -> None:
    log = (
        "2026-11-24 14:51:39,637 WARNING agent.origin.client: one\n"
        "2026-11-24 14:51:40,100 ERROR agent.http.server: it is: cut off\n"
        "2026-11-24 14:51:40,243 INFO uvicorn.error: Shutting down\n"
    )
    assert last_complaint(log) == "it is: cut off"
    assert last_complaint("") == ""


def test_the_origin_of_the_demo_tells_what_it_sent_until_it_is_killed() -> None:
    with Cluster() as cluster:
        name = cluster.start_origin("demo/python", "latest", flip_a_byte=True)
        local = Reference.parse(name)
        with pytest.raises(PullError, match="came with the digest"):
            pull(local.registry, local, lambda _: None)
        assert blob_bytes_sent(local.registry) > 0
        cluster.kill("origin")
        with pytest.raises(DemoError, match="did not answer"):
            blob_bytes_sent(local.registry)


def test_a_store_holds_an_image_when_every_blob_is_whole_in_it(tmp_path: Path, image: Image) -> None:
    blobs = tmp_path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for digest, content in image.blobs.items():
        assert not holds(tmp_path, image)
        assert isinstance(content, bytes)
        (blobs / digest.removeprefix("sha256:")).write_bytes(content)
    assert holds(tmp_path, image)
    (blobs / image.layers[0].removeprefix("sha256:")).write_bytes(b"short")
    assert not holds(tmp_path, image)


def test_the_table_has_a_line_for_each_node(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().table([Row("node-1", 1.25, {"store": 0, "peer": 3 << 20, "supernode": 1 << 19, "origin": 0})])
    line = next(line for line in capsys.readouterr().out.splitlines() if "node-1" in line)
    assert [word for word in line.split() if word[0].isdigit()] == ["1.2", "0.0", "3.0", "0.5", "0.0"]
