"""TLS: verification is never switched off, and what is proven is the name that was asked for, at the address that was checked."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from agent.http.client import ConnectionPool, Place, TimeLimits, TransferError
from agent.origin.client import Origin as Client
from agent.values.address import Address
from agent.values.credential import Credential
from agent.values.errors import OriginError, UsageError
from hack.origin import Access, Fault, Image, Origin
from tests.origins import Authority, Scripted, drain, http, look_up

REPOSITORY = "team/app"
LAYER = b"layer" * 100_000
IMAGE = Image.of([LAYER])
NAMES = look_up(registry_test="127.0.0.1", other_test="127.0.0.1", two_test="127.0.0.9 127.0.0.1")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextmanager
def registry(authority: Authority, name: str = "registry.test", valid_for: timedelta = timedelta(days=1)) -> Iterator[Origin]:
    access = Access({"alice": "s3cret"}, frozenset({REPOSITORY}))
    with Origin(access=access, tls=authority.server(name, valid_for)) as origin:
        origin.push(REPOSITORY, "1", IMAGE)
        origin.push("open/app", "1", IMAGE)
        yield origin


def at(origin: Origin, host: str = "registry.test") -> str:
    """The origin by a name that leads to loopback."""
    return f"{host}:{origin.address.partition(':')[2]}"


def client_of(origin: Origin, *authorities: Authority) -> Client:
    listed = [f"https://{at(origin, host)}" for host in ("registry.test", "other.test", "two.test")]
    return Client(listed, [str(authority.file) for authority in authorities], NAMES)


def test_a_registry_with_an_authority_of_its_own_is_pulled_from(authority: Authority) -> None:
    with registry(authority) as origin:
        client = client_of(origin, authority)
        assert client.manifest(at(origin), REPOSITORY, "1", Credential("alice", "s3cret")).digest == IMAGE.digest
        stream = client.open_blob(at(origin), "open/app", IMAGE.layers[0], None)
        assert drain(stream.read_into) == LAYER
        stream.close()
        assert {request.headers["Host"] for request in origin.requests} == {at(origin)}


def test_the_next_address_of_a_name_is_tried(authority: Authority) -> None:
    with registry(authority, "two.test") as origin:
        assert client_of(origin, authority).manifest(at(origin, "two.test"), "open/app", "1", None)


def refused(client: Client, registry: str, why: str) -> None:
    for ask in (
        lambda: client.manifest(registry, "open/app", "1", None),
        lambda: client.open_blob(registry, "open/app", IMAGE.layers[0], None),
    ):
        with pytest.raises(OriginError, match=why) as failed:
            ask()
        assert failed.value.status == 502
        assert str(failed.value).startswith(f"the registry {registry} cannot be reached: the certificate of 127.0.0.1")


def test_a_certificate_of_another_name_is_refused(authority: Authority) -> None:
    with registry(authority, "other.test") as origin:
        refused(client_of(origin, authority), at(origin), "Hostname mismatch")
        assert not origin.requests


def test_a_certificate_for_the_address_only_is_no_proof_of_the_name(authority: Authority) -> None:
    with registry(authority, "127.0.0.1") as origin:
        refused(client_of(origin, authority), at(origin), "Hostname mismatch")


def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    with registry(authority, valid_for=timedelta(hours=-1)) as origin:
        refused(client_of(origin, authority), at(origin), "certificate has expired")


def test_a_certificate_of_an_unknown_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    with registry(authority) as origin:
        refused(client_of(origin), at(origin), "certificate verify failed|unable to get local issuer certificate|self-signed")
        refused(client_of(origin, Authority(tmp_path)), at(origin), "verify failed|unable to get local issuer|signature failure")


def test_a_name_is_proven_anew_at_an_address_that_has_proven_another_one(authority: Authority) -> None:
    """Two names of one address: what is meant for the second never goes over a connection of the first."""
    with registry(authority) as origin:
        client = client_of(origin, authority)
        alice = Credential("alice", "s3cret")
        assert client.manifest(at(origin), REPOSITORY, "1", alice)
        seen = len(origin.requests)
        with pytest.raises(OriginError, match="Hostname mismatch"):
            client.manifest(at(origin, "other.test"), REPOSITORY, "1", alice)
        assert len(origin.requests) == seen


def test_a_kept_connection_is_kept_for_the_name_that_it_was_made_for(authority: Authority) -> None:
    pool = ConnectionPool(ssl.create_default_context(cafile=str(authority.file)), idle_max=2)
    with registry(authority) as origin:
        where = Address("127.0.0.1", int(origin.address.partition(":")[2]))
        limits = TimeLimits(head=10.0)
        for _ in range(2):
            connection, _ = pool.ask(Place((where,), "registry.test"), "GET", "/v2/", {"Host": "registry.test"}, limits)
            connection.read_all(100)
            pool.give_back(connection)
        for name in ("other.test", ""):
            with pytest.raises(TransferError):
                pool.ask(Place((where,), name), "GET", "/v2/", {"Host": "other.test"}, limits)
        pool.close()
    assert len(origin.requests) == 2


def test_a_redirect_to_a_server_that_does_not_prove_its_name_is_refused(authority: Authority) -> None:
    with registry(authority) as origin, registry(authority, "two.test") as elsewhere:
        listed = [f"https://{at(origin)}", f"https://{at(elsewhere, 'other.test')}"]
        client = Client(listed, [str(authority.file)], NAMES)
        origin.fail(Fault(path="/blobs/", status=307, headers={"Location": f"https://{at(elsewhere, 'other.test')}/blob"}))
        with pytest.raises(OriginError, match="Hostname mismatch"):
            client.open_blob(at(origin), "open/app", IMAGE.layers[0], None)
        assert not elsewhere.requests


def test_what_is_for_tls_is_not_said_in_plain_http(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.http.client.CONNECT_SECONDS_MAX", 0.5)
    with Scripted(http(200, IMAGE.manifest)) as server:
        registry = f"registry.test:{server.address.port}"
        client = Client([f"https://{registry}"], [str(authority.file)], NAMES)
        with pytest.raises(OriginError, match=f"the registry {registry} "):
            client.manifest(registry, REPOSITORY, "1", None)
    assert server.connections
    assert not server.requests


def test_a_handshake_that_nobody_answers_is_waited_for_no_longer_than_a_connection(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.http.client.CONNECT_SECONDS_MAX", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        registry = f"registry.test:{server.getsockname()[1]}"
        client = Client([f"https://{registry}"], [str(authority.file)], NAMES)
        with pytest.raises(OriginError, match="did not answer in time") as failed:
            client.manifest(registry, REPOSITORY, "1", None)
        assert failed.value.status == 504


def test_a_stream_over_tls_that_is_aborted_ends_and_gives_no_encrypted_byte(authority: Authority) -> None:
    with registry(authority) as origin:
        origin.fail(Fault(path="/blobs/", stall_after=300_000))
        stream = client_of(origin, authority).open_blob(at(origin), "open/app", IMAGE.layers[0], None)
        received = bytearray()

        def read_into(buffer: memoryview) -> int:
            count = stream.read_into(buffer)
            received.extend(buffer[:count])
            return count

        timer = threading.Timer(0.3, stream.abort)
        timer.start()
        with pytest.raises(OriginError):
            drain(read_into)
        timer.join()
        stream.close()
        assert 0 < len(received) <= 300_000
        assert received == LAYER[: len(received)]


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_file_of_authorities_that_cannot_be_used_is_the_operators_fault(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"--ca-files: {path} cannot be used"):
        Client([], [str(path)])
