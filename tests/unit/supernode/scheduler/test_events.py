"""The table of what may follow an event is the truth: nothing else follows, and all of that does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from random import Random
from typing import get_args

from agent.swarm.messages import DELIVERED, STALLED
from supernode.scheduler.events import (
    COMMANDS_AFTER,
    Closed,
    Command,
    Ended,
    Event,
    GrantPieces,
    HoldsAll,
    HoldsNone,
    Joined,
    Left,
    Made,
    Opened,
    Quarantined,
    Released,
    Reported,
    Seeded,
    Tick,
)
from supernode.scheduler.limits import Limits
from supernode.scheduler.machine import Scheduler

PIECES = 6
NODES = 8
TASKS = 4
STEPS = 20_000
LIMITS = Limits(upload_slots_min=1, upload_slots_max=1, seed_slots_min=1, seed_slots_max=2, probes_max=2)


def test_the_scheduler_handles_every_event_and_the_table_has_each_of_them() -> None:
    assert set(Scheduler(Random(1), Limits())._handlers) == set(COMMANDS_AFTER) == set(get_args(Event))
    assert {command for commands in COMMANDS_AFTER.values() for command in commands} == set(get_args(Command))


def test_what_follows_an_event_is_what_the_table_says() -> None:
    rng = Random(7)
    scheduler = Scheduler(Random(5), LIMITS)
    granted: dict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)

    def reported(node: int, task: int) -> Reported:
        done = [(piece, source, 0.01, rng.choice((DELIVERED, STALLED))) for piece, source, _ in granted.pop((node, task), [])]
        return Reported(node, task, tuple(done), 2, ())

    kinds: list[tuple[int, Callable[[int, int], Event]]] = [
        (5, lambda node, task: Joined(node, "", 0)),
        (1, lambda node, task: Left(node)),
        (5, lambda node, task: Made(task, PIECES, 0)),
        (20, lambda node, task: Seeded(task, rng.randrange(PIECES))),
        (1, lambda node, task: Ended(task)),
        (20, lambda node, task: Opened(node, task, rng.randrange(1 << PIECES), (), 2)),
        (60, reported),
        (1, Closed),
        (10, HoldsAll),
        (10, HoldsNone),
        (2, lambda node, task: Quarantined(node)),
        (2, lambda node, task: Released(node)),
        (10, lambda node, task: Tick()),
    ]
    weights = [weight for weight, _ in kinds]
    followed: dict[type[Event], set[type[Command]]] = {event: set() for event in COMMANDS_AFTER}
    now = 0.0
    for _ in range(STEPS):
        now += rng.random() / 2
        _, kind = rng.choices(kinds, weights)[0]
        event = kind(rng.randrange(1, NODES), rng.randrange(TASKS))
        for command in scheduler.handle(event, now):
            followed[type(event)].add(type(command))
            if isinstance(command, GrantPieces):
                granted[command.node, command.task] += command.pieces
    assert followed == {event: set(commands) for event, commands in COMMANDS_AFTER.items()}
