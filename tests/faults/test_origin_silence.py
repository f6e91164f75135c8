"""Rows 24 and 47: registries that do not answer, in every way there is. The client hears in time which one it was."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.download import planner
from agent.http import client as http_client
from agent.origin import client
from agent.origin.destinations import LOOKUP_SECONDS_MAX
from agent.registry import endpoint
from agent.swarm import supernodes
from agent.values.address import Address
from agent.values.errors import OriginError
from hack.origin import Fault
from tests.swarm import PIECE, Lab, noise

BODY = noise(2 * PIECE)
RUNTIME_SECONDS = 25.0
"""The agent has to have answered by then; containerd gives up after 30."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same limits in the same proportions, ten times as fast."""
    monkeypatch.setattr(client, "ASK_SECONDS_MAX", client.ASK_SECONDS_MAX / 10)
    monkeypatch.setattr(client, "BLOB_SECONDS_MAX", client.BLOB_SECONDS_MAX / 10)
    monkeypatch.setattr(supernodes, "RESOLVE_SECONDS_MAX", supernodes.RESOLVE_SECONDS_MAX / 10)
    monkeypatch.setattr(client, "PATIENCE_SECONDS", RUNTIME_SECONDS / 10)  # longer, but no client waits longer than this
    monkeypatch.setattr(http_client, "CONNECT_SECONDS_MAX", http_client.CONNECT_SECONDS_MAX / 10)


@contextlib.contextmanager
def black_hole() -> Iterator[Address]:
    """An address where nobody answers to a connection: its queue is full."""
    with socket.socket() as server, contextlib.ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        time.sleep(0.1)
        yield Address(*server.getsockname())


@contextlib.contextmanager
def silence() -> Iterator[Address]:
    """An address where a connection is accepted and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Address(*server.getsockname())


def lab_with(root: Path, registry: Address, supernodes: int = 1) -> Lab:
    lab = Lab(root, supernodes)
    lab.insecure.append(str(registry))
    return lab


def test_what_the_supernode_and_the_agent_may_take_adds_up_to_less_than_a_runtime_waits() -> None:
    assert endpoint.BESIDE_SECONDS + client.ASK_SECONDS_MAX < RUNTIME_SECONDS
    assert supernodes.RESOLVE_SECONDS_MAX < RUNTIME_SECONDS
    assert client.BLOB_SECONDS_MAX < RUNTIME_SECONDS
    assert client.ASK_SECONDS_MAX < endpoint.BESIDE_SECONDS, "the supernode's own failure is heard of"
    assert http_client.CONNECT_SECONDS_MAX * 2 < client.ASK_SECONDS_MAX, "a second address has its chance"
    assert LOOKUP_SECONDS_MAX + http_client.CONNECT_SECONDS_MAX < client.ASK_SECONDS_MAX
    assert client.ASK_SECONDS_MAX < planner.OPEN_SECONDS_MAX


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("how", [black_hole, silence])
@pytest.mark.parametrize("supernodes", [0, 1])
def test_a_registry_that_does_not_answer_is_named_in_time(
    tmp_path: Path, how: Callable[[], contextlib.AbstractContextManager[Address]], supernodes: int
) -> None:
    with how() as where, lab_with(tmp_path, where, supernodes) as lab:
        node, registry = lab.node(), str(where)
        for ask in (lambda: node.resolve("1", registry), lambda: node.pull("sha256:" + "ab" * 32, registry=registry)):
            began = time.monotonic()
            with pytest.raises(OriginError, match=f"the registry {where} did not answer in time") as failed:
                ask()
            assert failed.value.status == 504
            assert time.monotonic() - began < RUNTIME_SECONDS / 10 + 5


def test_a_registry_that_stops_after_its_manifest_does_not_stop_what_others_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ASK_SECONDS_MAX", 1.0)
    with Lab(tmp_path, tag_interval=0.0) as lab:
        image = lab.push(BODY)
        first = lab.node()
        assert first.pull(first.resolve("1").lists()[1]) == BODY
        lab.origin.fail(Fault(delay_seconds=600))
        newcomer = lab.node()
        manifest = newcomer.resolve("1")
        assert (manifest.digest, manifest.stale) == (image.digest, True)
        assert newcomer.pull(image.layers[0]) == BODY


@pytest.mark.usefixtures("quick")
def test_a_silent_registry_keeps_nobody_from_another_one(tmp_path: Path) -> None:
    """Many names of a registry that is silent, and one of a registry that answers."""
    with silence() as where, lab_with(tmp_path, where) as lab:
        image = lab.push(BODY)
        node = lab.node()
        slow = node.swarm.channels[0]
        with ThreadPoolExecutor(40) as threads:
            asked = [threads.submit(slow.resolve, str(where), "team/app", str(number), 10.0) for number in range(40)]
            time.sleep(0.1)
            began = time.monotonic()
            assert slow.resolve(lab.origin.address, "team/app", "1", 10.0).digest == image.digest
            assert time.monotonic() - began < 5
            assert all(isinstance(answer.exception(20), OriginError) for answer in asked)


def test_a_registry_that_refuses_connections_is_named_at_once(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        lab.push(BODY)
        lab.origin.stop()
        node = lab.node()
        began = time.monotonic()
        with pytest.raises(OriginError, match=f"the registry {lab.origin.address} cannot be reached") as failed:
            node.resolve("1")
        assert failed.value.status == 502
        assert time.monotonic() - began < 5
