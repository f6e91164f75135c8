"""Rows 61 to 67 and 77: registries with habits of their own, as runtimes accept them."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from agent.origin import shown, throttle
from agent.values.errors import OriginError
from hack.origin import Fault, Origin
from tests.endpoint import DIGEST, IMAGE, LAYER, Endpoint, push
from tests.swarm import Lab, Node

KUBELET_PAUSE_SECONDS_MAX = 300
CHUNKED = Fault(path="/blobs/", chunked=True)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        push(origin)
        yield origin


@pytest.fixture
def endpoint(origin: Origin, tmp_path: Path) -> Iterator[Endpoint]:
    with Endpoint(tmp_path / "store", origin) as endpoint:
        yield endpoint


# Blobs without a length.


@pytest.mark.parametrize("fault", [CHUNKED, Fault(path="/blobs/", headers={"Content-Length": None})], ids=["chunks", "end"])
def test_a_blob_without_a_length_has_the_length_that_its_manifest_says(endpoint: Endpoint, fault: Fault) -> None:
    """FAULTS 61."""
    endpoint.origin.fail(fault)
    endpoint.ask("manifests/1")
    assert endpoint.ask(f"blobs/{DIGEST}", "HEAD").headers["Content-Length"] == str(len(LAYER))
    answer = endpoint.ask(f"blobs/{DIGEST}")
    assert (answer.status, answer.body) == (200, LAYER)


def test_a_stream_in_chunks_that_breaks_off_goes_on_where_it_ended(endpoint: Endpoint) -> None:
    """FAULTS 61."""
    endpoint.origin.fail(Fault(path="/blobs/", chunked=True, cut_after=len(LAYER) // 2, bytes_per_second=8_000_000), times=1)
    endpoint.origin.fail(CHUNKED)
    endpoint.ask("manifests/1")
    assert endpoint.ask(f"blobs/{DIGEST}").body == LAYER
    assert "range" in endpoint.origin.asked("/blobs/")[-1].headers


def test_chunks_that_are_not_the_blob_are_refused(endpoint: Endpoint) -> None:
    """FAULTS 61: the manifest's size is somebody's word, and the digest decides."""
    endpoint.origin.fail(Fault(path="/blobs/", chunked=True, flip_byte=17))
    endpoint.ask("manifests/1")
    with contextlib.suppress(ConnectionError, http.client.IncompleteRead):  # cut off before the last byte
        assert endpoint.ask(f"blobs/{DIGEST}", Range="bytes=0-99").status == 502
    assert endpoint.store.blob(DIGEST) is None


def test_the_supernode_is_told_how_long_a_blob_is_by_the_node_that_knows_its_manifest(tmp_path: Path) -> None:
    """FAULTS 61: the supernode has seen no manifest, and asks nobody how long the blob is."""
    with Lab(tmp_path) as lab:
        image = lab.push(LAYER)
        lab.origin.fail(CHUNKED)
        nodes = [lab.node() for _ in range(3)]
        for node in nodes:
            node.client.sizes.learn(lab.origin.address, "team/app", {image.layers[0]: len(LAYER)})
        assert lab.pull_everywhere(image.layers[0]) == [LAYER] * 3
        assert not lab.origin.asked("/blobs/", "HEAD")
        assert lab.origin.blob_bytes_sent == len(LAYER)


# HEAD is refused.


@pytest.mark.parametrize("status", [405, 401, 403])
@pytest.mark.parametrize("seconds", [300.0, -1.0], ids=["at once", "when the verdict is old"])
def test_a_blob_whose_head_is_refused_is_pulled_and_served_again_from_this_node(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, status: int, seconds: float
) -> None:
    """FAULTS 65: a GET of one byte shows whether the blob may be had, and how long it is."""
    monkeypatch.setattr(shown, "REMEMBERED_SECONDS", seconds)
    endpoint.origin.fail(Fault(path="/blobs/", methods=frozenset({"HEAD"}), status=status))
    assert endpoint.ask("manifests/1").status == 200
    assert endpoint.ask(f"blobs/{DIGEST}", "HEAD").headers["Content-Length"] == str(len(LAYER))
    for _ in range(2):
        answer = endpoint.ask(f"blobs/{DIGEST}")
        assert (answer.status, answer.body) == (200, LAYER)
    assert endpoint.origin.blob_bytes_sent < len(LAYER) + 10


def test_a_blob_that_may_not_be_had_is_refused_by_head_and_by_get(endpoint: Endpoint) -> None:
    """FAULTS 65."""
    endpoint.origin.fail(Fault(path="/blobs/", status=401))
    assert endpoint.ask(f"blobs/{DIGEST}").status == 401
    assert [request.method for request in endpoint.origin.asked("/blobs/")] == ["HEAD", "GET"]


@pytest.mark.parametrize("status", [405, 401])
def test_a_tag_is_asked_by_get_where_head_is_refused(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """FAULTS 77: at the first try, and when the tag is looked at again."""
    origin.fail(Fault(path="/manifests/", methods=frozenset({"HEAD"}), status=status))
    with Endpoint(tmp_path / "store", origin, interval=0.0) as endpoint:
        for method in ("GET", "HEAD", "GET"):
            answer = endpoint.ask("manifests/1", method)
            assert (answer.status, answer.headers["Docker-Content-Digest"]) == (200, IMAGE.digest)


# Retry-After.


def throttled(path: str, value: str) -> Fault:
    return Fault(path=path, status=429, headers={"Retry-After": value})


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
def test_eight_nodes_ask_a_registry_once_that_wants_to_be_left_alone_and_tell_for_how_long(tmp_path: Path, kind: str) -> None:
    """FAULTS 67: and none asks again before the hour, or the cap, is over."""
    with Lab(tmp_path) as lab:
        image = lab.push(LAYER)
        lab.origin.fail(throttled("", "3600"))
        nodes = [lab.node() for _ in range(8)]

        def told(node: Node) -> int:
            with pytest.raises(OriginError) as refused:
                node.resolve("1") if kind == "manifests" else node.pull(image.layers[0])
            assert refused.value.status == 429
            return refused.value.retry_after

        for _ in range(2):
            with ThreadPoolExecutor(8) as pool:
                assert all(3500 < seconds <= 3600 for seconds in pool.map(told, nodes))
            time.sleep(2)
        assert len(lab.origin.requests) == 1


def test_a_client_is_told_when_it_may_come_again_and_other_sources_go_on(endpoint: Endpoint) -> None:
    """FAULTS 67: what is here needs no registry."""
    endpoint.ask("manifests/1")
    endpoint.ask(f"blobs/{DIGEST}")
    endpoint.origin.fail(throttled("", format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)))
    for _ in range(2):
        answer = endpoint.ask("manifests/2")
        assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")
        assert 3500 < int(answer.headers["Retry-After"]) <= 3600
    assert len(endpoint.origin.asked("manifests/2")) == 1
    assert endpoint.ask("manifests/1").body == IMAGE.manifest
    assert endpoint.ask(f"blobs/{DIGEST}").body == LAYER


def test_a_registry_is_asked_again_after_the_cap_whatever_it_said(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 67: a kubelet by itself would not wait longer."""
    assert throttle.RETRY_AFTER_KEPT_SECONDS_MAX <= KUBELET_PAUSE_SECONDS_MAX
    monkeypatch.setattr(throttle, "RETRY_AFTER_KEPT_SECONDS_MAX", 0.2)
    endpoint.origin.fail(throttled("", "3600"), times=1)
    assert endpoint.ask("manifests/1").status == 429
    time.sleep(0.3)
    assert endpoint.ask("manifests/1").status == 200


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("path", ["manifests/1", f"blobs/{DIGEST}"])
def test_a_short_pause_is_waited_for(endpoint: Endpoint, path: str, status: int) -> None:
    """FAULTS 67: containerd asks again at once and soon gives up, so that a 429 from memory would be its last word."""
    if "blobs" in path:
        endpoint.ask("manifests/1")
    endpoint.origin.fail(Fault(path=path, status=status, headers={"Retry-After": "1"}), times=1)
    assert 200 in [endpoint.ask(path).status for _ in range(2)]


# Registries that fail for a moment.


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_registry_that_fails_once_is_asked_once_more(endpoint: Endpoint, status: int) -> None:
    """FAULTS 77: runtimes do the same."""
    endpoint.origin.fail(Fault(path="/manifests/", status=status), times=1)
    assert endpoint.ask("manifests/1").status == 200
    endpoint.origin.fail(Fault(path="/blobs/", status=status), times=1)
    assert endpoint.ask(f"blobs/{DIGEST}").body == LAYER


def test_a_registry_that_goes_on_failing_is_not_asked_for_ever(endpoint: Endpoint) -> None:
    """FAULTS 77."""
    endpoint.origin.fail(Fault(status=503))
    assert endpoint.ask("manifests/1").status == 502
    assert len(endpoint.origin.requests) == 2


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("0", 0), ("", 0), ("soon", 0), ("-5", 0), ("9" * 30, 86_400), ("Fri, 31 Dec 1999 23:59:59 GMT", 0)],
)
def test_a_retry_after_is_read_with_bounds(value: str, seconds: int) -> None:
    """FAULTS 67."""
    assert throttle.retry_after(value) == seconds
