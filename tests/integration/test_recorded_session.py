"""Somebody records the channels of real processes, which log all that they can, and plays them back."""

from __future__ import annotations

import base64
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from agent.config import address
from agent.values.reference import raw_digest
from hack.lab import Lab, wait_until
from hack.lab.darner import LOG_ALL, REGISTRY_PORT, Agent, Supernode
from hack.lab.forwarder import Forwarder, Session
from hack.origin import Access, Image, Origin
from hack.secrecy import found_in, secret
from tests.node_tokens import RSA, jwks, named, token
from tests.swarm import PIECE, SECONDS, noise

PRIVATE, OPEN, TAG, ZONE = "a-team/a-private-app", "a-team/an-open-app", "a-tag-of-1.27", "a-zone-of-racks"
NODES = ("a-node-with-a-name", "another-node-with-a-name")
PASSWORD = secret("pa55-of-alice.27", "a password")
LAYERS = [noise(3 * PIECE + 17, seed=5), noise(2 * PIECE, seed=6)]


@dataclass
class Site:
    supernode: Supernode
    agents: list[Agent]
    forwarder: Forwarder
    origin: Origin
    images: dict[str, Image]
    tokens: list[str]

    @property
    def said(self) -> bytes:
        return b"".join(bytes(session.by_client + session.by_server) for session in self.forwarder.sessions)

    def pull(self, agent: Agent) -> None:
        login = base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
        for repository, image in self.images.items():
            prefix = f"/v2/{self.origin.address.replace(':', '_')}/{repository}"
            headers = {"Authorization": f"Basic {login}"} if repository == PRIVATE else {}
            for path in (f"manifests/{TAG}", f"manifests/{image.digest}", *(f"blobs/{digest}" for digest in image.layers)):
                with contextlib.closing(agent.connection(agent.host.port(REGISTRY_PORT))) as connection:
                    connection.request("GET", f"{prefix}/{path}", headers=headers)
                    answer = connection.getresponse()
                    assert answer.status == 200
                    assert answer.read() in LAYERS or path.startswith("manifests")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "keys").write_text(jwks(one=RSA))
    access = Access({"alice": PASSWORD}, frozenset({PRIVATE}), bearer=True)
    with Origin(access=access) as origin, Lab() as lab:
        images = {name: origin.push(name, TAG, Image.of([LAYERS[number]])) for number, name in enumerate((PRIVATE, OPEN))}
        account = ("--node-token-keys", str(tmp_path / "keys"), "--node-token-account", "darner-system/darner-agent")
        channel = f"127.0.0.1:{(host := lab.loopback('a-supernode-with-a-name')).port(65004)}"
        supernode = Supernode(host, [origin.address], [*account, *LOG_ALL])
        with Forwarder(address(channel)) as forwarder:
            way = cast(Supernode, SimpleNamespace(channel=str(forwarder.where)))
            agents, tokens = [], []
            for name in NODES:
                shown = token(**{"kubernetes.io": named(node={"name": name})})
                (tmp_path / name).write_text(shown)
                tokens.append(shown)
                arguments = ("--node-token-file", str(tmp_path / name), "--zone", ZONE, *LOG_ALL)
                agents.append(Agent(lab.loopback(name), [way], [origin.address], arguments))
            wait_until(lambda: supernode.connected_nodes() == len(NODES))
            yield Site(supernode, agents, forwarder, origin, images, tokens)


def play_back(session: Session, channel: str) -> bytes:
    """What a supernode answers to an agent's bytes when they are said once more."""
    heard = bytearray()
    with (
        socket.create_connection(address(channel), SECONDS) as sock,
        contextlib.suppress(OSError),
    ):  # it may hang up at any moment
        sock.sendall(session.by_client)
        sock.shutdown(socket.SHUT_WR)
        while data := sock.recv(1 << 16):
            heard += data
    return bytes(heard)


def test_a_recorded_session_shows_no_name_and_no_credential_and_played_back_gets_nothing(site: Site) -> None:
    """FAULTS 42 and 80."""
    for agent in site.agents:
        site.pull(agent)
    names = [*NODES, "a-supernode-with-a-name", site.origin.address, PRIVATE, OPEN, TAG, ZONE, "127.0.0.1"]
    digests = [digest for image in site.images.values() for digest in (image.digest, *image.layers)]
    said = site.said
    assert len(said) > 5_000, "or the test shows nothing"
    assert [name for name in (*names, *digests, *site.tokens) if name.encode() in said] == []
    assert [digest for digest in digests if raw_digest(digest) in said] == []
    assert list(found_in(said.decode("latin-1"))) == []

    refused = site.supernode.metric("darner_supernode_refused_channels_total")
    for session in list(site.forwarder.sessions):
        heard = play_back(session, site.supernode.channel)
        # A greeting, a certificate and a challenge are in TLS; of what was said after the proof nothing is.
        assert len(heard) < 2048
        assert [name for name in (*names, *site.tokens) if name.encode() in heard] == []
    wait_until(lambda: site.supernode.metric("darner_supernode_refused_channels_total") >= refused + len(NODES))
    assert site.supernode.connected_nodes() == len(NODES), "those that were there, and nobody else"


def test_processes_that_log_all_that_they_can_tell_no_secret(site: Site) -> None:
    """What they print, their metrics and the supernode's state are compared with all secrets when the test has ended."""
    for agent in site.agents:
        site.pull(agent)
        agent.get("/metrics")
    site.supernode.get("/metrics")
    nodes = site.supernode.state()["nodes"]
    assert isinstance(nodes, list)
    assert {node["name"] for node in nodes} == set(NODES)
    for process in [site.supernode.process, *(agent.process for agent in site.agents)]:
        logged = process.err.read_text()
        assert "DEBUG" in logged
        assert list(found_in(logged)) == []
