"""FAULTS 91 and 32: hundreds of nodes say that they hold a blob, and send nothing of it, or have nothing of it.

In sockets and threads; that pulls end in time is shown in virtual time (tests/simulation/test_rollouts.py).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.http.server import Exchange
from agent.values.address import Address
from hack.origin import Image
from tests.swarm import PIECE, Lab, RawAgent, noise, piece_listener

BODY = noise(40 * PIECE)
TRIES_MAX = 16
"""Of 300. One node on trial at a time may keep a piece from its taker, for as long as a piece may stall."""


@contextlib.contextmanager
def silence() -> Iterator[Address]:
    """A piece server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        yield Address(*server.getsockname())


@contextlib.contextmanager
def nothing() -> Iterator[Address]:
    """A piece server that has no piece."""

    def lack(exchange: Exchange) -> None:
        exchange.answer(404, {})

    server = piece_listener(lack)
    try:
        yield server.address
    finally:
        server.stop()


@pytest.mark.parametrize("count", [50, 300])
@pytest.mark.parametrize("how", [silence, nothing])
@pytest.mark.parametrize("cached", [True, False], ids=["in the cache", "not yet"])
def test_few_of_them_are_tried_and_the_blob_is_pulled(tmp_path: Path, how: object, count: int, cached: bool) -> None:
    """FAULTS 91, and 32: with the blob in the supernode's cache, and where the supernode has to get it too."""
    image = Image.of([BODY])
    digest = image.layers[0]
    with Lab(tmp_path) as lab, contextlib.ExitStack() as stack:
        where = stack.enter_context(how())  # type: ignore[operator]
        lab.push(BODY)
        if cached:
            assert lab.node().pull(digest, seconds=60.0) == BODY
        for number in range(count):
            stack.enter_context(RawAgent.joined(lab.channels[0], f"false-{number}", where, (digest, len(BODY))))
        node = lab.node()
        assert node.pull(digest, seconds=60.0) == BODY
        assert len([piece for piece, asked, _ in node.fetched if asked == where]) <= TRIES_MAX
        assert lab.origin.blob_bytes_sent <= 3 * len(BODY), "to the supernode, and to a node that has waited in vain"
