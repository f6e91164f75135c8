"""The swarm as this node sees it: all its channels, which supernode a blob or a name belongs to, and what did not work lately.

Rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998): each key has its own order
of the supernodes and belongs to the first that is connected. So keys spread, and nothing moves but what a lost supernode had.

What did not work is remembered so that the next blob does not wait for it again. A place is a node's piece server, a supernode's
swarms or a supernode itself, named by a word and an address. It is forgotten as soon as something comes from there, and after a
while in any case.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable

from agent.swarm import messages
from agent.swarm.channel import Channel, ChannelError, Recall, TaskListener
from agent.swarm.tickets import SwarmKey
from agent.values.address import Address
from agent.values.errors import OriginError
from agent.values.manifest import Manifest
from agent.values.reference import raw_digest

log = logging.getLogger(__name__)

RESOLVE_SECONDS_MAX = 24.0
"""The runtime has its answer within 25 s. The agent asks itself, beside the supernodes, before that is over (see
agent.registry.endpoint)."""
AVOID_SECONDS_MIN = 60.0
AVOID_SECONDS_MAX = 600.0
"""Twice as long each time that it fails again, up to this."""
PLACES_MAX = 4096
"""The oldest are forgotten beyond that."""

Place = tuple[str, Address]


class Supernodes:
    """A key is a digest or an image's name."""

    def __init__(
        self,
        supernodes: tuple[Address, ...],
        hello: Callable[[], messages.Hello],
        on_up: Callable[[Channel], None],
        recall: Recall,
        swarm_key: SwarmKey | None = None,
    ) -> None:
        self.clock = time.time
        """This node's own."""
        self.channels = [Channel(where, hello, on_up, recall, swarm_key) for where in supernodes]
        self.memory = Memory()
        """What did not work from this node lately."""
        self.sources = Memory(strikes=2)
        """The same of single nodes, which are avoided when they have failed twice."""

    def start(self) -> None:
        for channel in self.channels:
            channel.start()

    def wait_for_one(self, seconds: float) -> None:
        """Until a supernode is connected, if there are any, and not longer than this."""
        end = time.monotonic() + seconds
        while self.channels and not any(channel.up for channel in self.channels) and time.monotonic() < end:
            time.sleep(0.01)

    def stop(self) -> None:
        for channel in self.channels:
            channel.stop()

    def clocks(self) -> list[float]:
        """Unix time, as this node and its supernodes tell it: a ticket is good if it is so on one of these clocks."""
        return [self.clock(), *(channel.unix_seconds for channel in self.channels if channel.tells_time)]

    def owners(self, key: str) -> list[Channel]:
        """The connected supernodes, the key's owner first."""
        connected = [channel for channel in self.channels if channel.up]
        return sorted(connected, key=lambda channel: hashlib.sha256(f"{key} {channel.where}".encode()).digest())

    def open(
        self,
        digest: str,
        registry: str,
        repository: str,
        have: int,
        readers: tuple[int, ...],
        listener: TaskListener,
        size: int = 0,
    ) -> Channel | None:
        """The blob's supernode, or the next that is connected, after it was asked to let this node take part; None without one.

        `listener` is called by the channel's thread, which must not be kept.
        """
        for channel in self.owners(digest):
            try:
                channel.open(digest, registry, repository, have, readers, listener, size)
                return channel
            except ChannelError as error:
                log.info("%s", error)
                channel.leave(listener)
        return None

    def resolve(self, registry: str, repository: str, reference: str) -> Manifest | None:
        """What a supernode says of a name; None when none could say. Raises OriginError for the origin's own refusal."""
        until = time.monotonic() + RESOLVE_SECONDS_MAX
        for channel in self.owners(f"{registry}/{repository}:{reference}")[:2]:
            try:
                return channel.resolve(registry, repository, reference, max(0.0, until - time.monotonic()))
            except ChannelError as error:
                log.warning("%s", error)
            except OriginError as error:
                if error.answered or error.retry_after:  # nobody else asks a registry that wants to be left alone
                    raise
                return None
        return None

    def tell(self, digest: str, size: int, held: bool) -> None:
        """This node has a whole blob now, or has it no longer."""
        message = messages.Holds(messages.Holding(raw_digest(digest), size), held)
        for channel in self.channels:
            channel.tell(message)


class Memory:
    def __init__(self, strikes: int = 1) -> None:
        """A place is avoided when it has failed so many times, without a success between them."""
        self._strikes = strikes
        self._lock = threading.Lock()
        self._failed: dict[Place, tuple[int, float, float]] = {}
        """How often, until when it is avoided, and for how long that is."""

    def failed(self, place: Place, now: float) -> None:
        with self._lock:
            count, until, seconds = self._failed.pop(place, (0, now, AVOID_SECONDS_MIN / 2))
            if count + 1 >= self._strikes and now >= until:  # else it was begun before the last failure was known
                seconds = min(2 * seconds, AVOID_SECONDS_MAX)
                until = now + seconds
            self._failed[place] = count + 1, until, seconds
            if len(self._failed) > PLACES_MAX:
                self._failed.pop(next(iter(self._failed)))

    def worked(self, place: Place) -> None:
        with self._lock:
            self._failed.pop(place, None)

    def avoids(self, place: Place, now: float) -> bool:
        with self._lock:  # else a place that is being written is missing for a moment
            count, until, _ = self._failed.get(place, (0, now, 0.0))
        return count >= self._strikes and now < until
