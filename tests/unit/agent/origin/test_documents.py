"""What registries and token services say: what counts as a manifest, a list, a token and an error."""

from __future__ import annotations

import json
import re

import pytest

from agent.origin.documents import (
    SAID_CHARACTERS_MAX,
    TOKEN_CHARACTERS_MAX,
    TOKEN_SECONDS_DEFAULT,
    TOKEN_SECONDS_MARGIN,
    is_listing,
    is_manifest,
    token_of,
    what_it_said,
)
from agent.values.credential import Credential
from agent.values.errors import OriginError

NOT_JSON = [
    b"",
    b"<!DOCTYPE html><title>Log in</title>",
    b"\xff\xfe",
    b"{",
    b"null",
    b"[]",
    b"5",
    b"[" * 2_000_000,
    b'{"a":' * 800_000,
]


def said(content: object) -> bytes:
    return json.dumps(content).encode()


# Manifests and lists.


@pytest.mark.parametrize(
    "body", [said({"schemaVersion": 2}), said({"mediaType": "a/b"}), said({"schemaVersion": 1, "fsLayers": []})]
)
def test_a_manifest_has_a_schema_version_or_a_media_type(body: bytes) -> None:
    assert is_manifest(body)


@pytest.mark.parametrize(
    "body", [*NOT_JSON, said({}), said({"schemaVersion": None}), said({"schemaVersion": "2"}), said({"errors": []})]
)
def test_a_login_page_is_no_manifest(body: bytes) -> None:
    assert not is_manifest(body)


@pytest.mark.parametrize(
    "body",
    [
        said({"name": "a", "tags": ["1"]}),
        said({"tags": []}),
        said({"tags": None}),
        said({"manifests": []}),
        said({"manifests": None}),
    ],
)
def test_a_list_has_tags_or_manifests_or_says_that_there_are_none(body: bytes) -> None:
    assert is_listing(body)


@pytest.mark.parametrize("body", [*NOT_JSON, said({}), said({"tags": 5}), said({"a": '"tags"'}), said({"tags": [5]})])
def test_a_login_page_is_no_list(body: bytes) -> None:
    assert not is_listing(body)


# Tokens.


@pytest.mark.parametrize(
    ("content", "value", "seconds"),
    [
        ({"token": "abc"}, "abc", TOKEN_SECONDS_DEFAULT),
        ({"access_token": "abc", "expires_in": 300}, "abc", 300.0),
        ({"token": "abc", "access_token": "def", "expires_in": 1.5}, "abc", 1.5),
        ({"token": None, "access_token": "def", "expires_in": None, "issued_at": "now"}, "def", TOKEN_SECONDS_DEFAULT),
        ({"token": "", "access_token": "def"}, "def", TOKEN_SECONDS_DEFAULT),
        ({"token": "abc", "expires_in": 0}, "abc", 0.0),
        ({"token": "abc", "expires_in": -5}, "abc", 0.0),
        ({"token": "a" * TOKEN_CHARACTERS_MAX}, "a" * TOKEN_CHARACTERS_MAX, TOKEN_SECONDS_DEFAULT),
    ],
)
def test_a_token_is_good_for_a_little_less_than_it_says(content: object, value: str, seconds: float) -> None:
    assert token_of("quay.io", said(content)) == (value, seconds * TOKEN_SECONDS_MARGIN)


@pytest.mark.parametrize(
    "body",
    [
        *NOT_JSON,
        *map(said, ({}, {"token": ""}, {"token": 5}, {"token": "a\r\nX: 1"}, {"token": "ü"}, {"token": "a\x00"})),
        *map(said, ({"token": "t0ken "}, {"token": " t0ken"}, {"access_token": "t0 ken"})),
        *map(said, ({"token": "a" * (TOKEN_CHARACTERS_MAX + 1)}, {"token": "a", "expires_in": "300"}, {"tokens": "a"})),
    ],
)
def test_what_could_not_be_sent_is_no_token_and_nothing_of_it_is_repeated(body: bytes) -> None:
    with pytest.raises(OriginError) as refused:
        token_of("quay.io", body)
    assert refused.value.status == 502
    assert str(refused.value) == "the token service of the registry quay.io did not answer with a token"


# Errors.


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"errors": [{"code": "DENIED", "message": "not yours"}]}, "DENIED not yours"),
        ({"errors": [{"code": "DENIED"}, {"message": "not yours", "detail": {"a": [1]}}]}, "DENIED; not yours"),
        ({"errors": [{"code": f"E{number}"} for number in range(100)]}, "E0; E1; E2"),
        ({"errors": [{"code": None, "message": None}]}, ""),
        ({"errors": None}, ""),
        ({"errors": []}, ""),
        ({"errors": "DENIED"}, ""),
        ({"errors": [{"code": 5}]}, ""),
        ({"message": "x"}, ""),
    ],
)
def test_a_registrys_own_words_are_passed_on(content: object, words: str) -> None:
    assert what_it_said(said(content)) == words


@pytest.mark.parametrize("sent", ["Bearer t0ken-of-alice", Credential("alice", "t0ken-of-alice").header])
def test_what_it_was_sent_is_not_passed_on_when_it_says_that_again(sent: str) -> None:
    words = "x" * (SAID_CHARACTERS_MAX - 60) + f" {sent} of alice:t0ken-of-alice is wrong"
    shown = what_it_said(said({"errors": [{"code": "DENIED", "message": words}]}), sent)
    assert not {*sent.split()[1:], "t0ken-of-alice", "t0ken"} & set(re.split("[ :]", shown))
    assert "***" in shown
    assert what_it_said(said({"errors": [{"code": "DENIED", "message": "not yours"}]}), "Basic YTpi") == "DENIED not yours"


@pytest.mark.parametrize("body", NOT_JSON)
def test_what_is_no_error_of_the_specification_says_nothing(body: bytes) -> None:
    assert what_it_said(body) == ""


def test_its_words_stay_on_one_line_without_control_characters_and_are_cut() -> None:
    words = what_it_said(said({"errors": [{"message": "a\r\nb\x1b[31mc\u202e" + "d" * 1000}]}))
    assert words.startswith("a  b [31mc d")
    assert words.isprintable()
    assert len(words) == SAID_CHARACTERS_MAX
