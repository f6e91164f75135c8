"""Where a registry's name may lead: rows 18 and 19, as far as addresses and URLs go. See test_origin_hops for redirects."""

from __future__ import annotations

import threading
import time
from ipaddress import ip_network
from typing import Any

import pytest

from agent.origin import destinations
from agent.origin.client import Origin
from agent.origin.destinations import DestinationError, Destinations, Forbidden, LookUp, refusal, server_of
from agent.values.address import Address
from agent.values.errors import OriginError
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
    monkeypatch.setattr(destinations, "LOOKUPS_MAX", 8)  # of which a registry that is silent has a quarter
    answer = threading.Event()

    def hang(host: str, port: int) -> list[tuple[Any, ...]]:
        answer.wait()
        return []

    rules = Destinations([], hang)
    for _ in range(2):
        with pytest.raises(DestinationError, match="was not resolved in time") as failed:
            rules.hop("https://registry.test/", time.monotonic() + 0.1)
        assert failed.value.status == 504
    with pytest.raises(DestinationError, match="too many are waited for already") as failed:
        rules.hop("https://registry.test/", time.monotonic() + 0.1)
    assert failed.value.failed_there, "it is its own resolver that leaves it none"
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


SERVICES, PODS = "10.96.0.0/12", "fd00:10:244::/56"
CLUSTER = Forbidden.of(
    map(ip_network, (SERVICES, PODS)),
    "tls",
    [Address("127.0.0.1", 65001), Address("0.0.0.0", 65002), Address("::", 65003), Address("supernode-0", 65004)],
    {"KUBERNETES_SERVICE_HOST": "172.20.0.1"},
)


def in_cluster(url: str, *listed: str, forbidden: Forbidden = CLUSTER, **names: str) -> destinations.Hop:
    return Destinations(listed, look_up(**names) if names else None, None, forbidden).hop(url, time.monotonic() + 10)


@pytest.mark.parametrize(
    "host",
    [
        *("10.96.0.1", "10.111.255.255", "[::ffff:10.96.0.1]", "[64:ff9b::a60:1]", "[2002:a60:1::]"),
        *("[fd00:10:244::7]", "[fd00:10:244:0:ffff::1]"),
        *("174063617", "0xa600001", "0xa.96.1", "10.96.1", "012.96.0.1"),
        *("172.20.0.1", "[::ffff:172.20.0.1]"),
    ],
)
def test_the_networks_of_services_and_pods_and_the_api_server_are_refused_in_every_form(host: str) -> None:
    """FAULTS 18."""
    with pytest.raises(DestinationError, match="the cluster's own address") as refused:
        in_cluster(f"https://{host}/v2/")
    assert (refused.value.status, refused.value.code) == (421, "DENIED")


@pytest.mark.parametrize(
    "host",
    [
        "registry.shop.svc",
        "registry.shop.svc.",
        "r.shop.svc.cluster.local",
        "R.Shop.SVC.Cluster.Local.",
        "10-0-0-7.a.pod.cluster.local",
    ],
)
def test_a_name_that_only_the_clusters_own_dns_knows_is_refused_before_it_is_looked_up(host: str) -> None:
    """FAULTS 18."""
    with pytest.raises(DestinationError, match="a name of the cluster's own") as refused:
        in_cluster(f"https://{host}/v2/", nobody_test=FAR)
    assert refused.value.status == 421


def test_any_other_name_that_leads_into_the_cluster_is_refused_by_its_address() -> None:
    """FAULTS 18: names of Services are also found by search domains, and anybody's DNS may point there."""
    for name in ("kubernetes.default", "mine.test", "mine.test."):
        with pytest.raises(DestinationError, match="the cluster's own address"):
            Destinations([], lambda host, port: [(0, 0, 0, "", ("10.96.0.10", port))], None, CLUSTER).hop(
                f"https://{name}/", 1e12
            )


