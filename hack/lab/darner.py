"""Darner's own processes on the hosts of a lab, started by their command lines, and what they tell about themselves.

A `Swarm` is the least that all of it takes: a registry that holds an image, a supernode, and agents as they are asked for.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hack.lab import clock
from hack.lab.image import BuiltImage
from hack.lab.network import Host, Lab
from hack.lab.process import Process
from hack.lab.registry import Registry
from hack.secrecy import secret

TREE = Path(__file__).resolve().parent.parent.parent
LOG_ALL = ("--log-level", "debug")
REGISTRY_PORT, PIECE_PORT, HTTP_PORT, CHANNEL_PORT = 65001, 65002, 65003, 65004


def python_path() -> str:
    """PYTHONPATH for a process of ours: the tree, and before it what `hack/compiled.sh` put there."""
    return os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(TREE))))


class Node:
    """An agent or a supernode. Its store outlives it: `start` after `kill` finds what was there."""

    def __init__(self, host: Host, package: str, arguments: Sequence[str]) -> None:
        self.host, self._package = host, package
        self._arguments = [
            *("--node-name", host.name),
            *("--store", str(self.store)),
            *("--piece-listen", f"{host.address}:{host.port(PIECE_PORT)}"),
            *("--piece-address", f"{host.address}:{host.port(PIECE_PORT)}"),
            *("--http-listen", f"{host.address}:{host.port(HTTP_PORT)}"),
            *("--swarm-key-file", str(_swarm_key(host.lab))),
            *arguments,
        ]
        self.start()

    def start(self) -> None:
        argv = [sys.executable, "-m", self._package, *self._arguments]
        environment = {"PYTHONPATH": python_path(), **clock.environment(self.host.clock_seconds, python_path())}
        self.process: Process = self.host.start(self._package, argv, environment)
        self.process.wait_until(self.process.printed)  # it prints one line when it is ready

    def kill(self) -> None:
        self.process.kill()

    @property
    def store(self) -> Path:
        return self.host.lab.directory / f"{self.host.name}-store"

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET at its HTTP port."""
        with contextlib.closing(self.connection(self.host.port(HTTP_PORT))) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        self.process.heard(f"{path} of {self.host.name}", body.decode(errors="replace"))
        return answer.status, body

    def connection(self, port: int) -> http.client.HTTPConnection:
        """A client on the node's own host, connected to a port of it."""
        address = "127.0.0.1" if port == self.host.port(REGISTRY_PORT) else self.host.address
        connection = http.client.HTTPConnection(address, port)
        connection.sock = self.host.connect(port, address)
        return connection

    def metric(self, name: str, **labels: str) -> float:
        """The sum over the series of that name that have these labels; 0 if there is none yet."""
        return metric_in(self.get("/metrics")[1].decode(), name, labels)


class Supernode(Node):
    def __init__(self, host: Host, insecure_registries: Sequence[str] = (), arguments: Sequence[str] = ()) -> None:
        self.channel = f"{host.address}:{host.port(CHANNEL_PORT)}"
        listen = ("--channel-listen", self.channel, "--insecure-registries", ",".join(insecure_registries))
        super().__init__(host, "supernode", [*listen, *arguments])

    def state(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.get("/api/v1/state")[1])
        return answer

    def holds(self, digests: Sequence[str]) -> bool:
        """Whether it has these blobs whole, of swarms that it knows."""
        return set(digests) <= {swarm["digest"] for swarm in self.state()["swarms"] if swarm["whole"]}

    def is_connected_to(self, node: Node) -> bool:
        return any(known["name"] == node.host.name for known in self.state()["nodes"])

    def connected_nodes(self) -> int:
        return int(self.metric("darner_supernode_connected_nodes"))


class Agent(Node):
    """It serves its node's runtime on 127.0.0.1:65001 of its own host."""

    def __init__(
        self,
        host: Host,
        supernodes: Sequence[Supernode] = (),
        insecure_registries: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        channels = ",".join(supernode.channel for supernode in supernodes)
        listen = ("--registry-listen", f"127.0.0.1:{host.port(REGISTRY_PORT)}", "--supernodes", channels)
        super().__init__(host, "agent", [*listen, "--insecure-registries", ",".join(insecure_registries), *arguments])

    def received_bytes(self) -> dict[str, int]:
        """Where the bytes that this node pulled came from: store, peer, supernode, origin."""
        sources = ("store", "peer", "supernode", "origin")
        return {source: int(self.metric("darner_agent_received_bytes_total", source=source)) for source in sources}


class Swarm:
    """A registry with an image in it, a supernode, and any number of nodes with an agent, each on its own host."""

    repository = "lab/python"

    def __init__(self, lab: Lab, image: BuiltImage, arguments: Sequence[str] = ()) -> None:
        """`arguments` go to the supernode and to every agent."""
        self._lab, self.image, self._arguments = lab, image, arguments
        self.registry = Registry(lab.host("origin"))
        self.registry.push(image, self.repository, "1")
        self.image_name = f"{self.registry.local_prefix}/{self.repository}:1"
        """The rewritten name, by tag."""
        self.supernode = Supernode(lab.host("supernode"), [self.registry.name], arguments)

    def agent(self, name: str, *arguments: str) -> Agent:
        return self.agent_on(self._lab.host(name), *arguments)

    def agent_on(self, host: Host, *arguments: str) -> Agent:
        return Agent(host, [self.supernode], [self.registry.name], [*self._arguments, *arguments])


def metric_in(text: str, name: str, labels: Mapping[str, str]) -> float:
    """The same, in Prometheus' text."""
    total = 0.0
    for series, value in re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE):
        have = dict(re.findall(r'(\w+)="([^"]*)"', series))
        total += float(value) if labels.items() <= have.items() else 0
    return total


def _swarm_key(lab: Lab) -> Path:
    """One key for all nodes of a lab."""
    file = lab.directory / "swarm-key"
    if not file.exists():
        file.touch(mode=0o600)
        # No byte of it is white space, which is no part of a key at an end.
        file.write_text(secret(secrets.token_hex(32), "a swarm key"))
    return file
