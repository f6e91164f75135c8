"""What `make bench OPTIONS='--only daemonset'` measures, it measures in a cluster like this one."""

from __future__ import annotations

from hack.bench.daemonset import Rollouts
from hack.cluster import Cluster
from tests.e2e.release import Release


def test_a_daemonset_is_out_directly_and_through_darner_and_what_that_took_is_known(darner: Release, cluster: Cluster) -> None:
    rollouts = Rollouts(cluster)
    before = rollouts.cpu_seconds()
    for injected in (False, True):
        assert rollouts.seconds(injected, layers=1, size=1 << 20) > 0
    after = rollouts.cpu_seconds()
    assert darner.unready() == []
    assert all(after[part] > taken > 0 for part, taken in before.items())
