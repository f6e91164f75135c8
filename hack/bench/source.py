"""The origin as one source among many: what a rollout takes of it, with supernodes, registries and links as clouds have them.

Clients keep the bytes, here and beside Darner. Where the origin's link is ten times a node's, direct pulls are about as fast as
the bound, and Darner is measured against them, in the same round with as many bytes; elsewhere against the bound. A case that
disturbs its site has a new one for each round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from hack.bench.faults import LOST_AFTER_BOUNDS
from hack.bench.figures import BY_NAME, Measured
from hack.bench.keeper import Keeper
from hack.bench.rollout import Disturbance, Outcome, pull_all, roll_out, seconds_of
from hack.bench.scenario import Options, Tell
from hack.bench.site import MBIT, REPOSITORY, MakeOrigin, Plan, Site, bound_seconds, site
from hack.bench.standin import CONNECTIONS_MAX, slow_by_connection, with_few_connections, with_tokens
from hack.lab.registry import Registry

SLOW_SUPERNODE_MBIT = 5
DIRECT_PART = 4
"""Of an image is what nodes pull directly where that takes as many times the bound as there are nodes."""
REFUSED = 429


@dataclass(frozen=True)
class Case:
    name: str
    """Of its figure."""
    plan: Plan
    origin: MakeOrigin = Registry
    against_direct: bool = False
    sent: str = "origin-sent"
    """The figure for what left the origin."""
    disturbed: Callable[[Site], Disturbance] | None = None
    agents_cpu: str = ""
    """The figure for what a GB that a node got cost the agents, if there is one."""
    refuses: bool = False
    """The origin has a limit: how often it was hit is a figure, and a direct pull would be refused."""


def cases(plan: Plan) -> list[Case]:
    """`plan` is of a site where all links are alike."""
    fast = replace(plan, origin_times=10)
    private = partial(Registry, private=True)
    tokens = partial(with_tokens, repository=REPOSITORY)
    slow = partial(slow_by_connection, rate=plan.rate)
    return [
        Case("origin-10x", fast, against_direct=True),
        Case("origin-10x-weak", replace(fast, supernode_times=0.25), against_direct=True),
        Case("origin-slowing", replace(plan, nodes=4), disturbed=_supernode_slows),
        Case("origin-public", plan),
        Case("origin-private", plan, private, sent="origin-sent-private"),
        Case("origin-private-tokens", plan, tokens, sent="origin-sent-private"),
        Case("origin-private-killed", plan, private, sent="origin-sent-killed", disturbed=_who_fetches_most_is_killed),
        Case("origin-alone", replace(fast, nodes=1), against_direct=True),
        Case("origin-connection", plan, slow),
        Case("origin-limit", replace(plan, registry_connections=CONNECTIONS_MAX), with_few_connections, refuses=True),
    ]


def kept(eight: Plan) -> list[Case]:
    """Rollouts of which it is told what they cost, too: a client that keeps the bytes takes the processor as a runtime does."""
    four = replace(eight, nodes=4, mbit=1000, image_bytes=4 * eight.image_bytes)
    return [
        Case("curl-8", eight, agents_cpu="curl-8-cpu"),
        Case("curl-16", replace(eight, nodes=16), agents_cpu="curl-16-cpu"),
        Case("rollout-4-1g", four, agents_cpu="rollout-4-1g-cpu"),
    ]


def from_origin(case: Case, options: Options, tell: Tell) -> list[Measured]:
    outcomes: list[Outcome] = []
    directs: list[float] = []
    ratios: list[float] = []
    refused: list[float] = []
    for number, place in enumerate(_places(case, options.rounds)):
        outcomes.append(outcome := roll_out(place, case.disturbed and case.disturbed(place), client=Keeper))
        refused.append(sum(answer.status == REFUSED for answer in place.registry.answers()) - sum(refused))
        line = (
            f"{case.name}, round {number + 1}: {outcome.described() if options.details else f'{outcome.ratio:.3f} of the bound'}"
        )
        if case.against_direct:
            directs.append(direct := _directly(place, case.plan.image_bytes))
            ratios.append(max(outcome.seconds) / direct)
            line += f", {max(outcome.seconds):.2f} s, directly {direct:.2f} s"
        else:
            ratios.append(outcome.ratio)
            if options.beside and not case.refuses:
                size = case.plan.image_bytes // DIRECT_PART
                directs.append(_directly(place, size) / _bound(case.plan, size))
        if case.agents_cpu:
            line += f", CPU-s/GB: agents {outcome.agents_cpu_per_gb:.2f}, supernode {outcome.supernode_cpu_per_gb:.2f}"
        line += f"; origin sent {outcome.origin_images:.3f} images in {outcome.origin_requests} requests"
        tell(f"{line}, and refused {refused[-1]:.0f}" if case.refuses else line)
    beside = {"direct, s" if case.against_direct else "direct": directs}
    measured = [
        Measured(BY_NAME[case.name], ratios, beside, _note(outcomes)),
        Measured(BY_NAME[case.sent], [outcome.origin_images for outcome in outcomes], note=case.name),
        Measured(BY_NAME["origin-requests"], [outcome.origin_requests for outcome in outcomes], note=case.name),
    ]
    if case.agents_cpu:
        per_gb = [outcome.agents_cpu_per_gb for outcome in outcomes]
        measured.append(Measured(BY_NAME[case.agents_cpu], per_gb, note=_note_of_cpu(outcomes)))
    return [*measured, Measured(BY_NAME["origin-refused"], refused)] if case.refuses else measured


def _places(case: Case, rounds: int) -> Iterator[Site]:
    """For each round one: the same, unless it is spoilt."""
    if case.disturbed is None:
        with site(case.plan, case.origin) as place:
            for _ in range(rounds):
                yield place
        return
    for _ in range(rounds):
        with site(case.plan, case.origin) as place:
            yield place


def _directly(place: Site, size: int) -> float:
    """Seconds of the slowest of all nodes, which all pull from the registry itself. A node that was killed has a client still."""
    _, tag = place.new_image(size)
    pullers = [Keeper(agent.host, place.origins_door(tag)) for agent in place.agents]
    pull_all(pullers)
    return max(map(seconds_of, pullers))


def _supernode_slows(place: Site) -> Disturbance:
    host = place.supernode.host
    return Disturbance(None, _half_way(place.plan), lambda: host.shape(SLOW_SUPERNODE_MBIT * MBIT))


def _who_fetches_most_is_killed(place: Site) -> Disturbance:
    """Which one that is, the agents say; no figure depends on it."""

    def kill() -> None:
        disturbance.victim = max(place.agents, key=lambda agent: agent.received_bytes()["origin"])
        disturbance.victim.kill()

    disturbance = Disturbance(None, _half_way(place.plan), kill)
    return disturbance


def _half_way(plan: Plan) -> float:
    return LOST_AFTER_BOUNDS * _bound(plan, plan.image_bytes)


def _bound(plan: Plan, size: int) -> float:
    return bound_seconds(size, plan.nodes, plan.rate * plan.origin_times, plan.rate)


def _note_of_cpu(outcomes: Sequence[Outcome]) -> str:
    supernode = median(outcome.supernode_cpu_per_gb for outcome in outcomes)
    clients = median(outcome.clients_cpu_seconds for outcome in outcomes)
    first = median(outcome.first_byte_pieces for outcome in outcomes)
    return f"supernode {supernode:.2f} CPU-s/GB; clients {clients:.1f} CPU-s; first byte, slowest node {first:.1f} piece times"


def _note(outcomes: Sequence[Outcome]) -> str:
    sent = median(outcome.origin_images for outcome in outcomes)
    requests = median(outcome.origin_requests for outcome in outcomes)
    idle = min(outcome.idle_share for outcome in outcomes)
    return f"origin sent {sent:.3f} images in {requests:.0f} requests; cores idle {idle:.0%}"
