"""JSON as the API server sends it, and as anybody may: one reading of it, whichever parser it takes."""

from __future__ import annotations

import json

import pytest

from webhook.kube.api import mapping_at, mappings_at, parsed


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": [1, -0, 1.5e300, 123456789012345678901234567890, null, true], "a": "\\ud83d\\ude00"}',
        b'{"half a surrogate pair": "\\ud800"}',
        b'{"too large for a float": 1e400}',
        b'\xef\xbb\xbf{"a byte order mark": 1}',
    ],
)
def test_a_text_means_what_it_means_to_pythons_own_parser(text: bytes) -> None:
    assert repr(parsed(text)) == repr(json.loads(text))


@pytest.mark.parametrize("text", [b"", b"{", b"1 2", b'{"a": "\xff"}', b'{"a": "\x01"}'])
def test_a_text_that_is_no_json_is_the_callers_to_refuse(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Extra data|codec|control character"):
        parsed(text)


def test_a_text_that_is_nested_without_an_end_is_refused_too() -> None:
    with pytest.raises(RecursionError):
        parsed(b"[" * 100_000)


def test_of_a_malformed_field_nothing_is_seen() -> None:
    assert mapping_at({"a": [1]}, "a") == mapping_at([1], "a") == {}
    assert mappings_at({"a": [1, {"b": 2}, None]}, "a") == [{"b": 2}]
    assert mappings_at({"a": {"b": 2}}, "a") == []
