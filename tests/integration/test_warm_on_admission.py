"""Images of admitted pods come into the supernodes' caches early, and no pull is the worse for it."""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from agent.config import network as parse_network
from agent.http.sealed import client_context
from agent.swarm import messages
from agent.swarm.channel import Frames, frame, warm_answer
from agent.swarm.tickets import SwarmKey
from agent.swarm.tls import WEBHOOK, ProofError, SealedSocket
from agent.values.address import rank
from agent.values.reference import raw_digest
from hack.lab.process import Process
from hack.origin import Fault, Image, Origin
from hack.secrecy import secret
from supernode.tracker.task import BlobTask
from supernode.tracker.tracker import Tracker
from tests.swarm import PIECE, REPOSITORY, SECONDS, Lab, free_address, noise, wait_until
from tests.webhook_lab import RunningWebhook, container, pod, review
from webhook.gates import Rewrite
from webhook.pods import ImagePlace
from webhook.warm.link import Link
from webhook.warm.warmer import Warmer

INDEX = "application/vnd.oci.image.index.v1+json"
BODY = noise(24 * PIECE + 345)


def key_file(root: Path, name: str = "key") -> str:
    path = root / name
    path.write_bytes(secret(random.SystemRandom().randbytes(24).hex(), "a swarm key").encode())
    return str(path)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path, swarm_key_file=key_file(tmp_path)) as lab:
        yield lab


@pytest.fixture
def warmer(lab: Lab) -> Iterator[Warmer]:
    with running(Warmer(lambda: lab.channels, SwarmKey(lab.key))) as warmer:
        yield warmer


class running:  # noqa: N801 (a context manager)
    """A webhook's warmer, with its threads."""

    def __init__(self, warmer: Warmer) -> None:
        self._warmer = warmer
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=work, args=(self._ending,)) for work in warmer.working().values()]

    def __enter__(self) -> Warmer:
        for thread in self._threads:
            thread.start()
        return self._warmer

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()


def admit(warmer: Warmer, *images: str, **spec: object) -> None:
    """As the webhook does with a pod whose images it has rewritten."""
    place = ImagePlace("containers", "web", "/spec/containers/0/image", "", False)
    warmer.admitted(pod(**spec), [Rewrite(place, image, "", "", "") for image in images])


def named(lab: Lab, reference: str = ":1", repository: str = REPOSITORY) -> str:
    return f"{lab.origin.address}/{repository}{reference}"


def warmed(lab: Lab, digest: str, number: int = 0) -> bool:
    supernode = lab.supernodes[number]
    return supernode is not None and supernode._store.size_of(digest) is not None


def tracker_of(lab: Lab) -> Tracker:
    tracker = lab.supernode._tracker
    assert tracker
    return tracker


def task_of(lab: Lab, digest: str) -> BlobTask | None:
    found = [task for task in tracker_of(lab).seeds.tasks.values() if task.digest == raw_digest(digest)]
    return found[0] if found else None


def seeded(lab: Lab, digest: str) -> int:
    """Pieces that the supernode has of a blob that it warms."""
    found: list[int] = [swarm["seeded"] for swarm in lab.state()["swarms"] if swarm["digest"] == digest]
    return found[0] if found else 0


def asked_once(lab: Lab, image: Image) -> bool:
    return len(lab.origin.asked("/manifests/")) == 1 and lab.settled() == image.size


# The bytes are there before anybody asks, and leave the origin once.


def test_an_image_is_in_the_cache_before_any_node_asks_and_then_costs_the_origin_nothing(lab: Lab, warmer: Warmer) -> None:
    image = lab.push(BODY, noise(3 * PIECE, seed=2))
    admit(warmer, named(lab))
    for digest in image.blobs:
        wait_until(lambda digest=digest: warmed(lab, digest), said=lambda: str(lab.state()["swarms"]))
    assert lab.settled() == image.size
    nodes = [lab.node() for _ in range(4)]
    assert nodes[0].resolve("1").digest == image.digest
    assert set(lab.pull_everywhere(image.layers[0], nodes)) == {BODY}
    assert asked_once(lab, image), "each byte leaves the origin once, and so does the manifest"


def test_nodes_that_open_a_blob_while_it_is_warmed_take_over_and_each_byte_leaves_the_origin_once(
    lab: Lab, warmer: Warmer
) -> None:
    lab.origin.behave(Fault(path="/blobs/", bytes_per_second=6 * PIECE))
    image = lab.push(BODY)
    digest = image.layers[0]
    nodes = [lab.node() for _ in range(4)]
    admit(warmer, named(lab))
    wait_until(lambda: seeded(lab, digest) >= 3)
    assert set(lab.pull_everywhere(digest, nodes)) == {BODY}
    assert lab.settled() == image.size
    assert seeded(lab, digest) < 24, "the rest the nodes have brought"


