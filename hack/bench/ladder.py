"""The swarm is no help to a node: how long its pull takes, against a pull from the registry itself.

Each round gives the node a new agent for each trouble, because an agent remembers what did not work from its node. The first
blob bears what it takes to notice; the second one, a quarter as long, must not wait again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hack.bench.figures import BY_NAME, Measured
from hack.bench.puller import Puller
from hack.bench.rollout import pull_all, seconds_of
from hack.bench.scenario import Options, Tell
from hack.bench.site import Plan, Site, site
from hack.lab import Host
from hack.lab.darner import PIECE_PORT, Agent
from hack.lab.process import wait_until
from hack.lab.trouble import Trouble, dropped, refused, swallowed

CLOCK_SECONDS = 400.0
NODES = 4
"""For trouble between nodes only: three that have the image already, and one that pulls it."""


@dataclass(frozen=True)
class Case:
    name: str
    """Of its figure."""
    trouble: Trouble | None = None
    """With the supernode's pieces."""
    with_nodes: Trouble | None = None
    """With the pieces of all other nodes."""
    clock_seconds: float = 0.0
    """Of the node."""
    supernode_clock_seconds: float = 0.0
    has_other_key: bool = False


CASES = (
    Case("ladder-clock", clock_seconds=CLOCK_SECONDS),
    Case("ladder-supernode-clock", supernode_clock_seconds=CLOCK_SECONDS),
    Case("ladder-key", has_other_key=True),
    Case("ladder-refused", refused),
    Case("ladder-dropped", dropped),
    Case("ladder-swallowed", swallowed),
    Case("ladder-nodes", with_nodes=dropped),
)


@dataclass(frozen=True)
class Pull:
    seconds: float
    first_byte_seconds: float


def ladder(case: Case, plan: Plan, options: Options, tell: Tell) -> list[Measured]:
    firsts: list[Pull] = []
    seconds: list[Pull] = []
    directs: list[Pull] = []
    ratios: list[float] = []
    with site(plan) as place:
        _set_clock(place, case.supernode_clock_seconds)
        for number in range(options.rounds):
            agent = _new_agent(place, case)
            image, tag = place.new_image()
            directs.append(_pulled(Puller(agent.host, place.origins_door(tag))))
            others = [Puller(other.host, place.agents_door(tag)) for other in place.agents[1:]]
            pull_all(others)
            firsts.append(_pulled(Puller(agent.host, place.agents_door(tag))))
            _, tag = place.new_image(plan.image_bytes // 4)
            seconds.append(_pulled(Puller(agent.host, place.agents_door(tag))))
            ratios.append(firsts[-1].seconds / directs[-1].seconds)
            came = ", ".join(f"{count / image.size:.2f} from {source}" for source, count in agent.received_bytes().items())
            tell(
                f"{case.name}, round {number + 1}: {ratios[-1]:.3f}, first byte after {firsts[-1].first_byte_seconds:.2f} s, "
                f"of the second blob after {seconds[-1].first_byte_seconds:.2f} s; images received: {came}"
            )
    note = f"first byte after {_first(firsts):.2f} s, of the second blob after {_first(seconds):.2f} s"
    return [Measured(BY_NAME[case.name], ratios, {"direct, s": [one.seconds for one in directs]}, note)]


def _first(pulls: Sequence[Pull]) -> float:
    return median(pull.first_byte_seconds for pull in pulls)


def _set_clock(place: Site, ahead_seconds: float) -> None:
    if ahead_seconds:
        place.supernode.kill()
        place.supernode.host.clock_seconds = ahead_seconds
        place.supernode.start()
        place.wait_until_connected()


def _new_agent(place: Site, case: Case) -> Agent:
    """The first node's, with nothing remembered."""
    place.agents[0].kill()
    wait_until(lambda: place.supernode.connected_nodes() == place.plan.nodes - 1)
    host = place.agents[0].host
    host.clock_seconds = case.clock_seconds
    key = ["--swarm-key-file", str(_other_key(host))] if case.has_other_key else []
    if case.trouble:
        case.trouble(host, [place.supernode.host], PIECE_PORT)
    if case.with_nodes:
        case.with_nodes(host, [agent.host for agent in place.agents[1:]], PIECE_PORT)
    place.agents[0] = Agent(host, [place.supernode], [place.registry.name], key)
    if not case.has_other_key:  # else it never is
        place.wait_until_connected()
    return place.agents[0]


def _other_key(host: Host) -> Path:
    file = host.lab.directory / "other-swarm-key"
    file.touch(mode=0o600)
    file.write_bytes(b"another key than anybody has, 32+")
    return file


def _pulled(puller: Puller) -> Pull:
    pull_all([puller])
    return Pull(seconds_of(puller), max(puller.first_byte_seconds.values()))
