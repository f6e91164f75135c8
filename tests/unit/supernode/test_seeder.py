"""How a blob comes to the supernode: from its store, from those who hold it, from the origin; and what is said while it comes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from agent.http.server import Exchange, Listener
from agent.origin.client import Origin as OriginClient
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.swarm.piece_client import PieceFetcher
from agent.swarm.piece_server import PieceServer
from agent.swarm.tickets import SwarmKey
from agent.values.address import Address
from agent.values.credential import Credential
from agent.values.errors import DarnerError, DigestError, OriginError, StoreError
from agent.values.pieces import Layout
from agent.values.space import Percent
from hack.origin import Access, Fault, Image, Origin
from hack.secrecy import secret
from supernode import seeder as module
from supernode.registry_credentials import RegistryCredentials
from supernode.seeder import COMING_CHUNK_BYTES, ORIGIN_TRIES_MAX, AbandonedError, Holder, NotHereError, Seeder, SeedRequest
from tests.swarm import PIECE, REPOSITORY, free_address, noise, nothing_left_running, piece_listener, wait_until

BODY = noise(5 * PIECE + 1000)
IMAGE = Image.of([BODY])
DIGEST = IMAGE.layers[0]
LAYOUT = Layout.of(len(BODY))
DIGESTS = {piece: blake3(BODY[slice(*LAYOUT.span(piece))]).digest() for piece in range(LAYOUT.count)}


@pytest.fixture
def origin() -> Iterator[Origin]:
    with nothing_left_running(), Origin() as origin:
        origin.push(REPOSITORY, "1", IMAGE)
        yield origin


class Seeding:
    """A seeder, and what it says."""

    def __init__(self, root: Path, origin: Origin) -> None:
        self.origin = origin
        self.store = Store(root / "supernode", quota=1 << 30, free=0, age=3600.0)
        self.client = OriginClient([origin.address], [])
        self.fetcher = PieceFetcher(SwarmKey(""))
        self.seeder = Seeder(self.store, self.client, self.fetcher)
        self.abandoned = threading.Event()
        self.blobs: list[Blob] = []
        self.said: dict[int, bytes] = {}
        self.liars: list[str] = []
        self.ends: list[DarnerError | None] = []
        self.coming: list[int] = []
        self.while_coming: Callable[[int], None] = lambda piece: None
        self.on_piece: Callable[[int], None] = lambda piece: None
        self._servers: list[Listener] = []

    def seed(self, *holders: Holder, digest: str = DIGEST, size: int = 0, asks_origin: bool = True) -> DarnerError | None:
        """How it ended."""
        self.said.clear()
        self.coming.clear()
        wanted = SeedRequest(
            digest=digest,
            registry=self.origin.address,
            repository=REPOSITORY,
            private=False,
            size=size,
            asks_origin=asks_origin,
            holders=holders,
            on_size=self.blobs.append,
            on_coming=self._on_coming,
            on_piece=self._on_piece,
            on_liar=self.liars.append,
            on_end=self.ends.append,
            abandoned=self.abandoned,
        )
        self.seeder.seed(wanted)
        return self.ends.pop()

    def _on_coming(self, piece: int) -> None:
        assert piece not in self.said, "coming, and here"
        self.coming.append(piece)
        self.while_coming(piece)

    def _on_piece(self, piece: int, digest: bytes) -> None:
        assert piece not in self.said, "said twice"
        self.said[piece] = digest
        self.on_piece(piece)

    def holder(self, root: Path, name: str = "holder", body: bytes = BODY, size: int = len(BODY)) -> Holder:
        """A node that says it holds the blob, and gives the bytes of `body`, which need not be the blob's."""
        store = Store(root / name, quota=1 << 30, free=0, age=3600.0)
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        blob = store.receive(digest, Layout.of(len(body)), public=True)
        for piece in range(blob.layout.count):
            start, end = blob.layout.span(piece)
            blob.write(start, body[start:end])
            blob.add(piece, blake3(body[start:end]).digest(), checked=True)
        store.close()
        return Holder(name, self.serve(PieceServer(_Renamed(store, digest), SwarmKey("")).handle), size)  # type: ignore[arg-type]

    def serve(self, handle: Callable[[Exchange], None]) -> Address:
        self._servers.append(piece_listener(handle))
        return self._servers[-1].address

    def close(self) -> None:
        for server in self._servers:
            server.stop()
        self.client.close()
        self.fetcher.close()
        self.store.close()


