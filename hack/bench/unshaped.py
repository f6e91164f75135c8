"""One node, whose link and those of origin and supernode have no rate: what a pull takes is what the processors make of it.

The origin keeps its image all the time. A supernode and an agent are begun as they are needed, with empty stores, and end with
their block, so that one image does for all pulls and nobody has a byte of it before. Files lie in memory.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from hack.bench.fresh import fresh
from hack.bench.puller import Door
from hack.bench.site import REPOSITORY, lab_in_memory
from hack.lab import Lab
from hack.lab.darner import REGISTRY_PORT, Agent, Supernode
from hack.lab.process import wait_until
from hack.lab.registry import Registry

TAG = "1"
_WHOLE_SECONDS_MAX = 60
_ASKED_AFTER_SECONDS = 1.0


class Unshaped:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.registry = Registry(lab.host("origin"))
        self.host = lab.host("node")
        self._supernode_host = lab.host("supernode")
        self.origins_door = Door(self.registry.host.address, self.registry.port, f"/v2/{REPOSITORY}", TAG)
        path = f"/v2/{self.registry.name.replace(':', '_')}/{REPOSITORY}"
        self.agents_door = Door("127.0.0.1", REGISTRY_PORT, path, TAG)

    @contextlib.contextmanager
    def supernode(self) -> Iterator[Supernode]:
        with fresh(Supernode(self._supernode_host, [self.registry.name])) as supernode:
            yield supernode

    @contextlib.contextmanager
    def agent(self, *supernodes: Supernode) -> Iterator[Agent]:
        """The node's, connected to these, which know no other."""
        _wait_for_nodes(supernodes, 0)
        with fresh(Agent(self.host, supernodes, [self.registry.name])) as agent:
            _wait_for_nodes(supernodes, 1)
            yield agent


def _wait_for_nodes(supernodes: Sequence[Supernode], count: int) -> None:
    wait_until(lambda: all(supernode.connected_nodes() == count for supernode in supernodes))


def wait_until_whole(supernode: Supernode, blobs: int) -> None:
    """Until a supernode has so many blobs, each to its last byte. It is asked seldom, because what it costs is being measured.

    Raises TimeoutError.
    """
    deadline = time.monotonic() + _WHOLE_SECONDS_MAX
    while supernode.metric("darner_supernode_seeds_total", outcome="whole") < blobs:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{supernode.host.name} has not got {blobs} blobs after {_WHOLE_SECONDS_MAX} s")
        time.sleep(_ASKED_AFTER_SECONDS)


@contextlib.contextmanager
def unshaped() -> Iterator[Unshaped]:
    with lab_in_memory() as lab:
        yield Unshaped(lab)
