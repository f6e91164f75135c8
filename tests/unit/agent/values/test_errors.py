"""Errors: each knows what a runtime is told, and whether asking another way may help."""

from __future__ import annotations

import json

import pytest

from agent.values.errors import (
    REGISTRY_AT_FAULT,
    DarnerError,
    DigestError,
    OriginError,
    RequestError,
    SourceError,
    StoreError,
    UsageError,
    oci_body,
)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RequestError(416, "SIZE_INVALID", "m"), 416, "SIZE_INVALID"),
        (OriginError(404, "m", "BLOB_UNKNOWN"), 404, "BLOB_UNKNOWN"),
        (OriginError(504, "m"), 504, "UNAVAILABLE"),
        (DigestError("m"), 502, "DIGEST_INVALID"),
        (StoreError("m"), 500, "UNKNOWN"),
        (SourceError(1, "m"), 500, "UNKNOWN"),
        (UsageError("m"), 500, "UNKNOWN"),
    ],
)
def test_an_error_is_told_with_its_status_and_as_the_specification_writes_it(error: DarnerError, status: int, code: str) -> None:
    assert error.status == status
    assert json.loads(oci_body(error)) == {"errors": [{"code": code, "message": "m"}]}


def test_what_an_error_says_is_json_whatever_it_says() -> None:
    said = 'a"b\\c\r\n\x00é\ud800'
    assert json.loads(oci_body(DarnerError(said)))["errors"][0]["message"] == said
    assert oci_body(DarnerError(said)).isascii()


@pytest.mark.parametrize(
    ("status", "answered"), [(400, True), (401, True), (404, True), (408, False), (429, False), (502, False), (504, False)]
)
def test_what_the_origin_said_itself_is_told_from_what_another_way_may_mend(status: int, answered: bool) -> None:
    assert OriginError(status, "m").answered is answered


@pytest.mark.parametrize(
    ("error", "blamed"),
    [
        (OriginError(502, "m"), True),
        (OriginError(504, "m"), True),
        (OriginError(429, "m", "TOOMANYREQUESTS"), True),
        (OriginError(504, "neither other nodes nor the registry", certain=False), False),
        (OriginError(404, "m"), False),
        (OriginError(401, "m"), False),
        (RequestError(503, "TOOMANYREQUESTS", "m"), False),
        (StoreError("m"), False),
        (DigestError("m"), False),
    ],
)
def test_an_error_blames_the_registry_only_where_nobody_else_can_be_at_fault(error: DarnerError, blamed: bool) -> None:
    """FAULTS 59."""
    assert (error.phrase == REGISTRY_AT_FAULT) is blamed


@pytest.mark.parametrize(
    "error", [RequestError(416, "SIZE_INVALID", "m"), OriginError(404, "m"), SourceError(3, "m"), DarnerError("m")]
)
def test_an_error_that_is_kept_is_the_same_without_its_traceback(error: DarnerError) -> None:
    with pytest.raises(DarnerError) as raised:
        raise error
    again = raised.value.again()
    assert type(again) is type(error)
    assert (again.args, vars(again)) == (error.args, vars(error))
    assert again.__traceback__ is None
