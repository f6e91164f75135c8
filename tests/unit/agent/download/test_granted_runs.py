"""A download whose supernode grants it what nobody has at its own origin: what it asks the registry for, and what it says."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from agent.swarm import messages
from agent.swarm.channel import frame
from agent.values.errors import DarnerError
from agent.values.pieces import Layout
from hack.origin import Fault
from tests.swarm import PIECE, Lab, RawSupernode, noise, wait_until

BODY = noise(6 * PIECE + 99)
LAYOUT = Layout.of(len(BODY))
DIGESTS = {piece: blake3(BODY[slice(*LAYOUT.span(piece))]).digest() for piece in range(LAYOUT.count)}
RUNS = ((0, 3), (3, LAYOUT.count))


class Granting:
    """A supernode that grants one run after the other, and hears what becomes of them."""

    def __init__(self) -> None:
        self.heard: list[messages.FromAgent] = []

    def __call__(self, sock: socket.socket, heard: Iterator[messages.FromAgent]) -> None:
        runs = iter(RUNS)
        for message in heard:
            self.heard.append(message)
            replies: list[messages.Message] = []
            match message:
                case messages.Hello():
                    replies = [messages.Welcome(messages.VERSION, "raw", 30.0, "127.0.0.1", 1)]
                case messages.Open(request):
                    replies = [messages.Task(request, 1, LAYOUT.size, LAYOUT.length, {}), messages.Run(1, *next(runs))]
                case messages.RunEnded():
                    replies = [messages.Run(1, *run) for run in runs]
            sock.sendall(b"".join(map(frame, replies)))

    @property
    def named(self) -> dict[int, bytes]:
        brought = [message.pieces for message in self.heard if isinstance(message, messages.Brought)]
        return {piece: digest for pieces in brought for piece, digest in pieces.items()}


@contextlib.contextmanager
def granted(root: Path) -> Iterator[tuple[Granting, Lab, str]]:
    supernode = Granting()
    with RawSupernode(supernode) as raw, Lab(root, supernodes=0) as lab:
        lab.channels.append(raw.where)
        yield supernode, lab, lab.push(BODY).layers[0]


def test_each_run_is_one_request_for_its_range_and_each_piece_is_named(tmp_path: Path) -> None:
    with granted(tmp_path) as (supernode, lab, digest):
        assert lab.node().pull(digest) == BODY
        wait_until(lambda: any(isinstance(message, messages.Close) for message in supernode.heard))
        blobs = [request for request in lab.origin.requests if "/blobs/" in request.path and request.method == "GET"]
        ends = LAYOUT.span(2)[1]
        assert [request.headers["Range"] for request in blobs] == [f"bytes=0-{ends - 1}", f"bytes={ends}-"]
        assert {piece: digest for piece, digest in supernode.named.items() if piece < LAYOUT.count - 1} == {
            piece: digest for piece, digest in DIGESTS.items() if piece < LAYOUT.count - 1
        }
        assert lab.origin.blob_bytes_sent == len(BODY)


def test_a_run_at_a_registry_without_ranges_is_given_back_and_said_to_be_that(tmp_path: Path) -> None:
    with granted(tmp_path) as (supernode, lab, digest):
        lab.origin.fail(Fault(path="/blobs/", status=200, body=BODY))
        assert lab.node().pull(digest) == BODY
        ended = [message for message in supernode.heard if isinstance(message, messages.RunEnded)]
        assert (ended[0].first, ended[0].outcome) == (0, messages.RUN_NO_RANGES)


def test_a_blob_that_turns_out_wrong_is_disputed(tmp_path: Path) -> None:
    wrong = bytes([BODY[0] ^ 1]) + BODY[1:]
    with granted(tmp_path) as (supernode, lab, digest):
        end = LAYOUT.span(2)[1]
        headers = {"Content-Range": f"bytes 0-{end - 1}/{len(BODY)}"}
        lab.origin.fail(Fault(path="/blobs/", status=206, body=wrong[:end], headers=headers), times=1)
        with pytest.raises(DarnerError):
            lab.node().pull(digest)
        wait_until(lambda: messages.Disputed(1) in supernode.heard)
        assert supernode.named[0] != DIGESTS[0]