class _Renamed:
    """A store that gives its one blob whatever is asked for."""

    def __init__(self, store: Store, digest: str) -> None:
        self._blob = store.blob(digest)

    def arriving(self, digest: str) -> None:
        return None

    def blob(self, digest: str) -> Blob | None:
        return self._blob


@pytest.fixture
def seeding(tmp_path: Path, origin: Origin) -> Iterator[Seeding]:
    seeding = Seeding(tmp_path, origin)
    yield seeding
    seeding.close()


def whole(seeding: Seeding) -> bool:
    blob = seeding.store.blob(DIGEST)
    return blob is not None and os.pread(blob.fd, len(BODY) + 1, 0) == BODY


def ending(end: int, start: int = 0, body: bytes = BODY) -> Fault:
    """An answer that ends too early, at byte `end` of the blob, so that all before that arrives."""
    lines = {"Content-Length": str(len(BODY) - start), "Connection": "close"}
    if start:
        lines["Content-Range"] = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
    return Fault(path="/blobs/", status=206 if start else 200, body=body[start:end], headers=lines)


# From the origin.


@pytest.mark.parametrize("is_begun", [False, True], ids=["from the beginning", "after a node's pieces"])
def test_what_only_the_operators_credentials_open_comes_whole_and_is_private(
    seeding: Seeding, tmp_path: Path, is_begun: bool
) -> None:
    user = Credential("operator", secret("the-operators-password"))
    (tmp_path / "config.json").write_text(
        json.dumps({"auths": {seeding.origin.address: {"username": user.username, "password": user.password}}})
    )
    seeding.origin.repositories.access = Access(users={user.username: user.password}, private=frozenset({REPOSITORY}))
    if is_begun:
        assert isinstance(seeding.seed(seeding.holder(tmp_path, body=BODY[: 2 * PIECE])), OriginError)
    else:
        assert isinstance(seeding.seed(), OriginError)
    assert seeding.said == {}
    seeding.seeder.credentials = RegistryCredentials(str(tmp_path / "config.json"))
    assert seeding.seed() is None
    assert seeding.said == DIGESTS
    assert all(blob.private for blob in seeding.blobs[-1:])
    assert seeding.seeder.blob_size(seeding.origin.address, REPOSITORY, DIGEST) == len(BODY)


def test_a_blob_comes_from_the_origin_once_and_every_piece_of_it_is_announced(seeding: Seeding) -> None:
    assert seeding.seed() is None
    assert seeding.said == DIGESTS
    assert whole(seeding)
    assert seeding.origin.blob_bytes_sent == len(BODY)
    assert [blob.size for blob in seeding.blobs] == [len(BODY)]


def test_pieces_are_announced_while_the_rest_arrives_and_the_last_one_when_the_whole_is_right(seeding: Seeding) -> None:
    held: list[tuple[int, bool]] = []
    seeding.on_piece = lambda piece: held.append((piece, seeding.blobs[0].whole))
    assert seeding.seed() is None
    assert held == [(piece, piece == LAYOUT.count - 1) for piece in range(LAYOUT.count)]


def test_pieces_are_passed_on_while_they_come_all_but_the_last(seeding: Seeding) -> None:
    shared: dict[int, int] = {}

    def look(piece: int) -> None:
        start, _ = LAYOUT.span(piece)
        shared[piece] = seeding.blobs[0].wait_to_share(piece, start, 0.0) - start

    seeding.while_coming = look
    assert seeding.seed() is None
    assert seeding.coming == list(range(LAYOUT.count - 1))
    assert set(shared.values()) == {COMING_CHUNK_BYTES}
    assert seeding.said == DIGESTS


