"""Choices: which taker should get which piece from which source. They are pure, over the state in `supernode.scheduler.state`.

Every choice looks at a bounded number of nodes from a random place on, so that a choice costs the same in a swarm of ten and of
ten thousand. Nothing here changes the state; the scheduler does, and asks again.
"""

from __future__ import annotations

from math import inf
from random import Random
from typing import Final

from agent.swarm.messages import SEED
from agent.values.pieces import lowest
from supernode.scheduler.bag import Bag
from supernode.scheduler.limits import Limits
from supernode.scheduler.origins import OriginLink
from supernode.scheduler.state import Member, Node, Swarm

LAST: Final = 1 << 20
"""More than pieces can be on their way to a node: takers that rank so come after all that do not."""
NOBODY: Final = 2 * LAST


class Match:
    """Who gets which piece from whom."""

    __slots__ = ("holder", "others", "piece", "source", "taker")

    def __init__(self, taker: Member, piece: int, source: Node, holder: Member | None, others: int) -> None:
        self.taker = taker
        self.piece = piece
        self.source = source
        self.holder = holder
        """The source in the taker's swarm; None for the supernode."""
        self.others = others
        """The set from which the piece was chosen: those beside it may go along; the empty set when it goes alone."""


class Matcher:
    def __init__(self, rng: Random, limits: Limits, seed: Node) -> None:
        self._random = rng.random
        self._limits = limits
        self._seed = seed

    def for_taker(self, taker: Member, now: float, starving: bool = False) -> Match | None:
        """What `taker` is given next, and by whom; None when it has to wait.

        In this order: its head, if its own zone has that; what the supernode alone has, if the taker can pass it on; what its own
        zone has; from another zone, what its own neither has nor is getting; a repeat from the supernode. A taker that starves
        need not mind the conditions.
        """
        swarm, seed = taker.swarm, self._seed
        wanted = taker.lacking & swarm.known
        if not wanted:
            return None
        home = taker.zone
        if head := wanted & taker.head & home.copies.present:
            match = self._among(home.holders, taker, head, now)
            if match is not None:
                return match
        seed_use = seed.in_use
        seed_free = seed.is_free and seed_use < seed.full and not shuns(taker, SEED, now)
        if self._seed_is_lost:
            seed_free = seed_free and not seed.busy
        fresh = wanted & swarm.fresh if seed_free and not taker.node.barred else 0
        fresh = swarm.in_blocks(taker, fresh, swarm.seeded, seed.together)
        if fresh:
            return Match(taker, self._piece(taker, fresh), seed, None, fresh)
        match = self._among(home.holders, taker, wanted, now)
        if match is None and len(swarm.zones) > 1:
            abroad = wanted if starving else wanted & ~home.copies.present
            match = self._among(swarm.holders, taker, abroad, now) if abroad else None
        if match is None and (starving or self._may_try(taker)):
            match = self._on_trial(taker, wanted, now)
        repeats = wanted & swarm.seeded
        if match is None and repeats and seed_free and (starving or self._has_room(seed_use) or self._may_repeat(taker)):
            return Match(taker, self._piece(taker, repeats), seed, None, repeats)
        return match

    def for_source(self, source: Node, swarm: Swarm, now: float) -> Match | None:
        """Whom `source`, which has a free slot, should send what: its head to one that waits for that, or else to the idlest."""
        holder = source.members.get(swarm.number) if len(swarm.headless) else None
        if holder is not None and not holder.on_trial and not source.is_full:
            match = self._for_head(holder, self._offered(holder), now)
            if match is not None:
                return match
        return self._for_idlest(source, swarm, now)

    def _for_idlest(self, source: Node, swarm: Swarm, now: float) -> Match | None:
        """Of some that wait, the one whose link is shared by fewest.

        Of a few equals the one that has least. Its own zone comes first, and another one gets what it neither has nor is getting.
        The supernode sends what nobody else has, and the rest only if its link has room for more.
        """
        seed = source is self._seed
        holder = source.members.get(swarm.number)
        fresh = swarm.fresh if seed else 0
        offered = (fresh or self._repeats(swarm)) if seed else self._offered(holder)
        if not offered or source.is_full or (seed and source.busy and self._seed_is_lost):
            return None
        has = swarm.seeded if holder is None else holder.offered
        on_trial = holder is not None and holder.on_trial
        zone = source.zone if len(swarm.zones) > 1 else None
        alone = not seed and swarm.is_orphan
        best: Member | None = None
        best_rank, best_useful = NOBODY, 0
        looks = self._limits.choices
        for taker in swarm.parked.first(self._random(), self._limits.probes_max):
            node = taker.node
            rank = node.taking
            foreign = zone is not None and node.zone != zone
            if (foreign and not alone) or (seed and node.barred):
                rank += LAST
            if rank > best_rank:
                if best_rank < LAST:
                    break  # and so are all takers that come now
                continue
            useful = offered & taker.lacking
            if foreign and not fresh:
                useful &= ~taker.zone.copies.present
            useful = swarm.in_blocks(taker, useful, has, source.together) if taker.asks else 0
            if not useful or (on_trial and not self._may_try(taker)) or (taker.shunned and shuns(taker, source.number, now)):
                continue
            if best is None or rank < best_rank or taker.held < best.held:
                best, best_rank, best_useful = taker, rank, useful
            looks -= 1
            if not looks and best_rank < LAST:
                break
        return None if best is None else Match(best, self._piece(best, best_useful), source, holder, best_useful)

    def _for_head(self, holder: Member, offered: int, now: float) -> Match | None:
        """Who should be sent its head: of some takers that wait for it, the one whose link is shared by fewest."""
        swarm, number = holder.swarm, holder.node.number
        best: Member | None = None
        best_head = 0
        for taker in swarm.headless.some(self._random(), self._limits.probes_max):
            head = offered & taker.head & taker.lacking
            if taker.zone is not holder.zone:
                head &= ~taker.zone.copies.present
            if not head or taker not in swarm.parked or (taker.shunned and shuns(taker, number, now)):
                continue
            if best is None or taker.node.taking < best.node.taking:
                best, best_head = taker, head
        return None if best is None else Match(best, lowest(best_head), holder.node, holder, 0)

    def fetcher(
        self, swarm: Swarm, unclaimed: int, origins: dict[int, OriginLink], now: float, spreads_head: bool = False
    ) -> Member | None:
        """Who is to get what nobody has from its origin: of a few, the node with least to do.

        Of equals it is the one that has least. A node that is near the end of its run may be granted the next, so that its
        connection does not stand idle. While the blob's first piece spreads it is a node that has something: what it waits for
        itself does not have to share the link then.
        Where all of them are suspected of reaching nobody, each gets what it lacks for itself: nobody else brings it that.
        """
        best: Member | None = None
        best_rank = (inf, 0, 0)
        ahead = self._limits.runs_ahead
        is_quick = False
        among = swarm.holders if spreads_head else swarm.fetchers
        some = among.some(self._random(), self._limits.probes_max)
        for member in [member for member in some if member in swarm.fetchers] if spreads_head else some:
            link = origins[member.origin]
            if now < link.pause_until or len(member.runs) > 1 or not unclaimed & ~(member.denied | member.have):
                continue
            barred = member.node.barred
            if barred and (member.node.quarantined or member.flights):
                continue
            if member.runs and member.runs[0].stalled:
                continue
            is_slow = link.is_slow(member.node.origin_rate)
            is_quick = is_quick or not is_slow
            if member.runs:
                if member.runs[0].left.bit_count() > ahead or link.busy > link.slots or is_slow:
                    continue
            elif not link.is_free:
                continue
            rank = (float(member.run_failures + is_slow + barred * LAST), 0 if member.runs else member.node.taking, member.held)
            if rank < best_rank:
                best, best_rank = member, rank
        if is_quick and best and origins[best.origin].is_slow(best.node.origin_rate):
            return None
        return best

    def run(self, member: Member, unclaimed: int, link: OriginLink) -> tuple[int, int]:
        """The first piece of its next run, and the one after the last.

        It begins where a reader of its is, or behind the run before, or with what is missing first. Without ranges it goes on to
        the blob's end: a part that ends before cannot be asked for.
        """
        swarm = member.swarm
        if link.is_whole:  # all behind the first comes, whether others have it or not
            return lowest(unclaimed), swarm.count
        first = lowest(unclaimed & member.urgent or unclaimed)
        if member.runs and not unclaimed & member.urgent and unclaimed >> member.runs[-1].end & 1:
            first = member.runs[-1].end
        length = link.run_length(swarm, unclaimed.bit_count(), member.node.origin_rate)
        taken = ~unclaimed >> first
        return first, first + min(length, lowest(taken))

    def alternative(self, match: Match, now: float) -> int:
        """Whom the taker asks when the source fails: another holder, or the supernode, or else the source itself once more.

        A holder from which it is getting something already needs no introduction, and is known to be alive.
        The supernode only while it has nothing that nobody else has: at the start of a large swarm, what a few liars spoil would
        cost its uplink another image. Without an alternative the piece is granted anew, which takes one message more.
        """
        taker, piece, source = match.taker, match.piece, match.source
        swarm = taker.swarm
        for flight in taker.flights.values():
            giver = flight.holder
            if giver is not None and giver.offered >> piece & 1 and not giver.on_trial:
                node = giver.node
                if node is not source and not node.barred and not (taker.shunned and shuns(taker, node.number, now)):
                    return node.number
        for holder in swarm.holders.some(self._random(), self._limits.choices):
            if holder.offered >> piece & 1 and holder.node is not source and holder is not taker:
                number = holder.node.number
                if not shuns(taker, number, now):
                    return number
        seed = self._seed
        spare = seed.busy < seed.slots and not swarm.fresh and not self._seed_is_lost
        if spare and source is not seed and swarm.seeded >> piece & 1 and not shuns(taker, SEED, now):
            return SEED
        return source.number

    @property
    def _seed_is_lost(self) -> bool:
        """Whether the supernode's pieces reach nobody, as far as is known: a few nodes then bring what it would have sent.

        What they alone have goes out first, each piece once, as it would have from the supernode.
        """
        return self._seed.failures >= self._limits.seed_failures_max

    @staticmethod
    def _offered(holder: Member | None) -> int:
        if holder is None or holder.node.barred or (holder.on_trial and holder.node.busy):
            return 0
        return holder.offered & holder.swarm.known

    def _first(self, taker: Member, candidates: int) -> int:
        """The pieces that go out before those that readers wait for, where nodes' own few copies are all that there is.

        As long as what a reader of the taker waits for could be sent, only those of which there is a single copy.
        """
        copies = taker.swarm.copies
        if self._seed_is_lost:
            return copies.few
        if not taker.swarm.is_orphan:
            return 0
        return copies.single if candidates & taker.urgent else copies.few

    def _repeats(self, swarm: Swarm) -> int:
        """What the supernode would send though others have it."""
        return swarm.seeded if self._has_room(self._seed.in_use) else 0

    def _has_room(self, use: float) -> bool:
        """Whether so much use of the supernode's link leaves enough of it for what others have too."""
        return use + self._limits.repeat_room < self._seed.spare

    def _may_repeat(self, taker: Member) -> bool:
        """Whether the supernode's uplink is idle, and the taker has nobody else."""
        swarm, seed = taker.swarm, self._seed
        return not taker.flights and seed.busy * 2 <= seed.slots_min and swarm.is_spread

    def _among(self, holders: Bag[Member], taker: Member, wanted: int, now: float) -> Match | None:
        """The best of a few random holders that would do: the one next to whose pieces somebody reads, then the least loaded."""
        best: Member | None = None
        best_load, best_useful, left = inf, 0, self._limits.choices
        first = self._first(taker, wanted)
        for holder in holders.some(self._random(), self._limits.probes_max):
            node = holder.node
            if not node.is_free or node.is_full:
                continue
            useful = taker.swarm.in_blocks(taker, holder.offered & wanted, holder.offered, node.together)
            if not useful or (taker.shunned and shuns(taker, node.number, now)):
                continue
            load = node.busy / node.slots
            if useful & taker.urgent:
                load -= 1.0
            if useful & first:
                load -= 2.0
            if load < best_load:
                best, best_load, best_useful = holder, load, useful
            left -= 1
            if not left:
                break
        return None if best is None else Match(taker, self._piece(taker, best_useful), best.node, best, best_useful)

    @staticmethod
    def _may_try(taker: Member) -> bool:
        """Whether a node on trial may give it a piece: one at a time, and not at the end, when all would wait for that piece."""
        return not taker.trials and taker.lacking.bit_count() > 2 * taker.node.window

    def _on_trial(self, taker: Member, wanted: int, now: float) -> Match | None:
        """A piece for which no reader waits, from a node that says it holds the blob and has not shown it."""
        for holder in taker.swarm.on_trial.some(self._random(), self._limits.probes_max):
            useful = holder.offered & wanted
            if useful and not holder.node.busy and not (taker.shunned and shuns(taker, holder.node.number, now)):
                return Match(taker, self._piece(taker, useful & ~taker.urgent or useful), holder.node, holder, 0)
        return None

    def _piece(self, taker: Member, candidates: int) -> int:
        """The one that a reader comes to next; else the rarest of a few, the taker's own order deciding between equals."""
        if head := candidates & taker.head:
            return lowest(head)
        first = candidates & self._first(taker, candidates)
        if first:
            candidates = first
        elif urgent := candidates & taker.urgent:
            return lowest(urgent)
        counts, count, looks = taker.swarm.copies.counts, taker.swarm.count, self._limits.rarest_of
        start, elsewhere = taker.rotation, int(self._random() * count)
        best, fewest = 0, NOBODY
        for look in range(1, looks + 1):
            ahead = candidates >> start
            piece = start + lowest(ahead) if ahead else lowest(candidates)
            if counts[piece] < fewest:
                best, fewest = piece, counts[piece]
            start = (elsewhere + look * count // looks) % count
        return best


def shuns(taker: Member, source: int, now: float) -> bool:
    """Whether `source` failed `taker` so lately, or so badly, that it is not given to it."""
    shunned = taker.shunned
    return shunned is not None and shunned.get(source, -inf) > now
