"""A blob: whoever reads it waits for what comes next, and its end comes only when the whole is right."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3

from agent.storage import disk
from agent.storage.blob import Blob
from agent.storage.disk import Proof, Record
from agent.values.errors import DarnerError, DigestError, StoreError, SupersededError
from agent.values.pieces import PIECE_BYTES_MIN, Layout

CONTENT = random.Random(1).randbytes(3 * PIECE_BYTES_MIN + 1000)
LAYOUT = Layout(len(CONTENT), PIECE_BYTES_MIN)
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
FIRST, SECOND, THIRD, LAST = range(4)


@pytest.fixture
def ends() -> list[DarnerError | None]:
    """What the blob told its store about its end."""
    return []


@pytest.fixture
def blob(tmp_path: Path, ends: list[DarnerError | None]) -> Blob:
    return Blob(DIGEST, LAYOUT, open_file(tmp_path), on_end=lambda _, error: ends.append(error))


def open_file(directory: Path, content: bytes = b"") -> int:
    path = directory / "blob"
    path.write_bytes(content)
    return os.open(path, os.O_RDWR)


def bytes_of(piece: int, content: bytes = CONTENT) -> bytes:
    return content[slice(*LAYOUT.span(piece))]


def arrive(blob: Blob, *pieces: int, content: bytes = CONTENT, checked: bool = True) -> None:
    for piece in pieces:
        data = bytes_of(piece, content)
        blob.write(LAYOUT.span(piece)[0], data)
        blob.add(piece, blake3(data).digest(), checked=checked)


def own(piece: int, proof: Proof = Proof.VOUCHED) -> Record:
    """What a journal says of a piece by its own digest."""
    return Record(blake3(bytes_of(piece)).digest(), proof)


def so_far(piece: int) -> Record:
    """What it says of a piece by the digest of all up to its end."""
    return Record(hashlib.sha256(CONTENT[: LAYOUT.span(piece)[1]]).digest(), Proof.SO_FAR)


class Written:
    """A journal that remembers."""

    def __init__(self) -> None:
        self.records: dict[int, Record] = {}

    def append(self, piece: int, digest: bytes, proof: Proof) -> None:
        self.records[piece] = Record(digest, proof)


def come_in_order(blob: Blob, *pieces: int, content: bytes = CONTENT) -> None:
    """Pieces of a stream, without digests of their own."""
    for piece in pieces:
        assert blob.follows(piece)
        blob.write(LAYOUT.span(piece)[0], bytes_of(piece, content))
        blob.add(piece, None, checked=False)


def test_a_reader_gets_the_longest_run_that_holds_its_byte(blob: Blob) -> None:
    arrive(blob, FIRST, THIRD)
    assert blob.wait(0, 0) == PIECE_BYTES_MIN
    assert blob.wait(10, 0) == PIECE_BYTES_MIN
    assert blob.wait(PIECE_BYTES_MIN, 0) == PIECE_BYTES_MIN, "the second piece is not here"
    assert blob.wait(2 * PIECE_BYTES_MIN + 5, 0) == 3 * PIECE_BYTES_MIN


def test_a_reader_that_waits_is_woken_by_the_piece_that_it_waits_for(blob: Blob) -> None:
    threading.Timer(0.05, arrive, args=(blob, FIRST)).start()
    began = time.monotonic()
    assert blob.wait(0, 5) == PIECE_BYTES_MIN
    assert time.monotonic() - began < 1


def test_a_reader_that_waits_sleeps_on_while_other_pieces_come(blob: Blob, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, woken = threading.Event(), []
    really = blob._changed.wait

    def wait(seconds: float | None = None) -> bool:
        waiting.set()
        woken.append(really(seconds))
        return woken[-1]

    monkeypatch.setattr(blob._changed, "wait", wait)
    reader = threading.Thread(target=blob.wait, args=(0, 20))
    reader.start()
    assert waiting.wait(5)
    arrive(blob, THIRD, SECOND, FIRST)
    reader.join(5)
    assert woken == [True], "once, by the piece that it waits for"


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (3, 0, 2, 1)])
def test_the_end_is_held_back_until_the_digest_is_right(blob: Blob, order: tuple[int, ...]) -> None:
    arrive(blob, *order[:-1])
    assert blob.wait(len(CONTENT) - 1, 0) == len(CONTENT) - 1
    assert not blob.whole
    arrive(blob, order[-1])
    assert blob.wait(0, 0) == len(CONTENT)
    assert blob.wait_whole(0)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (3, 0, 2, 1)])
def test_a_wrong_byte_fails_whoever_wants_the_end_and_nobody_who_does_not(
    blob: Blob, order: tuple[int, ...], ends: list[DarnerError | None]
) -> None:
    wrong = bytearray(CONTENT)
    wrong[PIECE_BYTES_MIN] ^= 1
    arrive(blob, *order, content=bytes(wrong))
    with pytest.raises(DigestError):
        blob.wait(len(CONTENT) - 1, 0)
    with pytest.raises(DigestError):
        blob.wait_whole(0)
    assert blob.wait(0, 0) == 3 * PIECE_BYTES_MIN, "what they have already is not taken back"
    assert [type(error) for error in ends] == [DigestError]


def test_a_blob_of_no_bytes_is_whole_when_its_digest_says_so(tmp_path: Path) -> None:
    for content, right in ((b"", True), (b"something", False)):
        empty = Blob("sha256:" + hashlib.sha256(content).hexdigest(), Layout.of(0), open_file(tmp_path))
        empty.finish_if_empty()
        assert empty.whole is right
        assert (empty.error is None) is right


def test_a_piece_that_is_held_is_never_written_over(blob: Blob) -> None:
    arrive(blob, FIRST)
    blob.write(100, b"a late and lying source")
    assert os.pread(blob.fd, PIECE_BYTES_MIN, 0) == bytes_of(FIRST)
    blob.add(FIRST, bytes(32), checked=True)
    assert blob.digests[FIRST] == blake3(bytes_of(FIRST)).digest()


def test_a_writer_that_stalled_writes_no_more_once_another_has_claimed_its_piece(blob: Blob) -> None:
    """FAULTS 56."""
    digest = blake3(bytes_of(FIRST)).digest()
    stalled = blob.claim(FIRST)
    blob.write(0, b"half of a piece", stalled)
    claim = blob.claim(FIRST)
    with pytest.raises(SupersededError):
        blob.write(15, b"and the rest, too late", stalled)
    with pytest.raises(SupersededError):
        blob.add(FIRST, digest, checked=True, claim=stalled)
    blob.write(0, bytes_of(FIRST), claim)
    blob.add(FIRST, digest, checked=True, claim=claim)
    blob.write(15, b"of a piece that is here", stalled)
    assert blob.held == 1 << FIRST
    assert os.pread(blob.fd, PIECE_BYTES_MIN, 0) == bytes_of(FIRST)


def test_a_blob_that_failed_is_never_written_to_again(blob: Blob, ends: list[DarnerError | None]) -> None:
    given_up = StoreError("given up")
    blob.fail(given_up)
    with pytest.raises(StoreError, match="given up"):
        blob.write(0, bytes_of(FIRST))
    blob.add(FIRST, blake3(bytes_of(FIRST)).digest(), checked=True)
    assert os.fstat(blob.fd).st_size == 0
    assert blob.held == 0
    blob.fail(StoreError("once more"))
    assert ends == [given_up]


def test_a_whole_blob_cannot_fail_any_more(blob: Blob, ends: list[DarnerError | None]) -> None:
    arrive(blob, *range(4))
    blob.fail(StoreError("too late"))
    assert blob.wait(0, 0) == len(CONTENT)
    assert ends == [None]


def test_only_pieces_that_were_vouched_for_are_for_others_until_the_blob_is_whole(blob: Blob) -> None:
    arrive(blob, FIRST, checked=False)
    arrive(blob, SECOND, checked=True)
    assert blob.checked == 1 << SECOND
    assert not blob.confirm(FIRST, bytes(32)), "another digest than what is here"
    assert not blob.confirm(THIRD, bytes(32)), "a piece that is not here"
    assert blob.confirm(FIRST, blake3(bytes_of(FIRST)).digest())
    assert blob.checked == 1 << FIRST | 1 << SECOND
    arrive(blob, THIRD, LAST, checked=False)
    assert blob.checked == LAYOUT.everything


def test_pieces_from_many_threads_make_a_whole(blob: Blob) -> None:
    threads = [threading.Thread(target=arrive, args=(blob, piece)) for piece in range(4) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blob.whole
    assert os.pread(blob.fd, len(CONTENT), 0) == CONTENT


def test_what_a_journal_says_counts_only_where_the_file_has_those_bytes(tmp_path: Path) -> None:
    damaged = bytearray(CONTENT)
    damaged[PIECE_BYTES_MIN + 7] ^= 1
    blob = Blob(DIGEST, LAYOUT, open_file(tmp_path, bytes(damaged)))
    blob.restore({piece: own(piece, Proof.VOUCHED if piece == FIRST else Proof.OWN) for piece in (FIRST, SECOND, THIRD)})
    assert blob.held == 1 << FIRST | 1 << THIRD
    assert blob.checked == 1 << FIRST
    arrive(blob, SECOND, LAST)
    assert blob.whole


def test_a_journal_of_all_pieces_leaves_the_last_to_arrive_again_and_prove_the_whole(tmp_path: Path) -> None:
    blob = Blob(DIGEST, LAYOUT, open_file(tmp_path, CONTENT))
    blob.restore({piece: own(piece) for piece in range(4)})
    assert blob.missing == blob.layout.everything & ~blob.checked == 1 << LAST
    arrive(blob, LAST)
    assert blob.whole


def test_what_comes_in_order_needs_no_digest_of_its_own_and_is_proven_by_the_whole(
    blob: Blob, ends: list[DarnerError | None]
) -> None:
    come_in_order(blob, FIRST, SECOND)
    assert not blob.follows(THIRD + 1)
    assert not blob.confirm(FIRST, own(FIRST).digest), "nobody knows what its digest is"
    assert blob.checked == 0, "so no other node is given it"
    come_in_order(blob, THIRD, LAST)
    assert blob.whole
    assert blob.checked == LAYOUT.everything
    assert ends == [None]


def arrive_claimed(blob: Blob, piece: int, content: bytes = CONTENT, chunk: int = 100_000) -> None:
    """As a connection brings a piece, some bytes at a time."""
    claim, (start, end) = blob.claim(piece), LAYOUT.span(piece)
    for offset in range(start, end, chunk):
        blob.write(offset, content[offset : min(end, offset + chunk)], claim)
    blob.add(piece, blake3(bytes_of(piece, content)).digest(), checked=False, claim=claim)


@pytest.fixture
def read_back(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where what was read back from the file to be hashed began."""
    began, really = [], disk.hash_span

    def hash_span(fd: int, hasher: disk.Hasher, start: int, end: int) -> None:
        began.append(start)
        really(fd, hasher, start, end)

    monkeypatch.setattr(disk, "hash_span", hash_span)
    return began