def test_a_piece_that_comes_slowly_is_passed_on_when_all_of_it_is_here(seeding: Seeding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMING_SECONDS_MAX", 0.0)
    assert seeding.seed() is None
    assert seeding.coming == []
    assert seeding.said == DIGESTS


def test_a_stream_that_breaks_is_resumed_where_it_broke(seeding: Seeding) -> None:
    seeding.origin.fail(ending(2 * PIECE + 10), times=1)
    seeding.origin.fail(ending(4 * PIECE + 10, start=2 * PIECE), times=1)
    assert seeding.seed() is None
    assert seeding.said == DIGESTS
    assert [request.headers.get("Range") for request in seeding.origin.asked(DIGEST)] == [
        None,
        f"bytes={2 * PIECE}-",
        f"bytes={4 * PIECE}-",
    ]


def test_a_stream_that_ends_with_a_reset_is_resumed_too(seeding: Seeding) -> None:
    seeding.origin.fail(Fault(path="/blobs/", cut_after=2 * PIECE + 10), times=2)
    assert seeding.seed() is None
    assert seeding.said == DIGESTS


def test_an_origin_that_knows_no_ranges_is_read_from_the_beginning(seeding: Seeding) -> None:
    seeding.origin.fail(ending(2 * PIECE), times=1)
    seeding.origin.fail(Fault(path="/blobs/", status=200, body=BODY))
    assert seeding.seed() is None
    assert whole(seeding)


def test_a_stream_that_breaks_again_and_again_without_a_piece_between_is_given_up_and_kept(seeding: Seeding) -> None:
    seeding.origin.fail(ending(2 * PIECE), times=1)
    seeding.origin.fail(ending(2 * PIECE + 100, start=2 * PIECE), times=3)
    error = seeding.seed()
    assert isinstance(error, OriginError)
    assert seeding.said == {piece: DIGESTS[piece] for piece in (0, 1)}
    assert len(seeding.origin.asked(DIGEST)) == 1 + ORIGIN_TRIES_MAX - 1
    seeding.origin.heal()
    assert seeding.seed() is None
    assert seeding.said == DIGESTS, "what had come is announced again"
    assert seeding.origin.asked(DIGEST)[-1].headers["Range"] == f"bytes={2 * PIECE}-"


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_refusal_is_the_end_and_says_why(seeding: Seeding, status: int) -> None:
    seeding.origin.fail(Fault(path="/blobs/", status=status, body=b'{"errors": [{"code": "X", "message": "because"}]}'))
    error = seeding.seed()
    assert isinstance(error, OriginError)
    assert f"answered {status} for {REPOSITORY}: X because" in str(error)
    assert len(seeding.origin.requests) == (1 if status < 500 else 2), "a server that fails is asked once more"
    assert not seeding.blobs


def test_a_refusal_in_the_middle_is_not_asked_again(seeding: Seeding) -> None:
    seeding.origin.fail(ending(PIECE), times=1)
    seeding.origin.fail(Fault(path="/blobs/", status=404))
    assert isinstance(seeding.seed(), OriginError)
    assert len(seeding.origin.asked(DIGEST)) == 2


@pytest.mark.parametrize("at", [0, 2 * PIECE, len(BODY) - 1])
def test_a_wrong_byte_at_the_origin_is_never_announced_as_the_whole(seeding: Seeding, at: int) -> None:
    seeding.origin.fail(Fault(path="/blobs/", flip_byte=at))
    error = seeding.seed()
    assert isinstance(error, DigestError)
    assert DIGEST in str(error)
    assert set(seeding.said) == set(range(LAYOUT.count - 1)), "the last piece is held back"
    assert seeding.store.blob(DIGEST) is None
    seeding.origin.heal()
    assert seeding.seed() is None
    assert seeding.said == DIGESTS, "nothing of the wrong ones was kept"
    assert seeding.origin.blob_bytes_sent == 2 * len(BODY)


def test_a_blob_that_changes_its_size_between_two_streams_is_never_spliced(seeding: Seeding) -> None:
    seeding.origin.fail(ending(2 * PIECE), times=1)
    seeding.origin.fail(Fault(path="/blobs/", status=200, body=BODY + b"more"))
    error = seeding.seed()
    assert isinstance(error, OriginError)
    assert "another size than before" in str(error)


def test_a_blob_that_changes_between_two_streams_is_fetched_whole_once_more(seeding: Seeding, tmp_path: Path) -> None:
    """What an earlier try left was wrong: the supernode had been given other bytes then."""
    seeding.origin.fail(ending(2 * PIECE, body=bytes([BODY[0] ^ 1]) + BODY[1:]), times=1)
    seeding.origin.fail(Fault(path="/blobs/", status=503))
    assert isinstance(seeding.seed(), OriginError)
    assert set(seeding.said) == {0, 1}
    seeding.origin.heal()
    error = seeding.seed()
    assert isinstance(error, DigestError), "those who were told of the wrong piece have to hear of it"
    assert seeding.seed() is None
    assert seeding.said == DIGESTS


def test_more_bytes_than_were_announced_are_not_read(seeding: Seeding) -> None:
    seeding.origin.fail(Fault(path="/blobs/", extra=b"x" * 1000))
    assert seeding.seed() is None
    assert whole(seeding)


@pytest.mark.parametrize("length", [str(2**63), str((1 << 40) + 1), "1000000000000000000000000"])
def test_a_size_that_cannot_be_is_refused_before_anything_is_made(seeding: Seeding, length: str) -> None:
    seeding.origin.fail(Fault(path="/blobs/", headers={"Content-Length": length}, cut_after=10))
    assert isinstance(seeding.seed(), OriginError)
    assert not list((seeding.store.root / "partial").iterdir())


def test_a_blob_of_no_bytes_is_whole_at_once(seeding: Seeding) -> None:
    image = seeding.origin.push(REPOSITORY, "empty", Image.of([b""]))
    assert seeding.seed(digest=image.layers[0]) is None
    assert seeding.said == {}
    assert seeding.store.blob(image.layers[0])


def test_a_cache_without_room_is_said_to_be_full(seeding: Seeding) -> None:
    seeding.store.free = Percent(100)
    error = seeding.seed()
    assert isinstance(error, StoreError)


def test_a_disk_that_fails_in_the_middle_is_said_to_fail(seeding: Seeding, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def write(blob: Blob, offset: int, data: memoryview | bytes, claim: int) -> None:
        written.append(offset)
        if offset >= PIECE:
            raise OSError(28, "No space left on device")
        os.pwrite(blob.fd, data, offset)

    monkeypatch.setattr(Blob, "write", write)
    error = seeding.seed()
    assert isinstance(error, StoreError)
    assert "No space left on device" in str(error)
    assert set(seeding.said) == {0}


# From the store.


def test_what_is_in_the_store_is_announced_without_asking_anybody(seeding: Seeding, tmp_path: Path) -> None:
    assert seeding.seed() is None
    asked = len(seeding.origin.requests)
    assert seeding.seed(seeding.holder(tmp_path)) is None
    assert seeding.said == DIGESTS
    assert len(seeding.origin.requests) == asked


def test_what_the_disk_has_damaged_is_not_announced_and_fetched_anew(seeding: Seeding, tmp_path: Path) -> None:
    assert seeding.seed() is None
    again = reopened(seeding, tmp_path, damage=True)
    assert again.seed() is None
    assert again.said == DIGESTS
    assert again.origin.blob_bytes_sent == 2 * len(BODY)
    again.close()


def test_what_lay_on_the_disk_is_announced_when_it_was_found_right(seeding: Seeding, tmp_path: Path) -> None:
    assert seeding.seed() is None
    again = reopened(seeding, tmp_path)
    verified: list[bool] = []
    again.on_piece = lambda piece: verified.append(again.blobs[0].whole)
    assert again.seed() is None
    assert again.said == DIGESTS
    assert all(verified)
    assert again.origin.blob_bytes_sent == len(BODY)
    again.close()


def reopened(seeding: Seeding, tmp_path: Path, damage: bool = False) -> Seeding:
    """The supernode after a restart, perhaps with a flipped bit on its disk."""
    seeding.store.close()
    seeding.store.close = lambda: None  # type: ignore[method-assign]
    path = tmp_path / "supernode" / "blobs" / "sha256" / DIGEST.removeprefix("sha256:")
    if damage:
        with path.open("r+b") as file:
            file.seek(3 * PIECE)
            file.write(bytes([BODY[3 * PIECE] ^ 1]))
    return Seeding(tmp_path, seeding.origin)


# From those who hold it.


def test_what_a_node_holds_is_taken_back_from_it_and_no_byte_from_the_origin(seeding: Seeding, tmp_path: Path) -> None:
    assert seeding.seed(seeding.holder(tmp_path)) is None
    assert seeding.said == DIGESTS
    assert whole(seeding)
    assert seeding.origin.blob_bytes_sent == 0
    assert [request.method for request in seeding.origin.requests] == ["HEAD"]


def test_it_is_taken_back_while_the_origin_is_away(seeding: Seeding, tmp_path: Path) -> None:
    seeding.origin.stop()
    assert seeding.seed(seeding.holder(tmp_path)) is None
    assert whole(seeding)


def test_it_is_taken_back_where_the_origin_refuses_whoever_has_no_credential(seeding: Seeding, tmp_path: Path) -> None:
    """Who may have it is decided at the agents; here it goes from node to node by its digest."""
    seeding.origin.repositories.access = Access(private=frozenset({REPOSITORY}))
    assert seeding.seed(seeding.holder(tmp_path)) is None
    assert whole(seeding)


def test_nothing_that_nodes_give_is_announced_before_the_whole_is_right(seeding: Seeding, tmp_path: Path) -> None:
    verified: list[bool] = []
    seeding.on_piece = lambda piece: verified.append(seeding.blobs[0].whole)
    assert seeding.seed(seeding.holder(tmp_path)) is None
    assert verified == [True] * LAYOUT.count
    assert seeding.blobs, "its size is told before that, so that nobody gives up waiting"


def test_the_next_holder_is_asked_when_one_is_gone_or_has_lost_it(seeding: Seeding, tmp_path: Path) -> None:
    gone = Holder("gone", free_address(), len(BODY))
    evicted = Holder("evicted", seeding.serve(lambda exchange: exchange.answer(404, {})), len(BODY))
    assert seeding.seed(gone, evicted, seeding.holder(tmp_path)) is None
    assert whole(seeding)
    assert seeding.origin.blob_bytes_sent == 0
    assert seeding.liars == []


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Holder]]:
    """Nodes that say they hold the blob, and send nothing; each says so to whoever is connected to it."""
    monkeypatch.setattr("agent.swarm.piece_client.PIECE_STALL_SECONDS_MAX", 0.3)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(7)]
        yield [Holder(f"silent-{number}", Address(*server.getsockname()), len(BODY)) for number, server in enumerate(servers)]


