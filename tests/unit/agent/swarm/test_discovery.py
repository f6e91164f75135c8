"""Supernodes are found by SRV records, of which little is believed, and none is left that answers."""

from __future__ import annotations

import logging
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.resolver
import dns.rrset
import pytest

from agent.config import load
from agent.settings import AgentSettings
from agent.swarm import discovery as module
from agent.swarm.discovery import NAMES_MAX, Discovery, DiscoveryError, Found, in_service, look_up
from agent.values.address import Address
from agent.values.errors import UsageError

NAME = "_channel._tcp.darner-supernode.darner-system.svc.cluster.local"
DOMAIN = "darner-supernode.darner-system.svc.cluster.local"
SECONDS_MAX = 60


def pod(number: int, port: int = 65004) -> Address:
    return Address(f"darner-supernode-{number}.{DOMAIN}", port)


# What is believed of an answer.


def test_a_record_names_a_pod_of_the_service_as_the_chart_does_whatever_its_case_and_last_dot() -> None:
    answer = [Address(f"Darner-Supernode-1.{DOMAIN.upper()}.", 65004), pod(0), pod(0)]
    assert in_service(NAME, answer) == (pod(0), pod(1))


@pytest.mark.parametrize(
    "target",
    [
        "evil.example.com", DOMAIN, f".{DOMAIN}", f"a.b.{DOMAIN}", f"-.{DOMAIN}", f"a b.{DOMAIN}", f"a\n.{DOMAIN}",
        f"x{DOMAIN}", f"a.{DOMAIN}.example.com", f"{'a' * 64}.{DOMAIN}", "169.254.169.254", "", ".", "a.svc.cluster.local",
    ],
)  # fmt: skip
def test_a_name_outside_the_services_domain_is_nobody(target: str) -> None:
    assert in_service(NAME, [Address(target, 65004)]) == ()


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_nobodys(port: int) -> None:
    assert in_service(NAME, [pod(0, port)]) == ()


def test_of_an_enormous_answer_so_many_are_taken() -> None:
    assert len(in_service(NAME, [pod(number) for number in range(5000)])) == NAMES_MAX


# The setting.


@pytest.mark.parametrize(
    "wrong", ["darner", "_channel._tcp", "_channel._udp.a.svc", "_channel._tcp.a b.svc", f"{NAME}/x", "_a._tcp." + "a" * 260]
)
def test_what_names_no_service_is_refused_in_one_line(wrong: str) -> None:
    required = ["--node-name", "n", "--store", "/s", "--piece-listen", "127.0.0.1:0"]
    with pytest.raises(UsageError, match=r"is no service's name; write _channel\._tcp"):
        load(AgentSettings, "darner agent", [*required, "--supernode-service", wrong], {})


# A server of DNS, asked as resolv.conf says.


@contextmanager
def name_server(monkeypatch: pytest.MonkeyPatch, *said: bytes | None) -> Iterator[list[str]]:
    """Answers over UDP with these in turn, each after the question's number; None is no answer. What it was asked."""
    asked: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def serve() -> None:
            for answer in said:
                data, where = sock.recvfrom(4096)
                if not data:
                    return
                asked.append(str(dns.message.from_wire(data).question[0].name))
                if answer is not None:
                    sock.sendto(data[:2] + answer[2:], where)

        thread = threading.Thread(target=serve)
        thread.start()

        def resolver() -> dns.resolver.Resolver:
            found = _Resolver(configure=False)
            found.nameservers, found.port = ["127.0.0.1"], sock.getsockname()[1]
            return found

        _Resolver = dns.resolver.Resolver  # noqa: N806 (a class)
        monkeypatch.setattr(dns.resolver, "Resolver", resolver)
        try:
            yield asked
        finally:
            sock.sendto(b"", sock.getsockname())
            thread.join()


def answer(*records: str, name: str = NAME, rcode: int = 0) -> bytes:
    response = dns.message.make_response(dns.message.make_query(f"{name}.", "SRV"), recursion_available=True)
    response.set_rcode(rcode)
    if records:
        response.answer = [dns.rrset.from_text_list(f"{name}.", 30, "IN", "SRV", list(records))]
    return response.to_wire()