def test_what_comes_in_order_is_hashed_as_it_is_written_and_not_read_back(blob: Blob, read_back: list[int]) -> None:
    for piece in range(4):
        arrive_claimed(blob, piece)
    assert blob.whole
    assert read_back == []


def test_what_was_written_before_its_turn_is_read_back(blob: Blob, read_back: list[int]) -> None:
    for piece in (SECOND, FIRST, THIRD, LAST):
        arrive_claimed(blob, piece)
    assert blob.whole
    assert read_back == [LAYOUT.span(SECOND)[0]]


def test_a_wrong_byte_that_is_hashed_as_it_is_written_is_found_with_the_whole(blob: Blob) -> None:
    wrong = bytearray(CONTENT)
    wrong[PIECE_BYTES_MIN + 5] ^= 1
    for piece in range(4):
        arrive_claimed(blob, piece, bytes(wrong))
    with pytest.raises(DigestError):
        blob.wait_whole(0)


def test_bytes_that_do_not_come_in_a_row_are_read_back(blob: Blob, read_back: list[int]) -> None:
    claim = blob.claim(FIRST)
    for offset in (1000, 0, 1000):  # the bytes in the middle come twice, and the last ones count
        upto = 1000 if not offset else PIECE_BYTES_MIN
        blob.write(offset, CONTENT[offset:upto], claim)
    blob.add(FIRST, own(FIRST).digest, checked=True, claim=claim)
    for piece in (SECOND, THIRD, LAST):
        arrive_claimed(blob, piece)
    assert blob.whole
    assert read_back == [0]