def test_of_many_holders_that_send_nothing_one_is_waited_for_and_then_the_origin_is_asked(
    seeding: Seeding, silent: list[Holder], caplog: pytest.LogCaptureFixture
) -> None:
    """FAULTS 91."""
    caplog.set_level("INFO")
    assert seeding.seed(*silent) is None
    assert seeding.said == DIGESTS
    assert [line for line in caplog.messages if "is not taken back from silent-" in line] != []
    assert len([line for line in caplog.messages if "is not taken back from" in line]) == 1


def test_while_the_origin_is_away_each_of_them_is_tried(seeding: Seeding, silent: list[Holder], tmp_path: Path) -> None:
    """FAULTS 91: there may be one that has it."""
    seeding.origin.stop()
    assert seeding.seed(*silent, seeding.holder(tmp_path)) is None
    assert seeding.said == DIGESTS


def test_what_is_neither_here_nor_at_nodes_is_not_here_where_the_origin_is_not_to_be_asked(
    seeding: Seeding, tmp_path: Path
) -> None:
    assert isinstance(seeding.seed(size=len(BODY), asks_origin=False), NotHereError)
    gone = Holder("gone", free_address(), len(BODY))
    assert isinstance(seeding.seed(gone, size=len(BODY), asks_origin=False), NotHereError)
    assert (seeding.said, seeding.origin.requests) == ({}, [])
    holder = seeding.holder(tmp_path)
    assert seeding.seed(holder, size=len(BODY), asks_origin=False) is None
    assert (seeding.said, seeding.origin.requests) == (DIGESTS, [])


