"""What is asked for at the agent's socket is one file, or how one comes, and nothing else."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from agent.values.errors import RequestError
from agent.web.request import FileProgress, WantedFile, parse_request

URL = "https://files.test/a?b=c&d=e"
TASK = "sha256:" + "a" * 64


def test_a_file_is_named_by_its_url_and_perhaps_a_digest_and_headers() -> None:
    target = f"/v1/file?url={quote(URL, safe='')}"
    assert parse_request(target, {}) == WantedFile(URL)
    assert parse_request(f"{target}&digest={TASK}", {}) == WantedFile(URL, TASK)
    headers = {"Authorization": "Bearer of-a-test", "Accept": "text/plain"}
    wanted = parse_request(target, {"darner-headers": json.dumps(headers)})
    assert wanted == WantedFile(URL, "", headers)
    assert "of-a-test" not in repr(wanted)


def test_how_a_file_comes_is_asked_by_its_task() -> None:
    assert parse_request(f"/v1/file/{TASK}", {}) == FileProgress(TASK)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/", 404),
        ("/v2/", 404),
        ("/v1/file/sha256:aa", 404),
        ("/v1/file", 400),
        ("/v1/file?url=", 400),
        ("/v1/file?url=ftp://a/b", 400),
        ("/v1/file?url=https://a/b&url=https://c/d&x=y", 400),
        ("/v1/file?url=https://a/b&node=c", 400),
        ("/v1/file?url=https://a/b&digest=md5:1", 400),
        ("/v1/file?url=https://a/" + "b" * 20_000, 404),
    ],
)
def test_anything_else_is_refused(target: str, status: int) -> None:
    with pytest.raises(RequestError) as failed:
        parse_request(target, {})
    assert failed.value.status == status


@pytest.mark.parametrize(
    "headers",
    [
        "no json",
        "[]",
        '{"a": 1}',
        '{"a": "b\\r\\nc: d"}',
        '{"a b": "c"}',
        '{"Host": "other.test"}',
        '{"range": "bytes=0-"}',
        '{"If-Match": "x"}',
        '{"Transfer-Encoding": "chunked"}',
        json.dumps({f"x-{number}": "y" for number in range(40)}),
        json.dumps({"x": "y" * 10_000}),
        "[" * 100_000,
    ],
)
def test_header_fields_that_would_change_the_request_are_refused(headers: str) -> None:
    with pytest.raises(RequestError):
        parse_request("/v1/file?url=https://a/b", {"darner-headers": headers})
