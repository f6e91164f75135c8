"""The table of what may follow an event is the truth: nothing else follows, and all of that does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from random import Random
from typing import get_args

from agent.swarm.messages import DELIVERED, RUN_FAILED, RUN_WHOLE, STALLED
from supernode.scheduler.events import (
    COMMANDS_AFTER,
    Closed,
    Command,
    Ended,
    Event,
    Fetched,
    GrantPieces,
    GrantRun,
    HeadTime,
    HoldsAll,
    HoldsNone,
    Joined,
    Left,
    Located,
    Made,
    MayFetch,
    Moved,
    Opened,
    Overdue,
    Quarantined,
    Released,
    Reported,
    RunOver,
    Seeded,
    Stopped,
    Tick,
)
from supernode.scheduler.limits import Limits
from supernode.scheduler.machine import Scheduler

PIECES = 6
NODES = 8
TASKS = 4
STEPS = 300_000
LIMITS = Limits(
    upload_slots_min=1,
    run_begin_seconds=2.0,
    run_patience_seconds=1.0,
    run_end_seconds=0.5,
    upload_slots_max=1,
    seed_slots_min=1,
    seed_slots_max=2,
    probes_max=2,
    origin_slots_min=2,
    origin_slots_max=2,
    head_pieces_min=PIECES,
)


def test_the_scheduler_handles_every_event_and_the_table_has_each_of_them() -> None:
    assert set(Scheduler(Random(1), Limits())._handlers) == set(COMMANDS_AFTER) == set(get_args(Event))
    assert {command for commands in COMMANDS_AFTER.values() for command in commands} == set(get_args(Command))


def test_what_follows_an_event_is_what_the_table_says() -> None:
    rng = Random(7)
    scheduler = Scheduler(Random(5), LIMITS)
    granted: dict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)

    def reported(node: int, task: int) -> Reported:
        done = [(piece, source, 0.01, rng.choice((DELIVERED, STALLED))) for piece, source, _ in granted.pop((node, task), [])]
        return Reported(node, task, tuple(done), 2, rng.choice(((), (rng.randrange(PIECES),))))

    runs: dict[tuple[int, int], list[GrantRun]] = defaultdict(list)

    def fetched(node: int, task: int) -> Fetched:
        run = (runs[node, task] or [GrantRun(node, task, 0, PIECES)])[-1]
        return Fetched(node, task, 1 << rng.randrange(run.first, run.end))

    def run_over(node: int, task: int) -> RunOver:
        run = runs[node, task].pop() if runs[node, task] else GrantRun(node, task, 0, PIECES)
        return RunOver(node, task, run.first, rng.choice((RUN_WHOLE, RUN_FAILED, RUN_FAILED)))

    kinds: list[tuple[int, Callable[[int, int], Event]]] = [
        (5, lambda node, task: Joined(node, "", 0, rng.random() < 0.8)),
        (1, lambda node, task: Left(node)),
        (20, lambda node, task: Made(task, PIECES, 0)),
        (4, lambda node, task: Seeded(task, rng.randrange(PIECES))),
        (2, lambda node, task: Overdue(task)),
        (2, lambda node, task: Stopped(task)),
        (3, lambda node, task: HeadTime(task)),
        (8, lambda node, task: Ended(task)),
        (
            20,
            lambda node, task: Opened(
                node, task, rng.choice((0, 0, rng.randrange(1 << PIECES))), rng.choice(((), (rng.randrange(PIECES),))), 2
            ),
        ),
        (60, reported),
        (20, lambda node, task: MayFetch(node, task, 1 + node % 2)),
        (30, fetched),
        (8, run_over),
        (4, Closed),
        (3, HoldsAll),
        (20, HoldsNone),
        (2, lambda node, task: Quarantined(node)),
        (2, lambda node, task: Released(node)),
        (2, lambda node, task: Located(node)),
        (2, lambda node, task: Moved(node, str(node % 2))),
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
            elif isinstance(command, GrantRun):
                runs[command.node, command.task].append(command)
    assert followed == {event: set(commands) for event, commands in COMMANDS_AFTER.items()}
