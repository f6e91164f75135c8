"""Who is believed on a channel: those who have shown the key, inside TLS, and nobody who stands between or comes after."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from agent.http.sealed import Tls, client_context
from agent.swarm import messages
from agent.swarm.channel import Frames, frame, supernode_message
from agent.swarm.tickets import SwarmKey
from agent.swarm.tls import ANSWER_BYTES, CHALLENGE_BYTES, PROOF_BYTES, ProofError, SealedSocket
from agent.values.address import Address
from supernode.tracker import server
from supernode.tracker.handshake import UNPROVEN_BYTES_MAX, Certified
from tests.node_tokens import OTHER as OTHER_RSA
from tests.node_tokens import RSA, jwks, named, token
from tests.swarm import PIECE, SECONDS, Lab, RawAgent, noise, wait_until

KEY, OTHER = b"k" * 32, b"o" * 32
HELLO = messages.Hello(messages.VERSION, "a-node-with-a-name", "", "127.0.0.1", 1, 0, [])


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_bytes(KEY)
    return file


@pytest.fixture
def lab(tmp_path: Path, key: Path) -> Iterator[Lab]:
    with Lab(tmp_path, swarm_key_file=str(key)) as lab:
        yield lab


@contextlib.contextmanager
def connection(where: Address) -> Iterator[socket.socket]:
    with socket.create_connection(where, SECONDS) as sock:
        yield sock


def joined(where: Address, *keys: bytes) -> None:
    """An agent with these keys: welcomed, or ProofError."""
    with connection(where) as sock:
        sealed = SealedSocket(sock, client_context())
        sealed.prove(keys)
        sealed.sendall(frame(HELLO))
        inbox = Frames()
        body = next(body for _ in iter(int, 1) for body in inbox.feed(sealed.recv(1 << 16)))
        assert isinstance(supernode_message(body), messages.Welcome)


def test_who_has_the_key_is_welcomed_and_who_has_another_is_told_nothing(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 80."""
    joined(lab.channels[0], KEY)
    with pytest.raises(ProofError, match=r"^it has another swarm key, or is none: compare the two files$"):
        joined(lab.channels[0], OTHER)
    wait_until(lambda: "it has another swarm key, or none: compare the two files" in caplog.text)
    assert "a-node-with-a-name" not in caplog.text


