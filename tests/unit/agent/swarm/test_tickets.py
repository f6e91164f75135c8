"""Tickets: whoever has the key gets in for a while, and nobody else does."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from agent.swarm.tickets import TICKET_SECONDS, issue, refusal
from agent.values.address import Address

KEY = b"0123456789abcdef0123456789abcdef"
BLOB, OTHER_BLOB = ("sha256:" + digit * 64 for digit in "ab")
SERVER, OTHER_SERVER = Address("10.0.0.7", 65002), Address("10.0.0.8", 65002)
NOW = 1_800_000_000.5


def valid(key: bytes, blob: str, ticket: str, now: float) -> bool:
    return not refusal([key], blob, [SERVER], ticket, [now])


def forged(expiry: int, key: bytes = KEY, blob: str = BLOB) -> str:
    return f"{expiry}.{hmac.new(key, f'{blob} {SERVER} {expiry} clear'.encode(), hashlib.sha256).hexdigest()}"


def test_a_ticket_opens_the_blob_that_it_is_for() -> None:
    assert valid(KEY, BLOB, issue(KEY, BLOB, SERVER, NOW), NOW)
    assert issue(KEY, BLOB, SERVER, NOW) == forged(int(NOW) + TICKET_SECONDS)


def test_a_ticket_opens_no_other_blob() -> None:
    assert not valid(KEY, OTHER_BLOB, issue(KEY, BLOB, SERVER, NOW), NOW)


def test_a_ticket_opens_the_blob_at_the_server_that_it_is_for_by_each_of_its_addresses_and_at_no_other() -> None:
    """FAULTS 87."""
    ticket = issue(KEY, BLOB, SERVER, NOW)
    assert not refusal([KEY], BLOB, [OTHER_SERVER, SERVER], ticket, [NOW])
    assert refusal([KEY], BLOB, [OTHER_SERVER], ticket, [NOW])


def test_a_ticket_that_was_shown_in_clear_opens_nothing_inside_tls_nor_the_other_way_round() -> None:
    for sealed in (False, True):
        ticket = issue(KEY, BLOB, SERVER, NOW, sealed=sealed)
        assert not refusal([KEY], BLOB, [SERVER], ticket, [NOW], sealed=sealed)
        assert refusal([KEY], BLOB, [SERVER], ticket, [NOW], sealed=not sealed)


def test_either_of_two_keys_is_good_while_they_change() -> None:
    for key in (KEY, KEY[::-1]):
        assert not refusal([KEY, KEY[::-1]], BLOB, [SERVER], issue(key, BLOB, SERVER, NOW), [NOW])


def test_a_ticket_signed_with_another_key_opens_nothing() -> None:
    assert not valid(KEY, BLOB, issue(KEY[::-1], BLOB, SERVER, NOW), NOW)
    assert not valid(KEY, BLOB, issue(b"", BLOB, SERVER, NOW), NOW)


def test_a_ticket_ends() -> None:
    ticket = issue(KEY, BLOB, SERVER, NOW)
    assert valid(KEY, BLOB, ticket, NOW + TICKET_SECONDS - 1)
    assert not valid(KEY, BLOB, ticket, NOW + TICKET_SECONDS)


def test_clocks_may_differ_by_less_than_a_tickets_life_and_not_by_more() -> None:
    ticket = issue(KEY, BLOB, SERVER, NOW)
    assert valid(KEY, BLOB, ticket, NOW - TICKET_SECONDS + 1)
    assert not valid(KEY, BLOB, ticket, NOW - TICKET_SECONDS - 1)


def test_a_ticket_for_a_year_is_none_even_with_the_right_key() -> None:
    assert not valid(KEY, BLOB, forged(int(NOW) + 365 * 86400), NOW)
    assert not valid(KEY, BLOB, forged(999_999_999_999), NOW)


def test_the_expiry_is_under_the_signature() -> None:
    expiry, _, mac = issue(KEY, BLOB, SERVER, NOW).partition(".")
    assert not valid(KEY, BLOB, f"{int(expiry) + 1}.{mac}", NOW)


@pytest.mark.parametrize(
    "ticket",
    [
        "",
        ".",
        "Ticket",
        issue(KEY, BLOB, SERVER, NOW).upper(),
        issue(KEY, BLOB, SERVER, NOW)[:-1],
        issue(KEY, BLOB, SERVER, NOW) + "0",
        issue(KEY, BLOB, SERVER, NOW) + "\n",
        " " + issue(KEY, BLOB, SERVER, NOW),
        "-" + issue(KEY, BLOB, SERVER, NOW),
        "9" * 100_000 + "." + "0" * 64,
        "1800000300." + "é" * 64,
        "١٨٠٠٠٠٠٣٠٠." + forged(1_800_000_300).partition(".")[2],
        "1800000300.\ud800" + "0" * 63,
    ],
)
def test_garbage_is_no_ticket(ticket: str) -> None:
    assert not valid(KEY, BLOB, ticket, NOW)
