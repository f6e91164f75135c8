"""No input makes a parser do anything else than understand it or refuse it: what was found once, and some that are new.

`make fuzz` looks for more, for longer, and by coverage.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.target import CORPUS, Target
from tests.fuzz.targets import TARGETS

EXAMPLES = 30
"""Of each target: a few seconds in all."""
ODD = (
    b"", b"\0", b"\r\n", b"\n", b"%00", b"..", b"/", b"\xff\xfe", b"\xed\xa0\x80", "é\u2028".encode(), b'"\\ud800"', b"[" * 2000,
    b'{"a":' * 500, b"\x91" * 2000, b"-1", b"9" * 40, b"1e999", b"NaN", b"null", b"\xcb\x7f\xf8" + bytes(6),
)  # fmt: skip


@st.composite
def changed(draw: st.DrawFn, target: Target) -> bytes:
    """One of the examples, with some bytes put in the place of others."""
    data = draw(st.sampled_from(target.examples) | st.binary(max_size=100))
    for at, length, new in draw(
        st.lists(st.tuples(st.integers(0, 300), st.integers(0, 12), st.sampled_from(ODD) | st.binary(max_size=9)), max_size=3)
    ):
        start = at % (len(data) + 1)
        data = data[:start] + new + data[start + length :]
    return data[: target.bytes_max]


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_examples_are_understood_or_refused(target: Target) -> None:
    for data in (*target.examples, b""):
        target.try_on(data)


@pytest.mark.parametrize(
    ("target", "path"),
    [pytest.param(target, path, id=f"{target.name}-{path.name}") for target in TARGETS.values() for path in target.corpus],
)
def test_what_was_found_once_is_found_no_more(target: Target, path: Path) -> None:
    target.try_on(path.read_bytes())


def test_every_corpus_belongs_to_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_whatever_is_changed_is_understood_or_refused(target: Target) -> None:
    """The same inputs at every run."""

    @settings(max_examples=EXAMPLES, database=None, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(changed(target))
    def run(data: bytes) -> None:
        target.try_on(data)

    run()
