"""This node's part in the swarm of one blob: its channel, its number there, and the messages that come.

The conversation alone: `agent.download.planner` decides what this node does about a message.
"""

from __future__ import annotations

import logging
import math

from agent.download import events
from agent.swarm import messages
from agent.swarm.channel import Channel, ChannelError, TaskListener
from agent.swarm.supernodes import Supernodes
from agent.values.address import Address

log = logging.getLogger(__name__)


class Session:
    def __init__(self, swarm: Supernodes, digest: str) -> None:
        self._swarm = swarm
        self._digest = digest
        self._channel: Channel | None = None
        self._listener: TaskListener | None = None
        self._task = 0

    def open(self, registry: str, repository: str, have: int, readers: tuple[int, ...], listener: TaskListener) -> bool:
        """Ask the blob's supernode, or the next that is connected, to take part. False when there is nobody to ask.

        `listener` is called by the channel's thread, which must not be kept.
        """
        self.leave()
        for channel in self._swarm.owners(self._digest):
            self._channel, self._listener = channel, listener
            try:
                channel.open(self._digest, registry, repository, have, readers, listener)
            except ChannelError as error:
                log.info("%s", error)
                self.leave()
            else:
                return True
        return False

    def joined(self, task: int) -> None:
        self._task = task

    def leave(self) -> None:
        if self._channel and self._listener:
            self._channel.leave(self._listener)
        self._channel = self._listener = None

    def tell(self, done: tuple[events.Outcome, ...], window: int, readers: tuple[int, ...]) -> None:
        outcomes = [messages.Done(item.piece, item.source, math.ceil(item.seconds * 1000), item.verdict) for item in done]
        if self._channel:
            try:
                self._channel.send(messages.Report(self._task, outcomes, window, list(readers)))
            except ChannelError as error:  # the loss of the channel is told as well
                log.debug("%s", error)

    def where(self, source: int) -> Address | None:
        """The piece server of a node that a grant names."""
        return self._channel.peers.get(source) if self._channel else None

    def meaning(self, message: messages.FromSupernode) -> events.Event:
        """A message as an event for the planner. Messages of a swarm that was left meanwhile mean nothing."""
        match message:
            case messages.Grant(task, pieces) if task == self._task:
                return events.PiecesGranted(
                    tuple(events.GrantedPiece(item.piece, item.digest, item.source, item.alternative) for item in pieces)
                )
            case messages.Seeding(task) if task == self._task:
                return events.StillSeeding()
            case messages.TaskFailed():
                return events.SwarmFailed()
            case _:
                return events.TimePassed()
