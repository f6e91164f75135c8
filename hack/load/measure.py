"""One supernode process, what it is put through, and what that cost it.

The order: all nodes connect; they only beat for a while; all open one blob and get all of it; the supernode is killed and started
again, and all come back. CPU-seconds and resident memory are the supernode's own, from /proc.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.values.address import Address
from agent.values.pieces import Layout
from agent.values.reference import raw_digest
from hack.lab.darner import python_path
from hack.lab.process import Process
from hack.load.crowd import Crowd, Errand
from hack.origin import Image, Origin

HOST = "127.0.0.1"
REPOSITORY = "load/zeros"
SPARE_FILES = 500
"""Descriptors of a process beside those of the connections."""
MBIT = 125_000.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    nodes: int = 10_000
    blob_bytes: int = 1 << 30
    node_mbit: float = 100.0
    """Of a node's link, which says how often it reports; 0 reports each grant at once."""
    beat_seconds: float = 15.0
    """How long the nodes do nothing but beat."""
    seconds_max: float = 600.0


@dataclass(frozen=True)
class Figures:
    """Seconds are of the wall unless they are called CPU-seconds, and those are the supernode's."""

    nodes: int
    pieces: int
    compiled: bool
    """Whether the supernode's scheduler was: see docs/decisions/0015."""
    connect_seconds: float
    connect_cpu_seconds: float
    resident_bytes: int
    """With all nodes connected, before anything is distributed."""
    resident_bytes_max: int
    beats_per_second: float
    beat_cpu_share: float
    """Of one core, for the heartbeats."""
    rollout_seconds: float
    bound_seconds: float
    """What the links alone would take; 0 when there are none."""
    rollout_cpu_seconds: float
    rollout_kernel_seconds: float
    """Of those, in the kernel: mostly TCP."""
    messages: int
    """Both ways, while the blob is distributed."""
    reconnect_seconds: float
    """From the moment at which the supernode, started again, listens."""
    reconnect_cpu_seconds: float
    threads: int

    @property
    def cpu_seconds_per_million(self) -> float:
        return self.rollout_cpu_seconds / self.pieces * 1e6

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "cpu_seconds_per_million": self.cpu_seconds_per_million}


def measure(load: Load) -> Figures:
    """Needs as many file descriptors as there are nodes, here and in the supernode. Raises CrowdError and LabError."""
    _raise_file_limit(load.nodes + SPARE_FILES)
    layout = Layout.of(load.blob_bytes)
    with tempfile.TemporaryDirectory(prefix="darner-load-") as directory, Origin(host=HOST) as origin:
        zeros = Path(directory) / "zeros"
        zeros.touch()
        os.truncate(zeros, load.blob_bytes)
        image = origin.push(REPOSITORY, "1", Image.of([zeros]))
        piece_seconds = layout.length / (load.node_mbit * MBIT) if load.node_mbit else 0.0
        errand = Errand(raw_digest(image.layers[0]), origin.address, REPOSITORY, piece_seconds)
        channel = _free_address()
        arguments = _arguments(Path(directory), origin.address, channel)
        key = _key_file(Path(directory)).read_bytes()
        with _supernode(arguments, Path(directory)) as supernode, Crowd(channel, load.nodes, errand, key) as crowd:
            _fill_cache(channel, key, errand, load)
            begun = _Reading(supernode)
            crowd.connect(load.seconds_max)
            connected = _Reading(supernode)
            crowd.beat(load.beat_seconds)
            beaten = _Reading(supernode)
            resident = supernode.memory_bytes("VmRSS")
            beats, said = crowd.sent["Heartbeat"], crowd.sent.total() + crowd.heard.total()
            crowd.open(load.seconds_max)
            rolled_out = _Reading(supernode)
            messages = crowd.sent.total() + crowd.heard.total() - said
            compiled = "__mypyc." in Path(f"/proc/{supernode.pid}/maps").read_text()
            most, threads = supernode.memory_bytes("VmHWM"), _threads(supernode)
            supernode.kill()
            crowd.lost()
            with _supernode(arguments, Path(directory)) as second:
                restarted = _Reading(second)
                crowd.connect(load.seconds_max)
                returned = _Reading(second)
        return Figures(
            nodes=load.nodes,
            pieces=crowd.delivered,
            compiled=compiled,
            connect_seconds=connected.at - begun.at,
            connect_cpu_seconds=connected.cpu - begun.cpu,
            resident_bytes=resident,
            resident_bytes_max=most,
            beats_per_second=beats / load.beat_seconds,
            beat_cpu_share=(beaten.cpu - connected.cpu) / (beaten.at - connected.at),
            rollout_seconds=rolled_out.at - beaten.at,
            bound_seconds=load.blob_bytes / (load.node_mbit * MBIT) if load.node_mbit else 0.0,
            rollout_cpu_seconds=rolled_out.cpu - beaten.cpu,
            rollout_kernel_seconds=rolled_out.kernel - beaten.kernel,
            messages=messages,
            reconnect_seconds=returned.at - restarted.at,
            reconnect_cpu_seconds=returned.cpu - restarted.cpu,
            threads=threads,
        )


class _Reading:
    """Of the clock, and of what a process has used of the processors so far."""

    def __init__(self, process: Process) -> None:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        self.at = time.monotonic()
        self.kernel = int(fields[12]) / CLOCK_TICKS
        self.cpu = int(fields[11]) / CLOCK_TICKS + self.kernel  # utime and stime of proc(5)


def _threads(process: Process) -> int:
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


def _fill_cache(channel: Address, key: bytes, errand: Errand, load: Load) -> None:
    """One node gets the blob first, so that the supernode has it: how fast an origin is, is not what is measured."""
    with Crowd(channel, 1, Errand(errand.digest, errand.registry, errand.repository, 0.0), key) as first:
        first.connect(load.seconds_max)
        first.open(load.seconds_max)


def _key_file(directory: Path) -> Path:
    return directory / "swarm-key"


def _arguments(directory: Path, origin: str, channel: Address) -> list[str]:
    pieces, http, key = _free_address(), _free_address(), _key_file(directory)
    key.touch(mode=0o600)
    key.write_text(secrets.token_hex(32))
    return [
        *(sys.executable, "-m", "supernode", "--node-name", "supernode", "--store", str(directory / "store")),
        *("--piece-listen", str(pieces), "--piece-address", str(pieces), "--http-listen", str(http)),
        *("--channel-listen", str(channel), "--insecure-registries", origin, "--swarm-key-file", str(key)),
    ]


@contextlib.contextmanager
def _supernode(arguments: list[str], directory: Path) -> Iterator[Process]:
    process = Process("supernode", arguments, directory, {"PYTHONPATH": python_path()})
    try:
        process.wait_until(process.printed)
        yield process
    finally:
        process.kill()


def _free_address() -> Address:
    with socket.create_server((HOST, 0)) as sock:
        return Address(*sock.getsockname()[:2])


def _raise_file_limit(least: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < least:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(least, hard), hard))
