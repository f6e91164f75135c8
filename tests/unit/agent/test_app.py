"""The agent as a whole, in a process of its own: ready soon, small while it does nothing, gone soon when it is told to go."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from agent.app import DRAIN_SECONDS
from agent.swarm import messages
from agent.swarm.channel import frame
from agent.values.reference import raw_digest
from hack.bench.machine import process_seconds
from hack.origin import Origin
from tests.endpoint import DIGEST, LAYER, push
from tests.swarm import SECONDS, RawSupernode, wait_until

TREE = Path(__file__).resolve().parents[3]
START_SECONDS_MAX = 2.0
"""Of a processor: how long that takes on the clock is other programs' affair."""
IDLE_BYTES_MAX = 70 << 20
STOP_SECONDS_MAX = DRAIN_SECONDS / 2
"""Well before the end of the time that a pull under way would be given."""


class Running:
    def __init__(self, store: Path, *argv: str, registry: str = "127.0.0.1:0") -> None:
        place = ["--node-name", "n", "--store", str(store), "--piece-address", "127.0.0.1:1", "--piece-listen", "127.0.0.1:0"]
        listen = ["--http-listen", "127.0.0.1:0", "--registry-listen", registry]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent", *place, *listen, *argv],
            cwd=TREE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.line = self.process.stdout.readline()
        self.start_seconds = process_seconds(self.process.pid) if self.line else 0.0
        found = re.search(r"registry on 127\.0\.0\.1:(\d+)", self.line)
        self.port = int(found[1]) if found else 0

    def status(self, name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text(), re.MULTILINE)
        assert found
        return int(found[1])

    def ask(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def end(self) -> tuple[int, str, str]:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Running]:
    agent = Running(tmp_path / "store")
    yield agent
    agent.end()


def test_it_is_ready_soon_and_small_and_says_where_it_listens_in_one_line(agent: Running) -> None:
    assert agent.line.startswith(f"agent n is ready: registry on 127.0.0.1:{agent.port}, pieces on 127.0.0.1:")
    assert agent.start_seconds < START_SECONDS_MAX
    assert agent.ask("/v2/")[0] == 200
    assert agent.status("VmRSS") << 10 < IDLE_BYTES_MAX
    assert agent.status("Threads") < 10
    print(f"start {agent.start_seconds:.2f} s, {agent.status('VmRSS') >> 10} MiB, {agent.status('Threads')} threads")  # noqa: T201


