"""The life of a process: settings in, one line when it is ready, an orderly end on a signal, one clear line when it cannot be."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[3]

SERVICE = """
import errno, logging, os, resource, signal, sys, threading, time
from dataclasses import dataclass
from agent.values.errors import UsageError
from agent.process import run
from agent.config import setting, text

@dataclass(frozen=True)
class Settings:
    how: str = setting(text, "what goes wrong", "nothing")
    log_level: str = setting(text, "least level", "info")
    log_format: str = setting(text, "text or json", "text")

class Service:
    def __init__(self, settings):
        self.how = settings.how
        if self.how == "usage":
            raise UsageError("the port is taken")
        if self.how == "disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/var/lib/darner")
        if self.how == "signal at the start":
            os.kill(os.getpid(), signal.SIGTERM)

    def start(self):
        if self.how == "thread":
            threading.Thread(target=self.die, name="housekeeping").start()
        if self.how == "files":
            print(resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)
        if self.how == "busy":
            threading.Thread(target=self.catch, name="busy", daemon=True).start()
        if self.how == "another signal":
            signal.signal(signal.SIGUSR1, lambda *_: print("woken", flush=True))
        if self.how == "log":
            log = logging.getLogger("agent")
            log.info("a pull", extra={"fields": {"image": "nginx", "bytes": 7}})
            log.warning("%s left", "a\\n2026 WARNING forged\\r\\x1b[2J\\x9b1m\\u2028\\u202e\\u00e9\\udcff")
            try:
                raise ValueError("no\\n2026 WARNING forged\\x1b[2J")
            except ValueError:
                log.exception("it failed")
        if self.how == "start":
            raise UsageError("it cannot begin")
        return "ready to serve"

    def die(self):
        time.sleep(0.05)
        raise ValueError("the store is not what it was")

    def catch(self):
        time.sleep(0.5)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        time.sleep(60)

    def stop(self):
        print("stopped", flush=True)

sys.exit(run(Settings, "a program", Service, sys.argv[1:]))
"""


def start(*argv: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    return subprocess.Popen(
        [sys.executable, "-c", SERVICE, *argv], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order_with_status_0(number: signal.Signals) -> None:
    process = start()
    assert process.stdout
    assert process.stdout.readline() == "ready to serve\n"
    process.send_signal(number)
    assert end(process) == (0, "stopped\n", "")


def test_a_signal_that_the_system_gives_to_another_thread_ends_it_as_well() -> None:
    assert end(start("--how", "busy")) == (0, "ready to serve\nstopped\n", "")


def test_a_signal_that_means_something_else_ends_nothing() -> None:
    process = start("--how", "another signal")
    assert process.stdout
    assert process.stdout.readline() == "ready to serve\n"
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "woken\n"
    process.send_signal(signal.SIGTERM)
    assert end(process) == (0, "stopped\n", "")


def test_a_signal_while_it_starts_is_not_lost() -> None:
    assert end(start("--how", "signal at the start")) == (0, "ready to serve\nstopped\n", "")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("usage", "the port is taken"),
        ("start", "it cannot begin"),
        ("disk", "a program: [Errno 28] No space left on device: '/var/lib/darner'"),
    ],
)
def test_what_cannot_begin_says_so_in_one_line_with_status_1(how: str, words: str) -> None:
    assert end(start("--how", how)) == (1, "", f"{words}\n")


@pytest.mark.parametrize("argv", [("--no-such-flag",), ("--how",), ("stray",)])
def test_a_wrong_flag_is_one_line_with_status_1(argv: tuple[str, ...]) -> None:
    status, out, err = end(start(*argv))
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith("a program: ")


def test_help_is_no_error() -> None:
    status, out, err = end(start("--help"))
    assert (status, err) == (0, "")
    assert "--how" in out


def test_whatever_is_logged_begins_no_line_of_its_own_and_steers_no_terminal() -> None:
    process = start("--how", "log")
    assert process.stdout
    assert process.stdout.readline() == "ready to serve\n"
    process.send_signal(signal.SIGTERM)
    status, _, err = end(process)
    assert status == 0
    pull, first, second, *traceback = err.splitlines()
    assert pull.endswith("INFO agent: a pull")
    assert first.endswith("WARNING agent: a\\n2026 WARNING forged\\r\\x1b[2J\\x9b1m\\u2028\\u202e\u00e9\\udcff left")
    assert second.endswith("ERROR agent: it failed")
    assert traceback[0] == "    Traceback (most recent call last):"
    assert traceback[-2:] == ["    ValueError: no", "    2026 WARNING forged\\x1b[2J"]
    assert all(line.startswith("    ") for line in traceback)


def test_as_json_a_record_is_one_object_with_its_fields_and_its_traceback() -> None:
    process = start("--how", "log", "--log-format", "json")
    assert process.stdout
    assert process.stdout.readline() == "ready to serve\n"
    process.send_signal(signal.SIGTERM)
    status, _, err = end(process)
    assert status == 0
    assert err.isascii()
    pull, first, second = [json.loads(line) for line in err.splitlines()]
    assert datetime.fromisoformat(pull.pop("time")).tzinfo == UTC
    assert pull == {"level": "info", "logger": "agent", "message": "a pull", "image": "nginx", "bytes": 7}
    assert first["level"] == "warning"
    assert first["message"].startswith("a\n2026 WARNING forged\r\x1b[2J")
    assert second["message"] == "it failed"
    assert second["traceback"].startswith("Traceback (most recent call last):\n")


def test_a_thread_that_dies_ends_the_process_with_its_reason() -> None:
    began = time.monotonic()
    status, out, err = end(start("--how", "thread"))
    assert (status, out) == (70, "ready to serve\n"), "not stopped in order: nobody knows what is left of it"
    assert "the thread housekeeping died: the store is not what it was; the process ends" in err
    assert "Traceback" in err
    assert time.monotonic() - began < 5


def test_it_takes_as_many_descriptors_as_the_hard_limit_lets_it() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    few = ["prlimit", "--nofile=256:", sys.executable, "-c", SERVICE, "--how", "files"]
    process = subprocess.Popen(few, env={**os.environ, "PYTHONPATH": str(TREE)}, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == f"({hard}, {hard})\n"
    assert process.stdout.readline() == "ready to serve\n"
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0
