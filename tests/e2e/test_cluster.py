"""The cluster itself: it is removed whole, whatever became of the one who made it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.chart.helm import ROOT
from hack.cluster import Cluster, ClusterError
from hack.cluster.layout import CLUSTERS_MAX
from hack.cluster.node import control_groups
from hack.lab.process import wait_until
from tests.e2e.release import Release
from tests.e2e.space import Space, local


@pytest.fixture
def another(cluster: Cluster) -> Iterator[Cluster]:
    """Beside the one that the tests share."""
    for number in range(CLUSTERS_MAX - 1, 0, -1):
        other = Cluster(number)
        with other.locked() as free:
            pass
        if free:
            yield other
            other.down()
            return


def test_a_second_start_removes_what_a_killed_one_left_and_nothing_of_its_neighbour(
    another: Cluster, cluster: Cluster, darner: Release, space: Space
) -> None:
    image = space.push()
    space.run("neighbour", image.name)
    hosts = cluster.network.hosts()
    first = subprocess.Popen([*_command(another), "up", "--nodes", "1"], start_new_session=True, cwd=ROOT)
    wait_until(lambda: another.network.inhabitants("n0"))
    first.kill()
    first.wait()
    left = set(another.network.inhabitants("control-plane"))
    assert left

    subprocess.run([*_command(another), "up", "--nodes", "1", "--containerd", "2"], check=True, timeout=100, cwd=ROOT)
    assert another.kubectl("get", "nodes", "--output", "name").split() == ["node/n0"]
    assert not left & set(another.network.inhabitants("control-plane"))

    subprocess.run([*_command(another), "down"], check=True, timeout=30, cwd=ROOT)
    assert another.network.hosts() == []
    assert not another.layout.directory.exists()
    assert not [group for group in control_groups(another.layout) if group.exists()]
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    assert f"darner-{another.layout.number}@" not in links
    assert cluster.network.hosts() == hosts
    assert space.get("neighbour")["status"]["phase"] == "Running"


def test_while_somebody_is_at_work_on_a_cluster_nobody_else_is(another: Cluster) -> None:
    with another.locked() as free:
        assert free
        refused = subprocess.run([*_command(another), "down"], capture_output=True, text=True, cwd=ROOT)
    assert refused.returncode == 1
    assert refused.stderr == f"another process is at work on {another.layout.name}; --cluster takes another number\n"


def test_a_link_that_is_shaped_is_as_slow_as_it_says(darner: Release, space: Space, cluster: Cluster) -> None:
    image = space.push(layers=(2_500_000,))
    cluster.shape("n1", 10_000_000)
    try:
        begin = time.monotonic()
        assert space.run("web", image.name, node="n1")["spec"]["containers"][0]["image"] == local(image.name)
        assert time.monotonic() - begin > 2_500_000 * 8 / 10_000_000
    finally:
        cluster.shape("n1", 0)


def test_a_command_runs_as_on_a_machine_of_its_own(cluster: Cluster) -> None:
    assert cluster.run("n1", ["hostname"]).strip() == "n1"
    assert "10.89." in cluster.run("origin", ["ip", "-brief", "address"])
    assert int(cluster.run("n1", ["sh", "-c", "ls -d /proc/[0-9]* | wc -l"])) < len(list(Path("/proc").glob("[0-9]*")))
    with pytest.raises(ClusterError, match="ended with 3"):
        cluster.run("n2", ["sh", "-c", "exit 3"])
    with pytest.raises(ClusterError, match="has no host n9"):
        cluster.run("n9", ["true"])


def _command(cluster: Cluster) -> list[str]:
    return [sys.executable, "-m", "hack.cluster", "--cluster", str(cluster.layout.number)]
