"""The swarm as this node sees it: all its channels, which supernode a blob or a name belongs to, and what did not work lately.

Rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998): each key has its own order
of the supernodes and belongs to the first that is connected. So keys spread, and nothing moves but what a lost supernode had.

What did not work is remembered so that the next blob does not wait for it again. A place is a node's piece server, a supernode's
swarms or a supernode itself, named by a word and an address. It is forgotten as soon as something comes from there, and after a
while in any case.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from agent.origin.shown import Said, key_of
from agent.swarm import messages
from agent.swarm.channel import Channel, ChannelError, Describe, Recall, TaskListener
from agent.swarm.tickets import SwarmKey, SwarmKeyError, who
from agent.values.address import Address, rank
from agent.values.credential import Credential
from agent.values.errors import OriginError
from agent.values.manifest import Manifest
from agent.values.reference import raw_digest

log = logging.getLogger(__name__)

RESOLVE_SECONDS_MAX = 24.0
"""The runtime has its answer within 25 s. The agent asks itself, beside the supernodes, before that is over (see
agent.registry.endpoint)."""
AVOID_SECONDS_MIN = 60.0
AVOID_SECONDS_MAX = 600.0
"""Twice as long each time that it fails again, up to this."""
PLACES_MAX = 4096
"""The oldest are forgotten beyond that."""

SUPERNODES_MAX = 64
"""Channels at once; each takes a thread. More than a few supernodes serve no cluster."""
LEAVE_SECONDS = 600.0
"""How long a supernode is still tried that is lost and no longer named: a pod's name is missing while the pod is replaced."""

VERDICT_SECONDS_MAX = 5.0
"""Then a node asks the registry itself. A supernode has another node ask before that if the first one says nothing."""
NAMES_MAX = 1 << 12
"""Credentials at once."""

Place = tuple[str, Address]
Revoked = Callable[[str, str, str, str], None]


