"""A program that a lab started: its output in files, its end by its own process id, never by a name.

It dies with the process that started it (PR_SET_PDEATHSIG), so that a killed test run leaves no program behind. A program that
ends while somebody waits for it to be ready is an error that carries its last words.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_POLL_SECONDS = 0.02
_LAST_WORDS_LINES = 40
_LINE_LENGTH_MAX = 400


class LabError(Exception):
    """Something that a lab was asked for and could not do."""


class Process:
    """Standard output goes to NAME.out and standard error to NAME.err; a name that is started again goes on in the same files."""

    heard: Callable[[str, str], None] = staticmethod(lambda _name, _text: None)
    """Is told a program's name and all that it printed, when it has ended."""

    def __init__(self, name: str, argv: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.out, self.err = directory / f"{name}.out", directory / f"{name}.err"
        self._out_start = self.out.stat().st_size if self.out.exists() else 0
        with self.out.open("ab") as out, self.err.open("ab") as err:
            self._popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        wait_until(lambda: not (self.running and self._is_beginning))

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    @property
    def _is_beginning(self) -> bool:
        """Whether it could still outlive the process that started it: setpriv has not handed over to the program."""
        command = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        return not command or b"--pdeathsig" in command

    def printed(self) -> str:
        """What it printed on standard output since it started."""
        with self.out.open("rb") as out:
            out.seek(self._out_start)
            return out.read().decode(errors="replace")

    def wait_until(self, ready: Callable[[], object], timeout_seconds: float = 30) -> None:
        def ready_or_ended() -> object:
            return ready() or not self.running

        try:
            wait_until(ready_or_ended, timeout_seconds)
        except LabError as error:
            raise LabError(f"{self.name} is not ready: {error}\n{self.last_words()}") from None
        if not self.running:
            raise LabError(f"{self.name} ended with {self._popen.returncode}\n{self.last_words()}")

    def stop(self, timeout_seconds: float = 15) -> int:
        """Ask it to end (SIGTERM); its exit status."""
        if self.running:
            self._popen.terminate()
        try:
            status = self._popen.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} does not end on SIGTERM\n{self.last_words()}") from None
        self._tell()
        return status

    def kill(self) -> None:
        """It loses its power."""
        if self.running:
            self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()
        self._tell()

    def _tell(self) -> None:
        for file in (self.out, self.err):
            if file.exists():
                self.heard(self.name, file.read_text(errors="replace"))

    def memory_bytes(self, which: str = "VmHWM") -> int:
        """Resident memory: VmRSS now, VmHWM the most that it ever was (proc(5))."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{which}:\s+(\d+) kB$", status, re.MULTILINE)
        if not found:
            raise LabError(f"{self.name}: /proc/{self.pid}/status has no {which}")
        return int(found[1]) * 1024

    def last_words(self) -> str:
        words = [f"--- {file.name}\n{_tail(file)}" for file in (self.out, self.err) if file.stat().st_size]
        return "\n".join(words) or f"--- {self.name} said nothing"


def wait_until(condition: Callable[[], object], timeout_seconds: float = 30) -> None:
    """Look again and again, for things of which nobody tells when they happen."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"still not so after {timeout_seconds:g} s")
        time.sleep(_POLL_SECONDS)


def _tail(file: Path) -> str:
    lines = file.read_text(errors="replace").splitlines()[-_LAST_WORDS_LINES:]
    return "\n".join(line[:_LINE_LENGTH_MAX] for line in lines)


def name_of_this_process() -> str:
    """Process id and start time: a name that no later process gets, unlike the process id."""
    return f"{os.getpid()}-{_start_time(os.getpid())}"


def process_named(name: str) -> bool:
    """Whether the process of that name lives."""
    pid, start_time = name.split("-")
    return _start_time(int(pid)) == start_time


def _start_time(pid: int) -> str | None:
    try:
        # Field 22 of proc(5); the fields are counted after the command, which may hold spaces and parentheses itself.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
