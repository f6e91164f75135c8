"""FAULTS 62: a registry that is slow to begin. What takes it 14 s is pulled at the first try, what takes it 40 s at the next.

All limits are a tenth of what they are, and so is what the registry takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from agent.origin import client
from agent.registry import endpoint as endpoint_module
from agent.registry import manifests
from agent.registry.endpoint import HEAD_SECONDS_MAX
from agent.swarm import supernodes
from hack.origin import Fault, Origin
from supernode import verdicts
from supernode.tracker import seeds, tracker
from tests.endpoint import DIGEST, IMAGE, LAYER, Endpoint, push, runtime_at_node, wait_until
from tests.swarm import PIECE, Lab, noise

SLOW, TOO_SLOW = 1.4, 4.0
MANIFEST = r"/manifests/"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (client, "ASK_SECONDS_MAX"),
        (client, "BLOB_SECONDS_MAX"),
        (endpoint_module, "ASK_SECONDS_MAX"),
        (endpoint_module, "BESIDE_SECONDS"),
        (supernodes, "RESOLVE_SECONDS_MAX"),
        (supernodes, "VERDICT_SECONDS_MAX"),
        (verdicts, "ASKER_SECONDS_MAX"),
        (tracker, "BLOB_SECONDS_MAX"),
        (client, "PATIENCE_SECONDS"),
        (manifests, "WAIT_SECONDS_MAX"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name) / 10)


runtime_at = partial(runtime_at_node, head_seconds=HEAD_SECONDS_MAX / 10)


@pytest.fixture(params=["alone", "with a supernode"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Endpoint]:
    if request.param == "alone":
        with Origin() as origin:
            push(origin)
            with Endpoint(tmp_path, origin, head_seconds=HEAD_SECONDS_MAX / 10) as endpoint:
                yield endpoint
                origin.stop()
        return
    with Lab(tmp_path) as lab:
        push(lab.origin)
        with runtime_at(lab.node(), lab.origin) as endpoint:
            yield endpoint
            lab.origin.stop()


def test_a_manifest_that_takes_its_registry_14_s_is_pulled_at_the_first_try(endpoint: Endpoint) -> None:
    endpoint.origin.fail(Fault(path=MANIFEST, delay_seconds=SLOW))
    answer = endpoint.ask("manifests/1")
    assert (answer.status, answer.body) == (200, IMAGE.manifest)


def test_a_blob_that_takes_its_registry_14_s_to_begin_is_pulled_at_the_first_try(endpoint: Endpoint) -> None:
    endpoint.ask("manifests/1")
    endpoint.origin.fail(Fault(path="/blobs/", delay_seconds=SLOW))
    answer = endpoint.ask(f"blobs/{DIGEST}")
    assert (answer.status, answer.body) == (200, LAYER)


def test_a_blob_that_takes_its_registry_40_s_to_begin_is_found_by_the_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supernode, which asks too where nodes bring nothing, goes on when the node that wanted the blob has given up."""
    monkeypatch.setattr(seeds, "RESCUE_SECONDS", seeds.RESCUE_SECONDS / 10)
    with Lab(tmp_path) as lab:
        push(lab.origin)
        with runtime_at(lab.node(), lab.origin) as endpoint:
            endpoint.ask("manifests/1")
            lab.origin.fail(Fault(path="/blobs/", delay_seconds=TOO_SLOW))
            assert endpoint.ask(f"blobs/{DIGEST}").status == 504
            assert lab.origin.blob_bytes_sent == 0
            wait_until(lambda: lab.origin.blob_bytes_sent >= len(LAYER))
            lab.origin.heal()
            lab.origin.fail(Fault(path="/blobs/", methods=frozenset({"GET"}), status=500))
            assert endpoint.ask(f"blobs/{DIGEST}").body == LAYER, "what was under way is not asked for again"


def test_a_manifest_that_takes_its_registry_40_s_is_found_by_the_retry(endpoint: Endpoint) -> None:
    endpoint.origin.fail(Fault(path=MANIFEST, delay_seconds=TOO_SLOW))
    began = time.monotonic()
    assert endpoint.ask("manifests/1").status == 504
    asked = len(endpoint.origin.asked(MANIFEST))
    time.sleep(max(0.0, TOO_SLOW - 1 - (time.monotonic() - began)))
    answer = endpoint.ask("manifests/1")
    assert (answer.status, answer.body) == (200, IMAGE.manifest)
    assert len(endpoint.origin.asked(MANIFEST)) == asked, "what was under way was not asked for again"


def test_a_manifest_that_comes_when_nobody_waits_any_more_is_there_for_the_next_who_asks(endpoint: Endpoint) -> None:
    endpoint.origin.fail(Fault(path=MANIFEST, delay_seconds=TOO_SLOW))
    assert endpoint.ask("manifests/1").status == 504
    wait_until(lambda: all(request.status for request in endpoint.origin.asked(MANIFEST)), 30)
    time.sleep(0.5)
    endpoint.origin.fail(Fault(status=500))
    asked = len(endpoint.origin.requests)
    assert endpoint.ask("manifests/1").body == IMAGE.manifest
    assert len(endpoint.origin.requests) == asked


def test_the_registry_is_blamed_when_it_was_silent_for_as_long_as_any_may_be(endpoint: Endpoint) -> None:
    """FAULTS 59: with more patience, silence is a registry's fault as it was."""
    endpoint.origin.fail(Fault(path=MANIFEST, delay_seconds=60))
    with endpoint.connect() as sock:
        sock.sendall(f"GET {endpoint.prefix}/manifests/1 HTTP/1.0\r\n\r\n".encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 504 Registry At Fault\r\n")


def test_patience_is_for_few(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many names of a registry that is silent: most end as early as ever, so that threads are left for the others."""
    endpoint.origin.fail(Fault(path=MANIFEST, delay_seconds=60))
    began = time.monotonic()
    sockets = [endpoint.connect() for _ in range(manifests.PATIENT_MAX + 20)]
    for number, sock in enumerate(sockets):
        sock.sendall(f"GET {endpoint.prefix}/manifests/t{number} HTTP/1.0\r\n\r\n".encode())
    answers = [sock.recv(65536) for sock in sockets]
    assert all(answer.startswith(b"HTTP/1.1 504 ") for answer in answers)
    assert time.monotonic() - began < 20
    for sock in sockets:
        sock.close()


def test_a_supernode_that_hangs_is_not_waited_for_longer_than_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry is asked beside it."""
    with Lab(tmp_path) as lab:
        push(lab.origin)
        node = lab.node()
        monkeypatch.setattr(lab.supernode._manifests, "resolve", lambda *_: time.sleep(5))
        with runtime_at(node, lab.origin) as endpoint:
            assert endpoint.ask("manifests/1").body == IMAGE.manifest


def test_what_the_supernode_brings_late_is_taken_beside_a_registry_that_does_not_answer_this_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lab(tmp_path) as lab:
        image = push(lab.origin, noise(PIECE))
        node = lab.node()
        lab.origin.fail(Fault(path=MANIFEST, delay_seconds=1.8), times=1)  # the supernode's question
        lab.origin.fail(Fault(path=MANIFEST, status=503))  # this node's own, beside it
        with runtime_at(node, lab.origin) as endpoint:
            assert endpoint.ask("manifests/1").body == image.manifest
            assert len(lab.origin.asked(MANIFEST)) == 3, "a 503 is tried once more"