class Supernodes:
    """A key is a digest or an image's name."""

    def __init__(
        self,
        supernodes: tuple[Address, ...],
        hello: Callable[[], messages.Hello],
        on_up: Callable[[Channel], None],
        recall: Recall,
        swarm_key: SwarmKey | None = None,
        describe: Describe | None = None,
        on_revoked: Revoked = lambda *_: None,
    ) -> None:
        """`supernodes` are there for good; `use` names more. `on_revoked` is told what this node was told that others are now
        refused: registry, repository, path and `key_of`."""
        self.clock = time.time
        """This node's own."""
        self.on_lost: Callable[[], None] = lambda: None
        """Told, by a channel's thread, that a supernode which was connected is so no more."""

        def make(where: Address) -> Channel:
            return Channel(where, hello, on_up, recall, swarm_key, describe, self._revoked, lambda: self.on_lost())

        self._make = make
        self._given = frozenset(supernodes)
        self._named_at: dict[Address, float] = {}
        self.channels = [self._make(where) for where in supernodes]
        """Another list after every change, so that whoever goes through one is not disturbed."""
        self._swarm_key = swarm_key
        self._on_revoked = on_revoked
        self._names: OrderedDict[bytes, str] = OrderedDict()
        """The credentials that were spoken of, each by the name that it has in the swarm: their `key_of`."""
        self.memory = Memory()
        """What did not work from this node lately."""
        self.sources = Memory(strikes=2)
        """The same of single nodes, which are avoided when they have failed twice."""

    def start(self) -> None:
        for channel in self.channels:
            channel.start()

    def use(self, found: tuple[Address, ...]) -> None:
        """These are the supernodes now, by whoever knows. One that is connected stays, named or not; no names change nothing."""
        if not found:
            return
        now = time.monotonic()
        self._named_at |= dict.fromkeys(found, now)
        named = self._given.union(found)
        staying = [channel for channel in self.channels if channel.up or channel.where in named]
        known = {channel.where for channel in staying}
        new = [self._make(where) for where in found if where not in known][: max(0, SUPERNODES_MAX - len(staying))]
        lost = [
            channel for channel in self.channels if channel not in staying and now - self._named_at[channel.where] < LEAVE_SECONDS
        ]
        lost.sort(key=lambda channel: self._named_at[channel.where], reverse=True)
        before, self.channels = self.channels, staying + new + lost[: max(0, SUPERNODES_MAX - len(staying) - len(new))]
        self._named_at = {channel.where: self._named_at.get(channel.where, now) for channel in self.channels}
        for channel in new:
            log.info("there is a supernode %s", channel.where)
            channel.start()
        for channel in before:
            if channel not in self.channels:
                log.info("there is no supernode %s any more", channel.where)
                channel.stop()

    def wait_for_one(self, seconds: float) -> None:
        """Until a supernode is connected, if there are any, and not longer than this."""
        end = time.monotonic() + seconds
        while self.channels and not any(channel.up for channel in self.channels) and time.monotonic() < end:
            time.sleep(0.01)

    def stop(self) -> None:
        for channel in self.channels:
            channel.stop()

    def clocks(self) -> list[float]:
        """Unix time, as this node and its supernodes tell it: a ticket is good if it is so on one of these clocks."""
        return [self.clock(), *(channel.unix_seconds for channel in self.channels if channel.tells_time)]

    def owners(self, key: str) -> list[Channel]:
        """The connected supernodes, the key's owner first."""
        connected = [channel for channel in self.channels if channel.up]
        return sorted(connected, key=lambda channel: rank(key, channel.where))

    def open(
        self,
        digest: str,
        registry: str,
        repository: str,
        have: int,
        readers: tuple[int, ...],
        listener: TaskListener,
        size: int = 0,
        private: bool = False,
        file: messages.OpenedFile | None = None,
    ) -> Channel | None:
        """The blob's supernode, or the next that is connected, after it was asked to let this node take part; None without one.

        `listener` is called by the channel's thread, which must not be kept.
        """
        for channel in self.owners(digest):
            try:
                channel.open(digest, registry, repository, have, readers, listener, size, private, file)
                return channel
            except ChannelError as error:
                log.info("%s", error)
                channel.leave(listener)
        return None

    def resolve(self, registry: str, repository: str, reference: str) -> Manifest | None:
        """What a supernode says of a name; None when none could say. Raises OriginError for the origin's own refusal."""
        until = time.monotonic() + RESOLVE_SECONDS_MAX
        for channel in self.owners(f"{registry}/{repository}:{reference}")[:2]:
            try:
                return channel.resolve(registry, repository, reference, max(0.0, until - time.monotonic()))
            except ChannelError as error:
                log.warning("%s", error)
            except OriginError as error:
                if error.answered or error.retry_after:  # nobody else asks a registry that wants to be left alone
                    raise
                return None
        return None

    # Permission, which all nodes share (docs/decisions/0025).

    def verdict(
        self,
        registry: str,
        repository: str,
        path: str,
        credential: Credential | None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> Said | None:
        """What is known in the cluster of this credential's permission; None when nobody can say, or it `is_over` before.

        Raises what `is_over` raises.
        """
        name = self._name(credential)
        for channel in self.owners(f"{registry}/{repository}/{path}")[:1] if name is not None else ():
            try:
                said = channel.verdict(registry, repository, path, name or b"", VERDICT_SECONDS_MAX, is_over)
            except ChannelError as error:
                log.info("%s", error)
                return None
            manifest = Manifest.of("", said.body) if said.body else None
            if manifest and path.startswith("manifests/sha256:") and path != f"manifests/{manifest.digest}":
                log.warning("the supernode %s sent something else than %s", channel.where, path)
                return None
            return Said(said.yours, said.age, manifest, said.is_loaded)
        return None

    def told(
        self,
        registry: str,
        repository: str,
        path: str,
        credential: Credential | None,
        outcome: int,
        manifest: Manifest | None = None,
    ) -> None:
        """Say what the origin has told this node. A manifest is for others only if it says itself of which type it is."""
        name = self._name(credential)
        if name is None or (not name and outcome == messages.ALLOWED):
            return  # of what is public supernodes believe nobody
        body = manifest.body if manifest else b""
        if manifest and (
            len(body) > messages.SHARED_MANIFEST_BYTES_MAX or Manifest.of("", body).media_type != manifest.media_type
        ):
            outcome, body = messages.UNANSWERED, b""
        for channel in self.owners(f"{registry}/{repository}/{path}")[:1]:
            channel.tell(messages.Told(registry, repository, path, name, outcome, body))

    def _name(self, credential: Credential | None) -> bytes | None:
        """None where there is no key to hide the credential with."""
        if credential is None:
            return b""
        try:
            name = who(self._swarm_key() if self._swarm_key else None, credential.header)
        except SwarmKeyError:
            return None
        if name:
            self._names[name] = key_of(credential)
            while len(self._names) > NAMES_MAX:
                self._names.popitem(last=False)
        return name

    def _revoked(self, message: messages.Revoked) -> None:
        key = self._names.get(message.who) if message.who else ""
        if key is not None:
            self._on_revoked(message.registry, message.repository, message.path, key)

    def tell(self, digest: str, size: int, held: bool) -> None:
        """This node has a whole blob now, or has it no longer."""
        message = messages.Holds(messages.Holding(raw_digest(digest), size), held)
        for channel in self.channels:
            channel.tell(message)


class Memory:
    def __init__(self, strikes: int = 1) -> None:
        """A place is avoided when it has failed so many times, without a success between them."""
        self._strikes = strikes
        self._lock = threading.Lock()
        self._failed: dict[Place, tuple[int, float, float]] = {}
        """How often, until when it is avoided, and for how long that is."""

    def failed(self, place: Place, now: float) -> None:
        with self._lock:
            count, until, seconds = self._failed.pop(place, (0, now, AVOID_SECONDS_MIN / 2))
            if count + 1 >= self._strikes and now >= until:  # else it was begun before the last failure was known
                seconds = min(2 * seconds, AVOID_SECONDS_MAX)
                until = now + seconds
            self._failed[place] = count + 1, until, seconds
            if len(self._failed) > PLACES_MAX:
                self._failed.pop(next(iter(self._failed)))

    def worked(self, place: Place) -> None:
        with self._lock:
            self._failed.pop(place, None)

    def avoids(self, place: Place, now: float) -> bool:
        return self.avoided_seconds(place, now) > 0

    def avoided_seconds(self, place: Place, now: float) -> float:
        """How long it will be avoided yet."""
        with self._lock:  # else a place that is being written is missing for a moment
            count, until, _ = self._failed.get(place, (0, now, 0.0))
        return max(0.0, until - now) if count >= self._strikes else 0.0
