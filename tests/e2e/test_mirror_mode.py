"""Mirror mode: pods keep their names, the containerd of their node asks the agent all the same, and nothing is left behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from hack.cluster import Cluster
from hack.cluster.origin import NAME
from tests.e2e.conftest import CONFIGURED
from tests.e2e.release import Release
from tests.e2e.space import Space, container_images

CERTS_D = "/etc/containerd/certs.d"
THEIRS = f"{CERTS_D}/quay.io/hosts.toml"
UPGRADES_SECONDS_MAX = 240
"""Agents are replaced one node after the other, and back again."""


@pytest.mark.timeout(UPGRADES_SECONDS_MAX, func_only=True)
def test_a_pod_under_its_own_name_is_pulled_through_the_agent_and_nothing_is_left_of_that_mode(
    darner: Release, plain_space: Space, cluster: Cluster
) -> None:
    cluster.run(CONFIGURED, ["sh", "-c", f"mkdir -p {CERTS_D}/quay.io && echo '# theirs' >{THEIRS}"])
    before = below_certs_d(cluster)
    with mirroring(darner, NAME, "quay.io"):
        assert f"{CERTS_D}/{NAME}/hosts.toml" in below_certs_d(cluster)
        image = plain_space.push()
        received = sum(darner.received(CONFIGURED).values())
        pod = plain_space.run("web", image.name, node=CONFIGURED)
        assert container_images(pod) == [image.name]
        assert sum(darner.received(CONFIGURED).values()) - received >= sum(image.new_blobs.values())
    assert below_certs_d(cluster) == before
    cluster.run(CONFIGURED, ["rm", "-r", f"{CERTS_D}/quay.io"])
    assert container_images(plain_space.run("again", plain_space.push("again").name, node=CONFIGURED))


@contextlib.contextmanager
def mirroring(darner: Release, *registries: str) -> Iterator[None]:
    values = {**darner.values, "mirror": {"enabled": True, "registries": list(registries)}}
    darner.helm("upgrade", darner.name, darner.chart, values=values)
    darner.wait_ready()
    try:
        yield
    finally:
        darner.helm("upgrade", darner.name, darner.chart, values=darner.values)
        darner.wait_ready()


def below_certs_d(cluster: Cluster) -> str:
    """Each file's name and text, and each directory's name."""
    return cluster.run(CONFIGURED, ["sh", "-c", f"find {CERTS_D} | sort; find {CERTS_D} -type f | sort | xargs cat"])