def test_a_piece_that_another_one_brings_in_the_end_is_hashed_as_that_one_wrote_it(blob: Blob, read_back: list[int]) -> None:
    slow = blob.claim(FIRST)
    blob.write(0, b"x" * 1000, slow)
    for piece in range(4):
        arrive_claimed(blob, piece)
    blob.add(FIRST, own(FIRST).digest, checked=True, claim=slow)  # which counts for nothing
    assert blob.whole
    assert read_back == []


def test_a_wrong_byte_of_what_comes_in_order_is_found_with_the_whole(blob: Blob) -> None:
    wrong = bytearray(CONTENT)
    wrong[PIECE_BYTES_MIN] ^= 1
    come_in_order(blob, *range(4), content=bytes(wrong))
    with pytest.raises(DigestError):
        blob.wait_whole(0)


def test_a_stream_that_broke_off_goes_on_from_its_last_piece(tmp_path: Path) -> None:
    journal = Written()
    come_in_order(Blob(DIGEST, LAYOUT, open_file(tmp_path), journal=journal), FIRST, SECOND)
    assert journal.records == {FIRST: so_far(FIRST), SECOND: so_far(SECOND)}
    again = Blob(DIGEST, LAYOUT, os.open(tmp_path / "blob", os.O_RDWR))
    again.restore(journal.records)
    assert again.held == 1 << FIRST | 1 << SECOND
    come_in_order(again, THIRD, LAST)
    assert again.whole


