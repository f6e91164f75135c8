"""Row 47, and origins that are away: the client is told in OCI form, with the registry's name, before a runtime gives up."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.registry.endpoint import HEAD_SECONDS_MAX
from hack.origin import Fault, Origin
from tests.endpoint import DIGEST, IMAGE, LAYER, Endpoint, no_more_than, push, threads_and_descriptors, wait_until

SHORT_SECONDS = 0.6
RUNTIME_SECONDS = 30.0
"""When containerd gives up."""
SILENT = Fault(delay_seconds=60)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        push(origin)
        yield origin


@pytest.fixture
def endpoint(origin: Origin, tmp_path: Path) -> Iterator[Endpoint]:
    """One that gives up after a part of a second instead of 25."""
    with Endpoint(tmp_path / "store", origin, head_seconds=SHORT_SECONDS) as endpoint:
        yield endpoint
        origin.stop()


def test_the_limit_of_a_real_endpoint_lies_before_the_runtimes() -> None:
    assert HEAD_SECONDS_MAX <= RUNTIME_SECONDS - 5


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["manifests/1", f"manifests/{IMAGE.digest}", f"blobs/{DIGEST}", "tags/list"])
def test_an_origin_that_is_silent_is_a_504_that_names_it(endpoint: Endpoint, path: str, method: str) -> None:
    endpoint.origin.fail(SILENT)
    began = time.monotonic()
    answer = endpoint.ask(path, method)
    assert SHORT_SECONDS <= time.monotonic() - began < SHORT_SECONDS + 0.5
    assert answer.status == 504
    if method == "GET":
        assert endpoint.origin.address in answer.message


@pytest.mark.parametrize(
    "fault", [SILENT, Fault(path="/blobs/", stall_after=0), Fault(path="/blobs/", stall_after=100)], ids=["head", "body", "begun"]
)
def test_a_blob_whose_first_piece_does_not_come_in_time_is_a_504_and_no_broken_200(endpoint: Endpoint, fault: Fault) -> None:
    assert endpoint.ask("manifests/1").status == 200
    endpoint.origin.fail(fault)
    answer = endpoint.ask(f"blobs/{DIGEST}")
    assert (answer.status, answer.code) == (504, "UNAVAILABLE")
    assert endpoint.origin.address in answer.message


def test_a_blob_that_was_slow_once_is_served_when_its_origin_is_well(endpoint: Endpoint) -> None:
    endpoint.ask("manifests/1")
    endpoint.origin.fail(Fault(path="/blobs/", stall_after=0), times=1)
    assert endpoint.ask(f"blobs/{DIGEST}").status == 504
    time.sleep(1.0)
    answer = endpoint.ask(f"blobs/{DIGEST}")
    assert (answer.status, answer.body) == (200, LAYER)


def test_slow_is_not_silent(endpoint: Endpoint, origin: Origin) -> None:
    """The limit is for the first byte; the rest may take as long as it takes."""
    endpoint.ask("manifests/1")
    origin.fail(Fault(path="/blobs/", bytes_per_second=1_100_000))
    began = time.monotonic()
    assert endpoint.ask(f"blobs/{DIGEST}").body == LAYER
    assert time.monotonic() - began > 2 * SHORT_SECONDS


@pytest.mark.parametrize("path", ["manifests/1", f"blobs/{DIGEST}"])
def test_a_client_that_leaves_is_not_waited_for(endpoint: Endpoint, path: str) -> None:
    endpoint.origin.fail(SILENT)
    with endpoint.connect() as sock:
        sock.sendall(f"GET {endpoint.prefix}/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(lambda: bool(endpoint.origin.requests))
    began = time.monotonic()
    wait_until(lambda: not endpoint.listener._open)
    assert time.monotonic() - began < SHORT_SECONDS / 2


def test_a_hundred_clients_of_a_silent_origin_are_all_told_in_time_and_leave_nothing_behind(
    endpoint: Endpoint, origin: Origin
) -> None:
    endpoint.ask("/v2/")
    before = threads_and_descriptors()
    origin.fail(SILENT)
    began = time.monotonic()
    sockets = [endpoint.connect() for _ in range(100)]
    for sock in sockets:
        sock.sendall(f"GET {endpoint.prefix}/manifests/1 HTTP/1.0\r\n\r\n".encode())
    for sock in sockets:
        assert sock.recv(65536).startswith(b"HTTP/1.1 504 ")
        sock.close()
    assert time.monotonic() - began < SHORT_SECONDS + 2
    assert len(origin.requests) == 1
    origin.stop()
    wait_until(lambda: no_more_than(before))


@pytest.mark.parametrize("path", ["manifests/1", f"blobs/{DIGEST}", "tags/list"])
def test_an_origin_that_refuses_connections_is_a_502_that_names_it_at_once(endpoint: Endpoint, path: str) -> None:
    endpoint.origin.stop()
    began = time.monotonic()
    answer = endpoint.ask(path)
    assert (answer.status, answer.code) == (502, "UNAVAILABLE")
    assert endpoint.origin.address in answer.message
    assert time.monotonic() - began < SHORT_SECONDS


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_answer_blames_the_registry_where_it_alone_is_at_fault(endpoint: Endpoint, method: str) -> None:
    """FAULTS 59: runtimes repeat the reason phrase to the kubelet, and to a HEAD there is no body to say it in."""
    endpoint.origin.stop()
    with endpoint.connect() as sock:
        sock.sendall(f"{method} {endpoint.prefix}/manifests/1 HTTP/1.0\r\n\r\n".encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 502 Registry At Fault\r\n")


def test_the_answer_blames_nobody_where_neither_other_nodes_nor_the_registry_answered(endpoint: Endpoint) -> None:
    """FAULTS 59."""
    endpoint.origin.fail(SILENT)
    with endpoint.connect() as sock:
        sock.sendall(f"HEAD {endpoint.prefix}/manifests/1 HTTP/1.0\r\n\r\n".encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 504 \r\n")


def test_a_name_that_does_not_resolve_is_a_502_that_names_it(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with endpoint_socket(endpoint) as sock:
        sock.sendall(b"GET /v2/no-such-host.example/team/app/manifests/1 HTTP/1.0\r\n\r\n")
        received = sock.recv(65536)
    assert received.startswith(b"HTTP/1.1 502 ")
    assert b"no-such-host.example" in received


def endpoint_socket(endpoint: Endpoint) -> socket.socket:
    """Connected without looking up any name."""
    sock = socket.socket()
    sock.settimeout(5)
    sock.connect(endpoint.listener.address)
    return sock


def test_an_origin_that_has_it_not_is_a_404_of_its_own(endpoint: Endpoint) -> None:
    for path, code in (("manifests/2", "MANIFEST_UNKNOWN"), (f"blobs/sha256:{'0' * 64}", "BLOB_UNKNOWN")):
        answer = endpoint.ask(path)
        assert (answer.status, answer.code) == (404, code)


def test_what_is_here_is_served_with_its_origin_gone(endpoint: Endpoint) -> None:
    endpoint.ask("manifests/1")
    endpoint.ask(f"blobs/{DIGEST}")
    endpoint.origin.stop()
    assert endpoint.ask("manifests/1").body == IMAGE.manifest
    assert endpoint.ask(f"manifests/{IMAGE.digest}").body == IMAGE.manifest
    assert endpoint.ask(f"blobs/{DIGEST}").body == LAYER
