"""A lab for each test that asks for one, and the last words of all processes of labs with a test that fails."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator, Iterator

import pytest

from hack.lab import Lab, LabError
from hack.lab.image import BuiltImage, build_image
from hack.lab.runtime import built_programs
from hack.lab.stargz import program as stargz

_PROGRAMS = ("containerd", "ctr", "docker-registry", "ip", "nsenter", "podman", "runc", "setpriv", "skopeo", "tc", "unshare")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build containerd 2 and stargz-snapshotter before the first test, whose time limit is not made for that."""
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())} if os.geteuid() == 0 else set()
    with contextlib.suppress(LabError):  # the tests that use them say why there is none
        if wanted & {"image", "walk"}:
            built_programs()
        if "estargz" in wanted:
            stargz()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_root"):
        if os.geteuid() != 0:
            pytest.fail("network namespaces and containers take root; -m 'not needs_root' leaves this test out", pytrace=False)
        missing = [name for name in _PROGRAMS if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]
        if missing:
            pytest.fail(f"not installed: {', '.join(missing)}; hack/setup.sh installs what the tests need", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += [(f"last words in {lab.name}", lab.last_words()) for lab in Lab.opened if lab.processes]
    return report


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="session")
def image() -> Iterator[BuiltImage]:
    with Lab() as lab:
        yield build_image(lab.directory / "image")
