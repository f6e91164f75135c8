"""What an agent says of itself when it is asked: GET /api/v1/state, from which `darner status` and `explain` read a node.

{"version", "node", "zone", "store": {"bytes", "quotaBytes", "freeBytes"}, "supernodes": [{"address", "connected"}],
 "alone": null or {"untilSeconds": null or number, "why"}, "images": [...], "pulls": [...]} (the last two: `agent.pulls`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from agent.build import VERSION
from agent.pulls import Pulls
from agent.storage.store import Store
from agent.swarm.supernodes import Supernodes


@dataclass(frozen=True)
class NodeState:
    node: str
    zone: str
    store: Store
    swarm: Supernodes
    pulls: Pulls

    def described(self) -> dict[str, Any]:
        room = self.store.room()
        return {
            "version": VERSION,
            "node": self.node,
            "zone": self.zone,
            "store": {"bytes": room.used, "quotaBytes": room.quota, "freeBytes": room.free},
            "supernodes": [{"address": str(channel.where), "connected": channel.up} for channel in self.swarm.channels],
            "alone": alone(self.swarm, time.monotonic()),
            **self.pulls.described(),
        }


def alone(swarm: Supernodes, now: float) -> dict[str, Any] | None:
    """Why this node pulls without the others, and for how long yet, as far as that is known; None while it pulls with them."""
    if not swarm.channels:
        return {"untilSeconds": None, "why": "no supernode is configured"}
    connected = [channel for channel in swarm.channels if channel.up]
    if not connected:
        return {"untilSeconds": None, "why": "no supernode is connected"}
    kinds = {"supernode": "did not answer", "swarms": "gave this node sources that it got nothing from"}
    avoided = {
        channel.where: max((swarm.memory.avoided_seconds((kind, channel.where), now), words) for kind, words in kinds.items())
        for channel in connected
    }
    where, (seconds, words) = min(avoided.items(), key=lambda item: item[1])
    return {"untilSeconds": round(seconds, 1), "why": f"the supernode {where} {words}"} if seconds else None
