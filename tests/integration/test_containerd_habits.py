"""FAULTS 61 to 67 and 77: what Debian's containerd pulls from a registry with habits of its own, it pulls through Darner too.

Each habit of hack/origin is walked three ways at once, by a containerd each: directly, through an agent that is alone, and
through an agent with a supernode. Each way has servers of its own, so that what happens once happens on every way. The tests look
at what came of it.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from hack.cluster.images import layer
from hack.lab import Lab, LabError
from hack.lab.darner import LOG_ALL, Agent, Supernode
from hack.lab.network import Host
from hack.lab.runtime import Containerd, Runtime
from hack.origin import Image, Origin
from hack.origin.habits import HABITS, REPOSITORY, TAG, Site, together

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(600)]

DIRECT, ALONE, SWARM = WAYS = ("directly", "through a lone agent", "through an agent and a supernode")
DIRECT_FAILURES = {
    "HEAD is answered 401": "401 Unauthorized",
    "HEAD is answered 403": "403 Forbidden",
    "a layer breaks off at first": "connection reset by peer",
    "a layer is another version after a break": "connection reset by peer",
    "a redirect to a URL that runs out in mid-layer": "connection reset by peer",
    "a layer stalls at first": "goes on after",
    "a layer is wrong at first": "unexpected commit digest",
    "manifests of no type": "not found",
    "manifests in gzip": "failed size validation",
}
"""Habits under which containerd pulls nothing by itself, and its words."""
AS_IT_HAPPENS = {"bytes after the end"}
"""Habits under which it pulls by itself or does not, as a connection is used again before they are seen or after."""
FAILURES_OF_ALL = {"a layer is wrong at first"}
"""Those of them under which nothing is pulled by any way at the first try."""
APART = {
    "429 at first": "as many tries as with all the others together are more than containerd has",
    "500 at first": "the same",
    "502 at first": "the same",
    "503 at first, Retry-After": "the same",
    "manifests of a type with a parameter": "it is not the type of an index",
    "blobs in aws-chunked": "they are in gzip already",
    "bytes after the end": "they would be a chunk like any other",
    "manifests after 14 s": "a second before every answer is together with the others",
    "blobs after 14 s": "the same",
}
"""Habits that cannot be together with the others, and why."""
TOGETHER = [name for name in HABITS if name not in APART and name not in DIRECT_FAILURES]
ALL_TOGETHER = "all together"
CASES = [*HABITS, ALL_TOGETHER]
PORTS = {case: 5000 + number for number, case in enumerate(CASES)}
LAYER_BYTES = (1_500_000, 700_000, 10_000)
PULL_SECONDS_MAX = 45
WALKERS = 6
"""Habits that are walked at a time: most of them is waiting."""


@dataclass(frozen=True)
class Way:
    """One containerd, and the hosts of the servers that it pulls from."""

    name: str
    containerd: Containerd
    registry: Host
    other: Host

    def pull(self, case: str, image: Image) -> str:
        """The runtime's words when the pull fails; nothing when all of the image is here."""
        with contextlib.ExitStack() as servers:
            registry, other = (servers.enter_context(_serving(host, PORTS[case])) for host in (self.registry, self.other))
            site = Site(registry, other, image)
            together(site, TOGETHER if case == ALL_TOGETHER else [case])
            prefix = registry.address if self.name == DIRECT else f"127.0.0.1:65001/{registry.address.replace(':', '_')}"
            try:
                self.containerd.pull(f"{prefix}/{REPOSITORY}:{TAG}", site.credentials, PULL_SECONDS_MAX)
            except LabError as error:
                return str(error).rpartition("pulling image: ")[2]
        missing = [
            digest for digest in site.digests if not (self.containerd.content / "blobs" / digest.replace(":", "/")).exists()
        ]
        return f"pulled without {missing}" if missing else ""


@contextlib.contextmanager
def _serving(host: Host, port: int) -> Iterator[Origin]:
    origin = Origin(host.address, port)
    with host.inside():
        origin.start()
    try:
        yield origin
    finally:
        origin.stop()


@pytest.fixture(scope="module")
def walk() -> Iterator[Mapping[str, Mapping[str, str]]]:
    """What each case came to, by each way."""
    with Lab() as lab:
        ways = [_way(lab, name, number) for number, name in enumerate(WAYS)]
        with ThreadPoolExecutor(WALKERS * len(ways)) as pool:
            pulls = {(case, way.name): pool.submit(way.pull, case, _image(case)) for case in CASES for way in ways}
            yield {case: {way.name: pulls[case, way.name].result() for way in ways} for case in CASES}


def _way(lab: Lab, name: str, number: int) -> Way:
    node, registry, other = (lab.host(f"{what}{number}") for what in ("node", "registry", "other"))
    registries = [f"{host.address}:{port}" for host in (registry, other) for port in PORTS.values()]
    realms = ",".join(f"{registry.address}:{port}={other.address}" for port in PORTS.values())
    if name != DIRECT:
        supernodes = [Supernode(lab.host("supernode"), registries, LOG_ALL)] if name == SWARM else []
        Agent(node, supernodes, registries, ["--trusted-realms", realms, *LOG_ALL])
    return Way(name, Containerd(node, Runtime("1.6"), registries if name == DIRECT else ()), registry, other)


def _image(case: str) -> Image:
    """Blobs that no other case has: a node that holds one asks for it no more."""
    noise = random.Random(case)
    return Image.of([layer({f"random-{size}": noise.randbytes(size)}) for size in LAYER_BYTES], {"Labels": {"case": case}})


@pytest.mark.parametrize("case", CASES)
def test_whatever_containerd_pulls_directly_it_pulls_through_the_agent(walk: Mapping[str, Mapping[str, str]], case: str) -> None:
    outcome = walk[case]
    assert DIRECT_FAILURES.get(case, "") in outcome[DIRECT]
    assert bool(outcome[DIRECT]) == (case in DIRECT_FAILURES) or case in AS_IT_HAPPENS
    if case not in FAILURES_OF_ALL:
        assert (outcome[ALONE], outcome[SWARM]) == ("", "")
