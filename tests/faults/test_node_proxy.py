"""Proxy variables (row 49): registries are asked through the proxy, nobody else is, and what may not be asked still is not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.origin.client import Origin as Client
from agent.origin.destinations import DestinationError, Destinations
from agent.origin.proxies import Proxies
from agent.values.credential import Credential
from agent.values.errors import OriginError
from hack.origin import Access, Image, Origin
from tests.origins import Authority, Scripted, drain, http, look_up

REPOSITORY = "team/app"
LAYER = b"layer" * 100_000
IMAGE = Image.of([LAYER])
ALICE = Credential("alice", "s3cret")
NOBODY_KNOWS = look_up()
"""A resolver as behind a firewall: it knows no name outside."""


class Tunnels(Scripted):
    """A proxy that leads to loopback whatever it is asked for, as long as it may."""

    def __init__(self, *refusal: bytes) -> None:
        super().__init__(*(refusal or (self._lead,)))

    def _lead(self, sock: socket.socket) -> None:
        port = int(self.requests[-1].split()[1].rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port)) as server:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_copy, args=(server, sock), name="proxy")
            back.start()
            _copy(sock, server)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def origin(authority: Authority) -> Iterator[Origin]:
    access = Access({"alice": "s3cret"}, frozenset({REPOSITORY}))
    with Origin(access=access, tls=authority.server("registry.test")) as origin:
        origin.push(REPOSITORY, "1", IMAGE)
        yield origin


def at(origin: Origin) -> str:
    return f"registry.test:{origin.address.partition(':')[2]}"


def through(proxy: Scripted, *authorities: Authority, word: str = "", **more: str) -> Client:
    proxies = Proxies({"HTTPS_PROXY": f"http://{word}{proxy.address}", "HTTP_PROXY": f"http://{word}{proxy.address}", **more})
    return Client([], [str(authority.file) for authority in authorities], NOBODY_KNOWS, proxies=proxies)


def test_a_registry_whose_name_only_the_proxy_knows_is_pulled_from_over_a_tunnel(origin: Origin, authority: Authority) -> None:
    with Tunnels() as proxy:
        client = through(proxy, authority, word="me:secret@")
        assert client.manifest(at(origin), REPOSITORY, "1", ALICE).digest == IMAGE.digest
        stream = client.open_blob(at(origin), REPOSITORY, IMAGE.layers[0], ALICE)
        assert drain(stream.read_into) == LAYER
        stream.close()
    for request in proxy.requests:
        assert request.startswith(f"CONNECT {at(origin)} HTTP/1.1\r\n".encode())
        assert b"\r\nproxy-authorization: basic bwu6c2vjcmv0\r\n" in request.lower()
        assert b"\r\nauthorization:" not in request.lower(), "what is the registry's goes past the proxy unseen"
    assert not [name for asked in origin.requests for name in asked.headers if name.lower() == "proxy-authorization"]


def test_who_answers_in_a_tunnel_proves_to_be_the_registry(origin: Origin, authority: Authority) -> None:
    port = at(origin).partition(":")[2]
    with Tunnels() as proxy, pytest.raises(OriginError, match="certificate") as refused:
        through(proxy, authority).manifest(f"other.test:{port}", REPOSITORY, "1", ALICE)
    assert refused.value.status == 502
    assert origin.requests == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http(407, Proxy_Authenticate="Basic"), "gives no way to registry.test:443: it answers 407"),
        (http(403, b"<html>blocked</html>"), "gives no way to registry.test:443: it answers 403"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "gives no way to registry.test:443: it speaks in the server's place"),
        (b"SSH-2.0-x\r\n", "did not answer in HTTP"),
        (b"", "did not answer in HTTP"),
    ],
)
def test_a_proxy_that_gives_no_way_is_named_with_its_answer(answer: bytes, words: str) -> None:
    with Tunnels(answer) as proxy, pytest.raises(OriginError, match=words) as refused:
        through(proxy).manifest("registry.test", REPOSITORY, "1", None)
    assert refused.value.status == 502
    assert str(proxy.address) in str(refused.value)


def test_a_plain_registry_is_asked_for_by_its_whole_url() -> None:
    with Scripted(http(404)) as proxy:
        proxies = Proxies({"HTTP_PROXY": f"http://me:secret@{proxy.address}"})
        client = Client(["registry.test:5000"], [], NOBODY_KNOWS, proxies=proxies)
        with pytest.raises(OriginError) as refused:
            client.manifest("registry.test:5000", REPOSITORY, "1", ALICE)
    assert refused.value.status == 404
    assert proxy.requests[0].startswith(b"GET http://registry.test:5000/v2/team/app/manifests/1 HTTP/1.1\r\n")
    assert b"host: registry.test:5000\r\n" in proxy.requests[0].lower()
    assert b"proxy-authorization: basic bwu6c2vjcmv0\r\n" in proxy.requests[0].lower()


def test_a_proxy_that_asks_who_is_there_has_said_nothing_for_the_registry() -> None:
    with Scripted(http(407, Proxy_Authenticate="Basic")) as proxy:
        client = Client(["registry.test"], [], NOBODY_KNOWS, proxies=Proxies({"HTTP_PROXY": str(proxy.address)}))
        with pytest.raises(OriginError, match=f"the proxy {proxy.address} wants to know who asks") as refused:
            client.manifest("registry.test", REPOSITORY, "1", ALICE)
    assert (refused.value.status, refused.value.answered) == (502, False)


def test_each_hop_of_a_redirect_has_its_own_way() -> None:
    with Scripted(http(200, LAYER)) as proxy, Scripted(http(307, Location="http://cdn.test/blob")) as registry:
        name = f"registry.test:{registry.address.port}"
        proxies = Proxies({"HTTP_PROXY": str(proxy.address), "NO_PROXY": "registry.test"})
        client = Client([name, "cdn.test"], [], look_up(registry_test="127.0.0.1"), proxies=proxies)
        stream = client.open_blob(name, REPOSITORY, IMAGE.layers[0], ALICE)
        assert drain(stream.read_into) == LAYER
        stream.close()
    assert len(registry.requests) == len(proxy.requests) == 1
    assert proxy.requests[0].startswith(b"GET http://cdn.test")
    assert b"\r\nauthorization:" not in proxy.requests[0].lower()


def test_what_the_exceptions_name_is_asked_directly() -> None:
    with Scripted(http(404)) as registry, Scripted(http(500)) as proxy:
        proxies = Proxies({"HTTP_PROXY": f"http://{proxy.address}", "NO_PROXY": "registry.test"})
        name = f"registry.test:{registry.address.port}"
        with pytest.raises(OriginError):
            Client([name], [], look_up(registry_test="127.0.0.1"), proxies=proxies).manifest(name, REPOSITORY, "1", None)
    assert registry.requests[0].startswith(b"GET /v2/team/app/manifests/1 HTTP/1.1\r\n")
    assert proxy.requests == []


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "metadata.test", "0.0.0.0"])
def test_what_may_not_be_asked_is_not_asked_of_the_proxy_either(host: str) -> None:
    names = look_up(metadata_test="169.254.169.254")
    rules = Destinations(
        [],
        lambda name, port: names(name, port) if "." in name else [(0, 0, 0, "", (name, port))],
        Proxies({"HTTPS_PROXY": "10.0.0.1"}),
    )
    with pytest.raises(DestinationError, match="only listed registries may have one") as refused:
        rules.hop(f"https://{host}/v2/", time.monotonic() + 5)
    assert refused.value.status == 421


def test_a_resolver_that_does_not_answer_costs_a_second_and_no_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.origin.destinations.PROXIED_LOOKUP_SECONDS_MAX", 0.05)
    end = threading.Event()
    names = look_up()

    def hang(host: str, port: int) -> list[tuple[object, ...]]:
        if host == "registry.test":
            end.wait(10)
        return names(host, port)

    try:
        rules = Destinations([], hang, Proxies({"HTTPS_PROXY": "10.0.0.1:3128"}))
        hop = rules.hop("https://registry.test/v2/", time.monotonic() + 5)
        assert (str(hop.place.addresses[0]), hop.place.server_name) == ("10.0.0.1:3128", "registry.test")
    finally:
        end.set()
