"""Disks of a lab that have a rate, and limits of memory, as nodes have them: a loop device and a control group.

Both are the kernel's: blkio and memory controllers of cgroup version 1, as root. The rate is that of the device for everybody who
writes to it or reads from it, and what only memory has takes none of it. A machine that cannot says why (`why_not`).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from hack.lab.process import LabError

_GROUPS = Path("/sys/fs/cgroup")
_RATES = [_GROUPS / "blkio" / f"blkio.throttle.{way}_bps_device" for way in ("write", "read")]
_MEMORY = _GROUPS / "memory"


def why_not() -> str:
    """Why this machine has no disk with a rate, or no limit of memory; "" when it has both."""
    if os.geteuid() != 0:
        return "a disk with a rate takes root"
    if not Path("/dev/loop-control").exists():
        return "this machine has no loop devices"
    if not all(file.exists() for file in (*_RATES, _MEMORY / "memory.limit_in_bytes")):
        return "this machine has no blkio and memory controllers of cgroup version 1"
    return ""


def make_disk(directory: Path, size: int, bytes_per_second: int) -> None:
    """An ext4 of its own at `directory`, which is made. It is gone with the lab (`remove_disks`)."""
    image = directory.with_suffix(".img")
    directory.mkdir(mode=0o700)
    with image.open("wb") as file:
        file.truncate(size)
    _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner", str(image))
    _run("mount", "-o", "loop", str(image), str(directory))
    _hold_back(os.stat(directory).st_dev, bytes_per_second)


def remove_disks(directory: Path) -> None:
    """Those whose place is in `directory`. Whoever writes there must have ended."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        place = Path(line.split()[1])
        if place.parent == directory:
            with contextlib.suppress(OSError):
                _hold_back(os.stat(place).st_dev, 0)  # another one may get the device next
            subprocess.run(["umount", "-l", place], capture_output=True, check=False)


def _hold_back(device: int, bytes_per_second: int) -> None:
    for file in _RATES:
        if file.exists():
            file.write_text(f"{os.major(device)}:{os.minor(device)} {bytes_per_second}")


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip()}")


class MemoryLimit:
    """A control group of a lab, whose processes have so much memory together, what they have of files in memory included."""

    def __init__(self, lab: str, limit: int) -> None:
        self._group = _MEMORY / lab
        self._group.mkdir()
        (self._group / "memory.limit_in_bytes").write_text(str(limit))

    def command(self, argv: list[str]) -> list[str]:
        """What to execute so that `argv` runs in it from its first byte on."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self._group / "cgroup.procs"), *argv]

    @property
    def used_max(self) -> int:
        return int((self._group / "memory.max_usage_in_bytes").read_text())

    @property
    def kills(self) -> int:
        """How often a process was killed for want of memory."""
        fields = (self._group / "memory.oom_control").read_text().split()
        return int(fields[fields.index("oom_kill") + 1])
