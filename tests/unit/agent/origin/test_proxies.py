"""Which proxy is asked for a registry: the variables as container runtimes read them."""

from __future__ import annotations

import pytest

from agent.origin.proxies import Proxies, Proxy
from agent.values.address import Address
from agent.values.errors import UsageError

HTTPS, HTTP = Address("proxy.test", 3128), Address("10.0.0.1", 80)
BOTH = {"HTTPS_PROXY": "http://proxy.test:3128", "HTTP_PROXY": "10.0.0.1"}


def server(environment: dict[str, str], scheme: str = "https", host: str = "registry.test", port: int = 443) -> Address | None:
    proxy = Proxies(environment).before(scheme, host, port)
    return proxy and proxy.server


def test_each_scheme_has_its_own() -> None:
    assert server(BOTH) == HTTPS
    assert server(BOTH, "http", port=80) == HTTP
    assert server({"HTTP_PROXY": "http://10.0.0.1"}) is None


def test_without_the_variables_and_with_empty_ones_there_is_none() -> None:
    assert Proxies().before("https", "registry.test", 443) is None
    assert server({"HTTPS_PROXY": " ", "HTTP_PROXY": ""}) is None


def test_small_letters_are_read_where_there_are_no_capitals() -> None:
    assert server({"https_proxy": "http://proxy.test:3128"}) == HTTPS
    assert server({"HTTPS_PROXY": "http://proxy.test:3128", "https_proxy": "http://other.test"}) == HTTPS


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine_is_never_asked_through_one(host: str) -> None:
    assert server(BOTH, host=host) is None


@pytest.mark.parametrize(
    ("exceptions", "host", "port", "direct"),
    [
        ("*", "registry.test", 443, True),
        ("registry.test", "registry.test", 443, True),
        ("Registry.TEST", "registry.test.", 443, True),
        ("test", "registry.test", 443, True),
        ("registry.test", "eu.registry.test", 443, True),
        ("registry.test", "myregistry.test", 443, False),
        (".registry.test", "eu.registry.test", 443, True),
        (".registry.test", "registry.test", 443, False),
        ("*.registry.test", "eu.registry.test", 443, True),
        ("*.registry.test", "registry.test", 443, False),
        ("registry.test:5000", "registry.test", 5000, True),
        ("registry.test:5000", "registry.test", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "fd00::1", 443, False),
        ("fd00::/8", "fd00::1", 443, True),
        ("10.1.2.3", "10.1.2.3", 5000, True),
        ("10.1.2.3:443", "10.1.2.3", 5000, False),
        ("[fd00::1]:443", "fd00::1", 443, True),
        ("[fd00::1]:443", "fd00::1", 5000, False),
        ("fd00::1", "fd00::1", 443, True),
        ("10.1.2", "10.1.2.3", 443, False),
        (" , other.test , registry.test ", "registry.test", 443, True),
        ("other.test", "registry.test", 443, False),
        ("", "registry.test", 443, False),
    ],
)
def test_exceptions_are_hosts_with_all_below_them_networks_and_ports(exceptions: str, host: str, port: int, direct: bool) -> None:
    assert (server({**BOTH, "NO_PROXY": exceptions}, host=host, port=port) is None) == direct


def test_a_user_and_a_password_become_a_header() -> None:
    proxy = Proxies({"HTTPS_PROXY": "http://me:p%40ss@proxy.test:3128"}).before("https", "registry.test", 443)
    assert proxy == Proxy(HTTPS, "Basic bWU6cEBzcw==")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("socks5://me:secret@proxy.test:1080", "HTTPS_PROXY names a proxy that speaks socks5; only http:// proxies are used"),
        ("http://me:secret@proxy.test:port", "HTTPS_PROXY is not the URL of a proxy; write http://HOST:PORT"),
        ("http://", "HTTPS_PROXY is not the URL of a proxy; write http://HOST:PORT"),
        ("http://[::1", "HTTPS_PROXY is not the URL of a proxy; write http://HOST:PORT"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_that_tells_no_password(url: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        Proxies({"HTTPS_PROXY": url})
    assert str(refused.value) == words