def test_a_size_that_the_nodes_said_is_not_asked_for_anew_and_a_holder_of_another_is_not_asked(
    seeding: Seeding, tmp_path: Path
) -> None:
    holder = seeding.holder(tmp_path)
    odd = Holder("odd", holder.where, len(BODY) - 1)
    assert isinstance(seeding.seed(odd, size=len(BODY), asks_origin=False), NotHereError)
    assert seeding.seed(odd, holder, size=len(BODY)) is None
    assert seeding.origin.requests == []


def test_an_origin_whose_blob_is_not_as_long_as_the_nodes_said_is_not_read(seeding: Seeding) -> None:
    ended = seeding.seed(size=len(BODY) - 1)
    assert isinstance(ended, OriginError)
    assert "not as long as the nodes said" in str(ended)
    assert seeding.said == {}


def test_what_the_holders_lack_comes_from_the_origin(seeding: Seeding, tmp_path: Path) -> None:
    holder = seeding.holder(tmp_path)
    asked: list[str] = []

    def until_the_third(exchange: Exchange) -> None:
        asked.append(exchange.request.target)
        if len(asked) > 2:
            exchange.answer(404, {})
            return
        piece = int(exchange.request.target.rpartition("/")[2])
        exchange.answer(200, {}, BODY[slice(*LAYOUT.span(piece))])

    leaving = Holder(holder.name, seeding.serve(until_the_third), holder.size)
    assert seeding.seed(leaving) is None
    assert seeding.said == DIGESTS
    assert seeding.origin.blob_bytes_sent == len(BODY) - 2 * PIECE


