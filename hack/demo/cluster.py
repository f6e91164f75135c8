"""The processes of the demo: an origin, a supernode, a webhook, and a node per loopback address, each with an agent.

Owns them from their start to their end, by their own process ids, and the folder of their logs and stores. Every node listens on
its own loopback address, on the ports that a real node uses; the webhook and the origin take any that are free.
"""

from __future__ import annotations

import errno
import http.client
import json
import re
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hack.lab.process import LabError, Process
from hack.ports import free_port

REGISTRY, PIECES, HTTP, CHANNEL = 65001, 65002, 65003, 65004
SUPERNODE = "127.0.0.1"
START_SECONDS = 20
SOURCES = ("store", "peer", "supernode", "origin")


class DemoError(Exception):
    """The demo cannot go on: one line that says what went wrong."""


@dataclass(frozen=True)
class Node:
    """The second address of loopback is node 1's, and so on."""

    number: int

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def host(self) -> str:
        return f"127.0.0.{self.number + 1}"


class Cluster:
    """Use it as a context manager: whatever happens, its processes have ended when the block is left."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="darner-demo-"))
        self.keep_logs = False
        self._processes: dict[str, Process] = {}
        self._key = self.folder / "swarm-key"
        self._key.write_text(secrets.token_hex(32))

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exception: object) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(end, self._processes.values()))
        for store in self.folder.glob("store-*"):
            shutil.rmtree(store)
        if not self.keep_logs:
            shutil.rmtree(self.folder)

    def start_origin(self, repository: str, tag: str, flip_a_byte: bool) -> str:
        """Starts the origin; the name of the image that it serves."""
        switches = ["--flip-a-byte"] if flip_a_byte else []
        line = self._start("origin", "hack.origin", {"repository": repository, "tag": tag}, *switches)
        return line.removeprefix("origin ready: ")

    def start_supernode(self, registry: str) -> None:
        flags = self._node_flags("supernode", SUPERNODE, registry)
        self._start("supernode", "supernode", flags | {"channel-listen": f"{SUPERNODE}:{CHANNEL}"})

    def start_node(self, node: Node, registry: str) -> None:
        flags = self._node_flags(node.name, node.host, registry)
        own = {"registry-listen": f"{node.host}:{REGISTRY}", "supernodes": f"{SUPERNODE}:{CHANNEL}"}
        self._start(node.name, "agent", flags | own)

    def start_webhook(self) -> tuple[str, Path]:
        """Starts the webhook; its address and the file of its certificate authority."""
        address, certificates = free_address(), self.folder / "certificates"
        flags = {"listen": address, "http-listen": free_address(), "certificate-dir": str(certificates)}
        self._start("webhook", "webhook", flags)
        return address, certificates / "ca.crt"

    def kill(self, name: str) -> None:
        """Without a warning, as if its machine lost its power."""
        self._processes[name].kill()

    def complaint_of(self, name: str) -> str:
        """What a process last complained of in its log."""
        return last_complaint(self._processes[name].err.read_text(errors="replace"))

    def store_of(self, name: str) -> Path:
        return self.folder / f"store-{name}"

    def _node_flags(self, name: str, host: str, registry: str) -> dict[str, str]:
        """What an agent and a supernode have in common."""
        return {
            "node-name": name,
            "store": str(self.store_of(name)),
            "piece-listen": f"{host}:{PIECES}",
            "piece-address": f"{host}:{PIECES}",
            "http-listen": f"{host}:{HTTP}",
            "insecure-registries": registry,
            "swarm-key-file": str(self._key),
        }

    def _start(self, name: str, module: str, flags: Mapping[str, str], *switches: str) -> str:
        """Starts a module and waits until it is ready; the line that it then prints."""
        process = self.start(name, ["-m", module, *(f"--{flag}={value}" for flag, value in flags.items()), *switches])
        return process.printed().splitlines()[0]

    def start(self, name: str, argv: list[str]) -> Process:
        """Starts Python with these arguments and waits for the line that says that it is ready. Raises DemoError."""
        process = self._processes[name] = Process(name, [sys.executable, *argv], self.folder)
        try:
            process.wait_until(lambda: process.printed().endswith("\n"), START_SECONDS)
        except LabError:
            raise DemoError(f"{name} did not start: {last_line(process.err)}") from None
        return process


def end(process: Process) -> None:
    try:
        process.stop()
    except LabError:
        process.kill()


def last_complaint(log: str) -> str:
    """The last warning or error in a log of Darner's, without its time and origin; empty if there is none."""
    return next(iter(re.findall(r"^\S+ \S+ (?:WARNING|ERROR) [\w.]+: (.*)$", log, re.MULTILINE)[::-1]), "")


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it says nothing")


def check_addresses(nodes: list[Node]) -> None:
    """Raises DemoError with the addresses that the demo needs and cannot have."""
    wanted = [(SUPERNODE, port) for port in (PIECES, HTTP, CHANNEL)]
    wanted += [(node.host, port) for node in nodes for port in (REGISTRY, PIECES, HTTP)]
    taken = []
    for host, port in wanted:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise DemoError(f"cannot listen on {host}:{port}: {error.strerror}") from None
                taken.append(f"{host}:{port}")
    if taken:
        raise DemoError(f"another program listens on {', '.join(taken)}; end it (another demo, or an agent?) and try again")


def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


def blob_bytes_sent(registry: str) -> int:
    """What the origin says that it sent."""
    return int(json.loads(ask(registry, "/-/sent"))["blob_bytes"])


def received_bytes(node: Node) -> dict[str, int]:
    """By source: how many bytes the node's pulls were fed with."""
    return bytes_by_source(ask(f"{node.host}:{HTTP}", "/metrics"))


def bytes_by_source(metrics: str) -> dict[str, int]:
    """From the Prometheus text of an agent; a source that it does not know has given nothing."""
    found = re.findall(r'^darner_agent_received_bytes_total\{source="(\w+)"\} (\S+)$', metrics, re.MULTILINE)
    return dict.fromkeys(SOURCES, 0) | {source: int(float(value)) for source, value in found}


def ask(address: str, path: str) -> str:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise DemoError(f"{address}{path} did not answer: {error}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise DemoError(f"{address}{path} answered {answer.status}")
    return body