@pytest.mark.parametrize(("damaged", "left"), [(FIRST, 0), (SECOND, 1 << FIRST), (THIRD, 1 << FIRST | 1 << SECOND)])
def test_of_a_stream_that_broke_off_only_what_comes_before_the_damage_counts(tmp_path: Path, damaged: int, left: int) -> None:
    content = bytearray(CONTENT)
    content[LAYOUT.span(damaged)[0]] ^= 1
    blob = Blob(DIGEST, LAYOUT, open_file(tmp_path, bytes(content)))
    blob.restore({piece: so_far(piece) for piece in (FIRST, SECOND, THIRD)})
    assert blob.held == left
    arrive(blob, *(piece for piece in range(4) if not left >> piece & 1))
    assert blob.whole


def test_pieces_of_nodes_and_of_a_stream_are_taken_back_together(tmp_path: Path) -> None:
    blob = Blob(DIGEST, LAYOUT, open_file(tmp_path, CONTENT))
    blob.restore({FIRST: own(FIRST), THIRD: own(THIRD), SECOND: so_far(SECOND)})
    assert blob.missing == 1 << LAST
    arrive(blob, LAST)
    assert blob.whole


def test_of_a_journal_of_version_1_digests_of_single_pieces_do_not_count_and_the_others_do(tmp_path: Path) -> None:
    """FAULTS 44: its pieces were known by SHA-256."""
    blob = Blob(DIGEST, LAYOUT, open_file(tmp_path, CONTENT))
    earlier = Record(hashlib.sha256(bytes_of(THIRD)).digest(), Proof.VOUCHED)
    blob.restore({FIRST: so_far(FIRST), SECOND: so_far(SECOND), THIRD: earlier})
    assert blob.held == 1 << FIRST | 1 << SECOND
    arrive(blob, THIRD, LAST)
    assert blob.whole


