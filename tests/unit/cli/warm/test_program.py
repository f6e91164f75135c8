"""The program that waits."""

from __future__ import annotations

import platform
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from cli.warm.program import PROGRAMS

MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def test_it_waits_whatever_it_is_told_until_it_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "wait"
    program.write_bytes(PROGRAMS[MACHINES[platform.machine()]])
    program.chmod(0o555)
    with subprocess.Popen([program]) as running:
        try:
            for number in (signal.SIGCHLD, signal.SIGCONT, signal.SIGWINCH):
                running.send_signal(number)
                time.sleep(0.05)
            assert running.poll() is None
            state = Path(f"/proc/{running.pid}/stat").read_text().rpartition(") ")[2][0]
            assert state == "S"  # it sleeps, and takes no processor
        finally:
            running.kill()
        assert running.wait() == -signal.SIGKILL


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", 62), ("arm64", 183)])
def test_its_one_segment_is_the_whole_file_and_the_entry_is_in_it(architecture: str, machine: int) -> None:
    content = PROGRAMS[architecture]
    assert content[:4] == b"\x7fELF"
    assert struct.unpack_from("<HH", content, 16) == (2, machine)
    (entry,) = struct.unpack_from("<Q", content, 24)
    kind, flags, offset, address, _, size, memory, _ = struct.unpack_from("<IIQQQQQQ", content, 64)
    assert (kind, flags, offset, size, memory) == (1, 5, 0, len(content), len(content))
    assert address < entry < address + len(content)


def test_the_program_of_arm64_is_what_its_comments_say() -> None:
    """By the encodings of the Arm Architecture Reference Manual: MOVZ, SVC and B."""

    def move(register: int, value: int) -> int:
        return 0xD2800000 | value << 5 | register

    back = -5  # instructions
    wanted = [move(8, 73), *(move(number, 0) for number in range(4)), 0xD4000001, 0x14000000 | back & 0x3FFFFFF]
    assert list(struct.unpack("<7I", PROGRAMS["arm64"][-28:])) == wanted
