"""Where a registry's name may lead: rows 18 and 19, as far as addresses and URLs go. See test_origin_hops for redirects."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from agent.origin import destinations
from agent.origin.destinations import DestinationError, Destinations, refusal, server_of
from agent.values.address import Address
from tests.origins import look_up

FAR = "93.184.216.34"
PRIVATE = "10.1.2.3"


def hop(url: str, *listed: str, **names: str) -> destinations.Hop:
    rules = Destinations(listed, look_up(registry_test=FAR, private_test=PRIVATE, here_test="127.0.0.1", **names))
    return rules.hop(url, time.monotonic() + 10)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "a loopback address"),
        ("127.255.255.254", "a loopback address"),
        ("::1", "a loopback address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("2002:7f00:1::", "a loopback address"),
        ("64:ff9b::7f00:1", "a loopback address"),
        ("169.254.169.254", "a link-local address"),
        ("::ffff:169.254.169.254", "a link-local address"),
        ("64:ff9b::a9fe:a9fe", "a link-local address"),
        ("fe80::1%eth0", "a link-local address"),
        ("0.0.0.0", "an unspecified address"),
        ("0.0.0.7", "an unspecified address"),
        ("::", "an unspecified address"),
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("240.0.0.1", "a reserved address"),
        ("255.255.255.255", "a reserved address"),
    ],
)
def test_an_address_that_is_nobodys_registry_is_refused(address: str, kind: str) -> None:
    assert refusal(address) == kind


@pytest.mark.parametrize("address", [FAR, PRIVATE, "192.168.1.1", "fd00::1", "2606:2800:220:1:248:1893:25c8:1946"])
def test_an_address_out_in_a_network_is_allowed(address: str) -> None:
    assert refusal(address) is None


def test_a_name_is_asked_over_tls_at_the_address_that_was_checked() -> None:
    found = hop("https://registry.test/v2/a?n=1")
    assert found.place.addresses == (Address(FAR, 443),)
    assert found.place.server_name == "registry.test"
    assert (found.authority, found.target) == ("registry.test", "/v2/a?n=1")


@pytest.mark.parametrize("url", ["https://here.test/", "https://127.0.0.1/", "https://here.test:5000/", "https://HERE.TEST/"])
def test_a_name_that_leads_to_this_machine_is_refused(url: str) -> None:
    with pytest.raises(DestinationError, match="a loopback address") as refused:
        hop(url)
    assert (refused.value.status, refused.value.code) == (421, "DENIED")


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "017700000001", "127.1"])
def test_an_address_in_disguise_is_resolved_by_the_system_before_it_is_checked(host: str) -> None:
    with pytest.raises(DestinationError, match="a loopback address"):
        Destinations([]).hop(f"https://{host}/", time.monotonic() + 10)


def test_of_several_addresses_those_that_may_be_are_left() -> None:
    assert hop("https://many.test/", many_test=f"127.0.0.1 {FAR} 169.254.169.254 {PRIVATE}").place.addresses == (
        Address(FAR, 443),
        Address(PRIVATE, 443),
    )


def test_a_few_addresses_are_tried_and_not_all_that_a_name_may_have() -> None:
    many = " ".join(f"93.184.216.{number}" for number in range(200))
    assert len(hop("https://many.test/", many_test=many).place.addresses) == destinations.ADDRESSES_MAX


@pytest.mark.parametrize("url", ["http://registry.test/", "http://private.test/", "http://registry.test:443/"])
def test_plain_http_is_spoken_only_where_it_is_listed(url: str) -> None:
    with pytest.raises(DestinationError, match="over HTTPS only"):
        hop(url)
    with pytest.raises(DestinationError, match="over HTTPS only"):
        hop(url, "registry.test:5000")


def test_a_listed_registry_may_be_anywhere_and_is_spoken_to_in_plain_http() -> None:
    rules = Destinations(["here.test:5000", "HERE.test"], look_up(here_test="127.0.0.1"))
    assert rules.url("here.test:5000", "/v2/") == "http://here.test:5000/v2/"
    assert rules.url("here.test", "/v2/") == "http://here.test/v2/"
    found = rules.hop("http://here.test:5000/v2/", time.monotonic() + 10)
    assert (found.place.addresses, found.place.server_name) == ((Address("127.0.0.1", 5000),), "")
    assert found.authority == "here.test:5000"


def test_listing_a_host_lists_its_usual_ports_and_listing_a_port_lists_that_one() -> None:
    assert hop("http://here.test/", "here.test")
    assert hop("https://here.test/", "here.test")
    for url, listed in (("http://here.test:8080/", "here.test"), ("http://here.test/", "here.test:5000")):
        with pytest.raises(DestinationError):
            hop(url, listed)


def test_what_is_listed_with_https_may_be_anywhere_and_never_in_plain_http() -> None:
    rules = Destinations(["https://here.test:8443"], look_up(here_test="127.0.0.1"))
    assert rules.url("here.test:8443", "/v2/") == "https://here.test:8443/v2/"
    assert rules.hop("https://here.test:8443/", time.monotonic() + 10).place.server_name == "here.test"
    with pytest.raises(DestinationError, match="over HTTPS only"):
        rules.hop("http://here.test:8443/", time.monotonic() + 10)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://registry.test/",
        "file:///etc/passwd",
        "gopher://registry.test/",
        "https://user:secret@registry.test/",
        "https://user@registry.test/",
        "https:///v2/",
        "//registry.test/",
        "registry.test/v2/",
        "",
    ],
)
def test_a_url_that_is_no_plain_one_leads_nowhere(url: str) -> None:
    with pytest.raises(DestinationError) as refused:
        hop(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["https://[::1", "https://registry.test:99999/", "https://registry.test:x/", "https://[registry]/"]
)
def test_a_url_that_is_none_is_said_to_be_none(url: str) -> None:
    with pytest.raises(DestinationError, match="a URL that is none") as refused:
        hop(url)
    assert refused.value.status == 502


def test_a_target_keeps_what_is_quoted_and_quotes_what_has_to_be() -> None:
    assert hop("https://registry.test/a%2Fb/c d?sig=%2B%3D&x=y+z=#part").target == "/a%2Fb/c%20d?sig=%2B%3D&x=y+z="
    assert hop("https://registry.test/sn\xf6").target == "/sn%F6"
    assert hop("https://registry.test").target == "/"


@pytest.mark.parametrize("host", ["nobody.test", "a" * 300 + ".test", "-.test", "\N{SNOWMAN}.test"])
def test_a_name_that_does_not_resolve_is_named(host: str) -> None:
    with pytest.raises(DestinationError, match="does not resolve") as failed:
        hop(f"https://{host}/")
    assert failed.value.status == 502


def test_docker_hub_is_asked_at_its_registry() -> None:
    assert server_of("docker.io") == "registry-1.docker.io"
    assert Destinations([]).url("docker.io", "/v2/") == "https://registry-1.docker.io/v2/"


def test_an_ipv6_server_is_named_with_brackets() -> None:
    rules = Destinations(["[::1]:5000"], lambda host, port: [(0, 0, 0, "", (host, port, 0, 0))])
    found = rules.hop("http://[::1]:5000/", time.monotonic() + 10)
    assert (found.authority, found.place.addresses) == ("[::1]:5000", (Address("::1", 5000),))


def test_a_resolver_that_does_not_answer_is_not_waited_for_and_not_asked_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "LOOKUPS_MAX", 2)
    answer = threading.Event()

    def hang(host: str, port: int) -> list[tuple[Any, ...]]:
        answer.wait()
        return []

    rules = Destinations([], hang)
    for _ in range(2):
        with pytest.raises(DestinationError, match="was not resolved in time") as failed:
            rules.hop("https://registry.test/", time.monotonic() + 0.1)
        assert failed.value.status == 504
    with pytest.raises(DestinationError, match="2 others are waited for already"):
        rules.hop("https://registry.test/", time.monotonic() + 0.1)
    answer.set()
    with pytest.raises(DestinationError, match="does not resolve"):
        rules.hop("https://registry.test/", time.monotonic() + 10)


def test_a_look_up_whose_thread_cannot_be_started_leaves_its_slot_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "LOOKUPS_MAX", 2)
    rules = Destinations([], look_up(registry_test=FAR))
    with monkeypatch.context() as full:

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        full.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with pytest.raises(DestinationError, match="is not looked up: can't start new thread") as failed:
                rules.hop("https://registry.test/", time.monotonic() + 0.1)
            assert failed.value.status == 502
    assert rules.hop("https://registry.test/", time.monotonic() + 10).place.addresses == (Address(FAR, 443),)
