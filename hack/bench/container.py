"""How long a pod waits: from the question for an image until a container of it runs, unpacking included.

The runtime is containerd 2, asked as the kubelet asks it, and the container is made by runc. The image is the Python that runs
this, of real files in gzip layers, because unpacking is most of what a runtime does. Links have no rate, and files lie in memory,
so that Darner has nothing to hide behind. Each pull has a new containerd and a new agent; the cold one has a new supernode, too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from hack.bench.figures import BY_NAME, Measured
from hack.bench.fresh import Cost, cost, costs_described
from hack.bench.machine import MEMORY_TIMES, find_memory
from hack.bench.scenario import Options, Tell
from hack.bench.site import REPOSITORY
from hack.bench.unshaped import TAG, Unshaped, unshaped, wait_until_whole
from hack.lab.image import BuiltImage, build_image
from hack.lab.process import LabError
from hack.lab.runtime import Containerd, Runtime, built_programs

RUNTIME = Runtime("2")
UNPACKED_TIMES = 4
"""What a runtime keeps of an image, in sizes of its layers as they are sent: those, and the files in them."""
_WORD = "it runs"
_COMMAND = ("/bin/sh", "-c", f"echo {_WORD}")


@dataclass(frozen=True)
class Round:
    direct_seconds: float
    cold: Cost
    """Nobody has a byte."""
    warm: Cost
    """The supernode has all of it."""


def container(options: Options, tell: Tell) -> list[Measured]:
    built_programs()
    rounds: list[Round] = []
    with unshaped() as place:
        image = build_image(place.lab.directory / "image")
        place.registry.push(image, REPOSITORY, TAG)
        for number in range(options.rounds):
            rounds.append(one := _round(place, image))
            tell(
                f"container, round {number + 1}: runs after {one.direct_seconds:.2f} s directly, "
                f"{one.cold.seconds:.2f} s cold, {one.warm.seconds:.2f} s warm"
            )
    directs = [one.direct_seconds for one in rounds]
    return [
        _measured("container-cold", [one.cold for one in rounds], directs, image.size),
        _measured("container-warm", [one.warm for one in rounds], directs, image.size),
    ]


def _measured(name: str, costs: Sequence[Cost], directs: Sequence[float], size: int) -> Measured:
    ratios = [one.seconds / direct for one, direct in zip(costs, directs, strict=True)]
    return Measured(BY_NAME[name], ratios, {"direct, s": directs}, f"{costs_described(costs, size)}; layers of {size >> 20} MiB")


def _round(place: Unshaped, image: BuiltImage) -> Round:
    """Directly before and after, so that what drifts in the course of a round drifts for all."""
    directly, through = f"{place.registry.name}/{REPOSITORY}:{TAG}", f"{place.registry.local_prefix}/{REPOSITORY}:{TAG}"
    directs = [_seconds(place, directly, image.size)]
    with place.supernode() as supernode:

        def until_whole() -> float:
            seconds = _seconds(place, through, image.size)
            wait_until_whole(supernode, len(image.blobs))
            return seconds

        with place.agent(supernode) as agent:
            cold = cost(until_whole, [agent, supernode])
        with place.agent(supernode) as agent:
            warm = cost(lambda: _seconds(place, through, image.size), [agent, supernode])
    directs.append(_seconds(place, directly, image.size))
    return Round(median(directs), cold, warm)


def _seconds(place: Unshaped, name: str, size: int) -> float:
    """Until a container of the image has said a word. Raises LabError when it does not."""
    runtime = Containerd(place.host, RUNTIME, [place.registry.name])
    try:
        find_memory(MEMORY_TIMES * UNPACKED_TIMES * size)
        began = time.monotonic()
        runtime.pull(name)
        said = runtime.run(name, _COMMAND)
        seconds = time.monotonic() - began
    finally:
        runtime.discard()
    if _WORD not in said:
        raise LabError(f"a container of {name} said {said!r}")
    return seconds
