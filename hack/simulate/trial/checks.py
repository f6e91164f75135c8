"""The promises that every trial is held to, whatever its faults.

That no wrong byte is given to a client is looked at where clients read (`client`), and that no node asks the origin without a
reason where it decides to (`download`). Here: that first bytes come in time, that pulls end, how often the origin was asked, and
that nothing is left over.
"""

from __future__ import annotations

from math import inf, isinf
from typing import TYPE_CHECKING, NamedTuple

from agent.download.planner import ORIGIN_TRIES_MAX, TURN_SECONDS_MAX, Mode
from agent.registry.endpoint import HEAD_SECONDS_MAX
from hack.simulate.books import check_the_books
from hack.simulate.trial.client import PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN, Client
from hack.simulate.trial.node import Node
from supernode.tracker.health import HealthSettings
from supernode.tracker.seeds import DESCRIBE_SECONDS, LEAVE_SECONDS, LEAVES_MAX

if TYPE_CHECKING:
    from hack.simulate.trial.world import World

FIRST_BYTE_SECONDS_MAX = 5.0
"""After there is evidence that the swarm is useless, when the origin answers at once."""
PULL_SECONDS_MAX = PAUSE_SECONDS_MAX + HEAD_SECONDS_MAX + 5.0
"""Of a blob, after the last fault has begun or ended: the longest pause of the runtime after a try that the fault has spoiled,
the patience of one more try, and the blob itself."""
LOOK_SECONDS = 0.5
TWICE_MAX = 2
"""Pieces of a blob that the origin sends twice where nothing goes wrong: at its end, what comes slowly to one node is granted to
another too."""


class Allowed(NamedTuple):
    """Where one kind of trouble comes alone, and the swarm goes on."""

    blobs: float
    """That the origin sends, in all, of each blob."""
    late_seconds: float
    """That a blob may take longer than over its node's link."""


ALONE = {
    "clocks": Allowed(1.25, 5.0),
    "evictions": Allowed(1.5, 5.0),
    "pieces_of_the_supernodes": Allowed(1.25, 5.0),
    "origin_refuses_supernodes": Allowed(1.25, 5.0),
    "origin_refuses_a_node": Allowed(1.25, 5.0),
    "origin_refuses_the_first_node": Allowed(2.0, 5.0),
    "origin_refuses_nodes": Allowed(1.5, 5.0),
    "origin_sends_all": Allowed(1.5, 6.0),
    "silent_holders": Allowed(1.25, DESCRIBE_SECONDS + 5.0),
    "slow_links": Allowed(1.5, 10.0),
    "resets": Allowed(2.0, 5.0),
    "runtimes_restart": Allowed(1.5, PAUSE_SECONDS_MIN + 5.0),
    "dies_in_a_run": Allowed(2.0, inf),
    "nodes_crash": Allowed(1.5, inf),
    "liars": Allowed(2.5, 8.0),
    "disputers": Allowed(2.0, PAUSE_SECONDS_MIN + 5.0),
    "misnamers": Allowed(3.5, PAUSE_SECONDS_MIN + 15.0),
    "half_misname": Allowed(inf, inf),
    "pretenders": Allowed(3.5, PAUSE_SECONDS_MIN + 8.0),
}
"""By the kind (`faults`). A lying node costs its blob once more, and a client that was told so its pause. For the first node,
which is refused, the supernode asks, and does so to the end though other nodes come that may ask too."""


class Watch:
    """Looks twice a second, as long as anybody pulls."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._late: set[tuple[str, float]] = set()
        self.quarantined: set[str] = set()
        """Nodes that were in quarantine at any time."""
        self._spoiled_until: dict[str, float] = {}
        """By node, how long a request of its to the origin stood that was begun when the origin was bad."""
        world.after(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        world = self._world
        for client in world.clients:
            self._first_byte(client)
        self._leaves()
        check_books(world)
        for supernode in world.supernodes:
            self.quarantined.update(quarantine.name for quarantine in supernode.tracker.health.quarantines)
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
                    and not download.evidence.is_cut_off
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
        if client.ended_at is None and not client.is_excused:
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
        fresh = sum(content.layout.count for content in world.contents.values() if content.digest not in world.held_before)
        granted = sum(node.runs for node in world.nodes) + sum(supernode.seeded for supernode in world.supernodes)
        most = fresh + TWICE_MAX * len(world.contents)
        if not fresh <= asked <= most or requests > granted:
            world.broken(f"the origin was asked for {asked} pieces of {pieces}, in {requests} requests")
        return
    tries = {node.name: client.asked for node, client in zip(world.nodes, world.clients, strict=True)}
    tries |= {supernode.name: supernode.seeded for supernode in world.supernodes}
    runs = {node.name: node.runs for node in world.nodes}
    for name, asked in origin.pieces.items():
        files = pieces * (1 + world.party(name).shelf.lost)
        requests_max = ORIGIN_TRIES_MAX * tries[name] + files + runs.get(name, 0)
        if asked > files + origin.requests[name] or origin.requests[name] > requests_max:
            world.broken(f"{name} asked the origin for {asked} pieces of {pieces}, in {origin.requests[name]} requests")


def check_alone(world: World, kind: str, quarantined: set[str]) -> None:
    """What one kind of trouble costs, and that whoever named pieces wrongly is found when their blob turned out wrong."""
    allowed = ALONE.get(kind)
    if allowed is None:
        return
    pieces = sum(content.layout.count for content in world.contents.values())
    asked = sum(world.origin.pieces.values())
    if asked > allowed.blobs * pieces + TWICE_MAX * len(world.contents):
        world.broken(f"the origin was asked for {asked} pieces of {pieces}, though there is no more trouble than {kind}")
    for client in world.clients:
        if client.late_seconds > allowed.late_seconds and not client.is_excused:
            world.broken(f"{client.node.name} got a blob {client.late_seconds:.1f} s late, with no more trouble than {kind}")
    found_wrong = world.found_wrong_at
    liars = {
        node.name
        for node in world.nodes
        for digest in node.misnamed_at
        if node.misnamed_at[digest] < found_wrong.get(digest, -inf)
    }
    held_max = min(HealthSettings().held_per_accuser_max, max(1, len(world.nodes) // 4))  # on the supernode's word alone
    found = {name for name in quarantined if world.node(name).misnames}  # others of them may have taken all places
    if len(found) < min(len(liars), held_max):
        names = " ".join(sorted(liars - quarantined))
        world.broken(f"{names} named pieces wrongly of a blob that turned out wrong, and was not found")


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
        for quarantine in tracker.health.quarantines:
            if world.node(quarantine.name).is_honest:
                left.append(f"the quarantine of {quarantine.name}, which is honest: {quarantine.reason}")
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
