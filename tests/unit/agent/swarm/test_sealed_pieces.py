"""Pieces inside TLS: which ones, asked of a real piece server by the code that asks in a cluster."""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from agent.http.certificate import Certificate
from agent.http.ratelimit import Pace
from agent.http.server import Exchange, Listener
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.swarm import messages
from agent.swarm.piece_client import PieceFetcher
from agent.swarm.piece_server import PieceServer
from agent.swarm.tickets import Encryption, SwarmKey, issue
from agent.values.address import Address
from agent.values.errors import SourceError
from agent.values.pieces import Layout
from tests.swarm import PIECE, certificate, noise, nothing_left_running, piece_listener

KEY = b"0123456789abcdef0123456789abcdef"
BODY = noise(3 * PIECE + 1000)
DIGEST = "sha256:" + hashlib.sha256(BODY).hexdigest()
LAYOUT = Layout.of(len(BODY))
DIGESTS = [blake3(BODY[slice(*LAYOUT.span(piece))]).digest() for piece in range(LAYOUT.count)]
MARK = certificate().fingerprint
Seen = list[tuple[Address, bool, int]]
"""Of each request: from where it came, whether inside TLS, and the status of its answer."""


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    with nothing_left_running():
        yield


@pytest.fixture
def key(tmp_path: Path) -> SwarmKey:
    (tmp_path / "key").write_bytes(KEY)
    return SwarmKey(str(tmp_path / "key"))


class Pair:
    """A node that holds the blob, and one that takes it; who is told that it is public is said of each."""

    def __init__(self, root: Path, key: SwarmKey) -> None:
        self.root, self.key = root, key
        self.seen: Seen = []
        self.listeners: list[Listener] = []
        self.fetchers: list[PieceFetcher] = []
        self.stores = [Store(root / name, quota=1 << 30, free=0, age=3600.0) for name in ("holder", "taker")]

    def holder(self, *, public: bool, encryption: str = "private", upload: Pace | None = None) -> Address:
        self.held = self.stores[0].receive(DIGEST, LAYOUT, public=public)
        for piece, digest in enumerate(DIGESTS):
            self.held.write(LAYOUT.span(piece)[0], BODY[slice(*LAYOUT.span(piece))])
            self.held.add(piece, digest, checked=True)
        server = PieceServer(self.stores[0], self.key, upload, certificate=certificate(), encryption=Encryption(encryption))
        handle = server.handle

        def noted(exchange: Exchange) -> None:
            status: list[int] = []
            head = exchange._head

            def noted_head(number: int, *arguments: object) -> bytes:
                status.append(number)
                return head(number, *arguments)  # type: ignore[arg-type]

            exchange._head = noted_head  # type: ignore[method-assign]
            try:
                handle(exchange)
            finally:
                self.seen.append((Address(*exchange._sock.getpeername()[:2]), exchange.sealed, status[0]))

        server.handle = noted  # type: ignore[method-assign]
        listener = server.listener(Address("127.0.0.1", 0))
        listener.start()
        self.listeners.append(listener)
        return listener.address

    def taker(self, *, public: bool, encryption: str = "private", download: Pace | None = None) -> tuple[PieceFetcher, Blob]:
        fetcher = PieceFetcher(self.key, download, encryption=Encryption(encryption))
        self.fetchers.append(fetcher)
        return fetcher, self.stores[1].receive(DIGEST, LAYOUT, public=public)

    def close(self) -> None:
        for fetcher in self.fetchers:
            fetcher.close()
        for listener in self.listeners:
            listener.stop()
        for store in self.stores:
            store.close()


@pytest.fixture
def pair(tmp_path: Path, key: SwarmKey) -> Iterator[Pair]:
    pair = Pair(tmp_path, key)
    yield pair
    pair.close()


def all_of_it(fetcher: PieceFetcher, blob: Blob, where: Address) -> None:
    for piece, digest in enumerate(DIGESTS):
        fetcher.fetch(blob, piece, digest, where, fingerprint=MARK)
    assert blob.whole


@pytest.mark.parametrize(
    ("holder", "taker", "sealed"),
    [
        (("private", True), ("private", True), [False]),
        (("private", False), ("private", False), [True]),
        (("private", True), ("private", False), [True]),
        (("private", True), ("always", True), [True]),
        (("never", False), ("never", False), [False]),
        (("never", False), ("private", False), [True]),
    ],
)
def test_what_is_private_goes_inside_tls_and_the_rest_in_clear_unless_the_setting_says_otherwise(
    pair: Pair, holder: tuple[str, bool], taker: tuple[str, bool], sealed: list[bool]
) -> None:
    where = pair.holder(public=holder[1], encryption=holder[0])
    all_of_it(*pair.taker(public=taker[1], encryption=taker[0]), where)
    assert [(found, status) for _, found, status in pair.seen] == [(each, 200) for each in sealed] * LAYOUT.count
    assert len({client for client, _, _ in pair.seen}) == 1, "one connection serves many pieces, inside TLS too"


