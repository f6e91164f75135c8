"""The lab keeps its promises: hosts of their own, links with a rate, ears on a port, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hack.lab import Host, Lab, LabError, wait_until
from hack.lab.network import sweep
from hack.lab.tap import Tap

pytestmark = pytest.mark.needs_root

TREE = Path(__file__).resolve().parent.parent.parent
MEBIBYTE = 1 << 20
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # linger for no time: what is on its way is given up (socket(7))
OWNER_THAT_NEVER_CLOSES = """
import time
from hack.lab import Lab
lab = Lab()
process = lab.host("alone").start("sleep", ["sleep", "100"])
print(lab.name, process.pid, flush=True)
time.sleep(100)
"""


OWNER_ON_LOOPBACK = OWNER_THAT_NEVER_CLOSES.replace('lab.host("alone")', 'lab.loopback("alone")')


def listener(host: Host, address: str) -> socket.socket:
    with host.inside():
        return socket.create_server((address, 65001))


def send(server: socket.socket, size: int) -> None:
    with server.accept()[0] as connection:
        connection.sendall(bytes(size))


def seconds_to_receive(sender: Host, receiver: Host, size: int) -> float:
    with listener(sender, sender.address) as server:
        thread = threading.Thread(target=send, args=(server, size))
        thread.start()
        began, left = time.monotonic(), size
        with receiver.connect(65001, sender.address) as connection:
            while left:
                left -= len(connection.recv(left))
        thread.join()
        return time.monotonic() - began


def ended(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()  # dead, and nobody has asked for its exit status yet
    except FileNotFoundError:
        return True


def test_a_host_has_a_loopback_of_its_own(lab: Lab) -> None:
    first, second = lab.host("first"), lab.host("second")
    with listener(first, "127.0.0.1"):
        first.connect(65001).close()
        with pytest.raises(ConnectionRefusedError):
            second.connect(65001)


def test_two_labs_at_once_use_the_same_addresses_and_do_not_meet(lab: Lab) -> None:
    with Lab() as other:
        here, there = lab.host("a"), other.host("a")
        assert here.address == there.address
        with listener(here, here.address), pytest.raises(ConnectionRefusedError):
            there.connect(65001, here.address)


def test_a_link_keeps_its_rate_and_counts_what_left(lab: Lab) -> None:
    sender, receiver = lab.host("sender"), lab.host("receiver")
    sender.shape(8 * MEBIBYTE)
    assert 0.9 < seconds_to_receive(sender, receiver, 8 * MEBIBYTE) < 2
    assert 8 * MEBIBYTE < sender.sent_bytes() < 9 * MEBIBYTE


def test_a_tap_hears_requests_greetings_and_resets_but_no_answers(lab: Lab) -> None:
    host = lab.host("host")
    with listener(host, "127.0.0.1") as server, Tap(host, 65001) as tap:
        with host.connect(65001) as asking, server.accept()[0] as answering:
            asking.sendall(b"GET /v2/ HTTP/1.1\r\nRange: bytes=8-\r\n\r\n")
            answering.recv(1024)
            answering.sendall(b"HEAD /not-asked HTTP/1.1\r\n\r\n")
            asking.recv(1024)
        with host.connect(65001) as greeting:
            greeting.sendall(b"\x16\x03\x01\x00\x00")
            greeting.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    assert [(heard.method, heard.path, heard.headers, heard.ended) for heard in tap.requests] == [
        ("GET", "/v2/", {"range": "bytes=8-"}, True)
    ]
    assert (tap.tls_greetings, tap.resets) == (1, 1)


def test_a_program_that_ends_too_early_is_an_error_with_its_last_words(lab: Lab) -> None:
    process = lab.host("host").start("program", ["sh", "-c", "echo no such port >&2; exit 3"])
    with pytest.raises(LabError, match=r"host-program ended with 3(?s:.*)no such port"):
        process.wait_until(process.printed)


def test_what_a_killed_run_left_behind_is_swept_up(lab: Lab) -> None:
    argv = [sys.executable, "-c", OWNER_THAT_NEVER_CLOSES]
    owner = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=TREE)
    assert owner.stdout
    with owner.stdout:
        name, pid = owner.stdout.readline().split()
    remains = [Path("/tmp", name), Path("/run/netns", f"{name}-alone"), Path("/run/netns", f"{name}-switch")]
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert all(path.exists() for path in remains)
    sweep()
    assert not any(path.exists() for path in remains)
    assert lab.directory.exists(), "its owner lives"
    wait_until(lambda: ended(int(pid)))


def test_a_program_dies_with_its_owner_however_soon_that_is_killed(tmp_path: Path) -> None:
    """On a busy machine, what ties the two together takes its time."""
    slow = tmp_path / "setpriv"
    slow.write_text(f'#!/bin/sh\nsleep 0.5\nexec {shutil.which("setpriv")} "$@"\n')
    slow.chmod(0o755)
    argv = [sys.executable, "-c", OWNER_ON_LOOPBACK]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    owner = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=TREE, env=environment)
    assert owner.stdout
    with owner.stdout:
        _, pid = owner.stdout.readline().split()
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    wait_until(lambda: ended(int(pid)))
    sweep()
