"""An API server for the commands, and a kubeconfig that leads to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.lab import apiserver
from tests.unit.cli.podserver import PodServer
from tests.unit.cli.typed import Typed, running_darner, typed_with


@pytest.fixture
def api() -> Iterator[PodServer]:
    server = PodServer()
    with apiserver.running(server):
        yield server


@pytest.fixture
def kubeconfig(api: PodServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Also what $KUBECONFIG names, and the only one that there is."""
    path = api.kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return path


@pytest.fixture
def darner(api: PodServer, kubeconfig: Path) -> Iterator[PodServer]:
    """A cluster in which all of Darner runs."""
    with running_darner(api):
        yield api


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    return typed_with(capsys)
