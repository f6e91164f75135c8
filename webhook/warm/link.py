"""A webhook's connection to one supernode: TLS 1.3, and the proof of the swarm's key in the role of a webhook.

The channel of an agent (`agent.swarm.channel`) keeps its connection and says what its node holds; this one is made when there is
something to ask, and says nothing else. Used by one thread.
"""

from __future__ import annotations

import itertools
import socket
import time

from agent.http.sealed import client_context
from agent.swarm import messages
from agent.swarm.channel import Frames, WireError, frame, warm_answer
from agent.swarm.tickets import SwarmKey, SwarmKeyError
from agent.swarm.tls import WEBHOOK, SealedSocket
from agent.values.address import Address

CONNECT_SECONDS_MAX = 3.0
HANDSHAKE_SECONDS_MAX = 10.0
ANSWER_SECONDS_MAX = 25.0
"""A supernode has to ask a registry first, which may have that long for the nodes too."""
RECEIVE_BYTES = 64 << 10


class Link:
    def __init__(self, where: Address, swarm_key: SwarmKey) -> None:
        """Connects. Raises OSError, and DarnerError when either end does not have the key."""
        keys = swarm_key.all()
        if not keys:
            raise SwarmKeyError("there is no swarm key to show")
        self._socket = socket.create_connection(where, CONNECT_SECONDS_MAX)
        try:
            self._socket.settimeout(HANDSHAKE_SECONDS_MAX)
            self._sealed = SealedSocket(self._socket, client_context())
            self._sealed.prove(keys, WEBHOOK)
        except BaseException:
            self._socket.close()
            raise
        self._numbers = itertools.count(1)
        self._frames = Frames()
        self.used_at = time.monotonic()

    def close(self) -> None:
        self._socket.close()

    def ask(self, registry: str, repository: str, reference: str, architectures: list[str]) -> messages.Warmed:
        """What an image has. Raises OSError and DarnerError."""
        number = next(self._numbers)
        self.tell(messages.Warm(number, registry, repository, reference, architectures))
        until = time.monotonic() + ANSWER_SECONDS_MAX
        while (left := until - time.monotonic()) > 0:
            self._socket.settimeout(left)
            data = self._sealed.recv(RECEIVE_BYTES)
            if not data:
                raise OSError("it closed the connection")
            for body in self._frames.feed(data):
                said = warm_answer(body)
                if isinstance(said, messages.Refused):
                    raise WireError(f"it refuses this webhook: {said.reason}")
                if said.request == number:
                    return said
        raise TimeoutError("it does not answer")

    def tell(self, message: messages.FromWebhook) -> None:
        """Raises OSError."""
        self._socket.settimeout(HANDSHAKE_SECONDS_MAX)
        self._sealed.sendall(frame(message))
        self.used_at = time.monotonic()
