"""Tells every supernode how many bytes this node received, and from where, for people who look at the whole cluster.

What the metrics count is looked at every ten seconds and put into hours. A supernode is told what it was not told before: after a
lost channel that is what came meanwhile, and for a supernode that has started anew all of the last 24 hours. No pull
depends on it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from agent import metrics
from agent.swarm import messages
from agent.swarm.channel import Channel, ChannelError
from agent.values.received import HOUR_SECONDS, BytesBySource, HourlyBytes, hour_of

log = logging.getLogger(__name__)

REPORT_SECONDS = 10.0


@dataclass
class _Told:
    """What one supernode was told. `process` is new with each start of it."""

    process: bytes
    hours: HourlyBytes = field(default_factory=HourlyBytes)


class ByteReports:
    """One thread of its own; `start` and `stop` are called by another one."""

    def __init__(self, channels: Callable[[], Sequence[Channel]]) -> None:
        """`channels` are those that there are now: supernodes come and go."""
        self._channels = channels
        self._told: dict[Channel, _Told] = {}
        self._received = HourlyBytes()
        self._counted = BytesBySource()
        """What the metrics had counted when they were last looked at."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="byte reports", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(REPORT_SECONDS):
            self.look(BytesBySource(*(metrics.received_bytes(source) for source in BytesBySource._fields)), time.monotonic())

    def look(self, counted: BytesBySource, now: float) -> None:
        """`counted` is what came since the process began."""
        self._received.add(counted.minus(self._counted), hour_of(now))
        self._counted = counted
        channels = self._channels()
        self._told = {channel: told for channel, told in self._told.items() if channel in channels}
        for channel in channels:
            if channel.takes_byte_reports:
                self._tell(channel, now)

    def _tell(self, channel: Channel, now: float) -> None:
        told = self._told.get(channel)
        if told is None or told.process != channel.process:
            told = self._told[channel] = _Told(channel.process)
        try:
            for hour, more in self._news(told):
                # An hour that is over is named by its middle: then it is the same hour, or the next, on the supernode's clock.
                age_seconds = max(0.0, now - (hour + 0.5) * HOUR_SECONDS) if hour < hour_of(now) else 0.0
                channel.send(messages.Received(*more, age_seconds))
                told.hours.add(more, hour)
        except ChannelError as error:
            log.debug("%s", error)

    def _news(self, told: _Told) -> Iterator[tuple[int, BytesBySource]]:
        hours = self._received.hours()
        told.hours.turn_to(hours[-1])
        for hour in hours:
            more = self._received.of(hour).minus(told.hours.of(hour))
            if any(more):
                yield hour, BytesBySource(*(min(count, messages.COUNT_MAX) for count in more))  # the rest the next time
