"""One piece from one node: the piece client and the piece server of the product, as events.

Limits, tickets and claims are theirs (`agent.swarm.piece_client`, `agent.swarm.piece_server`); TCP and HTTP are what is played.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from agent.storage.blob import Claim
from agent.swarm import messages, tickets
from agent.swarm.piece_client import (
    CONNECT_SECONDS_MAX,
    PIECE_BYTES_PER_SECOND_MIN,
    PIECE_SECONDS_MAX,
    PIECE_STALL_SECONDS_MAX,
    RESETS_MAX,
)
from agent.swarm.piece_server import COMING_SECONDS_MAX
from agent.values.errors import DarnerError, SupersededError
from hack.simulate.network import Flow
from hack.simulate.trial.content import ArrivingBlob, mark_of
from hack.simulate.trial.ways import Purpose, Way

if TYPE_CHECKING:
    from hack.simulate.trial.party import Party
    from hack.simulate.trial.world import World


_numbers = itertools.count()
"""So that those that are under way can be looked at in an order that is the same each time."""


class Outcome(NamedTuple):
    verdict: int | None
    """None when another source was given the piece meanwhile."""
    seconds: float
    is_refused: bool = False
    """The ticket was not accepted."""
    is_nobodys: bool = False
    """The taker's blob had failed: that tells nothing of the giver."""


class Transfer:
    """Ends with one call of `done`, unless its taker dies."""

    def __init__(
        self,
        world: World,
        taker: Party,
        giver: Party,
        blob: ArrivingBlob,
        piece: int,
        digest: bytes | None,
        unix_seconds: float,
        done: Callable[[Outcome], None],
    ) -> None:
        """`digest` is COMING for a piece that is arriving at the supernode, None when it is not known."""
        self._world = world
        self.taker, self.giver = taker, giver
        self._blob = blob
        self._piece = piece
        self._digest = digest
        self._unix_seconds = unix_seconds
        self._done = done
        self._began = world.now
        self._resets = 0
        self._tries = 0
        """Timers of an earlier try mean nothing."""
        self._claim: Claim | None = None
        self._mark = b""
        self._flow: Flow | None = None
        self._is_over = False
        self.number = next(_numbers)
        world.transfers.add(self)
        self._connect()

    def forget(self) -> None:
        """The taker has died."""
        self._is_over = True
        self._world.transfers.discard(self)
        self._stop()

    def look(self) -> None:
        """Ways have changed, or the giver has."""
        if self._flow is None:
            return
        way = self._way()
        if way is Way.REFUSED or (not self.giver.is_up and not self.giver.is_dark):
            self._broke()
        elif way is not Way.OPEN or self.giver.is_dark or self.giver.is_stuck:
            self._freeze()

    def _way(self) -> Way:
        return self._world.ways.of(self.taker.name, self.giver.name, Purpose.PIECES)

    def _after(self, seconds: float, do: Callable[[], None]) -> None:
        this_try = self._tries

        def unless_over() -> None:
            if not self._is_over and self._tries == this_try:
                do()

        self._world.after(seconds, unless_over)

    def _connect(self) -> None:
        way, world = self._way(), self._world
        if way is Way.DROPPED or self.giver.is_dark:
            self._after(CONNECT_SECONDS_MAX, lambda: self._end(messages.STALLED))
        elif way is Way.REFUSED or not self.giver.is_up:
            self._after(world.latency(), self._broke)
        else:
            self._after(2 * world.latency(), self._asked)

    def _broke(self) -> None:
        self._stop()
        self._tries += 1
        if self._flow and self._digest == messages.COMING:  # its origin may be at fault
            self._end(messages.MISSING)
            return
        if self._resets == RESETS_MAX:
            self._end(messages.UNREACHABLE)
            return
        self._resets += 1
        self._flow = None
        self._connect()

    def _asked(self) -> None:
        """At the giver."""
        giver, name = self.giver, self._blob.digest
        if not giver.is_up:
            self._broke()
            return
        if giver.is_stuck:
            self._after(PIECE_STALL_SECONDS_MAX, lambda: self._end(messages.STALLED))
            return
        ticket = tickets.issue(self.taker.key, name, giver.where, self._unix_seconds)
        held = giver.shelf.find(name)
        if giver.refusal(name, ticket):
            self._end(messages.UNREACHABLE, is_refused=True)
        elif giver.pretends:
            self._end(messages.MISSING)
        elif giver.shares(held, self._piece):
            self._send()
        elif self._digest == messages.COMING and held and not held.error:
            giver.await_piece(name, self._piece, lambda: None if self._is_over or self._flow else self._send())
            self._after(COMING_SECONDS_MAX, lambda: None if self._flow else self._end(messages.MISSING))
        else:
            self._end(messages.MISSING)

    def _send(self) -> None:
        held = self.giver.shelf.find(self._blob.digest)
        if held is None:
            self._end(messages.MISSING)
            return
        start, end = self._blob.layout.span(self._piece)
        self._claim = self._blob.claim_for(self._piece, self._superseded)
        self._mark = self.giver.sent(self._blob.digest, self._piece, mark_of(held, self._piece))
        self._blob.begin(self._piece, self._mark, self._claim)
        self._flow = self._world.network.send(self.giver.host, self.taker.host, end - start, self._arrived)
        self._after(PIECE_SECONDS_MAX + (end - start) / PIECE_BYTES_PER_SECOND_MIN, lambda: self._end(messages.STALLED))
        self.look()

    def _freeze(self) -> None:
        if self._flow and self._flow.moving:
            self._world.network.stop(self._flow)
            self._after(PIECE_STALL_SECONDS_MAX, lambda: self._end(messages.STALLED))

    def _superseded(self) -> None:
        """Another one writes the piece: with the next bytes that come, this one notices."""
        if self._flow and self._flow.moving and (self._blob.error or self._blob.is_claimed_anew(self._piece, self._claim)):
            self._end(None)

    def _arrived(self) -> None:
        held = self.giver.shelf.find(self._blob.digest)
        if held is None:
            self._broke()
            return
        mark = self._mark
        digest = held.digests.get(self._piece) if self._digest == messages.COMING else self._digest
        received = blake3(mark).digest()
        try:
            self._blob.end(self._piece, mark, self._claim)
            if digest is not None and digest != received:
                self._end(messages.CORRUPT)
                return
            self._blob.add(self._piece, received, checked=digest is not None, claim=self._claim)
        except SupersededError:
            self._end(None)
        except DarnerError:  # the blob has failed meanwhile
            self._end(messages.UNREACHABLE, is_nobodys=True)
        else:
            self._end(messages.DELIVERED)

    def _stop(self) -> None:
        if self._flow and self._flow.moving:
            self._world.network.stop(self._flow)

    def _end(self, verdict: int | None, *, is_refused: bool = False, is_nobodys: bool = False) -> None:
        if not self._is_over:
            self.forget()
            self._done(Outcome(verdict, self._world.now - self._began, is_refused, is_nobodys))
