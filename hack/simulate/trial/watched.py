"""A supernode's scheduler with somebody who looks on: what an origin has refused to a node is not granted to that node again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.swarm.messages import RUN_REFUSED
from supernode.scheduler import events
from supernode.scheduler.machine import Scheduler


class WatchedScheduler:
    """All of the scheduler's own is there under its own name."""

    def __init__(self, scheduler: Scheduler, on_refused_run: Callable[[int, int], None]) -> None:
        """`on_refused_run` is told of a node and a task: the node is granted a run of a blob that its origin refuses it."""
        self._scheduler = scheduler
        self._on_refused_run = on_refused_run
        self._refused: set[tuple[int, int]] = set()
        """Nodes and tasks. Who opens the blob anew may be granted runs anew."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def handle(self, event: events.Event, now: float) -> list[events.Command]:
        if isinstance(event, events.MayFetch):
            self._refused.discard((event.node, event.task))
        elif isinstance(event, events.RunOver) and event.outcome == RUN_REFUSED and self._is_run(event):
            self._refused.add((event.node, event.task))
        commands = self._scheduler.handle(event, now)
        for command in commands:
            if isinstance(command, events.GrantRun) and (command.node, command.task) in self._refused:
                self._on_refused_run(command.node, command.task)
        return commands

    def _is_run(self, event: events.RunOver) -> bool:
        """Whether that is a run under way: what is said of an earlier one tells nothing any more."""
        swarm = self._scheduler.swarms.get(event.task)
        member = swarm.members.get(event.node) if swarm else None
        return member is not None and any(run.first == event.first for run in member.runs)