def test_a_caller_without_the_key_is_refused_in_constant_time_and_nothing_secret_is_logged_or_shown(
    lab: Lab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 42."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(wanted: bytes, given: bytes) -> bool:
        compared.append((wanted, given))
        return constant_time(wanted, given)

    constant_time = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    caplog.set_level(logging.DEBUG)
    refused = []
    for key in (OTHER, KEY[:-1], KEY + b"x"):
        with pytest.raises(ProofError) as error:
            joined(lab.channels[0], key)
        refused.append(str(error.value))
    joined(lab.channels[0], KEY)
    wait_until(lambda: "it has another swarm key, or none" in caplog.text)
    assert len(set(refused)) == 1, "how near a key is, nobody is told"
    proofs = {part for pair in compared for part in pair}
    assert len(proofs) > len(refused), "every proof was compared by this function alone"
    shown = caplog.text + json.dumps(lab.state()) + generate_latest().decode() + "".join(refused)
    for secret in (KEY, OTHER, *proofs):
        for form in (secret.decode("latin-1"), secret.hex(), base64.b64encode(secret).decode(), repr(secret)[2:-1]):
            assert form not in shown


def test_a_hello_without_tls_is_refused_and_nothing_of_it_is_kept(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 80."""
    with connection(lab.channels[0]) as sock:
        sock.sendall(frame(HELLO))
        sock.settimeout(SECONDS)
        with contextlib.suppress(ConnectionError):
            while sock.recv(1 << 16):
                continue
    wait_until(lambda: "speaks no TLS as this supernode does, so it has no swarm key" in caplog.text)
    assert lab.state()["nodesTotal"] == 0


def test_an_agent_with_a_key_says_nothing_to_a_supernode_without_one(
    tmp_path: Path, key: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Lab(tmp_path) as lab, caplog.at_level(logging.WARNING):
        node = lab.node(key=str(key), wait=False)
        wait_until(lambda: "so it has no swarm key" in caplog.text)
        assert lab.state()["nodesTotal"] == 0
        assert not node.swarm.channels[0].up


def test_hello_before_the_proof_is_no_hello(lab: Lab) -> None:
    """FAULTS 80: TLS alone opens nothing, and a proof is not what is random."""
    with connection(lab.channels[0]) as sock:
        sealed = SealedSocket(sock, client_context())
        assert len(sealed.recv(1 << 16)) == CHALLENGE_BYTES
        hello = frame(HELLO)
        sealed.sendall(hello + os.urandom(ANSWER_BYTES))
        assert len(sealed.recv(1 << 16)) == PROOF_BYTES
        assert sealed.recv(1 << 16) == b""
    assert lab.state()["nodesTotal"] == 0


class Between:
    """A forwarder without the key, which ends TLS itself."""

    def __init__(self, where: Address, identity: Certified) -> None:
        self.seen = bytearray()
        """What the agent says behind its proof."""
        self._identity = identity
        self._onward = where
        self._server = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def where(self) -> Address:
        return Address(*self._server.getsockname())

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._server.accept()
            with client, socket.create_connection(self._onward, SECONDS) as onward:
                self._impersonate(client, SealedSocket(onward, client_context()))

    def _impersonate(self, client: socket.socket, onward: SealedSocket) -> None:
        """TLS with the agent by a certificate of its own, TLS with the supernode, and each side's proof passed to the other."""
        tls, early = Tls(self._identity.context, server=True), b""
        while not tls.shaken:
            early += tls.feed(client.recv(1 << 16))
            client.sendall(tls.pending())
        client.sendall(tls.seal(onward.recv(1 << 16)))
        answer = early
        while len(answer) < ANSWER_BYTES:
            answer += tls.feed(client.recv(1 << 16))
        onward.sendall(answer)
        client.sendall(tls.seal(onward.recv(1 << 16)))
        while data := client.recv(1 << 16):
            self.seen += tls.feed(data)

    def close(self) -> None:
        self._server.close()
        self._thread.join(SECONDS)


def test_nobody_stands_between_with_a_certificate_of_his_own(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "nobody").write_bytes(OTHER)
    between = Between(lab.channels[0], Certified(SwarmKey(str(tmp_path / "nobody"))))
    with contextlib.closing(between), pytest.raises(ProofError):
        joined(between.where, KEY)
    assert not between.seen, "the agent said no more"
    assert lab.state()["nodesTotal"] == 0


def test_keys_change_without_a_restart_and_without_a_pull_that_fails(lab: Lab, tmp_path: Path, key: Path) -> None:
    """First the new one behind the old one, everywhere; then the other way round; then the new one alone."""
    theirs = tmp_path / "theirs"
    theirs.write_bytes(KEY)
    node, other = lab.node(), lab.node(key=str(theirs))

    def pulled() -> None:
        for number in range(len(lab.supernodes)):
            lab.stop_supernode(number)
            lab.start_supernode(number)
        wait_until(lambda: all(channel.up for each in (node, other) for channel in each.swarm.channels))
        body = noise(3 * PIECE, seed=time.monotonic_ns())
        digest = lab.push(body).layers[0]
        assert lab.pull_everywhere(digest) == [body, body]
        assert {verdict for each in (node, other) for _, _, verdict in each.fetched} == {messages.DELIVERED}

    for here, there in ((KEY + b"\n" + OTHER, KEY), (OTHER + b"\n" + KEY, KEY + b"\n" + OTHER), (OTHER, OTHER + b"\n" + KEY)):
        for file, content in ((key, here), (theirs, there)):
            file.write_bytes(content)
            os.utime(file, ns=(time.time_ns(), time.time_ns()))
        pulled()
    key.write_bytes(KEY)


def test_connections_that_say_much_and_show_no_key_are_closed_at_once(lab: Lab) -> None:
    """FAULTS 83."""
    with connection(lab.channels[0]) as sock:
        sealed = SealedSocket(sock, client_context())
        sealed.recv(1 << 16)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for _ in range(2 * UNPROVEN_BYTES_MAX // 1000):
                sealed.sendall(b"")
                sock.sendall(b"\x17\x03\x03\x40\x11" + bytes(1000))
        sock.settimeout(SECONDS)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while sock.recv(1 << 16):
                continue
    assert lab.state()["nodesTotal"] == 0


def test_half_a_tls_handshake_is_given_as_long_as_a_hello(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 83."""
    monkeypatch.setattr(server, "HELLO_SECONDS_MAX", 0.3)
    with connection(lab.channels[0]) as sock:
        sock.sendall(b"\x16\x03\x01")
        sock.settimeout(SECONDS)
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1 << 16) == b""


# Which node an agent is.


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Lab]:
    """A lab whose supernode asks for tokens of the agents' account."""
    keys = tmp_path / "node-keys"
    keys.write_text(jwks(one=RSA))
    with Lab(tmp_path, node_token_keys=str(keys), node_token_account="darner-system/darner-agent") as lab:
        yield lab


def hello(token: str, node: str = "n1") -> messages.Hello:
    return messages.Hello(messages.VERSION, node, "", "127.0.0.1", 1, 0, [], token)


@pytest.mark.parametrize(("made", "node"), [(str, "n1"), (token, "n2"), (lambda: token(OTHER_RSA), "n1")])
def test_an_agent_that_does_not_prove_its_node_is_refused(
    cluster: Lab, caplog: pytest.LogCaptureFixture, made: Callable[[], str], node: str
) -> None:
    """FAULTS 81."""
    shown = made()
    with RawAgent(cluster.channels[0]) as agent:
        agent.say(hello(shown, node))
        assert "its token" in agent.hear(messages.Refused).reason
        agent.until_closed()
    assert cluster.state()["nodesTotal"] == 0
    assert not shown or shown not in caplog.text


def of_pod(pod: str, ago: int) -> str:
    now = int(time.time()) - ago
    return token(iat=now, **{"kubernetes.io": named(pod={"uid": pod})})


def test_a_live_nodes_place_is_taken_by_its_own_pod_and_by_a_newer_one_and_by_no_older_one(cluster: Lab) -> None:
    """FAULTS 81."""
    where = cluster.channels[0]
    with RawAgent(where, hello(of_pod("first", 100))) as first, RawAgent(where, hello(of_pod("first", 90))) as again:
        first.until_closed()
        with RawAgent(where, hello(of_pod("second", 50))) as second:
            again.until_closed()
            with RawAgent(where) as late:
                late.say(hello(of_pod("first", 80)))
                assert late.hear(messages.Refused).reason == "its node has a newer agent"
            second.say(messages.Heartbeat())
            assert second.hear(messages.Heartbeat)
            assert cluster.state()["nodesTotal"] == 1
