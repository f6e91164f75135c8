"""What an agent takes of its node's memory: when nothing happens, and at most while eight images are pulled at once.

An agent of its own for each round, on a link without a rate, so that everything is under way at once. Memory is what the kernel
calls resident (proc(5)), libraries included that others share.
"""

from __future__ import annotations

import time

from hack.bench.figures import BY_NAME, Measured
from hack.bench.puller import Puller
from hack.bench.rollout import pull_all, seconds_of
from hack.bench.scenario import Options, Tell
from hack.bench.site import Plan, site

IDLE_SECONDS = 3.0
"""From the moment at which it is connected: what is only needed to start has been given back."""
PULLS = 8
MIB = 1 << 20


def memory(plan: Plan, options: Options, tell: Tell) -> list[Measured]:
    idle, most = [], []
    for number in range(options.rounds):
        with site(plan) as place:
            (agent,) = place.agents
            time.sleep(IDLE_SECONDS)
            idle.append(agent.process.memory_bytes("VmRSS") / MIB)
            pullers = [Puller(agent.host, place.agents_door(place.new_image()[1])) for _ in range(PULLS)]
            pull_all(pullers)
            for puller in pullers:
                seconds_of(puller)
            most.append(agent.process.memory_bytes("VmHWM") / MIB)
            tell(f"memory, round {number + 1}: idle {idle[-1]:.1f} MiB, {most[-1]:.1f} MiB at most in {PULLS} pulls at once")
    return [Measured(BY_NAME["memory-idle"], idle), Measured(BY_NAME["memory-pulls"], most)]
