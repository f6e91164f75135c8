"""Accounting of granted pieces: arrivals, failures and silence, entered into the state in `supernode.scheduler.state`.

The same reports tell how fast a source is, and which source seems to be dead. Every function says which sources have a free slot
after the call; the scheduler decides what to do with those.
"""

from __future__ import annotations

from math import ceil, inf
from typing import Final

from agent.swarm.messages import CORRUPT, MISSING, SEED, STALLED, UNREACHABLE
from supernode.scheduler.limits import Limits
from supernode.scheduler.state import Member, Node, Swarm
from supernode.scheduler.uplink import Uplink

PIECE_SECONDS_MIN: Final = 1e-4
"""A report that claims less is taken for this."""
SERVICE_WEIGHT: Final = 0.2
"""Of the newest piece in what is known of a source's pace."""
PIECE_WEIGHT: Final = 0.02
"""And of a swarm's."""

TURNAROUND_SECONDS_MAX: Final = 0.5
"""A report that comes later than this was held up by something else."""

Freed = list[Node]
"""Sources with a free slot, in the order in which they got it, and some of them more than once."""


class Accounting:
    def __init__(self, limits: Limits, seed: Node) -> None:
        self._limits = limits
        self._seed = seed
        self._uplink = Uplink(limits.spare_max)

    def arrived(self, member: Member, piece: int, source: int, seconds: float, now: float, freed: Freed) -> bool:
        """A node has a piece. False when that is not new."""
        swarm, flight = member.swarm, member.flights.get(piece)
        if member.lost:
            member.lost &= ~(1 << piece)
        if flight is None:
            if member.have >> piece & 1:
                return False
            swarm.gain(member, 1 << piece)  # later than we waited, or not from us
        else:
            giver = flight.source
            freed.append(giver)
            if seconds > 0.0 and giver.number == source:  # else the node had the piece from elsewhere
                self._delivered(member, giver, seconds, now - flight.since, now)
                if giver is self._seed:
                    giver.failures = 0
                    member.seed_failures = 0
                if member.shunned and member.shunned.get(source, inf) < inf:
                    del member.shunned[source]
            swarm.touch_down(member, piece, arrived=True)
        return True

    def failed(self, member: Member, piece: int, source: int, verdict: int, now: float, freed: Freed) -> bool:
        """A source did not give a piece. False when that is not new.

        The piece is on its way from the alternative then, if there is one; if that has failed too, it may be granted again.
        """
        swarm, flight = member.swarm, member.flights.get(piece)
        if flight is None:
            news = bool(member.lost >> piece & 1)
            member.lost &= ~(1 << piece)
            return news
        if source not in (flight.source.number, flight.alternative) or (flight.turned and source != flight.alternative):
            return False
        self._shun(member, source, verdict, now)
        holder = swarm.members.get(source)
        if holder is not None and verdict == MISSING:
            swarm.lose(holder, 1 << piece)
        if holder is not None and verdict in (STALLED, UNREACHABLE):
            self._suspect(holder.node, self.patience(swarm), now)
        freed.append(flight.source)
        freed.append(self._seed)  # the supernode may be the only one that has the piece now
        if source == flight.alternative:
            swarm.touch_down(member, piece, arrived=False)
        else:
            swarm.free_slot(flight)
            flight.turned, flight.since = True, now
        return True

    def _shun(self, member: Member, source: int, verdict: int, now: float) -> None:
        """Keep a taker away from a source that failed it.

        There is always another way than through a node; there may be none but the supernode. Away from that it is kept for a
        moment only, which grows while nothing comes; what fails at once is one failure.
        """
        limits = self._limits
        if member.shunned is None:
            member.shunned = {}
        until = member.shunned.get(source, -inf)
        if source != SEED:
            until = inf if verdict == CORRUPT else max(until, now + limits.retry_seconds)
        elif verdict == MISSING:  # a piece that was coming to it, and did not come in time, may come any moment
            until = now + limits.coming_retry_seconds
        elif until <= now:
            self._seed.failures += 1
            until = now + min(limits.retry_seconds, limits.seed_retry_seconds * 2.0 ** min(member.seed_failures, 16))
            member.seed_failures += 1
        member.shunned[source] = until

    def patience(self, swarm: Swarm) -> float:
        """How many seconds a piece may take before somebody else should have the slot that it takes."""
        limits = self._limits
        if not swarm.piece_seconds:
            return limits.grant_seconds_max
        return min(limits.grant_seconds_max, max(limits.slot_seconds_min, limits.slot_patience * swarm.piece_seconds))

    def look_at_flights(self, member: Member, now: float, freed: Freed) -> None:
        """Take the slots back of grants that take too long, and count those as lost that were not heard of for very long."""
        limits, swarm = self._limits, member.swarm
        patience = self.patience(swarm)
        late = [piece for piece, flight in member.flights.items() if now - flight.since >= patience]
        for piece in late:
            flight = member.flights[piece]
            if flight.slot or flight.counted:
                asked = flight.alternative if flight.turned else flight.source.number
                self._shun(member, asked, STALLED, now)
                freed.append(flight.source)
                swarm.despair(member, piece)
                if not flight.turned:
                    self._suspect(flight.source, patience, now)
            if now - flight.since >= limits.grant_seconds_max:
                swarm.touch_down(member, piece, arrived=False)
                member.lost |= 1 << piece

    def close(self, member: Member) -> Freed:
        """A node takes no more."""
        swarm = member.swarm
        freed: Freed = []
        for piece in list(member.flights):
            freed.append(member.flights[piece].source)
            swarm.touch_down(member, piece, arrived=False)
        member.open, member.want, member.urgent = False, 0, 0
        swarm.set_head(member, 0)
        member.shunned, member.lost = None, 0
        swarm.parked.discard(member)
        swarm.takers.pop(member.node.number, None)
        freed.append(self._seed)  # what was on its way may be nowhere else
        return freed

    def forget(self, member: Member) -> Freed:
        """A node is neither taker nor source in a swarm any more."""
        freed = self.close(member)
        member.swarm.lose(member, member.swarm.everything)
        member.node.members.pop(member.swarm.number, None)
        member.swarm.members.pop(member.node.number, None)
        return freed

    def bar(self, node: Node) -> None:
        """What a node has is no copy for others now."""
        if not node.barred:
            node.barred = True
            for member in node.members.values():
                member.swarm.bar(member)

    def admit(self, node: Node, now: float) -> None:
        """A source again, unless there is still a reason why it is none."""
        if node.barred and node.located and not node.quarantined and node.suspected_until <= now:
            node.barred = False
            for member in node.members.values():
                member.swarm.admit(member)

    def _suspect(self, node: Node, patience: float, now: float) -> None:
        """A node failed a taker: is it dead? A node that delivers to others meanwhile is not, whatever one taker says."""
        if node is not self._seed and now - node.delivered_at >= patience:
            node.suspected_until = now + self._limits.retry_seconds
            if node.delivered_at == -inf:
                for member in node.members.values():
                    member.swarm.doubt(member)
            self.bar(node)

    def has_shown(self, node: Node, now: float) -> None:
        """A piece has come from a node, or it has named the pieces of what it holds: it is there and has what it says."""
        is_first, node.delivered_at = node.delivered_at == -inf, now
        if is_first:
            for member in node.members.values():
                member.swarm.prove(member)

    def _delivered(self, taker: Member, source: Node, seconds: float, since_grant: float, now: float) -> None:
        """A source is alive; and how many pieces does it need in hand so that its link never waits for us?

        What a piece took beyond its transfer, it spent in messages: as report, as grant.
        """
        self.has_shown(source, now)
        if source.suspected_until > now:
            source.suspected_until = now
            self.admit(source, now)
        limits, swarm = self._limits, taker.swarm
        if seconds < PIECE_SECONDS_MIN:
            seconds = PIECE_SECONDS_MIN
        elif seconds > limits.grant_seconds_max:
            seconds = limits.grant_seconds_max
        service = seconds / source.busy if source.busy > 1 else seconds
        if source.service_seconds:
            service = source.service_seconds + (service - source.service_seconds) * SERVICE_WEIGHT
        source.service_seconds = service
        swarm.piece_seconds += (seconds - swarm.piece_seconds) * (PIECE_WEIGHT if swarm.piece_seconds else 1.0)
        turnaround = min(max(since_grant - seconds, 0.0), TURNAROUND_SECONDS_MAX)
        source.turnaround_seconds += (turnaround - source.turnaround_seconds) * SERVICE_WEIGHT
        missed = limits.slots_per_turnaround * source.turnaround_seconds / service
        source.full = limits.link_share + missed
        slots = 2 + ceil(missed)
        together = min(limits.together_max, min(slots, source.slots_max) // limits.requests_min)
        source.together = 1 << max(1, together).bit_length() - 1
        source.window = min(limits.in_flight_max, max(limits.window_min, 2 * slots - 1))
        pace = seconds / taker.node.taking
        if source is not self._seed:
            self._uplink.node_delivered(swarm, pace)
        else:
            if not swarm.is_spread:  # else there is nothing more that it must send
                self._uplink.seed_delivered(swarm, pace, now - since_grant, now)
            source.spare = self._uplink.links
            source.full += source.spare
            slots = max(slots, source.slots_min + int(limits.slots_per_spare * source.spare))
        source.slots = min(source.slots_max, max(source.slots_min, slots))
