"""What bytes cost is measured of processes that really move them."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import astuple
from pathlib import Path

import pytest

from hack.bench.client import Client, ClientError
from hack.bench.cpu import measure
from hack.bench.machine import congestion_control, keep_to, process_seconds
from hack.bench.nginx import REPOSITORY, Nginx
from hack.lab import Lab
from hack.origin import Image


@pytest.mark.parametrize("receives", [False, True])
def test_the_client_takes_all_of_a_body_one_after_the_other_and_nothing_but_a_success(tmp_path: Path, receives: bool) -> None:
    (tmp_path / "layer").write_bytes(os.urandom(3 << 20))
    image = Image.of([tmp_path / "layer", b"small"])
    with Lab() as lab:
        nginx = Nginx(lab.loopback("nginx"), image)
        with Client(nginx.address, receives=receives) as client:
            assert [client.take(f"/v2/{REPOSITORY}/blobs/{digest}") for digest in image.layers] == [3 << 20, 5]
            with pytest.raises(ClientError, match="404"):
                client.take(f"/v2/{REPOSITORY}/blobs/none")


@pytest.mark.parametrize("paced", [True, False])
def test_nginx_sends_as_the_system_does_unless_it_is_told_not_to_be_paced(tmp_path: Path, paced: bool) -> None:
    (tmp_path / "layer").write_bytes(b"layer")
    with Lab() as lab:
        nginx = Nginx(lab.loopback("nginx"), Image.of([tmp_path / "layer"]), paced=paced)
        with nginx.listening_socket() as sock:
            name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
            assert sock.getsockname()[1] == int(nginx.address.rpartition(":")[2])
    assert name == (congestion_control() if paced else "reno")


def test_a_process_is_kept_to_its_cores_with_all_its_threads_and_its_time_is_its_own() -> None:
    cores = os.sched_getaffinity(0)
    with subprocess.Popen(["sleep", "30"]) as idle:
        try:
            keep_to(idle.pid, {min(cores)})
            assert os.sched_getaffinity(idle.pid) == {min(cores)}
            assert os.sched_getaffinity(0) == cores
            before, own = process_seconds(idle.pid), process_seconds(os.getpid())
            while process_seconds(os.getpid()) < own + 0.05:
                pass
            assert process_seconds(idle.pid) - before < 0.05
        finally:
            idle.kill()
    with pytest.raises(OSError, match="Invalid argument"):
        process_seconds(idle.pid)


def test_a_measurement_leaves_this_process_all_its_cores() -> None:
    cores = os.sched_getaffinity(0)
    measure(rounds=1, blob_bytes=1 << 20)
    assert os.sched_getaffinity(0) == cores


def test_every_way_that_bytes_go_has_its_cost_and_something_beside_it() -> None:
    for cost in astuple(measure(rounds=1, blob_bytes=64 << 20)):
        seconds, beside, ratio, ratios, rounds = cost
        assert seconds > 0
        assert beside > 0
        assert ratios == (ratio,)
        assert rounds == (seconds,)
        assert ratio == pytest.approx(seconds / beside)