def test_it_ends_soon_though_a_runtime_keeps_its_connection_open(agent: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=10)
    connection.request("GET", "/v2/")
    connection.getresponse().read()
    began = time.monotonic()
    assert agent.end()[0] == 0
    assert time.monotonic() - began < STOP_SECONDS_MAX
    connection.close()


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("10.96.0.7", "the cluster's own address"),
        ("10.111.0.7", "the cluster's own address"),
        ("172.20.0.1_6443", "the cluster's own address"),
        ("10.0.0.7", "a private address"),
        ("127.0.0.1_5000", "a loopback address"),
        ("registry.shop.svc", "a name of the cluster's own"),
        ("203.0.113.7_64999", "a port of Darner's own"),
    ],
)
def test_a_registry_in_the_cluster_itself_is_not_asked_as_its_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, why: str
) -> None:
    """FAULTS 18: 421, by which the webhook knows to leave that registry alone."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "172.20.0.1")
    flags = ("--refused-networks", "10.96.0.0/12", "--private-registries", "refuse", "--supernodes", "127.0.0.1:64999")
    agent = Running(tmp_path / "store", *flags)
    try:
        for path in ("manifests/1", f"blobs/sha256:{'0' * 64}"):
            status, body = agent.ask(f"/v2/{place}/team/app/{path}")
            assert status == 421
            assert why in body.decode()
    finally:
        agent.end()


def test_a_socket_that_cannot_be_made_is_said_and_pulls_go_on(tmp_path: Path) -> None:
    (tmp_path / "agent.sock").mkdir()
    agent = Running(tmp_path / "store", "--socket", str(tmp_path / "agent.sock"))
    assert agent.ask("/v2/")[0] == 200
    status, _, err = agent.end()
    assert (status, len(err.splitlines())) == (0, 1)
    assert "there is something else" in err


def test_a_start_and_an_end_leave_nothing_in_the_log(agent: Running) -> None:
    assert agent.end() == (0, "", "")


def test_a_restarted_agent_serves_what_it_had_with_its_origin_gone(tmp_path: Path) -> None:
    with Origin() as origin:
        push(origin)
        prefix = f"/v2/{origin.address.replace(':', '_')}/team/app"
        for _ in range(2):
            agent = Running(tmp_path / "store", "--insecure-registries", origin.address)
            assert agent.ask(f"{prefix}/manifests/1")[0] == 200
            assert agent.ask(f"{prefix}/blobs/{DIGEST}") == (200, LAYER)
            time.sleep(0.2)
            assert agent.end()[0] == 0
            origin.stop()


@pytest.mark.parametrize("where", ["0.0.0.0:0", "192.0.2.1:65001", "[::]:0", "127.0.0.1.example:0"])
def test_an_address_that_others_reach_is_no_place_for_the_registry_endpoint(tmp_path: Path, where: str) -> None:
    agent = Running(tmp_path / "store", registry=where)
    status, out, err = agent.end()
    assert (status, agent.line, out, len(err.splitlines())) == (1, "", "", 1)
    assert "--registry-listen" in err


def test_it_tells_supernodes_of_its_limit_and_of_what_containerd_holds_also_over_a_restart(tmp_path: Path) -> None:
    blobs = tmp_path / "containerd" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / DIGEST.removeprefix("sha256:")).write_bytes(LAYER)
    holding = messages.Holding(raw_digest(DIGEST), len(LAYER))
    heard: SimpleQueue[messages.FromAgent] = SimpleQueue()

    def converse(sock: socket.socket, incoming: Iterator[messages.FromAgent]) -> None:
        for message in incoming:
            if not isinstance(message, messages.Heartbeat):  # there are as many as the machine is slow
                heard.put(message)
            if isinstance(message, messages.Hello):
                sock.sendall(frame(messages.Welcome(messages.VERSION, "s", 30.0, "127.0.0.1", 1)))

    with RawSupernode(converse) as supernode:
        options = [
            "--supernodes",
            str(supernode.where),
            "--upload-rate",
            "4Mi",
            "--containerd-content",
            str(tmp_path / "containerd"),
        ]
        first = Running(tmp_path / "store", *options)
        hello = heard.get(timeout=SECONDS)
        assert isinstance(hello, messages.Hello)
        assert hello.upload_slots == 2, "pieces of 16 MiB that go in 10 s"
        if not hello.holdings:  # it was not checked yet
            told = heard.get(timeout=SECONDS)  # with another Hello, should the channel have been lost meanwhile
            assert told == messages.Holds(holding, True) or (isinstance(told, messages.Hello) and told.holdings == [holding])
        wait_until((tmp_path / "store" / "containerd.proofs").exists)
        assert first.end()[0] == 0
        second = Running(tmp_path / "store", *options)
        hello = heard.get(timeout=SECONDS)
        assert isinstance(hello, messages.Hello)
        second.end()
        assert hello.holdings == [holding]


@pytest.mark.parametrize("given", ["", "10.0.0.7:65002"])
def test_it_tells_supernodes_the_address_that_its_piece_server_listens_at_unless_another_is_given(
    tmp_path: Path, given: str
) -> None:
    heard: SimpleQueue[messages.FromAgent] = SimpleQueue()

    def converse(sock: socket.socket, incoming: Iterator[messages.FromAgent]) -> None:
        heard.put(next(incoming))

    with RawSupernode(converse) as supernode:
        agent = Running(tmp_path / "store", "--supernodes", str(supernode.where), "--piece-address", given)
        hello = heard.get(timeout=SECONDS)
        agent.end()
    assert isinstance(hello, messages.Hello)
    assert f"{hello.host}:{hello.port}" == (given or re.findall(r"pieces on ([^,]+)", agent.line)[0])


def test_a_token_that_the_kubelet_has_renewed_is_said_with_the_next_hello(tmp_path: Path) -> None:
    heard: SimpleQueue[messages.FromAgent] = SimpleQueue()
    token = tmp_path / "token"
    token.write_text("the first\n")

    def converse(sock: socket.socket, incoming: Iterator[messages.FromAgent]) -> None:
        heard.put(next(incoming))  # and the channel is lost

    with RawSupernode(converse) as supernode:
        agent = Running(tmp_path / "store", "--supernodes", str(supernode.where), "--node-token-file", str(token))
        assert getattr(heard.get(timeout=SECONDS), "token", "") == "the first"
        (tmp_path / "new").write_text("the second\n")
        (tmp_path / "new").replace(token)
        wait_until(lambda: getattr(heard.get(timeout=SECONDS), "token", "") == "the second")
        agent.end()
