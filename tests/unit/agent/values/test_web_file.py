"""A file of a web server is known by its URL's one form and by a validator that tells versions apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.values.errors import RequestError
from agent.values.pattern import pattern
from agent.values.web_file import URL_CHARACTERS_MAX, WebFile, files_allowed, parse_contents, parse_url, validator_of

FILE = WebFile("https://files.test/a/b.bin?c=d", '"1"', 100)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://files.test/a", "https://files.test/a"),
        ("HTTPS://Files.TEST:443/A?b=C#part", "https://files.test/A?b=C"),
        ("http://files.test:80", "http://files.test/"),
        ("https://files.test?q", "https://files.test/?q"),
        ("https://files.test:8443/a%20b", "https://files.test:8443/a%20b"),
        ("https://[2001:db8::1]:8443/a", "https://[2001:db8::1]:8443/a"),
        ("https://files.test/a..b/...", "https://files.test/a..b/..."),
    ],
)
def test_a_url_has_one_form(written: str, meant: str) -> None:
    assert parse_url(written) == meant == parse_url(meant)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "files.test/a",
        "ftp://files.test/a",
        "https:///a",
        "https://user@files.test/a",
        "https://files.test\\@other.test/a",
        "https://files.test:port/a",
        "https://files.test:70000/a",
        "https://files.test/a b",
        "https://files.test/a\r\nb",
        "https://files.test/é",
        "https://files.test/a/../b",
        "https://files.test/a/%2e%2E/b",
        "https://files.test/a%2f..%2Fb",
        "https://files.test/.",
        "https://files.test/" + "a" * URL_CHARACTERS_MAX,
    ],
)
def test_what_is_no_plain_url_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(RequestError) as failed:
        parse_url(text)
    assert failed.value.status == 400
    assert "\n" not in str(failed.value)


def test_each_part_of_a_version_makes_another_task_and_none_is_the_digest_of_bytes() -> None:
    others = [
        replace(FILE, url="https://files.test/a/b.bin?c=e"),
        replace(FILE, validator='"2"'),
        replace(FILE, size=101),
        replace(FILE, digest="sha256:" + "1" * 64),
    ]
    assert len({FILE.task, *(other.task for other in others)}) == 5
    known = replace(FILE, url="https://files.test/a/b.bin", digest="sha256:" + "1" * 64)
    assert known.task == replace(known, url="https://other.test/a", validator='"2"').task != known.digest
    assert known.task != replace(known, size=101).task
    assert (FILE.server, FILE.path) == ("https://files.test", "a/b.bin")


def test_what_a_signed_url_opens_is_not_opened_by_the_digest_alone() -> None:
    signed = replace(FILE, url="https://files.test/a/b.bin?signature=abc", digest="sha256:" + "1" * 64)
    assert signed.task != replace(signed, url="https://files.test/a/b.bin").task
    assert signed.task != replace(signed, url="https://files.test/a/b.bin?signature=abd").task


def test_an_operators_list_has_servers_and_paths_and_an_empty_one_has_none() -> None:
    allow = tuple(map(pattern, ("files.test", "*.example.org", "hub.test/team/*", "other.test:8443")))
    for url in ("https://files.test/a", "https://a.example.org/", "https://hub.test/Team/x?y", "https://other.test:8443/a"):
        assert files_allowed(allow, parse_url(url)), url
        assert not files_allowed((), parse_url(url))
    for url in ("https://files.test:8443/a", "https://example.org/", "https://hub.test/teams", "https://other.test/a"):
        assert not files_allowed(allow, parse_url(url)), url


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"etag": '"a"'}, '"a"'),
        ({"etag": 'W/"a"'}, ""),
        ({"etag": "a"}, ""),
        ({"etag": '"a"b"'}, ""),
        ({"etag": '"' + "a" * 1000 + '"'}, ""),
        ({"last-modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, ""),
        (
            {"last-modified": "Mon, 01 Jan 2024 00:00:00 GMT", "date": "Mon, 01 Jan 2024 00:01:00 GMT"},
            "Mon, 01 Jan 2024 00:00:00 GMT",
        ),
        ({"last-modified": "Mon, 01 Jan 2024 00:00:00 GMT", "date": "Mon, 01 Jan 2024 00:00:59 GMT"}, ""),
        ({"last-modified": "Mon, 01 Jan 2024 00:00:00 GMT (\xe9\x01)", "date": "Mon, 01 Jan 2024 00:01:00 GMT"}, ""),
        ({"etag": 'W/"a"', "last-modified": "yesterday", "date": "Mon, 01 Jan 2024 00:01:00 GMT"}, ""),
        ({"last-modified": "Mon, 01 Jan 2024 00:00:00", "date": "Mon, 01 Jan 2024 00:01:00 GMT"}, ""),
        ({}, ""),
    ],
)
def test_only_what_is_surely_another_one_for_other_bytes_is_a_validator(headers: dict[str, str], validator: str) -> None:
    assert validator_of(headers) == validator


def test_a_digest_is_written_in_one_way() -> None:
    assert parse_contents("sha256:" + "a" * 64) == "sha256:" + "a" * 64
    for text in ("sha256:" + "A" * 64, "sha512:" + "a" * 128, "a" * 64, "sha256:" + "a" * 64 + "\n"):
        with pytest.raises(RequestError):
            parse_contents(text)