WRONG = BODY[: 2 * PIECE] + bytes(PIECE) + BODY[3 * PIECE :]


def test_a_holder_that_gives_something_else_is_named_and_the_origin_is_asked(seeding: Seeding, tmp_path: Path) -> None:
    assert seeding.seed(seeding.holder(tmp_path, "liar", WRONG)) is None
    assert seeding.said == DIGESTS
    assert whole(seeding)
    assert seeding.liars == ["liar"]
    assert seeding.origin.blob_bytes_sent == len(BODY)


def test_when_two_gave_something_that_is_wrong_together_neither_is_named(seeding: Seeding, tmp_path: Path) -> None:
    liar = seeding.holder(tmp_path, "liar", WRONG)
    given: list[str] = []

    def first_three(exchange: Exchange) -> None:
        given.append(exchange.request.target)
        piece = int(exchange.request.target.rpartition("/")[2])
        exchange.answer(200 if piece < 3 else 404, {}, WRONG[slice(*LAYOUT.span(piece))] if piece < 3 else b"")

    honest = seeding.holder(tmp_path, "honest")
    assert seeding.seed(Holder("liar", seeding.serve(first_three), liar.size), honest) is None
    assert seeding.liars == []
    assert whole(seeding)


def test_a_liar_that_leaves_in_the_middle_costs_one_fetch_from_the_origin_and_no_wrong_byte(
    seeding: Seeding, tmp_path: Path
) -> None:
    def three_wrong_ones(exchange: Exchange) -> None:
        piece = int(exchange.request.target.rpartition("/")[2])
        exchange.answer(200 if piece < 3 else 404, {}, WRONG[slice(*LAYOUT.span(piece))] if piece < 3 else b"")

    assert seeding.seed(Holder("liar", seeding.serve(three_wrong_ones), len(BODY))) is None
    assert seeding.said == DIGESTS
    assert whole(seeding)
    assert seeding.origin.blob_bytes_sent == len(BODY) - 3 * PIECE + len(BODY)


