from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.runtimes import configuration
from agent.runtimes.certs_d import CertsD
from agent.runtimes.configuration import RuntimeConfiguration, mirrored
from agent.values.address import Address
from tests.swarm import wait_until

AGENT = Address("127.0.0.1", 65001)


def test_a_directory_that_cannot_be_written_to_is_said_once_and_is_no_reason_not_to_serve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "LOOK_SECONDS", 0.01)
    looks = []

    class Missing(CertsD):
        def write(self, registries: Sequence[str], agent: Address) -> list[str]:
            looks.append(registries)
            return super().write(registries, agent)

    runtimes = RuntimeConfiguration([Missing(tmp_path / "missing", set())], ["docker.io"])
    with caplog.at_level(logging.WARNING):
        runtimes.start(AGENT)
        wait_until(lambda: len(looks) > 2)
        runtimes.stop()
    (record,) = caplog.records
    assert "the runtime cannot be told of this agent, so its pulls go past it: " in record.message


def test_after_the_stop_nothing_is_written_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "LOOK_SECONDS", 0.001)
    runtimes = RuntimeConfiguration([CertsD(tmp_path, set())], ["docker.io"])
    runtimes.start(AGENT)
    assert (tmp_path / "docker.io" / "hosts.toml").exists()
    (tmp_path / "docker.io" / "hosts.toml").unlink()
    (tmp_path / "docker.io").rmdir()
    wait_until(lambda: (tmp_path / "docker.io" / "hosts.toml").exists())  # it looks after it
    runtimes.stop()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "registry"),
    [("_default", "_default"), ("Index.Docker.io", "docker.io"), ("a.example.com:5000", "a.example.com:5000")],
)
def test_registries_are_read_as_names_have_them(text: str, registry: str) -> None:
    assert mirrored(text) == registry


@pytest.mark.parametrize("text", ["https://docker.io", "docker.io/library", "[::1]:5000", "_all", "..", "a:0"])
def test_what_is_no_registry_is_refused_with_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|not a TCP port|no registry") as refused:
        mirrored(text)
    assert "\n" not in str(refused.value)
