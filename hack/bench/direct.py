"""Beside Darner: the same clients pull from the registry itself, as nodes do that have no image distribution.

A quarter of the image will do: it takes N times as long as for one node, whatever its size, and sixteen nodes would need a minute
and a half for all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from hack.bench.puller import Puller
from hack.bench.rollout import pull_all, seconds_of
from hack.bench.site import Site, bound_seconds


@dataclass(frozen=True)
class Beside:
    """What another system made of the same rollout."""

    ratio: float
    """Slowest node / bound."""
    origin_images: float
    """What left the origin, or whoever stands in its place."""


def pull_directly(site: Site) -> Beside:
    image, tag = site.new_image(site.plan.image_bytes // 4)
    pullers = [Puller(agent.host, site.origins_door(tag)) for agent in site.agents]
    pull_all(pullers)
    bound = bound_seconds(image.size, site.plan.nodes, site.plan.rate, site.plan.rate)
    return Beside(max(map(seconds_of, pullers)) / bound, site.origin_sent(image) / image.size)
