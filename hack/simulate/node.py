"""A node in virtual time: the production planner, with a simulated network below it and a simulated channel above it.

Where the supernode's pieces do not reach it, the node asks the origin as the planner wants, with leave or without, and offers
what that brings. `hack.simulate.trial` has a node that is nearer to the product, for a few nodes and many faults.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil, inf
from typing import Protocol

from agent.download import events, planner
from agent.download.events import News, Order
from agent.swarm import messages
from agent.swarm.messages import CORRUPT, DELIVERED, MISSING, SEED, STALLED, UNREACHABLE
from agent.values.pieces import Layout, lowest
from hack.simulate.network import Host
from hack.simulate.transfers import Transfer

TASK = 1
Outcomes = tuple[tuple[int, int, float, int], ...]


class World(Protocol):
    """What a node needs of the simulation."""

    layout: Layout
    latency_seconds: float
    stall_seconds: float
    blocked_seconds: float | None
    """After which a request for a piece of the supernode's has failed; None where they come."""

    @property
    def now(self) -> float: ...
    def after(self, seconds: float, do: Callable[..., None], *arguments: object) -> None: ...
    def peer(self, number: int) -> Node: ...
    def send(self, sender: Node, receiver: Node, piece: int, done: Callable[[], None]) -> Transfer: ...
    def send_from_origin(self, receiver: Node, piece: int, done: Callable[[], None]) -> Transfer: ...
    def origin_asked(self) -> None: ...
    def asked_leave(self, node: Node) -> None: ...
    def brought(self, node: Node, pieces: int) -> None: ...
    def run_ended(self, node: Node, first: int, outcome: int) -> None: ...
    def stop(self, transfer: Transfer) -> None: ...
    def opened(self, node: Node) -> None: ...
    def reported(self, node: Node, done: Outcomes, window: int, readers: tuple[int, ...]) -> None: ...
    def closed(self, node: Node) -> None: ...
    def ended(self) -> None: ...


