"""The promises that every trial is held to, whatever its faults.

That no wrong byte is given to a client is looked at where clients read (`client`), and that no node asks the origin without a
reason where it decides to (`download`). Here: that first bytes come in time, that pulls end, how often the origin was asked, and
that nothing is left over.
"""

from __future__ import annotations

from math import isinf
from typing import TYPE_CHECKING

from agent.download.planner import ORIGIN_TRIES_MAX, TURN_SECONDS_MAX, Mode
from agent.registry.endpoint import HEAD_SECONDS_MAX
from hack.simulate.books import check_the_books
from hack.simulate.trial.client import PAUSE_SECONDS_MAX, Client
from hack.simulate.trial.node import Node
from supernode.tracker.seeds import LEAVE_SECONDS, LEAVES_MAX

if TYPE_CHECKING:
    from hack.simulate.trial.world import World

FIRST_BYTE_SECONDS_MAX = 5.0
"""After there is evidence that the swarm is useless, when the origin answers at once."""
PULL_SECONDS_MAX = PAUSE_SECONDS_MAX + HEAD_SECONDS_MAX + 5.0
"""Of a blob, after the last fault has begun or ended: the longest pause of the runtime after a try that the fault has spoiled,
the patience of one more try, and the blob itself."""
LOOK_SECONDS = 0.5


class Watch:
    """Looks twice a second, as long as anybody pulls."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._late: set[tuple[str, float]] = set()
        self._spoiled_until: dict[str, float] = {}
        """By node, how long a request of its to the origin stood that was begun when the origin was bad."""
        world.after(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        world = self._world
        for client in world.clients:
            self._first_byte(client)
        self._leaves()
        check_books(world)
        if world.waiting:
            world.after(LOOK_SECONDS, self._look)

    def _first_byte(self, client: Client) -> None:
        world, reader = self._world, client.reader
        download = reader.download if reader else None
        if reader is None or download is None or download.is_over or reader.position > reader.start:
            return
        if download.evidence.origin_failed_at >= reader.began_at:
            return
        evidence, good_since = download.evidence, world.origin_changed_at.get(client.node.name, 0.0)
        if download.stream and download.stream.request.began_at < good_since:  # it may wait for what is lost
            self._spoiled_until[client.node.name] = world.now
        spoiled_until = self._spoiled_until.get(client.node.name, 0.0)
        since = max(evidence.useless_since(world.now), reader.began_at, good_since, spoiled_until)
        patience = TURN_SECONDS_MAX if evidence.refused_leave_at > reader.began_at else 0.0
        until = since + patience + FIRST_BYTE_SECONDS_MAX
        if not isinf(since) and world.now > until and (client.node.name, reader.began_at) not in self._late:
            self._late.add((client.node.name, reader.began_at))
            world.broken(
                f"{client.node.name} has no byte {until - since:.0f} s after the swarm was useless to it, at {since:.3f} s"
            )

    def _leaves(self) -> None:
        """Few nodes are at the origin with leave at once."""
        world = self._world
        for digest, content in world.contents.items():
            for supernode in world.supernodes:
                holders = [
                    node.name
                    for node in world.nodes
                    if (download := node.downloads.get(digest))
                    and download.planner.mode is Mode.BESIDE
                    and download.evidence.leave_from(supernode.channel, world.now - LEAVE_SECONDS)
                ]
                if len(holders) > LEAVES_MAX:
                    world.broken(f"{len(holders)} nodes have leave of {supernode.name} to ask the origin for {content.name}")


def check_books(world: World) -> None:
    for supernode in world.supernodes:
        if supernode.is_up:
            try:
                check_the_books(supernode.tracker.scheduler)
            except AssertionError as error:
                world.broken(f"the books of {supernode.name} are wrong: {error}")


def check_pulls(world: World) -> None:
    for client in world.clients:
        if client.ended_at is None:
            world.broken(f"{client.node.name} never got {client.wants[0].name}, which the origin has")


def check_origin(world: World, *, is_faultless: bool) -> None:
    """How much the origin was asked for.

    Nothing goes wrong: each blob once, in one request. Else a request costs at most the piece that it was broken off in, and
    what is in a file is not asked for again, unless the file was lost: its disk was wiped, or its bytes were wrong. Requests that
    bring nothing are few in a row: `ORIGIN_TRIES_MAX` for each time that a client asks, or that a supernode begins to seed.
    """
    origin, pieces = world.origin, sum(content.layout.count for content in world.contents.values())
    if is_faultless:
        asked, requests = sum(origin.pieces.values()), sum(origin.requests.values())
        if asked != pieces or requests != len(world.contents):
            world.broken(f"the origin was asked for {asked} pieces of {pieces}, in {requests} requests")
        return
    tries = {node.name: client.asked for node, client in zip(world.nodes, world.clients, strict=True)}
    tries |= {supernode.name: supernode.seeded for supernode in world.supernodes}
    for name, asked in origin.pieces.items():
        files = pieces * (1 + world.party(name).shelf.lost)
        requests_max = ORIGIN_TRIES_MAX * tries[name] + files
        if asked > files + origin.requests[name] or origin.requests[name] > requests_max:
            world.broken(f"{name} asked the origin for {asked} pieces of {pieces}, in {origin.requests[name]} requests")


def check_leftovers(world: World) -> None:  # noqa: C901 (a list)
    """All is done, and has been for as long as the longest lease."""
    check_books(world)
    left: list[str] = []
    for node in world.nodes:
        _check_node(node, left)
    if world.transfers or world.asking:
        left.append(f"{len(world.transfers)} transfers and {len(world.asking)} requests to the origin")
    for supernode in world.supernodes:
        if not supernode.is_up:
            continue
        tracker = supernode.tracker
        for number, task in tracker.seeds.tasks.items():
            left.append(f"task {number} of {supernode.name}: {len(task.takers)} takers, {len(task.waiting)} wait, {task.leaves}")
        for swarm in tracker.scheduler.swarms:
            left.append(f"swarm {swarm} of {supernode.name}")
        for node_number, booked in tracker.scheduler.nodes.items():
            held = tracker.sessions.get(node_number)
            is_held = held is not None and tracker.health.quarantine(held.name) is not None
            if booked.busy or booked.taking or booked.sending or booked.members or (booked.barred and not is_held):
                left.append(f"bookings of node {node_number} of {supernode.name}")
        for session in tracker.sessions.values():
            if session.in_flight or session.waiting:
                left.append(f"grants to {session.name} of {supernode.name}: {session.in_flight}, {session.waiting} wait")
        if len(tracker.sessions) != sum(node.key == supernode.key for node in world.nodes):
            left.append(f"{len(tracker.sessions)} sessions at {supernode.name}")
    for what in left:
        world.broken(f"left over: {what}")


def _check_node(node: Node, left: list[str]) -> None:
    for download in node.downloads.values():
        left.append(f"a download of {download.content.name} at {node.name}, {download.planner.mode}")
    if node.shelf.arriving:
        left.append(f"arriving blobs at {node.name}")
    for channel in node.channels:
        if channel.waits_for_something:
            left.append(f"swarms that {node.name} listens to at {channel.where}")
