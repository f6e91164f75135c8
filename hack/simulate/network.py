"""Virtual time, and links whose connections share them.

A flow moves at the smaller of its share of the sender's uplink and its share of the receiver's downlink, each link split evenly
among its flows. What a flow leaves of its share because its other end is slower is not given to the others, so this network is
a little slower than TCP's fair sharing, never faster. Nothing is random and nothing waits.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf
from typing import Any

from hack.simulate.processor import Processor


class Clock:
    """Things to be done at a time, done in the order of their times and then of their booking."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._booked = 0

    def at(self, time: float, do: Callable[..., None], *arguments: Any) -> None:
        self._booked += 1
        heapq.heappush(self._queue, (time if time > self.now else self.now, self._booked, do, arguments))

    def after(self, seconds: float, do: Callable[..., None], *arguments: Any) -> None:
        self._booked += 1
        heapq.heappush(self._queue, (self.now + seconds, self._booked, do, arguments))

    def run(self, until: Callable[[], bool], seconds_max: float) -> None:
        """Do what is booked until `until()` holds. Raises TimeoutError when virtual time gets to `seconds_max` before."""
        queue, pop = self._queue, heapq.heappop
        while not until():
            if not queue or queue[0][0] > seconds_max:
                raise TimeoutError(f"not done after {seconds_max} s of virtual time")
            self.now, _, do, arguments = pop(queue)
            do(*arguments)


class Host:
    """The two directions of a host's link, in bytes a second, and its processor."""

    __slots__ = ("down", "incoming", "outgoing", "processor", "silent", "up")

    def __init__(self, up: float, down: float, cores: int = 1) -> None:
        self.up = up
        self.down = down
        self.processor = Processor(cores)
        self.incoming: dict[Flow, None] = {}
        self.outgoing: dict[Flow, None] = {}
        self.silent = False
        """Its link is dead: nothing moves, and nobody is told."""


class Flow:
    """One transfer."""

    __slots__ = ("cap", "done", "ends", "left", "looked_at", "moving", "rate", "receiver", "sender", "touched")

    def __init__(self, sender: Host, receiver: Host, size: float, now: float, done: Callable[[], None], cap: float) -> None:
        self.sender = sender
        self.receiver = receiver
        self.left = size
        self.rate = 0.0
        self.touched = now
        """When `left` was right."""
        self.done = done
        self.cap = cap
        """The most that it takes of the links."""
        self.moving = True
        self.ends = inf
        """When its last byte arrives, if its rate stays as it is."""
        self.looked_at = inf
        """The next time that is booked to look whether it has ended: that or earlier."""


class Network:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def send(self, sender: Host, receiver: Host, size: float, done: Callable[[], None], cap: float = inf) -> Flow:
        """Begin a transfer, at no more than `cap`; `done` is called when its last byte has arrived."""
        flow = Flow(sender, receiver, size, self._clock.now, done, cap)
        if not (sender.silent or receiver.silent):
            sender.outgoing[flow] = None
            receiver.incoming[flow] = None
            self._share(sender, receiver)
        return flow

    def stop(self, flow: Flow) -> None:
        """The connection is closed before its end; its `done` is never called."""
        flow.moving = False
        flow.sender.outgoing.pop(flow, None)
        flow.receiver.incoming.pop(flow, None)
        self._share(flow.sender, flow.receiver)

    def silence(self, host: Host) -> None:
        """Its flows stand still from now on, and take nothing of the links at their other ends."""
        host.silent = True
        for flow in (*host.outgoing, *host.incoming):
            self.stop(flow)

    def _share(self, sender: Host, receiver: Host) -> None:
        """The flows of two hosts get the rates that follow from who shares which link now."""
        if sender.outgoing:
            share = sender.up / len(sender.outgoing)
            for flow in sender.outgoing:
                other = flow.receiver
                rate = other.down / len(other.incoming)
                self._pace(flow, share if share < rate else rate)
        if receiver.incoming:
            share = receiver.down / len(receiver.incoming)
            for flow in receiver.incoming:
                other = flow.sender
                if other is not sender:
                    rate = other.up / len(other.outgoing)
                    self._pace(flow, share if share < rate else rate)

    def _pace(self, flow: Flow, rate: float) -> None:
        if rate > flow.cap:
            rate = flow.cap
        if rate == flow.rate:
            return
        now = self._clock.now
        left = flow.left - flow.rate * (now - flow.touched)
        flow.left = left = left if left > 0.0 else 0.0
        flow.touched = now
        flow.rate = rate
        flow.ends = now + left / rate
        if flow.ends < flow.looked_at:
            flow.looked_at = flow.ends
            self._clock.at(flow.ends, self._look_at, flow)

    def _look_at(self, flow: Flow) -> None:
        """Most changes of rate make a flow end later, and cost no more than one look too many."""
        if not flow.moving or flow.looked_at > self._clock.now:
            return
        if flow.ends > self._clock.now:
            flow.looked_at = flow.ends
            self._clock.at(flow.ends, self._look_at, flow)
            return
        self.stop(flow)
        flow.done()
