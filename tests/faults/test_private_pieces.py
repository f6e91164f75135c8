"""What a network sees of a private image that goes from node to node, and what whoever has recorded it gets for that."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.swarm import messages
from agent.values.address import Address
from agent.values.credential import Credential
from hack.origin import Image, Origin
from hack.origin.access import Access
from tests.endpoint import Endpoint
from tests.swarm import PIECE, REPOSITORY, SECONDS, Lab, free_address, noise, wait_until

KEY = b"a key of the laboratory's swarm."
ALICE = Credential("alice", "wonderland")
BODY = noise(4 * PIECE + 1000)
SAMPLE_BYTES = 64
"""So many of a blob's bytes in a row are found nowhere by chance."""


class Recorder:
    """Forwarders in front of piece servers, which keep what passes: of each connection what the client says, and the server."""

    def __init__(self) -> None:
        self.sessions: list[tuple[Address, bytearray, bytearray]] = []
        """Each with the server that it was with."""
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def through(self, server: Address) -> Address:
        """Where others reach that server by way of here."""
        listener = socket.create_server(free_address())
        self._sockets.append(listener)
        self._begin(self._accept, listener, server)
        return Address(*listener.getsockname())

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments))
        self._threads[-1].start()

    def _accept(self, listener: socket.socket, server: Address) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                onward = socket.create_connection(server, SECONDS)
                self._sockets += [client, onward]
                session = server, bytearray(), bytearray()
                self.sessions.append(session)
                self._begin(self._pass, client, onward, session[1])
                self._begin(self._pass, onward, client, session[2])

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, said: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                said += data
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def shows(self, body: bytes) -> bool:
        """Whether any of these bytes passed in clear."""
        passed = [bytes(said) for _, *session in self.sessions for said in session]
        return any(body[at : at + SAMPLE_BYTES] in said for said in passed for at in range(0, len(body) - SAMPLE_BYTES, 4096))

    def close(self) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in list(self._threads):
            thread.join(SECONDS)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture
def lab(tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """One in which all pieces pass the recorder."""
    # The supernode asks no registry with a credential, and says so for 3 s to everybody who opens the blob.
    monkeypatch.setattr("supernode.tracker.seeds.FAILURE_SECONDS", 0.0, raising=False)
    (tmp_path / "key").write_bytes(KEY)
    listen = free_address()
    lab = Lab(tmp_path, swarm_key_file=str(tmp_path / "key"), piece_listen=listen, piece_address=recorder.through(listen))
    lab.origin.repositories.access = Access(users={ALICE.username: ALICE.password}, private=frozenset({REPOSITORY}))
    with lab:
        yield lab
        recorder.close()  # the lab looks whether all threads have ended


def shared(lab: Lab, recorder: Recorder, credential: Credential | None) -> None:
    """Two nodes have the blob one after the other, the second one from the swarm."""
    digest = lab.push(BODY).layers[0]
    first, second, tracker = lab.node(through=recorder.through), lab.node(through=recorder.through), lab.supernode._tracker
    assert tracker
    assert first.pull(digest, credential=credential) == BODY
    wait_until(lambda: any(session.holdings for session in list(tracker.sessions.values())))
    assert second.pull(digest, credential=credential) == BODY
    assert messages.DELIVERED in {verdict for _, _, verdict in second.fetched}, "it came from the swarm"


def test_a_recorded_session_of_a_private_image_shows_no_byte_of_it_and_played_back_gets_nothing(
    lab: Lab, recorder: Recorder
) -> None:
    shared(lab, recorder, ALICE)
    assert recorder.sessions, "pieces have passed"
    assert all(said.startswith(b"\x16\x03") for _, said, _ in recorder.sessions), "all of it was TLS"
    assert not recorder.shows(BODY)
    for server, said, _ in list(recorder.sessions):
        with socket.create_connection(server, SECONDS) as sock:
            heard = bytearray()
            with contextlib.suppress(ConnectionError):
                sock.sendall(said)
                sock.shutdown(socket.SHUT_WR)
                while data := sock.recv(1 << 16):
                    heard += data
        assert len(heard) < PIECE
        assert BODY[:SAMPLE_BYTES] not in heard


def test_a_stored_blob_is_private_once_somebody_needs_a_credential_for_it(tmp_path: Path) -> None:
    with Origin() as origin, Endpoint(tmp_path, origin) as endpoint:
        digest = origin.push(REPOSITORY, "1", Image.of([BODY])).layers[0]
        assert endpoint.ask(f"blobs/{digest}").body == BODY
        wait_until(lambda: endpoint.store.blob(digest))
        blob = endpoint.store.blob(digest)
        assert blob
        assert not blob.private
        origin.repositories.access = Access(users={ALICE.username: ALICE.password}, private=frozenset({REPOSITORY}))
        assert endpoint.ask(f"blobs/{digest}", Authorization=ALICE.header).body == BODY
        assert blob.private


def test_a_public_image_is_there_for_all_to_see(lab: Lab, recorder: Recorder) -> None:
    """Else the other test might look in the wrong place."""
    lab.origin.repositories.access = Access()
    shared(lab, recorder, None)
    assert recorder.shows(BODY)
