"""A large image on links without a rate, where the processor decides: by an agent alone, and with a supernode, cold and warm.

The client is skopeo, which checks every byte and keeps it. Direct pulls are measured before and after Darner's in each round, and
their mean is what Darner's are compared with: on a busy machine a round drifts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, median

from hack.bench.figures import BY_NAME, Measured
from hack.bench.fresh import Cost, cost, costs_described
from hack.bench.image import push, random_image
from hack.bench.machine import MEMORY_TIMES, find_memory
from hack.bench.scenario import Options, Tell
from hack.bench.site import REPOSITORY
from hack.bench.skopeo import copy
from hack.bench.unshaped import TAG, Unshaped, unshaped, wait_until_whole

IMAGE_BYTES = 1 << 30
LAYERS = 4


@dataclass(frozen=True)
class Round:
    direct_seconds: float
    alone: Cost
    """An agent that knows no supernode."""
    cold: Cost
    """An agent and a supernode, and nobody has a byte."""
    warm: Cost
    """The supernode has all of it, the agent nothing."""
    warm_share: float
    """Of the image, that the supernode sent then."""

    def ratio(self, through: Cost) -> float:
        return through.seconds / self.direct_seconds

    def described(self) -> str:
        told = [f"directly {self.direct_seconds:.2f} s"]
        for name, through in (("agent alone", self.alone), ("cold", self.cold), ("warm", self.warm)):
            told.append(f"{name} {through.seconds:.2f} s, {' and '.join(f'{cpu:.2f}' for cpu in through.cpu_seconds)} CPU-s")
        return f"{'; '.join(told)}, {self.warm_share:.0%} from the supernode"


def fast(options: Options, tell: Tell, image_bytes: int = IMAGE_BYTES) -> list[Measured]:
    rounds: list[Round] = []
    with unshaped() as place:
        push(place.registry, REPOSITORY, TAG, random_image(image_bytes, LAYERS))
        for number in range(options.rounds):
            rounds.append(_round(place, image_bytes))
            tell(f"fast, round {number + 1}: {rounds[-1].described()}")
    directs = {"direct, s": [one.direct_seconds for one in rounds]}

    def note(pull: Callable[[Round], Cost]) -> str:
        return costs_described([pull(one) for one in rounds], image_bytes)

    cold_ratio = median(one.ratio(one.cold) for one in rounds)
    warm_share = median(one.warm_share for one in rounds)
    return [
        Measured(BY_NAME["fast-alone"], [one.ratio(one.alone) for one in rounds], directs, note(lambda one: one.alone)),
        Measured(
            BY_NAME["fast-cold"],
            [sum(one.cold.cpu_seconds) for one in rounds],
            directs,
            f"{cold_ratio:.2f} times direct: {note(lambda one: one.cold)}",
        ),
        Measured(
            BY_NAME["fast-warm"],
            [one.ratio(one.warm) for one in rounds],
            directs,
            f"{note(lambda one: one.warm)}; {warm_share:.0%} from the supernode",
        ),
    ]


def _round(place: Unshaped, image_bytes: int) -> Round:
    def directly() -> float:
        find_memory(MEMORY_TIMES * image_bytes)
        return copy(place.host, place.origins_door)

    def through() -> float:
        find_memory(MEMORY_TIMES * image_bytes)
        return copy(place.host, place.agents_door)

    first = directly()
    with place.agent() as agent:
        alone = cost(through, [agent])
    with place.supernode() as supernode:

        def until_whole() -> float:
            """What the supernode does behind the client's back is a part of what the pull costs."""
            seconds = through()
            wait_until_whole(supernode, LAYERS)
            return seconds

        with place.agent(supernode) as agent:
            cold = cost(until_whole, [agent, supernode])
        with place.agent(supernode) as agent:
            warm = cost(through, [agent, supernode])
            warm_share = agent.received_bytes()["supernode"] / image_bytes
    return Round(mean((first, directly())), alone, cold, warm, warm_share)
