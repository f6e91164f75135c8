"""What tests of the scheduler compare: its swarms and nodes in numbers, which later events leave as they were."""

from __future__ import annotations

from dataclasses import dataclass

from supernode.scheduler.machine import Scheduler
from supernode.scheduler.state import Node, Swarm


@dataclass(frozen=True)
class SwarmView:
    number: int
    pieces: int
    seeded: int
    takers: int
    holders: int
    parked: int
    in_flight: int

    @classmethod
    def of(cls, swarm: Swarm) -> SwarmView:
        return cls(
            number=swarm.number,
            pieces=swarm.count,
            seeded=swarm.seeded.bit_count(),
            takers=len(swarm.takers),
            holders=len(swarm.holders),
            parked=swarm.parked.count,
            in_flight=sum(len(member.flights) for member in swarm.takers.values()),
        )


@dataclass(frozen=True)
class NodeView:
    number: int
    zone: str
    slots: int
    busy: int
    quarantined: bool
    barred: bool
    tasks: int

    @classmethod
    def of(cls, node: Node) -> NodeView:
        return cls(node.number, node.zone, node.slots, node.busy, node.quarantined, node.barred, len(node.members))


def views(scheduler: Scheduler) -> tuple[list[SwarmView], list[NodeView]]:
    return [SwarmView.of(swarm) for swarm in scheduler.swarms.values()], [NodeView.of(node) for node in scheduler.nodes.values()]
