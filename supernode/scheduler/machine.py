"""The supernode's decisions, which node takes which piece from which other, as a machine of events and commands.

`handle(event, now) -> commands` is the whole machine. Nodes and swarms (tasks) are numbers that the tracker gives; number 0 is
the supernode itself, a source like the others. Nothing here reads a clock, a socket or a file: time is an argument, chance is
passed in, and the same seed and events give the same commands. Events that make no sense (late, replayed, about a node or swarm
that is unknown) change nothing. Reports are understood in `accounting`, choices made in `matching`. The ideas are in
docs/scheduling.md: super-seeding and rarest first are BitTorrent's (BEP 16; Cohen 2003), the best of a few random sources is
Mitzenmacher's.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from agent.swarm.messages import DELIVERED, RUN_NO_RANGES, RUN_REFUSED, RUN_TOO_MANY, RUN_WHOLE, SEED
from supernode.scheduler import events
from supernode.scheduler.accounting import Accounting, Freed
from supernode.scheduler.bag import Bag
from supernode.scheduler.limits import Limits
from supernode.scheduler.matching import Match, Matcher
from supernode.scheduler.origins import OriginLink
from supernode.scheduler.state import Flight, Member, Node, OriginRun, Swarm


class Scheduler:
    """One owner calls `handle`, event by event; it never blocks."""

    def __init__(self, rng: Random, limits: Limits) -> None:
        self._random = rng.random
        self._limits = limits
        self.head_times = limits.head_times
        self._span = (1 << limits.reader_span) - 1
        self._now = 0.0
        self._zones = {""}
        slots = limits.seed_slots_min
        self._seed = Node(SEED, "", slots, slots, limits.seed_slots_max, limits.link_share)
        self.nodes: dict[int, Node] = {SEED: self._seed}
        self.swarms: dict[int, Swarm] = {}
        """By number, as the nodes are. Others read both and change nothing."""
        self.origins: dict[int, OriginLink] = {}
        self._hungry: Bag[Swarm] = Bag()
        """Swarms in which somebody is parked, and perhaps some in which nobody is any more."""
        self._accounting = Accounting(limits, self._seed)
        self._matcher = Matcher(rng, limits, self._seed)
        self._given: list[Member] = []
        """To whom pieces were granted in the event that is being handled."""
        self._waiting: list[events.Command] = []
        self._handlers: dict[type[events.Event], Callable[[Any], None]] = {
            events.Joined: self._joined,
            events.Left: self._left,
            events.Made: self._made,
            events.Seeded: self._seeded,
            events.Stopped: self._stopped,
            events.Overdue: self._overdue,
            events.HeadTime: self._head_time,
            events.Ended: self._ended,
            events.Opened: self._opened,
            events.MayFetch: self._may_fetch,
            events.Reported: self._reported,
            events.Fetched: self._brought,
            events.RunOver: self._run_ended,
            events.Closed: self._closed,
            events.HoldsAll: self._holds_all,
            events.HoldsNone: self._holds_none,
            events.Quarantined: self._quarantined,
            events.Released: self._released,
            events.Located: self._located_now,
            events.Moved: self._moved,
            events.Tick: self._tick,
        }

    def handle(self, event: events.Event, now: float) -> list[events.Command]:
        """Take note of what happened, and say whom to tell what. `now` is monotonic, in seconds."""
        self._now = now
        self._handlers[type(event)](event)
        commands, self._waiting = self._waiting, []
        if self._given:
            for member in self._given:
                if member.granted:
                    commands.append(events.GrantPieces(member.node.number, member.swarm.number, tuple(member.granted)))
                    member.granted = None
            self._given.clear()
        return commands

    # Nodes.

    def _joined(self, event: events.Joined) -> None:
        limits, zone = self._limits, self._zone(event.zone)
        if event.node == SEED:
            self._seed.zone = zone
            self._seed.slots_max = event.upload_slots or limits.seed_slots_max
            self._seed.slots = self._seed.slots_min = min(limits.seed_slots_min, self._seed.slots_max)
        elif event.node not in self.nodes:
            most = min(event.upload_slots or limits.upload_slots_max, limits.upload_slots_max)
            least = min(limits.upload_slots_min, most)
            window = min(limits.window_min, limits.in_flight_max)
            node = self.nodes[event.node] = Node(event.node, zone, least, least, most, limits.link_share, window)
            if not event.located:
                node.located = False
                self._accounting.bar(node)

    def _zone(self, name: str) -> str:
        """The zone as it is told apart from others, of which there are only so many."""
        if name not in self._zones and len(self._zones) < self._limits.zones_max:
            self._zones.add(name)
        return name if name in self._zones else ""

    def _moved(self, event: events.Moved) -> None:
        node = self._peer(event.node)
        if node is not None:
            node.zone = self._zone(event.zone)

    def _left(self, event: events.Left) -> None:
        node = self._peer(event.node)
        if node is not None:
            del self.nodes[event.node]
            self._forget(list(node.members.values()))

    def _quarantined(self, event: events.Quarantined) -> None:
        node = self._peer(event.node)
        if node is not None:
            node.quarantined = True
            self._accounting.bar(node)
            self._refill(self._seed)

    def _released(self, event: events.Released) -> None:
        node = self._peer(event.node)
        if node is not None:
            node.quarantined = False
            self._accounting.admit(node, self._now)
            self._refill(node)

    def _located_now(self, event: events.Located) -> None:
        node = self._peer(event.node)
        if node is not None:
            node.located = True
            self._accounting.admit(node, self._now)
            for member in node.members.values():
                for run in member.runs:
                    run.stalled = bool(run.left & member.swarm.claimed)  # else the others may have it from there
            self._refill(node)

    # Swarms.

    def _made(self, event: events.Made) -> None:
        if event.task not in self.swarms and 0 <= event.count <= self._limits.pieces_max:
            self.swarms[event.task] = Swarm(event.task, event.count, event.seeded, event.piece_bytes)

    def _seeded(self, event: events.Seeded) -> None:
        swarm = self.swarms.get(event.task)
        if swarm is None or not 0 <= event.piece < swarm.count:
            return
        swarm.seeded |= 1 << event.piece
        swarm.known |= 1 << event.piece
        self._offer(self._seed, swarm)
        if swarm.copies.counts[event.piece] and not swarm.fresh:  # it was somewhere already, and may be granted only now
            for member in swarm.parked.first(self._random(), self._limits.probes_max):
                self._serve(member)

    def _stopped(self, event: events.Stopped) -> None:
        swarm = self.swarms.get(event.task)
        if swarm is not None:
            swarm.is_stopped = True

    def _overdue(self, event: events.Overdue) -> None:
        swarm = self.swarms.get(event.task)
        if swarm is not None:
            swarm.is_overdue = True
            self._fetch(swarm)

    def _brings_nothing(self, swarm: Swarm) -> None:
        """An origin has brought nothing of a run: what the supernode has is not sought there, until a piece comes after all."""
        if swarm.is_overdue:
            swarm.fruitless += 1
            swarm.is_overdue = swarm.fruitless < self._limits.overdue_runs_max

    def _offer_overdue(self, swarm: Swarm) -> None:
        """What an origin did not bring the supernode may send, before another node is granted it there."""
        if swarm.is_overdue or swarm.fruitless:
            self._offer(self._seed, swarm)

    def _head_time(self, event: events.HeadTime) -> None:
        swarm = self.swarms.get(event.task)
        if swarm is not None:
            swarm.head_times += 1
            self._fetch(swarm)

    def _ended(self, event: events.Ended) -> None:
        swarm = self.swarms.pop(event.task, None)
        if swarm is not None:
            self._hungry.discard(swarm)
            swarm.fetchers = Bag()
            self._forget(list(swarm.members.values()))

    def _opened(self, event: events.Opened) -> None:
        member = self._member(event.node, event.task, make=True)
        if member is None:
            return
        swarm = member.swarm
        if member.open:
            swarm.gain(member, event.have & swarm.everything)
        else:
            swarm.begin_anew(member, event.have & swarm.everything)
            member.open = True
            swarm.takers[event.node] = member
        self._wants(member, event.want, event.readers)
        self._offer(member.node, swarm)
        self._serve(member)

    def _closed(self, event: events.Closed) -> None:
        member = self._member(event.node, event.task)
        if member is not None and member.open:
            whole = member.have == member.swarm.everything
            self._refill_all(self._accounting.close(member) if whole else self._accounting.forget(member))
            self._free_runs([member])

    def _holds_all(self, event: events.HoldsAll) -> None:
        member = self._member(event.node, event.task, make=True)
        if member is not None:
            freed = self._accounting.close(member)
            member.swarm.hold_all(member)
            self._refill_all(freed)
            self._free_runs([member])
            self._offer(member.node, member.swarm)

    def _holds_none(self, event: events.HoldsNone) -> None:
        member = self._member(event.node, event.task)
        if member is not None and not member.open:
            self._refill_all(self._accounting.forget(member))
            self._fetch(member.swarm)  # it may have been the only one

    # Reports.

    def _reported(self, event: events.Reported) -> None:
        member = self._member(event.node, event.task)
        if member is None or not member.open:
            return
        swarm = member.swarm
        freed: Freed = []
        news, was_headless = not event.done, member in swarm.headless
        for piece, source, seconds, verdict in event.done:
            if not 0 <= piece < swarm.count:
                continue
            if verdict == DELIVERED:
                news |= self._accounting.arrived(member, piece, source, seconds, self._now, freed)
            else:
                news |= self._accounting.failed(member, piece, source, verdict, self._now, freed)
        if not news and (member.flights or member.want):
            return  # a replay: its want is as old as the rest of it
        self._wants(member, event.want, event.readers)
        self._refill_all(freed)
        self._offer(member.node, swarm)
        if member.want:
            self._serve(member)
        if was_headless and not member.head and self._spreads_head(swarm):
            self._fetch(swarm)

    # Runs at origins.

    def _may_fetch(self, event: events.MayFetch) -> None:
        member = self._member(event.node, event.task)
        if member is None or not member.open:
            return
        if event.origin not in self.origins:
            self.origins[event.origin] = OriginLink(event.origin, self._limits)
        if event.origin != member.origin:
            for run in list(member.runs):
                self._end_run(run)
        member.origin, member.denied = event.origin, event.denied
        if event.denied == member.swarm.everything:
            member.swarm.fetchers.discard(member)
        else:
            member.swarm.fetchers.add(member)
        self._fetch(member.swarm)

    def _brought(self, event: events.Fetched) -> None:
        swarm = self.swarms.get(event.task)
        if swarm is None or self._peer(event.node) is None:
            return
        pieces = event.pieces & swarm.everything
        swarm.known |= pieces
        member = swarm.members.get(event.node)
        if member is None:  # it holds all and has only just said so, or does so no more: what it named is known
            return
        for run in member.runs:
            came = (pieces & run.left).bit_count()
            if came:
                member.run_failures = 0
                if swarm.fruitless:
                    swarm.fruitless, swarm.is_overdue = 0, True
                run.left &= ~pieces
                if run.stalled:
                    run.left &= ~swarm.claimed  # which others were granted meanwhile
                link, seconds = self.origins[run.origin], self._now - run.since
                member.node.origin_rate = link.came(swarm, came, seconds, member.node.taking, member.node.origin_rate, self._now)
                run.since, run.stalled, run.moved = self._now, False, True
        if pieces:
            self._accounting.has_shown(member.node, self._now)
        swarm.gain(member, pieces)
        member.lost &= ~pieces
        self._park(member)
        self._offer(member.node, swarm)
        if not member.node.barred:
            for taker in swarm.parked.first(self._random(), self._limits.probes_max):
                self._serve(taker)
        self._fetch(swarm)

    def _run_ended(self, event: events.RunOver) -> None:
        member = self._member(event.node, event.task)
        if member is None:
            return
        run = next((run for run in member.runs if run.first == event.first), None)
        if run is None:
            return
        link = self.origins[run.origin]
        if event.outcome == RUN_TOO_MANY:
            pause = event.pause_seconds or (self._limits.origin_pause_seconds if link.busy == 1 else 0.0)
            link.pause_until = max(link.pause_until, self._now + pause)
            link.refused_more(self._now)
        elif event.outcome == RUN_WHOLE:
            member.denied |= run.left  # the node has it and cannot name it, or it would have
        elif event.outcome == RUN_NO_RANGES and run.end < member.swarm.count:
            link.is_whole = True
            for other in member.swarm.runs:
                other.stalled |= other.origin == run.origin and other.end < other.member.swarm.count  # it will end so too
        else:
            member.run_failures += 1
            if event.outcome == RUN_REFUSED or member.run_failures >= self._limits.run_failures_max:
                member.swarm.fetchers.discard(member)
            if event.outcome != RUN_NO_RANGES and not run.moved and not run.stalled:
                self._brings_nothing(member.swarm)
        self._end_run(run)
        self._offer_overdue(member.swarm)
        self._fetch(member.swarm)
        self._fetch_all(run.origin)

    def _end_run(self, run: OriginRun) -> None:
        member = run.member
        member.runs.remove(run)
        member.swarm.runs.remove(run)
        member.node.fetching -= 1
        if not member.runs:
            member.node.taking -= 1
            self.origins[run.origin].busy -= 1

    def _free_runs(self, members: list[Member]) -> None:
        """Nodes are no takers any more."""
        origins: set[int] = set()
        for member in members:
            member.swarm.fetchers.discard(member)
            for run in list(member.runs):
                origins.add(run.origin)
                self._end_run(run)
        for swarm in dict.fromkeys([member.swarm for member in members]):
            self._offer_overdue(swarm)
            self._fetch(swarm)
        for origin in origins:
            self._fetch_all(origin)

    def _fetch_all(self, origin: int) -> None:
        """A registry may be asked for more: swarms have the same chance."""
        if self.origins[origin].is_free:
            for swarm in self._hungry.some(self._random(), self._limits.swarms_max):
                self._fetch(swarm)

    def _fetch(self, swarm: Swarm) -> None:
        """Grant what nobody has, and nobody is getting, to nodes that may ask an origin for it."""
        unclaimed = swarm.askable
        while unclaimed:
            member = self._matcher.fetcher(swarm, unclaimed, self.origins, self._now, self._spreads_head(swarm))
            if member is None:
                return
            link = self.origins[member.origin]
            first, end = self._matcher.run(member, unclaimed & ~(member.denied | member.have), link)
            run = OriginRun(member, link.number, first, end, self._now)
            run.stalled = member.node.barred  # the others cannot get it from there
            run.left &= ~swarm.claimed
            if not member.runs:
                link.busy += 1
                member.node.taking += 1
            member.runs.append(run)
            swarm.runs.append(run)
            member.node.fetching += 1
            unclaimed &= ~run.left
            self._waiting.append(events.GrantRun(member.node.number, swarm.number, first, end))

    def _spreads_head(self, swarm: Swarm) -> bool:
        """Whether a blob has just begun: its first piece should have the origin's link to itself, and then those of nodes.

        Not for long: a registry may take its time to answer, or give one connection little. Nor where it is known to carry more.
        """
        limits = self._limits
        if swarm.head_times > 1 or swarm.count < limits.head_pieces_min or not swarm.runs or swarm.seeded:
            return False
        lasts = len(swarm.takers) <= limits.head_takers_max if swarm.known else not swarm.head_times
        return lasts and not self.origins[swarm.runs[0].origin].is_wide

    # Time.

    def _tick(self, _: events.Tick) -> None:
        for node in self.nodes.values():
            if node.barred:
                self._accounting.admit(node, self._now)
        for swarm in list(self.swarms.values()):
            if swarm.takers:
                self._tick_swarm(swarm)
                self._tick_runs(swarm)

    def _tick_swarm(self, swarm: Swarm) -> None:
        limits, now = self._limits, self._now
        freed: Freed = [self._seed]
        for member in swarm.takers.values():
            if member.flights:
                self._accounting.look_at_flights(member, now, freed)
            self._park(member)
        self._refill_all(freed)
        patience = min(max(limits.patience_seconds, limits.patience_pieces * swarm.piece_seconds), limits.patience_seconds_max)
        for member in swarm.parked.first(self._random(), limits.rescues_max):
            self._serve(member, starving=not member.flights and now - member.since >= patience)
        for member in swarm.parked.first(0.0, swarm.parked.count):
            if now - max(member.told, member.since) >= limits.waiting_seconds:
                member.told = now
                self._waiting.append(events.KeepWaiting(member.node.number, swarm.number))

    def _tick_runs(self, swarm: Swarm) -> None:
        """What does not come in time may be granted to others."""
        limits, now = self._limits, self._now
        for member in dict.fromkeys([run.member for run in swarm.runs]):
            first, *others = member.runs
            silent = now - first.since
            most = limits.run_patience_seconds if first.moved else limits.run_begin_seconds
            if member.node.barred or silent >= max(most, self._run_patience(swarm, first)) or self._holds_up(member, silent):
                if not first.moved and not first.stalled:
                    self._brings_nothing(swarm)
                for run in member.runs:
                    run.stalled = True
            for run in others:
                run.since = now  # it has not begun
        self._offer_overdue(swarm)
        self._fetch(swarm)

    def _run_patience(self, swarm: Swarm, run: OriginRun) -> float:
        """Seconds for which a run may bring nothing at the least. Of what is overdue, pieces tell of a slow supernode alone."""
        if not swarm.is_overdue:
            return self._limits.run_patience * swarm.piece_seconds
        rate = self.origins[run.origin].connection_rate
        return self._limits.overdue_patience * swarm.piece_bytes / rate if rate else 0.0

    def _holds_up(self, member: Member, silent: float) -> bool:
        """Whether all wait at the end for a node to which little comes: not for one that merely stands still for a moment."""
        limits, swarm, rate = self._limits, member.swarm, member.node.origin_rate
        if swarm.unclaimed or silent < limits.run_end_seconds or not self.origins[member.origin].is_slow(rate):
            return False
        left = sum(run.left.bit_count() for run in member.runs) * swarm.piece_bytes
        return left > limits.run_end_seconds * rate

    # State.

    def _peer(self, number: int) -> Node | None:
        return None if number == SEED else self.nodes.get(number)

    def _member(self, number: int, task: int, make: bool = False) -> Member | None:
        swarm = self.swarms.get(task)
        if swarm is None:
            return None
        member = swarm.members.get(number)
        if member is None and make:
            node = self._peer(number)
            if node is None:
                return None
            rotation = int(self._random() * swarm.count)
            member = Member(node, swarm, swarm.zone(node.zone), rotation, lacking=swarm.everything)
            node.members[task] = swarm.members[number] = member
        return member

    def _forget(self, members: list[Member]) -> None:
        freed: Freed = []
        for member in members:
            freed += self._accounting.forget(member)
        self._refill_all(freed)
        self._free_runs(members)

    def _wants(self, member: Member, want: int, readers: tuple[int, ...]) -> None:
        limits = self._limits
        most = min(limits.want_max, member.node.window - len(member.flights))
        member.want = max(0, min(want, most))
        urgent = head = 0
        for reader in readers:
            if 0 <= reader < member.swarm.count:
                urgent |= self._span << reader
                head |= 1 << reader
        member.urgent = urgent
        if (member.head or not member.held) and member.swarm.count >= limits.head_pieces_min:
            member.swarm.set_head(member, head & ~member.have)
        self._park(member)

    def _park(self, member: Member) -> None:
        swarm = member.swarm
        if not (member.want and member.lacking):
            swarm.parked.discard(member)
        elif member.rank >= 0:
            swarm.parked.follow(member, member.wait_rank)
        else:
            swarm.parked.add(member, member.wait_rank)
            member.since = self._now
            self._hungry.add(swarm)

    # Decisions.

    def _serve(self, member: Member, starving: bool = False) -> None:
        """Give a taker what it wants, as far as there is anybody to give it."""
        while member.asks:
            match = self._matcher.for_taker(member, self._now, starving)
            if match is None:
                break
            self._grant(match)
        if member.node.barred and member.want:
            self._offer(self._seed, member.swarm)  # the supernode prefers takers that can pass its pieces on

    def _offer(self, source: Node, swarm: Swarm) -> None:
        """Give the free slots of a source to takers that wait in one swarm."""
        while source.is_free and swarm.parked.count:
            match = self._matcher.for_source(source, swarm, self._now)
            if match is None:
                return
            self._grant(match)

    def _refill_all(self, freed: Freed) -> None:
        for source in dict.fromkeys(freed) if len(freed) > 1 else freed:
            self._refill(source)

    def _refill(self, source: Node) -> None:
        """Give the free slots of a source to takers that wait in any swarm, every swarm having the same chance."""
        hungry, most = self._hungry, self._limits.swarms_max
        while source.is_free:
            for swarm in hungry.some(self._random(), most):
                match = self._matcher.for_source(source, swarm, self._now)
                if match is not None:
                    self._grant(match)
                    break
                if not swarm.parked.count:
                    hungry.discard(swarm)
            else:
                return

    def _grant(self, match: Match) -> None:
        """A piece, and of those beside it what the source gives together: the taker asks for them in one request."""
        source, others, chosen = match.source, match.others | 1 << match.piece, match.piece
        together = min(source.together, match.taker.want, source.slots - source.busy)
        block = chosen - chosen % source.together
        first = chosen
        while first > max(block, chosen - together + 1) and others >> first - 1 & 1:
            first -= 1
        for piece in range(first, min(first + together, block + source.together)):
            if not others >> piece & 1:
                return
            match.piece = piece
            self._grant_piece(match)

    def _grant_piece(self, match: Match) -> None:
        member, piece, source = match.taker, match.piece, match.source
        now = self._now
        alternative = self._matcher.alternative(match, now)
        member.swarm.take_off(member, piece, Flight(source, match.holder, alternative, now, member.node))
        member.want -= 1
        member.since = now
        if member.want and member.lacking:
            member.swarm.parked.follow(member, member.wait_rank)
        else:
            member.swarm.parked.discard(member)
        granted = (piece, source.number, alternative)
        if member.granted is None:
            member.granted = [granted]
            self._given.append(member)
        else:
            member.granted.append(granted)