@pytest.mark.parametrize("port", [65001, 65002, 65003, 65004])
@pytest.mark.parametrize("host", ["registry.test", "10.0.0.7", "[fd00::7]", FAR])
def test_darners_own_ports_are_refused_wherever_they_are(host: str, port: int) -> None:
    """FAULTS 18."""
    with pytest.raises(DestinationError, match="a port of Darner's own") as refused:
        in_cluster(f"https://{host}:{port}/v2/")
    assert refused.value.status == 421


def test_a_listed_registry_may_be_in_the_cluster_and_with_https_it_is_spoken_to_over_tls() -> None:
    """FAULTS 18."""
    names = {"registry_shop_svc": "10.96.0.20"}
    found = in_cluster("https://registry.shop.svc:5000/v2/", "https://registry.shop.svc:5000", **names)
    assert (found.place.addresses, found.place.server_name) == ((Address("10.96.0.20", 5000),), "registry.shop.svc")
    assert in_cluster("http://10.96.0.20:65002/v2/", "10.96.0.20:65002").place.addresses == (Address("10.96.0.20", 65002),)
    with pytest.raises(DestinationError):
        in_cluster("https://registry.shop.svc/v2/", "https://registry.shop.svc:5000", **names)


def test_a_private_address_is_spoken_to_over_verified_tls_alone_or_not_at_all_as_the_operator_says() -> None:
    """FAULTS 18: the certificate is test_registry_tls' and test_tls' subject."""
    strict = Forbidden.of((), "refuse", (), {"KUBERNETES_SERVICE_HOST": "no.address"})
    for host in (PRIVATE, "192.168.1.1", "100.64.0.1", "[fd00::1]", "[::ffff:10.1.2.3]"):
        assert in_cluster(f"https://{host}/").place.server_name
        with pytest.raises(DestinationError, match="over HTTPS only"):
            in_cluster(f"http://{host}/")
        with pytest.raises(DestinationError, match="a private address"):
            in_cluster(f"https://{host}/", forbidden=strict)
        assert in_cluster(f"https://{host}/", f"https://{host}", f"https://{host}:443", forbidden=strict)
    assert in_cluster(f"https://{FAR}/", forbidden=strict)


def turning(*answers: str) -> tuple[LookUp, list[str]]:
    """A name server that says another address each time, and what it was asked."""
    asked: list[str] = []

    def look_up(host: str, port: int) -> list[tuple[Any, ...]]:
        asked.append(host)
        return [(0, 0, 0, "", (answers[min(len(asked), len(answers)) - 1], port))]

    return look_up, asked


def test_a_name_is_looked_up_once_for_its_check_and_its_connection_and_checked_again_at_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FAULTS 19."""
    connected: list[tuple[str, int]] = []

    def refuse(where: tuple[str, int], **_: object) -> None:
        connected.append((where[0], where[1]))
        raise ConnectionRefusedError

    monkeypatch.setattr("agent.http.client.socket.create_connection", refuse)
    answer, asked = turning(FAR, "169.254.169.254")
    origin = Origin([], [], answer)
    with pytest.raises(OriginError):
        origin.manifest("rebinding.test", "team/app", "1", None)
    for _ in range(2):
        with pytest.raises(OriginError, match="a link-local address") as refused:
            origin.manifest("rebinding.test", "team/app", "1", None)
        assert refused.value.status == 421
    assert set(connected) == {(FAR, 443)}
    assert len(connected) < len(asked), "each connection had a look-up and a check of its own"
    origin.close()


def test_a_name_with_a_refused_address_among_others_is_never_connected_to_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 19."""
    connected: list[str] = []

    def refuse(where: tuple[str, int], **_: object) -> None:
        connected.append(where[0])
        raise ConnectionRefusedError

    monkeypatch.setattr("agent.http.client.socket.create_connection", refuse)
    origin = Origin([], [], look_up(many_test=f"127.0.0.1 {FAR} 10.96.0.1"), forbidden=CLUSTER)
    with pytest.raises(OriginError):
        origin.manifest("many.test", "team/app", "1", None)
    assert set(connected) == {FAR}
    origin.close()
