"""Tickets for every key, blob and time: good for their blob and a while, and for nothing that was changed in them."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from agent.swarm.tickets import TICKET_SECONDS, issue, refusal
from agent.values.address import Address

SERVER = Address("10.0.0.7", 65002)
keys = st.binary(min_size=16, max_size=64)
blobs = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format)
times = st.floats(0, 4e9)


def valid(key: bytes, blob: str, ticket: str, now: float) -> bool:
    return not refusal([key], blob, [SERVER], ticket, [now])


@given(keys, blobs, times, st.floats(-TICKET_SECONDS + 1, TICKET_SECONDS - 1))
def test_a_ticket_is_good_for_its_blob_whoever_of_the_two_clocks_is_ahead(
    key: bytes, blob: str, now: float, ahead: float
) -> None:
    assert valid(key, blob, issue(key, blob, SERVER, now), now + ahead)


@given(keys, blobs, times, st.floats(TICKET_SECONDS, 1e9))
def test_a_ticket_is_good_no_longer_than_its_time_nor_before_it(key: bytes, blob: str, now: float, away: float) -> None:
    ticket = issue(key, blob, SERVER, now)
    assert not valid(key, blob, ticket, now + away)
    assert not valid(key, blob, ticket, now - away - 1)


@given(keys, blobs, times, st.data())
def test_a_ticket_with_a_changed_character_is_good_for_nothing(key: bytes, blob: str, now: float, data: st.DataObject) -> None:
    ticket = issue(key, blob, SERVER, now)
    place = data.draw(st.integers(0, len(ticket) - 1))
    character = data.draw(st.sampled_from("0123456789abcdef.") | st.characters())
    assume(character != ticket[place])
    assert not valid(key, blob, ticket[:place] + character + ticket[place + 1 :], now)


@given(keys, blobs, times, st.text(max_size=100))
def test_whatever_is_shown_is_no_ticket_and_raises_nothing(key: bytes, blob: str, now: float, shown: str) -> None:
    assert valid(key, blob, shown, now) is False
