"""Rows 34 and 35: what the piece server answers to whoever asks for what is not there, is not theirs, or is no piece at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import random
import time
from collections.abc import Iterator
from pathlib import Path
from socket import create_connection

import pytest
from blake3 import blake3

from agent.http import server
from agent.http.server import Listener
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.swarm.piece_server import CONNECTIONS_PER_ADDRESS_MAX, PieceServer
from agent.swarm.tickets import TICKET_SECONDS, SwarmKey, issue
from agent.values.address import Address
from agent.values.errors import StoreError
from agent.values.pieces import Layout
from tests.endpoint import no_more_than, threads_and_descriptors, wait_until

KEY = b"a key of the laboratory's swarm."
CONTENT = random.Random(35).randbytes((1 << 20) + 99)
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
ARRIVING = "sha256:" + hashlib.sha256(CONTENT[1:]).hexdigest()
LAYOUT = Layout.of(len(CONTENT))


class Node:
    """A piece server with one whole blob, and one of which pieces 0 (vouched for) and 1 (not) have arrived."""

    def __init__(self, root: Path) -> None:
        (root / "key").write_bytes(KEY)
        self.store = Store(root / "store", quota=1 << 30, free=0, age=3600.0)
        receive(self.store, CONTENT, DIGEST, range(LAYOUT.count))
        self.arriving = receive(self.store, CONTENT[1:], ARRIVING, range(1))
        start, end = self.arriving.layout.span(1)
        self.arriving.write(start, CONTENT[1:][start:end])
        self.arriving.add(1, blake3(CONTENT[1:][start:end]).digest(), checked=False)
        self.listener = PieceServer(self.store, SwarmKey(str(root / "key"))).listener(Address("127.0.0.1", 0))
        self.listener.start()

    def ask(self, target: str, ticket: str | None = None, method: str = "GET") -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection(*self.listener.address, timeout=5)
        with contextlib.closing(connection):
            headers = {} if ticket is None else {"Authorization": f"Ticket {ticket}"}
            connection.request(method, target, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers

    def piece(self, digest: str, number: object, ticket: str | None = None) -> tuple[int, bytes]:
        return self.ask(f"/pieces/{digest}/{number}", ticket or issue(KEY, digest, self.listener.address, time.time()))[:2]

    def stop(self) -> None:
        self.listener.stop()
        self.arriving.fail(StoreError("the test is over"))
        self.store.close()


def receive(store: Store, content: bytes, digest: str, pieces: range) -> Blob:
    blob = store.receive(digest, Layout.of(len(content)), public=True)
    for piece in pieces:
        start, end = blob.layout.span(piece)
        blob.write(start, content[start:end])
        blob.add(piece, blake3(content[start:end]).digest(), checked=True)
    return blob


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("node"))
    yield node
    node.stop()


def test_each_piece_of_a_whole_blob_is_served_as_it_is_cut(node: Node) -> None:
    answers = [node.piece(DIGEST, number) for number in range(LAYOUT.count)]
    assert {status for status, _ in answers} == {200}
    assert b"".join(body for _, body in answers) == CONTENT


def test_of_an_arriving_blob_what_was_vouched_for_is_served_and_nothing_else(node: Node) -> None:
    assert node.piece(ARRIVING, 0) == (200, CONTENT[1:][slice(*LAYOUT.span(0))])
    assert [node.piece(ARRIVING, number)[0] for number in (1, 2)] == [404, 404]


@pytest.mark.parametrize(
    "number", ["-1", "+1", "", "1.5", "0x1", "1e3", "9999999", "99999999999999999999", "0/0", "0?x", "%30", "٣"]
)
def test_what_is_no_number_of_a_piece_is_404(node: Node, number: str) -> None:
    with create_connection(node.listener.address, 5) as sock:
        ticket = issue(KEY, DIGEST, node.listener.address, time.time())
        sock.sendall(f"GET /pieces/{DIGEST}/{number} HTTP/1.0\r\nAuthorization: Ticket {ticket}\r\n\r\n".encode())
        assert sock.recv(100).split()[1] in (b"404", b"400")


@pytest.mark.parametrize("number", [LAYOUT.count, LAYOUT.count + 1, 65536, 999_999])
def test_a_piece_past_the_end_is_416(node: Node, number: int) -> None:
    assert node.piece(DIGEST, number)[0] == 416


def test_an_unknown_digest_is_404_and_asks_for_nothing(node: Node) -> None:
    unknown = "sha256:" + "0" * 64
    before = sorted(node.store.root.rglob("*"))
    assert node.piece(unknown, 0)[0] == 404
    assert sorted(node.store.root.rglob("*")) == before


@pytest.mark.parametrize(
    "digest", ["md5:" + "0" * 32, "sha256:../../lock", "sha256:" + "A" * 64, "sha512:" + "0" * 128, "..", ""]
)
def test_what_is_no_digest_is_404(node: Node, digest: str) -> None:
    assert node.piece(digest, 0)[0] == 404


@pytest.mark.parametrize(
    "target", ["/", "/pieces/", "/v2/", "/metrics", f"/pieces/{DIGEST}", f"//pieces/{DIGEST}/0", f"/pieces/{DIGEST}/0/"]
)
def test_there_is_nothing_else_on_this_port(node: Node, target: str) -> None:
    assert node.ask(target)[0] == 404


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE"])
def test_pieces_are_only_read(node: Node, method: str) -> None:
    status, _, headers = node.ask(f"/pieces/{DIGEST}/0", issue(KEY, DIGEST, node.listener.address, time.time()), method)
    assert (status, headers["Allow"]) == (405, "GET")


def tickets(server: Address = Address("127.0.0.1", 1)) -> dict[str, str | None]:  # noqa: B008 (only their names matter then)
    now = time.time()
    good = issue(KEY, DIGEST, server, now)
    return {
        "none": None,
        "empty": "",
        "of another key": issue(b"another key of another swarm....", DIGEST, server, now),
        "for another blob": issue(KEY, ARRIVING, server, now),
        "picked up at another server": issue(KEY, DIGEST, Address("127.0.0.2", server.port), now),
        "expired": issue(KEY, DIGEST, server, now - TICKET_SECONDS - 1),
        "of the far future": issue(KEY, DIGEST, server, now + 2 * TICKET_SECONDS),
        "prolonged": f"{int(now) + 9999}.{good.partition('.')[2]}",
        "cut short": good[:-1],
        "in capitals": good.upper(),
        "with more": good + "0",
        "endless": "9" * 8000 + "." + "0" * 64,
    }


@pytest.mark.parametrize("kind", tickets())
def test_without_a_good_ticket_nothing_is_told_not_even_what_is_here(node: Node, kind: str) -> None:
    ticket = tickets(node.listener.address)[kind]
    answers = {node.ask(f"/pieces/{digest}/0", ticket)[:2] for digest in (DIGEST, "sha256:" + "0" * 64)}
    if kind == "for another blob":
        answers |= {node.ask(f"/pieces/{DIGEST}/{LAYOUT.count}", ticket)[:2]}
    assert {status for status, _ in answers} == {401}
    assert len({body for _, body in answers}) == 1


def test_the_scheme_of_a_ticket_is_part_of_it(node: Node) -> None:
    connection = http.client.HTTPConnection(*node.listener.address, timeout=5)
    with contextlib.closing(connection):
        for scheme, status in (("Ticket ", 200), ("", 401), ("Basic ", 401), ("Bearer ", 401)):
            connection.request(
                "GET",
                f"/pieces/{DIGEST}/0",
                headers={"Authorization": scheme + issue(KEY, DIGEST, node.listener.address, time.time())},
            )
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status, scheme


def test_a_key_that_cannot_be_read_serves_nobody_and_says_so(node: Node, tmp_path: Path) -> None:
    server = Listener(
        Address("127.0.0.1", 0),
        PieceServer(node.store, SwarmKey(str(tmp_path / "absent"))).handle,
        name="piece server",
        connections_max=4,
        per_address_max=4,
        idle_seconds=1,
    )
    server.start()
    connection = http.client.HTTPConnection(*server.address, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", f"/pieces/{DIGEST}/0")
        assert connection.getresponse().status == 503
    server.stop()


def test_a_damaged_blob_is_not_offered_twice(node: Node, tmp_path: Path) -> None:
    """Whoever gets a wrong piece says so; the node that has it finds out by itself as soon as it is asked for any."""
    first = Store(tmp_path / "store", quota=1 << 30, free=0, age=3600.0)
    receive(first, CONTENT, DIGEST, range(LAYOUT.count))
    first.close()
    file = tmp_path / "store" / "blobs" / "sha256" / DIGEST.removeprefix("sha256:")
    file.write_bytes(CONTENT[:-1] + b"?")
    again = Store(tmp_path / "store", quota=1 << 30, free=0, age=3600.0)
    heard: list[tuple[str, bool]] = []
    again.on_change = lambda digest, _, held: heard.append((digest, held))
    again.blob(DIGEST)
    wait_until(lambda: heard == [(DIGEST, False)])
    assert again.blob(DIGEST) is None
    again.close()


# Row 34: connections that say little.


def test_silent_connections_and_half_a_head_are_closed_in_time_and_others_are_served_meanwhile(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.HEAD_SECONDS_MAX <= 5
    monkeypatch.setattr(server, "HEAD_SECONDS_MAX", 2.0)
    before = threads_and_descriptors()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(create_connection(node.listener.address, 5)) for _ in range(60)]
        for sock in silent[:30]:
            sock.sendall(b"GET /pieces/sha256:")
        assert node.piece(DIGEST, 0)[0] == 200
        assert len(node.listener._open) >= len(silent), "it was served before they were closed"
        for sock in silent:
            while sock.recv(1000):
                continue
    wait_until(lambda: no_more_than(before))


def test_one_address_cannot_take_all_connections(node: Node) -> None:
    wait_until(lambda: not node.listener._open)
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS_PER_ADDRESS_MAX):
            stack.enter_context(create_connection(node.listener.address, 5))
        wait_until(lambda: len(node.listener._open) == CONNECTIONS_PER_ADDRESS_MAX)
        began = time.monotonic()
        for _ in range(200):
            with create_connection(node.listener.address, 5) as sock:
                assert sock.recv(100).startswith(b"HTTP/1.1 503 ")
        assert time.monotonic() - began < 2
        other = stack.enter_context(create_connection(node.listener.address, 5, source_address=("127.0.0.2", 0)))
        other.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert other.recv(100).startswith(b"HTTP/1.1 404 ")
