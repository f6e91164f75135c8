"""The runtime of a node: it pulls its blobs through the agent, one after the other, with the patience that containerd has.

An answer without a head is an error after 25 s, by the agent's own word; one that brings nothing for 30 s is given up. What has
come is kept, and the blob is asked for anew from there: at once when something came, else after the kubelet's pauses.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from agent.registry.endpoint import HEAD_SECONDS_MAX
from agent.storage.blob import Blob
from agent.values.errors import DarnerError, DigestError, OriginError
from hack.simulate.trial.content import Content, mark_of

if TYPE_CHECKING:
    from hack.simulate.trial.download import Download
    from hack.simulate.trial.node import Node

SILENCE_SECONDS_MAX = 30.0
PAUSE_SECONDS_MIN = 10.0
PAUSE_SECONDS_MAX = 40.0
"""The kubelet's go up to 300 s; a trial need not last so long."""
RESUME_SECONDS = 1.0


class Client:
    def __init__(self, node: Node, contents: list[Content], began_at: float) -> None:
        self.node = node
        self.began_at = began_at
        self.wants = list(contents)
        self.position = 0
        self.ended_at: float | None = None
        self.reader: Reader | None = None
        self.is_excused = False
        self.asked = 0
        """How often."""
        self.late_seconds = 0.0
        """Of the blob that took longest, what it took longer than its bytes would over the node's link."""
        self._wanted_at: float | None = None
        self._pause_seconds = PAUSE_SECONDS_MIN
        node.world.at(began_at, self._ask)

    def begin_at(self, at: float) -> None:
        """It asks sooner than was said, and so is among the first that are granted runs."""
        self.began_at = at
        self.node.world.at(at, self._ask)

    def give_up(self) -> None:
        """The runtime restarts: it leaves, and asks anew."""
        if self.reader:
            self.reader.cut("the runtime restarts")

    def _ask(self) -> None:
        node = self.node
        if self.reader is not None or self.ended_at is not None:
            return
        self._wanted_at = node.world.now if self._wanted_at is None else self._wanted_at
        if not node.is_up:
            node.world.after(self._pause(), self._ask)
            return
        self.asked += 1
        self.reader = Reader(self, self.wants[0], self.position)
        self.reader.begin()

    def _pause(self) -> float:
        pause, self._pause_seconds = self._pause_seconds, min(2 * self._pause_seconds, PAUSE_SECONDS_MAX)
        return pause

    def ended(self, reader: Reader, error: str) -> None:
        world, self.reader = self.node.world, None
        if not error:
            self.position = 0
            content = self.wants.pop(0)
            if self._wanted_at is not None:
                own_seconds = content.layout.size / self.node.host.down
                self.late_seconds = max(self.late_seconds, world.now - self._wanted_at - own_seconds)
            self._wanted_at = None
            self._pause_seconds = PAUSE_SECONDS_MIN
            if self.wants:
                world.after(RESUME_SECONDS, self._ask)
            else:
                self.ended_at = world.now
                world.client_ended(self)
            return
        world.say(self.node.name, f"its client is told: {error}")
        has_come = reader.position > reader.start
        self.position = 0 if reader.was_wrong else reader.position
        world.after(RESUME_SECONDS if has_come else self._pause(), self._ask)


class Reader:
    """One answer of the agent to its runtime."""

    def __init__(self, client: Client, content: Content, start: int) -> None:
        self.content = content
        self.start = self.position = start
        self.was_wrong = False
        self._client = client
        self._world = client.node.world
        self.download: Download | None = None
        self._blob: Blob | None = None
        self._is_over = False
        self.began_at = self._came_at = self._world.now

    def begin(self) -> None:
        node = self._client.node
        self._world.after(HEAD_SECONDS_MAX, self._look_at_the_head)
        self._world.after(SILENCE_SECONDS_MAX, self._look_at_the_clock)
        self._blob = node.shelf.wholes.get(self.content.digest)
        if self._blob is None:
            self.download = node.read(self)
        self.look()

    def cut(self, why: str) -> None:
        self._end(why)

    def look(self) -> None:
        """Take what is there."""
        if self._is_over:
            return
        download = self.download
        blob = self._blob = self._blob or (download.blob if download else None)
        if blob is None:
            if download and download.is_over:
                self._fail(download.error or OriginError(504, "the download ended"))
            return
        try:
            if self.position == blob.size:
                if self.position > self.start or blob.wait_whole(0.0):
                    self._end("")
                return
            readable = blob.wait(self.position, 0.0)
        except DarnerError as error:
            self._fail(error)
            return
        if readable > self.position:
            self._take(blob, readable)
            self.look()

    def _take(self, blob: Blob, end: int) -> None:
        layout = blob.layout
        for piece in range(layout.piece_at(self.position), layout.piece_at(end - 1) + 1):
            if mark_of(blob, piece) != self.content.marks[piece]:
                self.was_wrong = True
                if self.content.digest not in self._world.doubtful:
                    self._world.broken(f"{self._client.node.name} gives its client a wrong piece {piece} of {self.content.name}")
        self.position, self._came_at = end, self._world.now

    def _look_at_the_head(self) -> None:
        if not self._is_over and self.position == self.start:
            self._give_up("neither other nodes nor the registry answered in time")

    def _look_at_the_clock(self) -> None:
        if self._is_over:
            return
        until = self._came_at + SILENCE_SECONDS_MAX
        if self._world.now >= until:
            self._give_up("nothing came for 30 s")
        else:
            self._world.at(until, self._look_at_the_clock)

    def _give_up(self, why: str) -> None:
        """Without the agent it would have got the blob, if the origin was good all the time."""
        name = self._client.node.name
        if self._world.origin_changed_at.get(name, inf) <= self._came_at:
            self._world.broken(f"{name} has its client wait in vain, though the origin answers: {why}")
        self._end(why)

    def _fail(self, error: DarnerError) -> None:
        self.was_wrong |= isinstance(error, DigestError)
        self._end(str(error))

    def _end(self, error: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self.download:
            self.download.leave(self)
        if not error and self.was_wrong and not self.start:
            self._world.broken(f"{self._client.node.name} ends an answer cleanly that had wrong bytes")
            error = "wrong bytes"
        self._client.ended(self, error)
