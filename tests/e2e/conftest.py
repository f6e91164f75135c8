"""One cluster for all tests of a run, Darner installed in it with Helm, and a namespace for each test.

The cluster has containerd 1.6 and 2, side by side. Tests do not depend on each other: whatever one takes away it gives back. They
run only where they are asked for, with `-m e2e` or by their folder. With --cluster=0 they use what `make cluster-up` made, and
leave it and the release as they are, for whoever works on a test.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from hack.chart.helm import tool
from hack.cluster import Cluster, ClusterError
from hack.cluster.api import Api
from hack.cluster.layout import CLUSTERS_MAX
from hack.cluster.programs import DEFAULT_KUBERNETES, HERE, Programs, containerd
from tests.e2e.person import Person
from tests.e2e.published import Published, cosign, verified
from tests.e2e.release import Release
from tests.e2e.space import INJECT, Space

RUNTIMES = ("1.6", "2", "2+certs.d")
OLD_RUNTIME, NEW_RUNTIME, CONFIGURED = "n0", "n1", "n2"
"""Nodes: containerd 1.6; 2; and 2 with an administrator who may name registries. No runtime has a line about any registry."""
TEST_SECONDS_MAX = 150


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kubernetes", default=DEFAULT_KUBERNETES, metavar="VERSION", help="of the cluster of the e2e tests")
    parser.addoption("--cluster", type=int, metavar="NUMBER", help="use this cluster, which is there, and leave it")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "unrewrites: pods get their original images back in this test; in all others that is a failure"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A limit is for each test alone; and without being asked, no test makes a cluster."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.timeout(TEST_SECONDS_MAX, func_only=True))
    asked = "e2e" in config.option.markexpr or any("tests/e2e" in argument for argument in config.args)
    if ours and not asked:
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Everything is built before the first test, whose limit is not made for that."""
    if any(item.get_closest_marker("e2e") for item in session.items) and not session.config.option.collectonly:
        if os.geteuid() != 0:
            pytest.exit("a cluster takes root", 1)
        Programs.of(session.config.getoption("kubernetes", DEFAULT_KUBERNETES))
        containerd("2")
        tool("helm")
        cosign()
        _image()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[object]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for name in ("space", "darner", "cluster"):
            subject = getattr(item, "funcargs", {}).get(name)
            if isinstance(subject, Space | Release):
                try:
                    report.sections.append((f"what there is to see of {subject.name}", subject.report()))
                except ClusterError as error:
                    report.sections.append((f"{subject.name} cannot be looked at", str(error)))
    return report


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    given = pytestconfig.getoption("cluster", None)
    if given is not None:
        yield Cluster(given)
        return
    for number in range(1, CLUSTERS_MAX):
        cluster = Cluster(number)
        with cluster.locked() as free:
            if free:
                try:
                    cluster.up(RUNTIMES, pytestconfig.getoption("kubernetes", DEFAULT_KUBERNETES))
                    yield cluster
                finally:
                    cluster.down()
                return
    pytest.fail("too many clusters")


@pytest.fixture(scope="session")
def image_archive() -> Path:
    return _image()


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Api:
    return Api(cluster.layout.kubeconfig)


@pytest.fixture(scope="session")
def published(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Nobody installs what is not signed."""
    published = Published(cluster, tmp_path_factory.mktemp("release"))
    published.publish()
    return verified(published)


@pytest.fixture(scope="session")
def release(cluster: Cluster, api: Api, published: Published) -> Release:
    """Installed by the first of the README's two commands, with a registry of the cluster's in the place of the public one.

    `darner status --wait` says when it may be used, as it does to whoever installs it.
    """
    release = Release(cluster, api, published.chart)
    release.remove()
    release.install()
    command = [Path(sys.executable).with_name("darner"), "status", "--wait", "5m", "--kubeconfig", cluster.layout.kubeconfig]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + release.report()
    return release


@pytest.fixture
def darner(release: Release) -> Release:
    """As it is before each test: all Ready."""
    release.wait_ready()
    return release


@pytest.fixture
def person(cluster: Cluster, tmp_path: Path) -> Person:
    return Person(cluster.layout.kubeconfig, tmp_path)


@pytest.fixture
def space(request: pytest.FixtureRequest, cluster: Cluster, api: Api) -> Iterator[Space]:
    """Where pods are rewritten."""
    yield from _space(request, cluster, api, {INJECT: "enabled"})


@pytest.fixture
def plain_space(request: pytest.FixtureRequest, cluster: Cluster, api: Api) -> Iterator[Space]:
    """Where nobody asked for that."""
    yield from _space(request, cluster, api, {})


@pytest.fixture(autouse=True)
def no_pod_is_unrewritten_unless_the_test_is_about_it(request: pytest.FixtureRequest) -> Iterator[None]:
    """So that nothing passes by going around Darner. Webhooks that are replaced count from nothing; events stay."""
    if request.node.get_closest_marker("unrewrites") or "darner" not in request.fixturenames:
        yield
        return
    darner: Release = request.getfixturevalue("darner")
    space: Space | None = request.getfixturevalue("space") if "space" in request.fixturenames else None
    before = _unrewritten(darner)
    yield
    after = _unrewritten(darner)
    if space is not None:
        assert [words for words in space.all_words() if words.startswith("DarnerReverted")] == []
    assert {name: count - before.get(name, 0) for name, count in after.items()} == dict.fromkeys(after, 0)


def _unrewritten(darner: Release) -> dict[str, float]:
    return {
        pod["metadata"]["name"]: darner.metric_of("webhook", pod, "darner_webhook_reverted_pods_total")
        for pod in darner.pods("webhook")
    }


def _space(request: pytest.FixtureRequest, cluster: Cluster, api: Api, labels: dict[str, str]) -> Iterator[Space]:
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    # No name comes twice, not even in a cluster that an earlier run has used: a node never forgets an image.
    space = Space(cluster, api, f"{words[:40].strip('-')}-{secrets.token_hex(3)}", labels)
    yield space
    space.delete()


def _image() -> Path:
    """Darner's own, of this tree."""
    done = subprocess.run([HERE / "image.sh"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())