def test_the_records_are_asked_for_by_their_full_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with name_server(
        monkeypatch, answer(f"0 50 65004 darner-supernode-1.{DOMAIN}.", f"0 50 65004 darner-supernode-0.{DOMAIN}.")
    ) as asked:
        assert in_service(NAME, look_up(NAME)) == (pod(0), pod(1))
    assert asked == [f"{NAME}."]


@pytest.mark.parametrize("rcode", [2, 3, 5], ids=["SERVFAIL", "NXDOMAIN", "REFUSED"])
def test_a_server_that_has_none_says_nothing_of_supernodes(monkeypatch: pytest.MonkeyPatch, rcode: int) -> None:
    with name_server(monkeypatch, answer(rcode=rcode)), pytest.raises(DiscoveryError, match=r"^DNS ") as failed:
        look_up(NAME)
    assert "\n" not in str(failed.value)


def test_an_answer_without_records_says_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    with name_server(monkeypatch, answer()), pytest.raises(DiscoveryError):
        look_up(NAME)


@pytest.mark.parametrize("wrong", [b"", b"\0" * 12, b"\0\0\x81\x80\xff\xff\xff\xff\0\0\0\0", b"\xff" * 4000, None])
def test_bytes_that_are_no_answer_or_none_at_all_end_in_time(monkeypatch: pytest.MonkeyPatch, wrong: bytes | None) -> None:
    monkeypatch.setattr(module, "LOOKUP_SECONDS_MAX", 0.5)
    with name_server(monkeypatch, wrong), pytest.raises(DiscoveryError):
        look_up(NAME)


# Looking again and again.


class Watched:
    """A discovery whose answers are the test's."""

    def __init__(self, file: str = "") -> None:
        self.answer: list[Address] | Exception = []
        self.used: queue.SimpleQueue[Found] = queue.SimpleQueue()
        self.discovery = Discovery(NAME, file, self.used.put, self._look_up)

    def _look_up(self, name: str) -> list[Address]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "supernodes"
    file.write_text(f"{pod(0)},{pod(1)}\n")
    return file


def test_dns_counts_and_where_it_has_nothing_what_the_installation_expects(file: Path) -> None:
    watched = Watched(str(file))
    for watched.answer in ([], [Address("evil.example.com", 1)], DiscoveryError("DNS is away")):
        assert watched.discovery.find() == (pod(0), pod(1))
    watched.answer = [pod(0), pod(1), pod(2)]
    assert watched.discovery.find() == (pod(0), pod(1), pod(2))


@pytest.mark.parametrize("content", [b"", b"no address", b"\xff\xfe", b"a:1," * 100_000])
def test_a_list_that_cannot_be_used_names_nobody_beyond_its_limit(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "supernodes").write_bytes(content)
    assert len(Watched(str(tmp_path / "supernodes")).discovery.find()) <= NAMES_MAX
    assert Watched(str(tmp_path / "missing")).discovery.find() == ()


def test_what_is_wrong_is_said_once_until_it_is_something_else(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    for watched.answer in (DiscoveryError("DNS is away"), DiscoveryError("DNS is away"), [pod(0)], DiscoveryError("DNS is away")):
        watched.discovery.find()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2


def test_the_expected_ones_are_used_at_once_and_a_loss_has_it_looked_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS_MIN", 0.0)
    monkeypatch.setattr(module, "LOOK_SECONDS", 3600.0)
    watched = Watched(str(file))
    watched.answer = [pod(0)]
    watched.discovery.start()
    try:
        assert watched.used.get(timeout=SECONDS_MAX) == (pod(0), pod(1))
        assert watched.used.get(timeout=SECONDS_MAX) == (pod(0),)
        watched.answer = [pod(0), pod(7)]
        watched.discovery.look_soon()
        assert watched.used.get(timeout=SECONDS_MAX) == (pod(0), pod(7))
    finally:
        watched.discovery.stop()