def test_a_holder_that_names_another_size_than_the_origin_is_not_asked(seeding: Seeding, tmp_path: Path) -> None:
    short = seeding.holder(tmp_path, "short", BODY[:PIECE], PIECE)
    assert seeding.seed(short) is None
    assert whole(seeding)
    assert [blob.size for blob in seeding.blobs] == [len(BODY)]


def test_without_the_origin_the_size_is_what_most_holders_say(seeding: Seeding, tmp_path: Path) -> None:
    seeding.origin.stop()
    holders = [seeding.holder(tmp_path, f"holder-{number}") for number in range(2)]
    assert seeding.seed(seeding.holder(tmp_path, "short", BODY[:PIECE], PIECE), *holders) is None
    assert whole(seeding)


def test_a_lie_about_the_size_while_the_origin_is_away_is_no_blob(seeding: Seeding, tmp_path: Path) -> None:
    seeding.origin.stop()
    error = seeding.seed(seeding.holder(tmp_path, "short", BODY[:PIECE], PIECE))
    assert isinstance(error, OriginError)
    assert seeding.liars == ["short"]
    assert seeding.said == {}
    assert seeding.store.blob(DIGEST) is None


# Nobody wants it any more.


def test_a_blob_that_nobody_wants_stops_arriving_and_goes_on_where_it_stopped(seeding: Seeding) -> None:
    seeding.origin.fail(Fault(path="/blobs/", stall_after=2 * PIECE + 100_000), times=1)
    stopping = threading.Thread(
        target=lambda: (wait_until(lambda: len(seeding.said) == 2), seeding.abandoned.set(), seeding.client.close())
    )
    stopping.start()
    assert isinstance(seeding.seed(), AbandonedError | OriginError)
    stopping.join()
    seeding.abandoned.clear()
    seeding.client = OriginClient([seeding.origin.address], [])
    seeding.seeder.origin = seeding.client
    assert seeding.seed() is None
    assert seeding.said == DIGESTS
    assert seeding.origin.asked(DIGEST)[-1].headers["Range"] == f"bytes={2 * PIECE}-"


def test_a_stream_that_trickles_is_left_when_nobody_wants_it(seeding: Seeding) -> None:
    seeding.origin.fail(Fault(path="/blobs/", bytes_per_second=PIECE))
    seeding.on_piece = lambda piece: seeding.abandoned.set()
    assert isinstance(seeding.seed(), AbandonedError)
    assert seeding.origin.blob_bytes_sent < len(BODY)


def test_taking_back_from_holders_stops_too(seeding: Seeding, tmp_path: Path) -> None:
    seeding.abandoned.set()
    assert isinstance(seeding.seed(seeding.holder(tmp_path)), AbandonedError)


def test_a_mistake_of_ours_is_told_and_ends_no_thread(seeding: Seeding, caplog: pytest.LogCaptureFixture) -> None:
    def break_down(piece: int) -> None:
        raise RuntimeError("a mistake")

    seeding.on_piece = break_down
    error = seeding.seed()
    assert "failed inside: RuntimeError" in str(error)
    assert "a mistake" in caplog.text