class Node:
    """One node, and the blob that it wants."""

    def __init__(self, number: int, zone: str, host: Host, world: World) -> None:
        self.number = number
        self.zone = zone
        self.host = host
        self.reads = True
        """A client reads the blob from its beginning."""
        self.lies = False
        """Every piece that it sends is wrong."""
        self.is_holder = False
        """It had the blob before, and wants nothing."""
        self.lacks = False
        """Asked for pieces, it has none."""
        self.mute = False
        """Asked for pieces, it sends nothing."""
        self.slanders = False
        """It says of all that other nodes send it that it was wrong."""
        self.dead = False
        self.resets = False
        """Whoever is connected to it when it dies is told; else nobody is."""
        self.began_at = 0.0
        self.first_at: float | None = None
        """When the first piece of the blob was there."""
        self.ended_at: float | None = None
        self.fell_back = False
        """It asked the origin."""
        self._world = world
        self._planner = planner.Planner()
        self._tick_at = inf
        """The next time at which the planner is told that time has passed, or is looked at whether it has to be."""
        self._fetches: dict[int, tuple[Transfer, int, float]] = {}
        """By piece: the transfer, its source, and when it began."""
        self._stream: tuple[Transfer, int, int] | None = None
        """From the origin: the transfer, its piece, and the end of what was asked for."""
        self._is_leaving = False
        """The stream ends with its piece."""

    @property
    def holds_all(self) -> bool:
        return self.ended_at is not None

    # What the supernode says.

    def begin(self) -> None:
        self.began_at = self._world.now
        self._do(self._planner.start(True, self._world.now))

    def task_opened(self) -> None:
        self._happened(events.SizeKnown(self._world.layout, 0))
        self._happened(messages.Task(0, TASK, self._world.layout.size, self._world.layout.length, {}))

    def granted(self, pieces: tuple[tuple[int, int, int], ...]) -> None:
        granted = [messages.Granted(piece, b"", source, alternative) for piece, source, alternative in pieces]
        self._happened(messages.Grant(TASK, granted))

    def run_granted(self, first: int, end: int) -> None:
        self._happened(messages.Run(TASK, first, end))

    def still_seeding(self) -> None:
        self._happened(messages.Seeding(TASK))

    def leave_answered(self, given: bool) -> None:
        self._happened(messages.Leave(TASK, given))

    # What the network does.

    def source_died(self, source: Node) -> None:
        """A node from which a piece may be coming is dead: that is noticed at once, or after a while."""
        for piece, (transfer, number, _) in list(self._fetches.items()):
            if number == source.number:
                self._notice(piece, transfer, source)

    def _fetch(self, piece: int, source: int) -> None:
        if self.dead:
            return
        if source == SEED and self._world.blocked_seconds is not None:
            verdict = STALLED if self._world.blocked_seconds else UNREACHABLE
            done = messages.Done(piece, source, ceil(self._world.blocked_seconds * 1000), verdict)
            self._world.after(self._world.latency_seconds + self._world.blocked_seconds, self._happened, done)
            return
        if self._stream and self._stream[1] == piece:  # the last that claims a piece writes it
            self._end_stream()
        sender = self._world.peer(source)
        transfer = self._world.send(sender, self, piece, partial(self._arrived, piece))
        self._fetches[piece] = transfer, source, self._world.now
        if sender.dead or sender.mute:
            self._notice(piece, transfer, sender)
        elif sender.lacks:
            self._world.after(self._world.latency_seconds, self._gave_up, piece, transfer, MISSING)

    def _notice(self, piece: int, transfer: Transfer, source: Node) -> None:
        seconds = self._world.latency_seconds if source.resets else self._world.stall_seconds
        self._world.after(seconds, self._gave_up, piece, transfer, UNREACHABLE if source.resets else STALLED)

    def _gave_up(self, piece: int, transfer: Transfer, verdict: int) -> None:
        fetch = self._fetches.get(piece)
        if fetch is None or fetch[0] is not transfer or self.dead:
            return
        self._world.stop(transfer)
        self._ended(piece, verdict)

    def _arrived(self, piece: int) -> None:
        if not self.dead:
            self._ended(piece, CORRUPT if self._world.peer(self._fetches[piece][1]).lies else DELIVERED)

    def _ended(self, piece: int, verdict: int) -> None:
        _, source, began = self._fetches.pop(piece)
        if verdict == DELIVERED:
            self._note_first(piece)
        self._happened(messages.Done(piece, source, ceil((self._world.now - began) * 1000), verdict))

    # The origin.

    def _begin_stream(self, first: int, end: int | None) -> None:
        self.fell_back |= self._planner.mode is not planner.Mode.SWARM
        self._is_leaving = False
        self._world.origin_asked()
        self._world.after(self._world.latency_seconds, self._stream_on, first, self._world.layout.count if end is None else end)

    def _stream_on(self, piece: int, end: int) -> None:
        if self.dead or self.ended_at is not None:
            return
        if piece == end or self._is_leaving or self._planner.held >> piece & 1:
            self._happened(events.OriginEnded(None))
            return
        fetch = self._fetches.pop(piece, None)
        if fetch:
            self._world.stop(fetch[0])
        self._stream = self._world.send_from_origin(self, piece, self._streamed), piece, end
        if fetch:
            self._happened(events.Superseded(piece, fetch[1]))

    def _streamed(self) -> None:
        assert self._stream
        _, piece, end = self._stream
        self._stream = None
        self._note_first(piece)
        self._happened(events.OriginPiece(piece, bytes(32)))
        self._stream_on(piece + 1, end)

    def _end_stream(self) -> None:
        assert self._stream
        self._world.stop(self._stream[0])
        self._stream = None
        self._world.after(0.0, self._happened, events.OriginEnded(None))

    def _note_first(self, piece: int) -> None:
        if piece == 0 and self.first_at is None:
            self.first_at = self._world.now

    # What the planner wants.

    def _happened(self, event: events.Event) -> None:
        if self.dead or self.ended_at is not None:
            return
        plan = self._planner
        if self.reads and plan.layout:
            missing = plan.layout.everything & ~plan.held
            plan.readers = (lowest(missing),) if missing else ()
        self._do(plan.handle(event, self._world.now))
        if plan.deadline is not None and plan.deadline < self._tick_at:
            self._book_tick(plan.deadline)
        if plan.mode is planner.Mode.ENDED:
            self.ended_at = self._world.now
            if self._stream:
                self._world.stop(self._stream[0])
                self._stream = None
            self._world.after(self._world.latency_seconds, self._world.closed, self)
            self._world.ended()

    def _book_tick(self, at: float) -> None:
        self._tick_at = at
        self._world.after(at - self._world.now, self._tick, at)

    def _tick(self, at: float) -> None:
        """Deadlines move on with almost every piece; a tick is booked for the first, and looks for itself whether it is due."""
        if at != self._tick_at:
            return
        self._tick_at, deadline = inf, self._planner.deadline
        if deadline is None:
            return
        if deadline > self._world.now:
            self._book_tick(deadline)
        else:
            self._happened(News.TIME_PASSED)

    def _do(self, commands: list[events.Command]) -> None:  # noqa: C901 (a table of commands)
        world = self._world
        for command in commands:
            match command:
                case events.Fetch(piece, _, source):
                    world.after(world.latency_seconds, self._fetch, piece, source)
                case messages.Report(_, done, window, readers):
                    outcomes = tuple((item.piece, item.source, item.milliseconds / 1000, item.verdict) for item in done)
                    world.after(world.latency_seconds, world.reported, self, outcomes, window, tuple(readers))
                case Order.OPEN_SWARM:
                    world.after(world.latency_seconds, world.opened, self)
                case Order.LEAVE_SWARM:
                    world.after(world.latency_seconds, world.closed, self)
                case events.FetchOrigin(first, end):
                    self._begin_stream(first, end)
                case Order.LEAVE_ORIGIN:
                    self._is_leaving = True
                case messages.AskLeave():
                    world.after(world.latency_seconds, world.asked_leave, self)
                case messages.Brought(_, pieces):
                    world.after(world.latency_seconds, world.brought, self, sum(1 << piece for piece in pieces))
                case messages.RunEnded(_, first, outcome):
                    world.after(world.latency_seconds, world.run_ended, self, first, outcome)
                case events.GiveUp() | events.Confirm():
                    pass
