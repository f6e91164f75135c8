"""Ports that tests and demos listen at."""

from __future__ import annotations

import errno
import itertools
import os
import socket

import pytest

from hack import ports
from hack.ports import free_port


def test_no_port_is_given_out_twice_though_nobody_takes_one() -> None:
    found = [free_port() for _ in range(200)]
    assert len(set(found)) == 200
    assert all(port < 32768 for port in found)


def test_a_port_that_somebody_listens_at_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        monkeypatch.setattr(ports, "_turns", itertools.count(taken.getsockname()[1] - ports._PORTS.start))
        assert free_port() > taken.getsockname()[1]


def test_another_machines_address_is_an_error() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EADDRNOTAVAIL)):
        free_port("192.0.2.1")
