"""Credentials as runtimes send them, and challenges as registries write them."""

from __future__ import annotations

import base64
import time

import pytest

from agent.values.credential import (
    AUTHORIZATION_BYTES_MAX,
    CHALLENGE_BYTES_MAX,
    Challenge,
    Credential,
    from_authorization,
    parse_challenge,
)
from agent.values.errors import RequestError


def basic(text: str | bytes) -> str:
    return "Basic " + base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


# What a runtime sends.


@pytest.mark.parametrize(
    ("header", "username", "password"),
    [
        (basic("alice:secret"), "alice", "secret"),
        (basic("alice:pass:with:colons"), "alice", "pass:with:colons"),
        (basic("alice:"), "alice", ""),
        (basic("_json_key:{}"), "_json_key", "{}"),
        (basic("jürgen:geheim€"), "jürgen", "geheim€"),
        (basic("a:b").replace("Basic", "bAsIc"), "a", "b"),
        (basic("a:b").replace(" ", "   "), "a", "b"),
    ],
)
def test_basic_credentials_are_read_as_rfc_7617_says(header: str, username: str, password: str) -> None:
    assert from_authorization(header) == Credential(username, password)


@pytest.mark.parametrize(
    "header",
    [
        *("", "Basic", "Basic ", "Basic !!!!", "Basic YWxpY2U", basic("nocolon"), basic(b"\xff\xfe:\xff")),
        *("Bearer abc", "Digest username=a", "basicYTpi", "Basic YTpi YTpi", "Basic YTp\u00e9", "Basic \ud800"),
        basic("a:" + "b" * AUTHORIZATION_BYTES_MAX),
    ],
)
def test_other_authorization_is_refused_with_a_word_on_what_to_send(header: str) -> None:
    with pytest.raises(RequestError) as refused:
        from_authorization(header)
    assert (refused.value.status, refused.value.code) == (401, "UNAUTHORIZED")
    assert str(refused.value) == "send Basic credentials, or none"


def test_a_credential_is_sent_on_as_it_came() -> None:
    assert Credential("alice", "secret").header == basic("alice:secret")


def test_nothing_secret_is_in_what_is_printed_of_a_credential_nor_in_its_key() -> None:
    credential = Credential("t0ken-as-a-name", "hunter2")
    for shown in (repr(credential), str(credential), f"{credential}", repr([credential]), credential.key):
        for secret in ("t0ken", "hunter2", credential.header.partition(" ")[2]):
            assert secret not in shown


def test_each_credential_has_a_key_of_its_own() -> None:
    keys = {each.key for each in (Credential("a", "b"), Credential("a", "c"), Credential("b", "b"), Credential("", ""))}
    assert len(keys | {""}) == 5  # which stands for a client without one


# What a registry sends.


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull"',
            Challenge("bearer", "https://auth.docker.io/token", "registry.docker.io", "repository:library/nginx:pull"),
        ),
        ('Basic realm="Registry"', Challenge("basic", "Registry", "", "")),
        ("Basic", Challenge("basic", "", "", "")),
        ("basic realm=x", Challenge("basic", "x", "", "")),
        ("BEARER Realm=https://a/t , SERVICE = s", Challenge("bearer", "https://a/t", "s", "")),
        (r'Bearer realm="https://a/\"t\\"', Challenge("bearer", 'https://a/"t\\', "", "")),
        ('Bearer realm="https://a/t",realm="https://b/t"', Challenge("bearer", "https://a/t", "", "")),
        ('Bearer realm="https://a/t",error="invalid_token",x-y=z', Challenge("bearer", "https://a/t", "", "")),
        ('Bearer realm="https://a/t",scope="a,b,Basic realm=c"', Challenge("bearer", "https://a/t", "", "a,b,Basic realm=c")),
        ('  ,, Bearer realm="https://a/t"', Challenge("bearer", "https://a/t", "", "")),
        ('Basic realm="a", Bearer realm="https://a/t"', Challenge("bearer", "https://a/t", "", "")),
        ('Digest realm="a", nonce="b", Basic realm="c"', Challenge("basic", "c", "", "")),
        ('Negotiate, Basic realm="c"', Challenge("basic", "c", "", "")),
        ('Negotiate YII=, Basic realm="c"', Challenge("basic", "c", "", "")),
        ("Bearer, Basic", Challenge("basic", "", "", "")),
    ],
)
def test_the_challenge_that_can_be_met_is_found_bearer_before_basic(header: str, challenge: Challenge) -> None:
    assert parse_challenge(header) == challenge


@pytest.mark.parametrize(
    "header",
    [
        *("", " ", ",", "Digest realm=a", "Bearer", "Bearer realm=", 'Bearer realm=""', 'Bearer realm="https://a', "realm=a"),
        *("Bearerrealm=a", "\x00", "é", '"Bearer" realm=a', "Basic-ish realm=a", 'Bearer scope="a"'),
        'Bearer realm="https://a/' + "t" * CHALLENGE_BYTES_MAX + '"',
    ],
)
def test_a_header_that_nothing_can_be_made_of_is_no_challenge(header: str) -> None:
    assert parse_challenge(header) is None


@pytest.mark.parametrize(
    "filling",
    [" ", ",", " ,", "a", 'a="', '\\"', "a=", "Bearer ", 'a="b",', "\\", "a=b=", '"'],
)
def test_a_header_that_is_made_to_be_slow_is_not(filling: str) -> None:
    header = ("Bearer " + filling * CHALLENGE_BYTES_MAX)[:CHALLENGE_BYTES_MAX]
    began = time.perf_counter()
    parse_challenge(header)
    assert time.perf_counter() - began < 0.1
