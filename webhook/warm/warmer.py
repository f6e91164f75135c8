"""Tells supernodes the images of pods that were just admitted, so that bytes are on their way before a node asks for them.

An admission only puts names into a queue, which is short and drops what has no place: it never waits, and never fails because of
this. Threads ask the supernode that a name belongs to which blobs it has, and tell each blob to its own, by the same order of
supernodes that agents have (docs/decisions/0036). Nothing is tried again: a node that pulls does not need it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, Full, Queue
from typing import TypeVar

from agent.swarm import messages
from agent.swarm.tickets import SwarmKey
from agent.values.address import Address, rank
from agent.values.errors import DarnerError
from webhook.gates import Rewrite
from webhook.kube.worker import Work
from webhook.metrics import WARM_NAMES
from webhook.pods import Pod
from webhook.warm.link import Link
from webhook.warm.names import WarmName, warm_names

log = logging.getLogger(__name__)

THREADS = 2
NAMES_WAITING_MAX = 256
NAMES_MAX = 4096
NAME_SECONDS = 600.0
"""How long a name is not told again: a Deployment's pods come by the hundred."""
NAME_SECONDS_MIN = 0.05
"""From one name to the next, in each thread."""
OWNERS_MAX = 2
"""Supernodes that are tried for one name or blob: the one that it belongs to, and the next."""
AVOID_SECONDS = 30.0
"""How long a supernode is not tried that did not answer."""
LINK_SECONDS_MAX = 60.0
"""Less than a supernode keeps a connection over which nothing is said."""
LOOK_SECONDS = 0.5
COMPLAINT_SECONDS = 60.0

T = TypeVar("T")


class Warmer:
    def __init__(
        self,
        supernodes: Callable[[], Sequence[Address]],
        swarm_key: SwarmKey,
        architectures: tuple[str, ...] = (),
        connect: Callable[[Address, SwarmKey], Link] = Link,
    ) -> None:
        """`supernodes` are those that there are now. `architectures` are for pods that do not say any."""
        self._supernodes = supernodes
        self._swarm_key = swarm_key
        self._architectures = architectures
        self._connect = connect
        self._queue: Queue[WarmName] = Queue(NAMES_WAITING_MAX)
        self._lock = threading.Lock()
        self._told: OrderedDict[WarmName, float] = OrderedDict()
        """When."""
        self._avoided: dict[Address, float] = {}
        self._complained_at = -COMPLAINT_SECONDS

    def admitted(self, pod: Pod, rewrites: Sequence[Rewrite]) -> None:
        """In the event loop. Never waits and never raises."""
        try:
            for name in warm_names(pod, rewrites):
                self._put(name if name.architectures else name._replace(architectures=self._architectures))
        except Exception:
            log.exception("the images of a pod could not be told to the supernodes")

    def _put(self, name: WarmName) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._told.get(name, now - NAME_SECONDS) < NAME_SECONDS:
                return
            self._told.pop(name, None)
            self._told[name] = now
            if len(self._told) > NAMES_MAX:
                self._told.popitem(last=False)
        try:
            self._queue.put_nowait(name)
        except Full:
            self._dropped(name)
            self._complain(f"{NAMES_WAITING_MAX} images wait to be told already")

    def _dropped(self, name: WarmName) -> None:
        """The next pod's turn may be a better one."""
        WARM_NAMES.labels("dropped").inc()
        with self._lock:
            self._told.pop(name, None)

    def working(self) -> dict[str, Work]:
        return {f"warm {number}": self.run for number in range(THREADS)}

    def run(self, stopped: threading.Event) -> None:
        """One thread's work. Whatever happens to a name, the next one has its turn."""
        links: dict[Address, Link] = {}
        while not stopped.is_set():
            try:
                name = self._queue.get(timeout=LOOK_SECONDS)
            except Empty:
                self._close(links, time.monotonic() - LINK_SECONDS_MAX)
                continue
            try:
                is_told = self._tell(name, links)
            except Exception:
                log.exception("an image could not be told to the supernodes")
                is_told = False
            if is_told:
                WARM_NAMES.labels("sent").inc()
            else:
                self._dropped(name)
            stopped.wait(NAME_SECONDS_MIN)
        self._close(links, time.monotonic())

    @staticmethod
    def _close(links: dict[Address, Link], before: float) -> None:
        for where in [where for where, link in links.items() if link.used_at <= before]:
            links.pop(where).close()

    def _tell(self, name: WarmName, links: dict[Address, Link]) -> bool:
        """Whether a supernode has answered for the name."""
        said = self._ask(name, links)
        if said is None:
            return False
        answers = [said]
        for digest in said.manifests:
            of_machine = self._ask(name._replace(reference=f"sha256:{digest.hex()}"), links)
            answers += [of_machine] if of_machine else []
        for blob in dict.fromkeys((blob.digest, blob.size) for answer in answers for blob in answer.blobs):
            message = messages.WarmBlob(name.registry, name.repository, messages.Holding(*blob))
            self._at_owner(f"sha256:{blob[0].hex()}", links, partial(_told, message))
        return True

    def _ask(self, name: WarmName, links: dict[Address, Link]) -> messages.Warmed | None:
        architectures = list(name.architectures)
        return self._at_owner(
            name.key, links, lambda link: link.ask(name.registry, name.repository, name.reference, architectures)
        )

    def _at_owner(self, key: str, links: dict[Address, Link], do: Callable[[Link], T]) -> T | None:
        """What comes of it at the key's supernode, or at the next one; None where neither is there."""
        now = time.monotonic()
        there = [where for where in self._supernodes() if now >= self._avoided.get(where, 0.0)]
        for where in sorted(there, key=lambda where: rank(key, where))[:OWNERS_MAX]:
            try:
                return self._at(where, links, do)
            except (OSError, DarnerError) as error:
                self._avoided[where] = time.monotonic() + AVOID_SECONDS
                self._complain(f"the supernode {where} cannot be told: {error}")
        return None

    def _at(self, where: Address, links: dict[Address, Link], do: Callable[[Link], T]) -> T:
        """Once more over a new connection if it was an earlier one that broke. Raises OSError and DarnerError."""
        self._close(links, time.monotonic() - LINK_SECONDS_MAX)
        for link in filter(None, (links.pop(where, None),)):
            try:
                done = do(link)
                links[where] = link
                return done
            except TimeoutError:
                link.close()
                raise
            except (OSError, DarnerError):
                link.close()
        link = self._connect(where, self._swarm_key)
        try:
            done = do(link)
        except BaseException:
            link.close()
            raise
        links[where] = link
        return done

    def _complain(self, words: str) -> None:
        """Once a minute: whoever is away stays away for many pods."""
        now = time.monotonic()
        level = logging.DEBUG if now < self._complained_at + COMPLAINT_SECONDS else logging.WARNING
        if level == logging.WARNING:
            self._complained_at = now
        log.log(level, "images of admitted pods are not warmed: %s", words)


def _told(message: messages.WarmBlob, link: Link) -> bool:
    link.tell(message)
    return True