def test_a_node_that_opens_one_layer_finds_what_has_come_of_the_others_and_nothing_is_sent_twice(
    lab: Lab, warmer: Warmer
) -> None:
    lab.origin.behave(Fault(path="/blobs/", bytes_per_second=8 * PIECE))
    layers = [noise(12 * PIECE, seed=number) for number in range(3)]
    image = lab.push(*layers)
    node = lab.node()
    admit(warmer, named(lab))
    wait_until(lambda: all(seeded(lab, digest) >= 2 for digest in image.layers[:2]))
    for digest, layer in zip(image.layers, layers, strict=True):
        assert node.pull(digest) == layer
    assert lab.settled() == image.size


def test_nothing_is_warmed_from_a_registry_that_nodes_are_pulling_from(lab: Lab, warmer: Warmer) -> None:
    pulled = lab.push(BODY).layers[0]
    image = lab.push(noise(9 * PIECE, seed=7), tag="2")
    lab.origin.fail(Fault(path=f"/blobs/{pulled}", stall_after=100))
    node = lab.node()
    with ThreadPoolExecutor(1) as pool:
        pull = pool.submit(node.pull, pulled, 2 * SECONDS)
        wait_until(lambda: lab.origin.asked(pulled, "GET"))
        admit(warmer, named(lab, ":2"))
        wait_until(lambda: len(tracker_of(lab).warm_blobs._blobs) == 2)
        for _ in range(2):
            ticked_at = tracker_of(lab)._ticked_at
            wait_until(lambda ticked_at=ticked_at: tracker_of(lab)._ticked_at > ticked_at)
        assert not [asked for asked in lab.origin.asked("/blobs/") if pulled not in asked.path], "nodes come first"
        lab.origin.stop()
        lab.origin.heal()
        lab.origin.start()
        assert pull.result(2 * SECONDS) == BODY
    for digest in image.blobs:
        wait_until(lambda digest=digest: warmed(lab, digest))


