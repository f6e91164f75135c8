"""The webhook's queue of names: it never waits, never raises, and drops what has no place."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from agent.swarm import messages
from agent.swarm.tickets import SwarmKey
from agent.values.address import Address, rank
from tests.swarm import wait_until
from tests.webhook_lab import container, pod
from webhook.gates import Rewrite
from webhook.pods import ImagePlace
from webhook.warm import warmer as module
from webhook.warm.link import Link
from webhook.warm.warmer import NAMES_WAITING_MAX, Warmer

PLACES = [Address(f"supernode-{number}.test", 65004) for number in range(3)]
HOLDING = messages.Holding(b"\x01" * 32, 5)


class FakeLinks:
    """Supernodes that answer, or do not."""

    def __init__(self) -> None:
        self.asked: list[tuple[Address, str, list[str]]] = []
        self.told: list[tuple[Address, messages.FromWebhook]] = []
        self.answers: dict[str, messages.Warmed] = {}
        self.connected: list[Address] = []
        self.closed: list[Address] = []
        self.fails: Callable[[Address], Exception | None] = lambda _: None
        self.broken: set[Address] = set()
        """Where the connection that is there breaks at its next use, once."""

    def connect(self, where: Address, _: SwarmKey) -> Link:
        if failure := self.fails(where):
            raise failure
        self.connected.append(where)
        return cast(Link, FakeLink(self, where))


class FakeLink:
    def __init__(self, links: FakeLinks, where: Address) -> None:
        self.links, self.where, self.used_at = links, where, float("inf")

    def ask(self, registry: str, repository: str, reference: str, architectures: list[str]) -> messages.Warmed:
        if self.where in self.links.broken:
            self.links.broken.discard(self.where)
            raise ConnectionResetError
        self.links.asked.append((self.where, f"{registry}/{repository}:{reference}", architectures))
        return self.links.answers.get(reference, messages.Warmed(1, [], []))

    def tell(self, message: messages.FromWebhook) -> None:
        self.links.told.append((self.where, message))

    def close(self) -> None:
        self.links.closed.append(self.where)


def made(links: FakeLinks, *architectures: str) -> Warmer:
    return Warmer(lambda: PLACES, SwarmKey(""), architectures, links.connect)


def admit(warmer: Warmer, *images: str, **spec: Any) -> None:
    rewrites = [Rewrite(ImagePlace("containers", "c", "", image, False), image, "", "", "") for image in images]
    warmer.admitted(pod(container("c", "nginx"), **spec), rewrites)


def work(warmer: Warmer, until: Callable[[], object]) -> None:
    ending = threading.Event()
    thread = threading.Thread(target=warmer.run, args=(ending,))
    thread.start()
    try:
        wait_until(until)
    finally:
        ending.set()
        thread.join()


def owner(key: str) -> Address:
    return min(PLACES, key=lambda where: rank(key, where))


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("darner_webhook_warm_names_total", {"outcome": outcome}) or 0.0


def test_a_name_is_asked_for_at_its_supernode_and_each_blob_told_to_its_own() -> None:
    links = FakeLinks()
    blobs = [messages.Holding(bytes([number]) * 32, 5) for number in range(20)]
    links.answers["1"] = messages.Warmed(1, blobs, [])
    warmer = made(links)
    admit(warmer, "quay.io/a/b:1")
    work(warmer, lambda: len(links.told) == 20)
    assert links.asked == [(owner("quay.io/a/b:1"), "quay.io/a/b:1", [])]
    assert {where for where, _ in links.told} == set(PLACES)
    for where, message in links.told:
        assert isinstance(message, messages.WarmBlob)
        assert where == owner(f"sha256:{message.blob.digest.hex()}")
    assert len(links.connected) == len(set(links.connected)), "one connection to each"


def test_of_an_index_the_manifests_are_asked_for_by_their_digests_and_no_further() -> None:
    links = FakeLinks()
    raw, other = b"\x02" * 32, b"\x03" * 32
    links.answers["1"] = messages.Warmed(1, [], [raw])
    links.answers[f"sha256:{raw.hex()}"] = messages.Warmed(1, [HOLDING], [other])
    warmer = made(links, "arm64")
    admit(warmer, "quay.io/a/b:1")
    work(warmer, lambda: links.told)
    key = f"quay.io/a/b:sha256:{raw.hex()}"
    assert links.asked == [(owner("quay.io/a/b:1"), "quay.io/a/b:1", ["arm64"]), (owner(key), key, ["arm64"])]


def test_what_the_pod_says_of_its_machines_counts_more() -> None:
    links = FakeLinks()
    warmer = made(links, "arm64")
    admit(warmer, "nginx", nodeSelector={"kubernetes.io/arch": "amd64"})
    work(warmer, lambda: links.asked)
    assert links.asked[0][2] == ["amd64"]


def test_a_name_is_told_once_however_many_pods_have_it() -> None:
    links = FakeLinks()
    warmer = made(links)
    for _ in range(1000):
        admit(warmer, "nginx:1")
    admit(warmer, "redis:1")
    work(warmer, lambda: len(links.asked) == 2)
    assert [name for _, name, _ in links.asked] == ["docker.io/library/nginx:1", "docker.io/library/redis:1"]


def test_names_without_a_place_in_the_queue_are_dropped_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    before = count("dropped")
    warmer = made(FakeLinks())
    for number in range(NAMES_WAITING_MAX + 100):
        admit(warmer, f"quay.io/a/b:{number}")
    assert count("dropped") == before + 100
    assert len(caplog.records) == 1
    assert warmer._queue.qsize() == NAMES_WAITING_MAX


def test_a_supernode_that_is_away_is_left_alone_for_a_while_and_the_next_one_has_its_turn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    links = FakeLinks()
    away, tried = owner("quay.io/a/b:1"), list[Address]()

    def fails(where: Address) -> Exception | None:
        tried.append(where)
        return ConnectionRefusedError("refused") if where == away else None

    links.fails = fails
    warmer = made(links)
    admit(warmer, "quay.io/a/b:1", *(f"quay.io/a/c:{number}" for number in range(10)))
    work(warmer, lambda: len(links.asked) == 11)
    assert tried.count(away) == 1
    assert away not in {where for where, _, _ in links.asked}
    assert len(caplog.records) == 1


def test_where_no_supernode_is_there_the_name_is_dropped_and_the_next_pod_may_have_more_luck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AVOID_SECONDS", 0.0)
    links = FakeLinks()
    links.fails = lambda _: OSError("away")
    warmer, before = made(links), count("dropped")
    admit(warmer, "nginx:1")
    work(warmer, lambda: count("dropped") == before + 1)
    links.fails = lambda _: None
    admit(warmer, "nginx:1")
    work(warmer, lambda: links.asked)


def test_a_connection_that_broke_is_made_anew_once() -> None:
    links = FakeLinks()
    warmer = made(links)
    place = owner("docker.io/library/nginx:1")
    names = [f"docker.io/library/nginx:{number}" for number in range(1, 99)]
    second = next(name for name in names[1:] if owner(name) == place)
    admit(warmer, names[0])
    admit(warmer, second)

    def asked_twice() -> bool:
        if len(links.asked) == 1 and not links.closed:
            links.broken.add(place)
        return len(links.asked) == 2

    work(warmer, asked_twice)
    assert links.connected.count(place) <= 2


def test_what_goes_wrong_inside_costs_one_name_and_neither_the_admission_nor_the_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    links = FakeLinks()
    warmer = made(links)
    admit(warmer, "Not A Name")
    assert "could not be told" in caplog.text
    links.fails = lambda _: ZeroDivisionError()
    before = count("dropped")
    admit(warmer, "nginx:1")

    def next_turn() -> bool:
        if count("dropped") > before:
            links.fails = lambda _: None
            admit(warmer, "redis:1")
        return bool(links.asked)

    work(warmer, next_turn)


def test_an_admission_waits_for_nothing() -> None:
    """No thread works on the queue, and no supernode is looked for."""
    warmer = Warmer(lambda: pytest.fail("it looked for supernodes"), SwarmKey("/nowhere"))
    logging.disable(logging.CRITICAL)
    try:
        for number in range(2000):
            admit(warmer, f"quay.io/a/b:{number}")
    finally:
        logging.disable(logging.NOTSET)
