"""Pieces of any blob: they cover it exactly, and integers behave as sets of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.values.pieces import (
    BLOB_BYTES_MAX,
    PIECE_BYTES_CUT_MIN,
    PIECE_BYTES_MAX,
    PIECE_BYTES_MIN,
    PIECES_AIMED_MAX,
    Layout,
    from_bytes,
    lowest,
    members,
    to_bytes,
)

sizes = st.integers(0, BLOB_BYTES_MAX) | st.integers(0, PIECE_BYTES_MIN * 40)
layouts = sizes.map(Layout.of)
small_layouts = st.integers(1, PIECE_BYTES_MIN * 40).map(Layout.of)


@given(layouts)
def test_a_blob_is_cut_into_129_to_256_pieces_where_their_limits_allow_it(layout: Layout) -> None:
    assert layout.count <= PIECES_AIMED_MAX or layout.length == PIECE_BYTES_MAX
    assert layout.count > PIECES_AIMED_MAX // 2 or layout.length == PIECE_BYTES_CUT_MIN


@given(small_layouts)
def test_the_pieces_cover_the_blob_without_gap_or_overlap(layout: Layout) -> None:
    spans = [layout.span(piece) for piece in members(layout.everything)]
    assert [0, *(end for _, end in spans)] == [*(start for start, _ in spans), layout.size]
    assert all(start < end for start, end in spans)


@given(layouts, st.data())
def test_a_byte_is_in_the_piece_that_holds_it(layout: Layout, data: st.DataObject) -> None:
    if layout.size:
        offset = data.draw(st.integers(0, layout.size - 1))
        start, end = layout.span(layout.piece_at(offset))
        assert start <= offset < end


@given(small_layouts, st.data())
def test_a_run_is_what_one_finds_by_going_from_piece_to_piece(layout: Layout, data: st.DataObject) -> None:
    have = data.draw(st.integers(0, layout.everything))
    offset = data.draw(st.integers(0, layout.size - 1))
    end = offset
    while end < layout.size and have >> layout.piece_at(end) & 1:
        end = layout.span(layout.piece_at(end))[1]
    assert layout.run_end(have, offset) == end


@given(st.sets(st.integers(0, 3000)))
def test_an_integer_is_a_set_of_pieces(numbers: set[int]) -> None:
    pieces = sum(1 << number for number in numbers)
    assert list(members(pieces)) == sorted(numbers)
    assert not numbers or lowest(pieces) == min(numbers)


@given(layouts, st.data())
def test_a_set_of_pieces_comes_back_from_its_bytes(layout: Layout, data: st.DataObject) -> None:
    pieces = data.draw(st.integers(0, layout.everything))
    assert from_bytes(to_bytes(pieces), layout) == pieces


@given(layouts, st.binary(max_size=9000))
def test_whatever_bytes_come_they_are_a_set_of_the_blobs_own_pieces(layout: Layout, raw: bytes) -> None:
    assert from_bytes(raw, layout) & ~layout.everything == 0
