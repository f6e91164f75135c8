"""One trial: a small cluster under the faults of its seed, from its start until nothing is left to do; and what it has shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hack.simulate.network import Clock
from hack.simulate.trial.checks import PULL_SECONDS_MAX, Watch, check_alone, check_leftovers, check_origin, check_pulls
from hack.simulate.trial.faults import Faults, Kind
from hack.simulate.trial.virtual import product_time
from hack.simulate.trial.world import World
from supernode.tracker.health import HealthSettings
from supernode.tracker.seeds import IDLE_SECONDS

EVENTS_MAX = 500_000
SETTLE_SECONDS = 2 * HealthSettings().lease_seconds + IDLE_SECONDS + 40.0
"""After which nothing may be left: dead connections are noticed, tasks are forgotten, and first quarantines are over."""


class Until:
    """Whether the time has come; raises RuntimeError when that is not so after very many events, since then they go round."""

    def __init__(self, is_so: Callable[[], bool]) -> None:
        self._is_so = is_so
        self._events = 0

    def __call__(self) -> bool:
        self._events += 1
        if self._events > EVENTS_MAX:
            raise RuntimeError(f"{EVENTS_MAX} events, and no end")
        return self._is_so()


@dataclass(frozen=True)
class Verdict:
    seed: int
    cluster: str
    kinds: tuple[str, ...]
    faults: tuple[str, ...]
    violations: tuple[str, ...]
    pulls_seconds: float
    """Of virtual time, until the last client had all."""
    late_seconds: float
    """Of the blob that took longest, what it took longer than over its node's link."""
    origin_blobs: float
    """How often the origin was asked for all of its pieces."""
    trace: tuple[str, ...]


def run(seed: int, kinds: list[Kind] | None = None, *, trace_lines_max: int | None = None) -> Verdict:
    """The same seed gives the same verdict. With `kinds` these go wrong, and no others."""
    clock = Clock()
    with product_time(clock) as loop:
        world = World(seed, clock, **({} if trace_lines_max is None else {"trace_lines_max": trace_lines_max}))
        drawing = Faults(world)
        faults = drawing.draw(kinds)
        watch = Watch(world)
        quiet_at = max([fault.ends_at or fault.begins_at for fault in faults] + [client.began_at for client in world.clients])
        try:
            clock.run(
                Until(lambda: not world.waiting or bool(world.violations)), quiet_at + PULL_SECONDS_MAX * len(world.contents)
            )
        except TimeoutError:
            check_pulls(world)
        pulls_seconds = clock.now
        if not world.violations:
            _settle(world, quiet_at)
            check_origin(world, is_faultless=not faults)
            if len(drawing.kinds) == 1:
                check_alone(world, drawing.kinds[0], watch.quarantined)
            check_leftovers(world)
        for failure in loop.failures:
            world.broken(f"raised inside: {failure}")
        for supernode in world.supernodes:
            if supernode.is_up:
                supernode.tracker.stop()
        _let_end(clock)
        pieces = sum(content.layout.count for content in world.contents.values())
        size = f"{len(world.nodes)} nodes, {len(world.supernodes)} supernodes, {pieces} pieces of {len(world.contents)} blobs"
        return Verdict(
            seed=seed,
            cluster=size,
            faults=tuple(map(str, faults)),
            violations=tuple(world.violations),
            kinds=tuple(drawing.kinds),
            pulls_seconds=pulls_seconds,
            late_seconds=max(client.late_seconds for client in world.clients if not client.is_excused),
            origin_blobs=sum(world.origin.pieces.values()) / pieces,
            trace=tuple(world.trace()),
        )


def _settle(world: World, quiet_at: float) -> None:
    """No fault comes any more, all is well again, and everybody has time."""
    _run_until(world.clock, quiet_at)
    world.ways.open_all()
    world.origin.moods.clear()
    for party in (*world.supernodes, *world.nodes):
        party.is_stuck = False
    world.look_at_transfers()
    _run_until(world.clock, world.clock.now + SETTLE_SECONDS)


def _run_until(clock: Clock, until: float) -> None:
    is_over: list[bool] = []
    clock.at(until, is_over.append, True)
    clock.run(Until(lambda: bool(is_over)), max(until, clock.now))


def _let_end(clock: Clock) -> None:
    """What was cancelled hears of it."""
    _run_until(clock, clock.now + 0.001)