def test_the_last_run_of_a_registry_that_has_become_slow_is_cut_off_and_the_nodes_get_the_rest(
    lab: Lab, warmer: Warmer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supernode.tracker.warm_blobs.RUN_LEFT_SECONDS_MAX", 0.2)
    digest = lab.push(BODY).layers[0]
    lab.origin.fail(Fault(path=f"/blobs/{digest}", stall_after=PIECE // 2), times=1)
    node = lab.node()
    admit(warmer, named(lab))
    wait_until(lambda: (task := task_of(lab, digest)) and task.streaming)
    assert node.pull(digest) == BODY
    assert lab.origin.blob_bytes_sent <= len(BODY) + 2 * PIECE, "the beginning of a piece is all that was sent twice"


def test_a_supernode_that_sends_far_too_slowly_is_not_the_only_source_of_what_it_has_warmed(tmp_path: Path) -> None:
    with Lab(tmp_path, swarm_key_file=key_file(tmp_path), upload_rate=PIECE) as lab:
        image = lab.push(BODY)
        digest = image.layers[0]
        nodes = [lab.node() for _ in range(3)]
        with running(Warmer(lambda: lab.channels, SwarmKey(lab.key))) as warmer:
            admit(warmer, named(lab))
            wait_until(lambda: warmed(lab, digest))
        sent = lab.settled()
        assert set(lab.pull_everywhere(digest, nodes)) == {BODY}
        assert lab.settled() > sent, "nodes have asked the origin, too"


# Which image, and where.


def test_of_an_index_only_the_machines_of_the_pod_are_fetched_by_each_supernode_what_is_its(tmp_path: Path) -> None:
    with Lab(tmp_path, supernodes=3, swarm_key_file=key_file(tmp_path)) as lab:
        machines = {
            name: Image.of([noise(PIECE + number, seed=number)]) for number, name in enumerate(("amd64", "arm64", "s390x"))
        }
        for name, image in machines.items():
            lab.origin.push(REPOSITORY, name, image)
        entries = [
            {"digest": image.digest, "size": len(image.manifest), "platform": {"os": "linux", "architecture": name}}
            for name, image in machines.items()
        ]
        body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
        lab.origin.push(REPOSITORY, "1", Image(body, {}, INDEX))
        with running(Warmer(lambda: lab.channels, SwarmKey(lab.key), ("arm64",))) as warmer:
            admit(warmer, named(lab))
            admit(warmer, named(lab), nodeSelector={"kubernetes.io/arch": "s390x"})
            for name in ("arm64", "s390x"):
                for digest in machines[name].blobs:
                    owner = owner_of(lab, digest)
                    wait_until(lambda digest=digest, owner=owner: warmed(lab, digest, owner))
        assert not lab.origin.asked(machines["amd64"].layers[0])
        node = lab.node()
        sent = lab.settled()
        assert node.pull(machines["arm64"].layers[0]) == noise(PIECE + 1, seed=1)
        assert lab.settled() == sent


def owner_of(lab: Lab, digest: str) -> int:
    return min(range(len(lab.channels)), key=lambda number: rank(digest, lab.channels[number]))


# What is not warmed, and costs nothing.


def test_a_private_image_is_left_alone_and_nobody_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Lab(tmp_path, swarm_key_file=key_file(tmp_path)) as lab:
        lab.origin.repositories.access.private = frozenset({REPOSITORY})
        image = lab.push(BODY)
        with running(Warmer(lambda: lab.channels, SwarmKey(lab.key))) as warmer:
            before = count_here("darner_supernode_warm_names_total", "private")
            admit(warmer, named(lab))
            wait_until(lambda: count_here("darner_supernode_warm_names_total", "private") > before)
        assert not lab.origin.asked(image.layers[0])
        assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_without_a_supernode_or_with_another_key_names_are_dropped_and_said_once(
    lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = lab.push(BODY)
    nobody = free_address()
    for where, key in (([nobody], lab.key), (lab.channels, key_file(tmp_path, "other")), (lab.channels, str(tmp_path / "none"))):
        caplog.clear()
        dropped = count_here("darner_webhook_warm_names_total", "dropped")
        with running(Warmer(lambda where=where: where, SwarmKey(key))) as warmer:
            admit(warmer, named(lab), named(lab, ":2"), named(lab, ":3"))
            wait_until(lambda dropped=dropped: count_here("darner_webhook_warm_names_total", "dropped") >= dropped + 3)
        assert len([record for record in caplog.records if record.name == "webhook.warm.warmer"]) == 1
    assert not lab.origin.asked()
    node = lab.node()
    assert node.pull(image.layers[0]) == BODY


def test_an_agents_key_does_not_make_its_channel_a_webhooks(lab: Lab) -> None:
    """Whoever has the key could have shown it as a webhook; but nobody is both on one connection."""
    with socket.create_connection(lab.channels[0], SECONDS) as sock:
        sock.settimeout(SECONDS)
        sealed = SealedSocket(sock, client_context())
        sealed.prove(SwarmKey(lab.key).all())
        sealed.sendall(frame(messages.Warm(1, lab.origin.address, REPOSITORY, "1", [])))
        assert isinstance(first_of(sealed), messages.Refused)
    with socket.create_connection(lab.channels[0], SECONDS) as sock:
        sock.settimeout(SECONDS)
        sealed = SealedSocket(sock, client_context())
        sealed.prove(SwarmKey(lab.key).all(), WEBHOOK)
        sealed.sendall(frame(messages.Hello(messages.VERSION, "node", "", "127.0.0.1", 1, 0, [])))
        assert isinstance(first_of(sealed), messages.Refused)
    assert not lab.origin.asked()


def first_of(sealed: SealedSocket) -> messages.ToWebhook:
    frames = Frames()
    while data := sealed.recv(1 << 16):
        for body in frames.feed(data):
            return warm_answer(body)
    raise AssertionError("it says nothing")


def test_a_supernode_without_a_key_hears_no_webhook(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        lab.push(BODY)
        with pytest.raises(ProofError):
            Link(lab.channels[0], SwarmKey(key_file(tmp_path)))
        assert not lab.origin.asked()


def test_a_name_that_leads_to_a_forbidden_place_is_not_asked_for(tmp_path: Path) -> None:
    refused = (parse_network("127.0.0.0/8"),)
    with Lab(tmp_path, swarm_key_file=key_file(tmp_path), refused_networks=refused) as lab, Origin() as other:
        image = other.push(REPOSITORY, "1", Image.of([BODY]))
        with running(Warmer(lambda: lab.channels, SwarmKey(lab.key))) as warmer:
            before = count_here("darner_supernode_warm_names_total", "failed")
            admit(warmer, f"{other.address}/{REPOSITORY}:1")
            wait_until(lambda: count_here("darner_supernode_warm_names_total", "failed") > before)
            link = Link(lab.channels[0], SwarmKey(lab.key))
            link.tell(messages.WarmBlob(other.address, REPOSITORY, messages.Holding(raw_digest(image.layers[0]), len(BODY))))
            wait_until(lambda: other.address in tracker_of(lab).warm_blobs._paused, said=lambda: str(lab.state()["swarms"]))
            link.close()
            assert not other.asked()


def test_a_flood_of_names_is_dropped_beyond_a_few_and_agents_are_served_meanwhile(lab: Lab) -> None:
    digest = lab.push(BODY).layers[0]
    node = lab.node()
    link = Link(lab.channels[0], SwarmKey(lab.key))
    before = count_here("darner_supernode_warm_names_total", "limited")
    for number in range(500):
        link.tell(messages.Warm(number, lab.origin.address, f"many/{number}", "1", []))
        link.tell(messages.WarmBlob(lab.origin.address, f"many/{number}", messages.Holding(number.to_bytes(32), PIECE)))
    assert node.pull(digest) == BODY
    wait_until(lambda: count_here("darner_supernode_warm_names_total", "limited") > before + 300)
    link.close()
    assert len(lab.origin.asked("/many/", "GET")) < 200


def test_blobs_that_nobody_asks_for_have_a_part_of_the_cache_and_no_more(tmp_path: Path) -> None:
    with Lab(tmp_path, swarm_key_file=key_file(tmp_path), store_quota=40 * PIECE) as lab:
        image = lab.push(*(noise(4 * PIECE, seed=number) for number in range(4)))
        with running(Warmer(lambda: lab.channels, SwarmKey(lab.key))) as warmer:
            before = count_here("darner_supernode_warm_blobs_total", "limited")
            admit(warmer, named(lab))
            wait_until(lambda: count_here("darner_supernode_warm_blobs_total", "limited") == before + 2)
            wait_until(lambda: sum(warmed(lab, digest) for digest in image.blobs) == 3)
        assert lab.settled() < 9 * PIECE


def test_a_blob_that_a_node_or_the_cache_has_is_not_fetched_again(lab: Lab, warmer: Warmer) -> None:
    image = lab.push(BODY)
    digest, outcomes = image.layers[0], ("held", "here", "wanted")
    node = lab.node()
    assert node.pull(digest) == BODY
    lab.settled()
    asked = len(lab.origin.asked(digest))
    before = sum(count_here("darner_supernode_warm_blobs_total", outcome) for outcome in outcomes)
    admit(warmer, named(lab))
    wait_until(lambda: sum(count_here("darner_supernode_warm_blobs_total", outcome) for outcome in outcomes) > before)
    for other in image.blobs:
        wait_until(lambda other=other: other == digest or warmed(lab, other))
    assert len(lab.origin.asked(digest)) == asked


def count_here(name: str, outcome: str) -> float:
    """In this process."""
    return REGISTRY.get_sample_value(name, {"outcome": outcome}) or 0.0


# All of it, as processes.


def test_what_a_webhook_admits_a_supernode_has_before_any_node_asks(tmp_path: Path) -> None:
    key = key_file(tmp_path)
    channel, pieces, state = free_address(), free_address(), free_address()
    with Origin() as origin:
        image = origin.push(REPOSITORY, "1", Image.of([BODY]))
        argv = [sys.executable, "-m", "supernode", "--node-name", "supernode", "--store", str(tmp_path / "store")]
        argv += [
            "--piece-listen",
            str(pieces),
            "--http-listen",
            str(state),
            "--channel-listen",
            str(channel),
            "--store-free",
            "0",
        ]
        argv += ["--swarm-key-file", key, "--insecure-registries", origin.address]
        supernode = Process("supernode", argv, tmp_path)
        flags = ("--warm-on-admission", "true", "--swarm-key-file", key, "--supernodes", str(channel))
        try:
            supernode.wait_until(supernode.printed)
            with RunningWebhook(tmp_path, *flags) as webhook:
                assert webhook.ask(review(pod(container("web", f"{origin.address}/{REPOSITORY}:1"))))["patch"]
                stored = [tmp_path / "store" / "blobs" / "sha256" / digest.removeprefix("sha256:") for digest in image.blobs]
                wait_until(lambda: all(path.exists() for path in stored), said=supernode.err.read_text)
                wait_until(lambda: 'darner_webhook_warm_names_total{outcome="sent"} 1.0' in webhook.get("/metrics")[1])
                assert webhook.process.stop() == 0
                assert "Traceback" not in webhook.process.err.read_text()
        finally:
            supernode.kill()
        assert origin.blob_bytes_sent == image.size
