"""A single node, and nobody has a byte of the image: what a real client waits through the agent, against the registry itself.

The client is skopeo (`hack.bench.skopeo`).
"""

from __future__ import annotations

from hack.bench.figures import BY_NAME, Measured
from hack.bench.scenario import Options, Tell
from hack.bench.site import Plan, site
from hack.bench.skopeo import copy


def cold(plan: Plan, options: Options, tell: Tell) -> list[Measured]:
    ratios, direct_ratios = [], []
    with site(plan) as place:
        host = place.agents[0].host
        for number in range(options.rounds):
            # In turns, so that what drifts in the course of a run drifts for both.
            through = copy(host, place.agents_door(place.new_image()[1]))
            direct = copy(host, place.origins_door(place.new_image()[1]))
            ratios.append(through / direct)
            direct_ratios.append(direct / (plan.image_bytes / plan.rate))
            tell(f"cold, round {number + 1}: {through:.2f} s through the agent, {direct:.2f} s directly")
    return [Measured(BY_NAME["cold"], ratios, {"direct / bound": direct_ratios}, note="skopeo, 64 MiB at the node's rate")]
