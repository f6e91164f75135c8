"""How blobs are cut, at the edges: no bytes, one byte more, and as large as can be."""

from __future__ import annotations

import pytest

from agent.values.pieces import (
    BLOB_BYTES_MAX,
    PIECE_BYTES_MAX,
    PIECE_BYTES_MIN,
    PIECES_MAX,
    Layout,
    from_bytes,
    lowest,
    members,
    piece_length,
    to_bytes,
)

KI, MI, GI = 1 << 10, 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("size", "length", "count"),
    [
        (0, 512 * KI, 0),
        (1, 512 * KI, 1),
        (512 * KI, 512 * KI, 1),
        (512 * KI + 1, 512 * KI, 2),
        (128 * MI, 512 * KI, 256),
        (128 * MI + 1, MI, 129),
        (GI, 4 * MI, 256),
        (4 * GI, 16 * MI, 256),
        (4 * GI + 1, 16 * MI, 257),
        (BLOB_BYTES_MAX, 16 * MI, PIECES_MAX),
    ],
)
def test_pieces_are_a_power_of_two_that_keeps_their_number_in_bounds(size: int, length: int, count: int) -> None:
    layout = Layout.of(size)
    assert (layout.length, layout.count) == (length, count)


def test_every_node_cuts_a_blob_alike() -> None:
    assert Layout.of(100 * MI) == Layout(100 * MI, piece_length(100 * MI))


@pytest.mark.parametrize("size", [-1, BLOB_BYTES_MAX + 1, 1 << 63])
def test_a_blob_that_is_too_large_or_less_than_nothing_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        Layout.of(size)


@pytest.mark.parametrize(
    "length", [0, -1, 1, PIECE_BYTES_MIN - 1, PIECE_BYTES_MIN // 2, PIECE_BYTES_MIN + 1, PIECE_BYTES_MAX * 2]
)
def test_a_piece_length_that_nobody_would_choose_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Layout(GI, length)


def test_a_blob_in_more_pieces_than_a_message_can_tell_of_is_refused() -> None:
    Layout(PIECES_MAX * PIECE_BYTES_MIN, PIECE_BYTES_MIN)
    with pytest.raises(ValueError, match="more than 65536"):
        Layout(PIECES_MAX * PIECE_BYTES_MIN + 1, PIECE_BYTES_MIN)


def test_the_last_piece_is_shorter() -> None:
    layout = Layout(PIECE_BYTES_MIN + 1, PIECE_BYTES_MIN)
    assert [layout.span(piece) for piece in range(layout.count)] == [(0, PIECE_BYTES_MIN), (PIECE_BYTES_MIN, PIECE_BYTES_MIN + 1)]


@pytest.mark.parametrize("piece", [-1, 2, 1 << 40])
def test_a_piece_that_the_blob_does_not_have_has_no_span(piece: int) -> None:
    with pytest.raises(IndexError):
        Layout(PIECE_BYTES_MIN + 1, PIECE_BYTES_MIN).span(piece)


def test_a_blob_of_no_bytes_has_no_pieces() -> None:
    layout = Layout.of(0)
    assert layout.everything == 0
    assert layout.run_end(0, 0) == 0


def test_a_run_of_pieces_ends_at_the_first_gap_or_at_the_end_of_the_blob() -> None:
    layout = Layout(3 * PIECE_BYTES_MIN + 5, PIECE_BYTES_MIN)
    assert layout.run_end(0b1011, 10) == 2 * PIECE_BYTES_MIN
    assert layout.run_end(0b1011, 2 * PIECE_BYTES_MIN) == 2 * PIECE_BYTES_MIN
    assert layout.run_end(0b1011, 3 * PIECE_BYTES_MIN) == layout.size
    for past in (layout.size, layout.size + 1, layout.size + PIECE_BYTES_MIN):
        assert layout.run_end(0b1011, past) == past


def test_the_lowest_and_the_members_of_a_set_come_in_order() -> None:
    assert lowest(0b101000) == 3
    assert list(members(0b101001)) == [0, 3, 5]
    assert list(members(0)) == []


def test_a_set_travels_in_as_few_bytes_as_its_highest_piece_needs() -> None:
    assert to_bytes(0) == b""
    assert to_bytes(1 << 8 | 1) == b"\x01\x01"
    assert len(to_bytes(Layout.of(BLOB_BYTES_MAX).everything)) == 8 * KI


def test_what_a_set_names_beyond_the_blob_is_dropped() -> None:
    assert from_bytes(b"\xff" * 8192, Layout(PIECE_BYTES_MIN * 3, PIECE_BYTES_MIN)) == 0b111
