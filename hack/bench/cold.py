"""A single node, and nobody has a byte of the image: what a real client waits through the agent, against the registry itself.

The client is skopeo, whose library is CRI-O's and podman's: it asks, verifies and writes as they do, and keeps nothing that
a later pull would find.
"""

from __future__ import annotations

import time

from hack.bench.figures import BY_NAME, Measured
from hack.bench.puller import Door
from hack.bench.scenario import Options, Tell
from hack.bench.site import Plan, Site, site

_PULL_SECONDS_MAX = 300


def cold(plan: Plan, options: Options, tell: Tell) -> list[Measured]:
    ratios, direct_ratios = [], []
    with site(plan) as place:
        for number in range(options.rounds):
            # In turns, so that what drifts in the course of a run drifts for both.
            through = _seconds(place, place.agents_door(place.new_image()[1]))
            direct = _seconds(place, place.origins_door(place.new_image()[1]))
            ratios.append(through / direct)
            direct_ratios.append(direct / (plan.image_bytes / plan.rate))
            tell(f"cold, round {number + 1}: {through:.2f} s through the agent, {direct:.2f} s directly")
    return [Measured(BY_NAME["cold"], ratios, {"direct / bound": direct_ratios}, note="skopeo, 64 MiB at the node's rate")]


def _seconds(place: Site, door: Door) -> float:
    """One pull on the first node."""
    host = place.agents[0].host
    source = f"docker://{door.address}:{door.port}{door.path.removeprefix('/v2')}:{door.tag}"
    target = f"dir:{place.lab.directory / f'skopeo-{door.port}-{door.tag}'}"
    began = time.monotonic()
    host.run(
        ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", source, target],
        timeout_seconds=_PULL_SECONDS_MAX,
    )
    return time.monotonic() - began