@pytest.mark.parametrize("encryption", ["private", "always"])
def test_a_holder_gives_nothing_private_in_clear_and_the_taker_learns_it_from_the_first_refusal(
    pair: Pair, encryption: str
) -> None:
    where = pair.holder(public=encryption == "always", encryption=encryption)
    fetcher, blob = pair.taker(public=True)
    all_of_it(fetcher, blob, where)
    assert [(sealed, status) for _, sealed, status in pair.seen] == [(False, 426)] + [(True, 200)] * LAYOUT.count
    assert blob.private, "nor does it give others in clear what it got"


def test_where_the_setting_changes_a_node_that_seals_nothing_takes_from_one_that_seals_all(pair: Pair) -> None:
    where = pair.holder(public=False, encryption="always")
    all_of_it(*pair.taker(public=True, encryption="never"), where)


def test_a_refusal_in_clear_says_how_it_is_given(pair: Pair) -> None:
    where = pair.holder(public=False)
    connection = http.client.HTTPConnection(*where, timeout=5)
    ticket = issue(KEY, DIGEST, where, time.time())
    connection.request("GET", f"/pieces/{DIGEST}/0", headers={"Authorization": f"Ticket {ticket}"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Upgrade"], BODY[:100] in answer.read()) == (426, "TLS/1.3", False)
    connection.close()


def test_a_ticket_that_went_over_the_network_in_clear_opens_nothing_inside_tls(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = pair.holder(public=False)
    fetcher, blob = pair.taker(public=False)
    monkeypatch.setattr("agent.swarm.piece_client.issue", lambda *arguments, **_: issue(*arguments))
    with pytest.raises(SourceError, match="refuses this node's tickets"):
        fetcher.fetch(blob, 0, DIGESTS[0], where, fingerprint=MARK)


def test_a_node_with_another_certificate_than_the_supernode_said_gets_no_ticket(pair: Pair) -> None:
    where = pair.holder(public=False)
    fetcher, blob = pair.taker(public=False)
    for fingerprint, said in ((bytes(32), "another certificate"), (b"", "which certificate")):
        with pytest.raises(SourceError, match=said) as failed:
            fetcher.fetch(blob, 0, DIGESTS[0], where, fingerprint=fingerprint)
        assert failed.value.verdict == messages.UNREACHABLE
    assert not pair.seen


def test_a_connection_is_used_again_only_by_those_who_meant_that_certificate(pair: Pair) -> None:
    where = pair.holder(public=False)
    fetcher, blob = pair.taker(public=False)
    fetcher.fetch(blob, 0, DIGESTS[0], where, fingerprint=MARK)
    with pytest.raises(SourceError):
        fetcher.fetch(blob, 1, DIGESTS[1], where, fingerprint=Certificate.make().fingerprint)
    fetcher.fetch(blob, 1, DIGESTS[1], where, fingerprint=MARK)
    assert len({client for client, _, _ in pair.seen}) == 1


class Clock:
    """Virtual time, of a limit on bandwidth."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("side", ["upload", "download"])
def test_limits_on_bandwidth_hold_inside_tls_as_they_do_in_clear(pair: Pair, side: str) -> None:
    clock = Clock()
    pace = Pace(4 << 20, clock.time, clock.sleep)
    where = pair.holder(public=False, upload=pace if side == "upload" else None)
    all_of_it(*pair.taker(public=False, download=pace if side == "download" else None), where)
    assert clock.now == pytest.approx(len(BODY) / pace.rate, rel=0.1, abs=0.1)


def answers(node: Callable[[Exchange], None], listeners: list[Listener]) -> Address:
    listener = piece_listener(node)
    listeners.append(listener)
    return listener.address


@pytest.mark.parametrize("sent", [0, 100_000])
def test_a_node_that_stalls_inside_tls_is_left_as_soon_as_one_in_clear(
    pair: Pair, sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.swarm.piece_client.PIECE_STALL_SECONDS_MAX", 0.3)

    def stall(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": str(PIECE)})
        exchange.send(BODY[:sent] or b"\0")
        time.sleep(1.0)

    where = answers(stall, pair.listeners)
    fetcher, blob = pair.taker(public=False)
    with pytest.raises(SourceError) as failed:
        fetcher.fetch(blob, 0, DIGESTS[0], where, fingerprint=MARK)
    assert failed.value.verdict == messages.STALLED


def test_wrong_bytes_inside_tls_are_wrong_bytes(pair: Pair) -> None:
    def lie(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": str(PIECE)})
        exchange.send(bytes(PIECE))
        exchange.finish()

    where = answers(lie, pair.listeners)
    fetcher, blob = pair.taker(public=False)
    with pytest.raises(SourceError) as failed:
        fetcher.fetch(blob, 0, DIGESTS[0], where, fingerprint=MARK)
    assert failed.value.verdict == messages.CORRUPT
