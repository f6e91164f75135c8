"""A lab: a bridge, and hosts on it that are network namespaces with an address, a loopback and a link of their own.

The bridge lives in a namespace too, so that a lab adds nothing to the machine's own network and two labs at once do not meet.
All that a lab makes bears its owner's name (process id and start time): a lab that starts first removes what belongs to owners
that are gone. Hosts on the machine's own loopback (`Lab.loopback`) need no root, have no link, and take free ports in place of
the fixed ones.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from hack.lab.disk import MemoryLimit, make_disk, remove_disks
from hack.lab.process import LabError, Process, name_of_this_process, process_named
from hack.ports import free_port

_NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000  # <linux/sched.h>; os.setns came with Python 3.12
_OURS = re.compile(r"darner-(\d+-\d+)-\d+(?:-.*)?")
_HOSTS_MAX = 200
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


@dataclass
class Host:
    """One machine of a lab, or a place on the loopback of the machine that this runs on: that has no namespace."""

    lab: Lab
    name: str
    address: str
    namespace: str | None = None
    _link: str = ""
    """The other end of its link, on the bridge."""
    _free_ports: dict[int, int] = field(default_factory=dict)
    clock_seconds: float = 0.0
    """By how much the clock is ahead that Darner's processes see which are started here (`hack.lab.clock`)."""
    memory: MemoryLimit | None = None
    """What the processes have together that are started here, from now on."""

    def command(self, argv: Sequence[object]) -> list[str]:
        """What to execute so that `argv` runs here. Not `ip netns exec`, which hides the cgroups that a container needs."""
        entering = ["nsenter", f"--net={_NAMESPACES / self.namespace}", "--"] if self.namespace else []
        command = entering + [str(argument) for argument in argv]
        return self.memory.command(command) if self.memory else command

    def port(self, fixed: int) -> int:
        """The port to use here for what has a fixed port on a machine of its own."""
        if self.namespace:
            return fixed
        if fixed not in self._free_ports:
            self._free_ports[fixed] = free_port(self.address)
        return self._free_ports[fixed]

    def start(self, name: str, argv: Sequence[object], environment: Mapping[str, str] | None = None) -> Process:
        """A program that runs until it is stopped, at the latest when the lab closes."""
        process = Process(f"{self.name}-{name}", self.command(argv), self.lab.directory, environment)
        self.lab.processes.append(process)
        return process

    def run(self, argv: Sequence[object], timeout_seconds: float = 60) -> str:
        """What a program prints that ends by itself; an error with its last words if it fails."""
        command = " ".join(map(str, argv))
        try:
            done = subprocess.run(
                self.command(argv), text=True, timeout=timeout_seconds, stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
        except subprocess.TimeoutExpired as expired:
            raise LabError(f"{self.name}: {command} goes on after {timeout_seconds:g} s\n{expired.output!r}") from None
        if done.returncode:
            raise LabError(f"{self.name}: {command} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """While this lasts, new sockets of this thread are sockets of this host, and remain so."""
        if not self.namespace:
            yield
            return
        with open("/proc/thread-self/ns/net") as home, open(_NAMESPACES / self.namespace) as away:
            _enter(away.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def connect(self, port: int, address: str = "127.0.0.1", timeout_seconds: float = 30) -> socket.socket:
        """A connection from this host, to itself unless told otherwise."""
        with self.inside():
            return socket.create_connection((address, port), timeout_seconds)

    def shape(self, bytes_per_second: int) -> None:
        """Give the host's link a rate, in each direction. The bucket holds 10 ms: enough for the rate, too little for a burst."""
        bucket = f"rate {bytes_per_second * 8} burst {max(bytes_per_second // 100, 16384)} latency 100ms".split()
        self.lab.ip("tc", "-n", self.namespace, "qdisc", "replace", "dev", "eth0", "root", "tbf", *bucket)
        self.lab.ip("tc", "-n", self.lab.switch, "qdisc", "replace", "dev", self._link, "root", "tbf", *bucket)

    def cut(self) -> None:
        """Its link goes silent: what it sends is lost, what others send it is lost, and neither side is told."""
        self.lab.ip("ip", "-n", self.lab.switch, "link", "set", self._link, "nomaster")

    def mend(self) -> None:
        self.lab.ip("ip", "-n", self.lab.switch, "link", "set", self._link, "master", "bridge")

    def sent_bytes(self) -> int:
        """Bytes that left through the host's link, headers included."""
        with self.inside():
            devices = Path(
                "/proc/thread-self/net/dev"
            ).read_text()  # /sys shows the devices of the namespace that it was mounted in
        line = next(line for line in devices.splitlines() if line.strip().startswith("eth0:"))
        return int(line.partition(":")[2].split()[8])


@dataclass(eq=False)
class Lab:
    """Hosts 10.77.0.1, 10.77.0.2, ... in the order in which they are asked for, and a directory for their files."""

    opened: ClassVar[list[Lab]] = []
    """Those of this process that are not closed yet."""
    name: str = field(init=False)
    directory: Path = field(init=False)
    processes: list[Process] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)

    def __post_init__(self) -> None:
        sweep()
        self.name = f"darner-{name_of_this_process()}-{next(_numbers)}"
        self.switch = f"{self.name}-switch"
        self.directory = Path(tempfile.gettempdir(), self.name)
        self.directory.mkdir(mode=0o700)
        Lab.opened.append(self)

    def loopback(self, name: str) -> Host:
        return Host(self, name, "127.0.0.1")

    def host(self, name: str) -> Host:
        if not self.hosts:
            self._make_switch()
        number = len(self.hosts) + 1
        if number > _HOSTS_MAX:
            raise LabError(f"a lab has at most {_HOSTS_MAX} hosts")
        host = Host(self, name, f"10.77.0.{number}", f"{self.name}-{name}", f"port{number}")
        self.ip("ip", "netns", "add", host.namespace)
        self.hosts.append(host)
        self.ip(
            "ip", "-n", self.switch, "link", "add", host._link, "type", "veth", "peer", "name", "eth0", "netns", host.namespace
        )
        self.ip("ip", "-n", self.switch, "link", "set", host._link, "master", "bridge", "up")
        self.ip("ip", "-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self.ip("ip", "-n", host.namespace, "link", "set", device, "up")
        return host

    def disk(self, name: str, size: int, bytes_per_second: int) -> Path:
        """A directory that is a disk of that rate (`hack.lab.disk`)."""
        directory = self.directory / name
        make_disk(directory, size, bytes_per_second)
        return directory

    def close(self) -> None:
        Lab.opened.remove(self)
        for process in reversed(self.processes):
            process.kill()
        _remove(self.name)

    def last_words(self) -> str:
        """The end of what each process of this lab printed."""
        return "\n".join({process.name: process.last_words() for process in self.processes}.values())

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error:
            print(self.last_words())  # before they are gone
        self.close()

    def ip(self, *argv: object) -> None:
        done = subprocess.run([str(argument) for argument in argv], capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"{' '.join(map(str, argv))}: {done.stderr.strip()}; a lab takes root and the Debian package iproute2")

    def _make_switch(self) -> None:
        self.ip("ip", "netns", "add", self.switch)
        self.ip("ip", "-n", self.switch, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        self.ip("ip", "-n", self.switch, "link", "set", "bridge", "up")


def sweep() -> None:
    """Remove what labs left behind whose owners were killed."""
    if os.geteuid() != 0:
        return
    for place in (_NAMESPACES, Path(tempfile.gettempdir())):
        for found in place.glob("darner-*"):
            owner = _OURS.fullmatch(found.name)
            if owner and not process_named(owner[1]):
                _remove(found.name)


def _remove(name: str) -> None:
    """Namespaces, whoever still lives in them, control groups and files, of a lab or of one of its hosts."""
    for namespace in [*_NAMESPACES.glob(name), *_NAMESPACES.glob(f"{name}-*")]:
        inhabitants = subprocess.run(["ip", "netns", "pids", namespace.name], capture_output=True, text=True, check=False)
        for pid in inhabitants.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "delete", namespace.name], capture_output=True, check=False)
    groups = Path("/sys/fs/cgroup")
    for group in [groups / name, *groups.glob(f"*/{name}")]:  # version 2, and version 1 with a hierarchy per controller
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
    remove_disks(Path(tempfile.gettempdir(), name))
    shutil.rmtree(Path(tempfile.gettempdir(), name), ignore_errors=True)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns: a lab takes root")
