"""A piece on its way between two hosts: the sender's work, the link, the taker's work.

A sender works for the piece before its first byte, and for each byte while they go out; a taker for each byte while they come in,
and for the piece when they are there. Of the taker's work for bytes the last buffer alone has to wait for the last byte. Work
that costs nothing adds no time at all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf

from agent.http.wire import BUFFER_BYTES
from hack.simulate.network import Clock, Flow, Host, Network
from hack.simulate.processor import NOTHING, Work


class Transfer:
    """One of them, until it is stopped or done."""

    __slots__ = ("began_at", "cap", "done", "flow", "is_stopped", "receiver", "sender", "size")

    def __init__(self, sender: Host, receiver: Host, size: int, done: Callable[[], None], cap: float) -> None:
        self.sender = sender
        self.receiver = receiver
        self.size = size
        self.done = done
        self.cap = cap
        self.began_at = 0.0
        """When its first byte could come."""
        self.flow: Flow | None = None
        """While it is on the links."""
        self.is_stopped = False


class Transfers:
    def __init__(self, clock: Clock, network: Network, taking: Work, sending: Work) -> None:
        self._clock = clock
        self._network = network
        self._taking = taking
        self._sending = sending

    def between_nodes(self, sender: Host, receiver: Host, size: int, done: Callable[[], None], cap: float = inf) -> Transfer:
        """Begin a transfer, at no more than `cap`; `done` is called when the piece is at the taker and worked on."""
        return self._begin(Transfer(sender, receiver, size, done, cap), self._sending)

    def from_origin(self, origin: Host, receiver: Host, size: int, done: Callable[[], None], cap: float) -> Transfer:
        """The same from a registry. What it costs that is its own affair."""
        return self._begin(Transfer(origin, receiver, size, done, cap), NOTHING)

    def stop(self, transfer: Transfer) -> None:
        """`done` is never called. What is booked of the processors is spent."""
        transfer.is_stopped = True
        if transfer.flow:
            self._network.stop(transfer.flow)

    def _begin(self, transfer: Transfer, sending: Work) -> Transfer:
        asked_at = transfer.sender.processor.interpret(sending.piece_seconds, self._clock.now)
        self._when(asked_at, transfer, partial(self._send, transfer, sending))
        return transfer

    def _send(self, transfer: Transfer, sending: Work) -> None:
        sender, size, now = transfer.sender, transfer.size, self._clock.now
        transfer.began_at = now
        sent_at = sender.processor.work(size * sending.byte_seconds, now)
        arrived = partial(self._left_the_link, transfer, sent_at)
        transfer.flow = self._network.send(sender, transfer.receiver, size, arrived, transfer.cap)

    def _left_the_link(self, transfer: Transfer, sent_at: float) -> None:
        transfer.flow = None
        self._when(sent_at, transfer, partial(self._arrived, transfer))

    def _arrived(self, transfer: Transfer) -> None:
        size, byte_seconds = transfer.size, self._taking.byte_seconds
        handled_at = transfer.receiver.processor.work(size * byte_seconds, transfer.began_at)
        last_at = self._clock.now + min(size, BUFFER_BYTES) * byte_seconds
        self._when(max(handled_at, last_at), transfer, partial(self._handled, transfer))

    def _handled(self, transfer: Transfer) -> None:
        done_at = transfer.receiver.processor.interpret(self._taking.piece_seconds, self._clock.now)
        self._when(done_at, transfer, transfer.done)

    def _when(self, time: float, transfer: Transfer, do: Callable[[], None]) -> None:
        """At once if it is that time, so that work that costs nothing changes nothing, not even the order of what is booked."""
        if time <= self._clock.now:
            do()
        else:
            self._clock.at(time, self._unless_stopped, transfer, do)

    def _unless_stopped(self, transfer: Transfer, do: Callable[[], None]) -> None:
        if not transfer.is_stopped:
            do()
