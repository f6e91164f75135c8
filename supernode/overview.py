"""What is going on, as people and programs are shown it: a JSON value made from the tracker, of bounded size.

Nothing here decides anything. It runs in the tracker's loop, so it looks only at what is shown and at nodes that are pulling now.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from agent.build import VERSION
from supernode.session import AgentSession
from supernode.tracker.seeds import origin_number
from supernode.tracker.task import BlobTask
from supernode.tracker.tracker import Tracker

SHOWN_MAX = 1000
"""Of each list; what is over it is counted only."""


@dataclass
class Progress:
    """Of one blob, or of an image's: bytes at all nodes that took part since somebody first asked for it."""

    done: int = 0
    total: int = 0
    per_second: float = 0.0

    @classmethod
    def of(cls, tracker: Tracker, task: BlobTask) -> Progress:
        swarm = tracker.scheduler.swarms.get(task.number)
        if swarm is None or task.layout is None:
            return cls()
        size, length = task.layout.size, task.layout.length
        finished = task.finished * size
        arrived = sum(min(member.held * length, size) for member in swarm.takers.values())
        per_second = (task.arrivals.per_second or 0.0) * length if swarm.takers else 0.0
        return cls(finished + arrived, finished + len(swarm.takers) * size, per_second)

    def add(self, other: Progress) -> None:
        self.done += other.done
        self.total += other.total
        self.per_second += other.per_second

    def shown(self) -> dict[str, Any]:
        left = self.total - self.done
        seconds_left = left / self.per_second if self.per_second > 0 else None
        return {
            "bytesDone": self.done,
            "bytesTotal": self.total,
            "progress": round(self.done / self.total, 4) if self.total else None,
            "bytesPerSecond": round(self.per_second),
            "secondsLeft": round(seconds_left, 1) if seconds_left is not None else None if left else 0,
        }


def describe(tracker: Tracker) -> dict[str, Any]:
    now = time.monotonic()
    tasks = list(islice(tracker.seeds.tasks.values(), SHOWN_MAX))
    progress = {task.number: Progress.of(tracker, task) for task in tasks}
    left_alone = [*_paused_registries(tracker, now), *_disbelieved(tracker, now), *_on_their_own(tracker, tasks, now)]
    return {
        "version": VERSION,
        "name": tracker.node_name,
        "bytes24h": tracker.received.total._asdict(),
        "nodes": [_describe_node(tracker, session) for session in islice(tracker.sessions.values(), SHOWN_MAX)],
        "nodesTotal": len(tracker.sessions),
        "rollouts": _rollouts(tasks, progress),
        "swarms": [_describe_swarm(tracker, task, progress[task.number]) for task in tasks],
        "swarmsTotal": len(tracker.seeds.tasks),
        "quarantines": [
            {"name": item.name, "reason": item.reason, "until": round(max(0.0, item.until - now), 1)}
            for item in tracker.health.quarantines[:SHOWN_MAX]
        ],
        "leftAlone": left_alone[:SHOWN_MAX],
        "loaded": tracker.loaded.described()[:SHOWN_MAX] if tracker.loaded else [],
    }


def _describe_node(tracker: Tracker, session: AgentSession) -> dict[str, Any]:
    return {
        "name": session.name,
        "zone": session.zone,
        "address": str(session.where),
        "blobs": len(session.holdings),
        "bytes24h": tracker.received.of(session.name)._asdict(),
    }


def _describe_swarm(tracker: Tracker, task: BlobTask, progress: Progress) -> dict[str, Any]:
    swarm = tracker.scheduler.swarms.get(task.number)
    return {
        "digest": task.name,
        "image": _image_of(task),
        "size": task.layout.size if task.layout else None,
        "whole": task.whole,
        "failed": task.failed.reason if task.failed else None,
        "pieces": swarm.count if swarm else None,
        "seeded": swarm.seeded.bit_count() if swarm else None,
        "takers": len(swarm.takers) if swarm else 0,
        "holders": len(swarm.holders) if swarm else 0,
        "parked": swarm.parked.count if swarm else 0,
        "inFlight": sum(len(member.flights) for member in swarm.takers.values()) if swarm else 0,
        "finished": task.finished,
        **progress.shown(),
    }


def _image_of(task: BlobTask) -> str:
    """Without a tag, which nobody names who asks for a blob."""
    return f"{task.source.registry}/{task.source.repository}"


def _rollouts(tasks: Iterable[BlobTask], progress: Mapping[int, Progress]) -> list[dict[str, Any]]:
    """The blobs of one image together."""
    images: dict[str, list[BlobTask]] = {}
    for task in tasks:
        images.setdefault(_image_of(task), []).append(task)
    return [_describe_rollout(image, of_it, progress) for image, of_it in images.items()]


def _describe_rollout(image: str, tasks: list[BlobTask], progress: Mapping[int, Progress]) -> dict[str, Any]:
    together, takers, failed = Progress(), set[int](), None
    for task in tasks:
        together.add(progress[task.number])
        takers.update(session.number for session in task.takers)
        failed = task.failed.reason if task.failed else failed
    return {
        "image": image,
        "blobs": len(tasks),
        "bytes": sum(task.size for task in tasks),
        "nodes": max(task.finished + len(task.takers) for task in tasks),
        "nodesPulling": len(takers),
        "failed": failed,
        **together.shown(),
    }


# Who is left alone: by the swarm, or by it to the origin.


def _paused_registries(tracker: Tracker, now: float) -> Iterator[dict[str, Any]]:
    registries = {source.registry for task in tracker.seeds.tasks.values() for source in (task.source, *task.sources.values())}
    for registry in sorted(registries):
        link = tracker.scheduler.origins.get(origin_number(registry))
        if link and link.pause_until > now:
            yield _left_alone("registry", registry, "it had too many questions, and is asked nothing", link.pause_until - now)


def _disbelieved(tracker: Tracker, now: float) -> Iterator[dict[str, Any]]:
    for name, until in tracker.health.disbelieved(now).items():
        yield _left_alone("node", name, "it complains about so many others that its word does not count", until - now)


def _on_their_own(tracker: Tracker, tasks: Iterable[BlobTask], now: float) -> Iterator[dict[str, Any]]:
    for task in tasks:
        if task.failed:
            yield _left_alone("image", _image_of(task), f"its nodes are left to its registry: {task.failed.reason}", None)
        for number, until in task.leaves.items():
            session = tracker.sessions.get(number)
            if session and until > now:
                why = f"the swarm brings it nothing of {_image_of(task)}, and it asks the registry itself"
                yield _left_alone("node", session.name, why, until - now)


def _left_alone(kind: str, name: str, why: str, seconds: float | None) -> dict[str, Any]:
    return {"kind": kind, "name": name, "why": why, "until": None if seconds is None else round(seconds, 1)}