def test_what_is_written_once_more_is_hashed_once_more(tmp_path: Path) -> None:
    """Or a last piece that differs from what a journal's digests were made of would be believed."""
    blob = Blob(DIGEST, LAYOUT, open_file(tmp_path, CONTENT))
    blob.restore({piece: so_far(piece) for piece in range(4)})
    assert blob.missing == 1 << LAST
    wrong = bytes_of(LAST)[:-1] + b"?"
    blob.write(LAYOUT.span(LAST)[0], wrong)
    blob.add(LAST, blake3(wrong).digest(), checked=True)
    with pytest.raises(DigestError):
        blob.wait_whole(0)


def test_looking_at_what_an_earlier_try_left_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "RESTORE_SECONDS_MAX", -1)
    blob = Blob(DIGEST, LAYOUT, open_file(tmp_path, CONTENT))
    blob.restore({piece: own(piece) for piece in range(4)})
    assert blob.held == 0


def test_a_stored_blob_is_read_at_once_and_its_end_when_it_was_checked(tmp_path: Path) -> None:
    stored = Blob(DIGEST, LAYOUT, open_file(tmp_path, CONTENT), stored=True)
    assert stored.wait(0, 0) == 3 * PIECE_BYTES_MIN
    stored.check()
    assert stored.wait(0, 0) == len(CONTENT)


def test_a_stored_blob_is_for_others_when_it_was_checked_and_they_wait_for_that(tmp_path: Path) -> None:
    stored = Blob(DIGEST, LAYOUT, open_file(tmp_path, CONTENT), stored=True)
    start, end = LAYOUT.span(SECOND)
    assert stored.checked == 0
    assert stored.wait_to_share(SECOND, start, 0.01) == start
    checking = threading.Timer(0.05, stored.check)
    checking.start()
    assert stored.wait_to_share(SECOND, start, 10) == end
    checking.join()
    assert stored.checked == LAYOUT.everything


def test_a_stored_blob_for_which_no_thread_is_left_is_checked_while_the_caller_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stored = Blob(DIGEST, LAYOUT, open_file(tmp_path, CONTENT), stored=True)
    monkeypatch.setattr(threading.Thread, "start", exhausted)
    stored.check_in_background("the store")
    assert stored.whole
    assert stored.checked == LAYOUT.everything


def test_a_stored_blob_with_a_wrong_byte_is_for_nobody(tmp_path: Path) -> None:
    stored = Blob(DIGEST, LAYOUT, open_file(tmp_path, CONTENT[:-1] + b"?"), stored=True)
    threading.Timer(0.05, stored.check).start()
    with pytest.raises(DigestError):
        stored.wait_to_share(FIRST, 0, 10)
    assert stored.checked == 0


def test_the_hash_of_a_beginning_is_carried_on_by_whoever_has_the_rest(tmp_path: Path) -> None:
    blob = Blob(DIGEST, LAYOUT, open_file(tmp_path, CONTENT[:300_000]))
    hasher = blob.hash_to(300_000)
    hasher.update(CONTENT[300_000:])
    assert "sha256:" + hasher.hexdigest() == DIGEST


def test_a_blob_that_another_thread_has_failed_is_done_with_its_file_before_a_next_try_is_told_so(tmp_path: Path) -> None:
    ending, may_end, ends = threading.Event(), threading.Event(), []

    def on_end(_: Blob, error: DarnerError | None) -> None:
        ending.set()
        assert may_end.wait(20.0)
        ends.append(error)

    blob = Blob(DIGEST, LAYOUT, open_file(tmp_path), on_end=on_end)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(blob.fail, DigestError("wrong bytes"))
        assert ending.wait(20.0)
        second = pool.submit(blob.fail, StoreError("begun anew"))
        with pytest.raises(TimeoutError):
            second.result(0.2)
        may_end.set()
        first.result(20.0)
        second.result(20.0)
    assert [str(error) for error in ends] == ["wrong bytes"]
