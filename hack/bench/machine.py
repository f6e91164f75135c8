"""What this machine is, and how busy it was: a figure that the machine limits must be told apart from one that Darner does."""

from __future__ import annotations

import contextlib
import mmap
import os
import platform
import re
import socket
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

GB = 1_000_000_000
_TICKS = os.sysconf("SC_CLK_TCK")
MEMORY_TIMES = 4
"""Blobs, for which memory is found before a pull. With memory for one, the kernel took other pages for the pull, which the host
had to find: 3.0 to 3.5 CPU-seconds per GB, and 1.3 with memory for four."""
_NAME_BYTES_MAX = 16  # TCP_CA_NAME_MAX of <linux/tcp.h>


@dataclass(frozen=True)
class Processors:
    """Seconds of all cores since they were started (proc(5), /proc/stat): without work that is measured, and in all."""

    idle: float
    total: float

    @classmethod
    def now(cls) -> Processors:
        """Time that waited for the disk had no work, and programs that are nice take only what is left; what another machine of
        the host took (`steal`) is not ours to give."""
        user, nice, system, idle, waited, interrupts, soft, steal = map(
            int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        )
        return cls((idle + waited + nice) / _TICKS, (user + nice + system + idle + waited + interrupts + soft + steal) / _TICKS)

    def idle_share_since(self, before: Processors) -> float:
        """0 to 1. Of a stretch too short to tell: 1."""
        passed = self.total - before.total
        return (self.idle - before.idle) / passed if passed > 0 else 1.0


def cpu_seconds(pids: Iterable[int]) -> float:
    """What these processes have taken so far, in user space and in the kernel; one that is gone counts nothing."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])  # utime and stime, fields 14 and 15 of proc(5)
    return total / _TICKS


def process_seconds(pid: int) -> float:
    """The same of one process, to the nanosecond (clock_getcpuclockid(3)). Raises OSError when it is gone."""
    return time.clock_gettime(~pid << 3 | 2)


def keep_to(pid: int, cores: Collection[int]) -> None:
    """Let a process, all its threads and those that it begins from now on, run on these cores only."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)


def find_memory(count: int) -> None:
    """Have so much memory at hand: a virtual machine's host takes back what is free, and whoever needs it next pays for that."""
    with mmap.mmap(-1, count) as memory:
        for start in range(0, count, mmap.PAGESIZE):
            memory[start] = 1


def congestion_control() -> str:
    """By which the system's connections send, unless they say otherwise."""
    with socket.socket() as sock:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _NAME_BYTES_MAX).rstrip(b"\0").decode()


def described() -> str:
    """One line: processor, cores, memory, kernel, congestion control."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    gibibytes = int(memory[1]) / (1 << 20) if memory else 0
    kernel = re.match(r"\d+\.\d+", platform.release())
    return (
        f"{os.cpu_count()} cores ({model[1] if model else platform.machine()}), {gibibytes:.0f} GiB, "
        f"{platform.system()} {kernel[0] if kernel else ''} with {congestion_control()}, Python {platform.python_version()}"
    )
