"""`darner forget`: whom it tells, what it prints, and its status."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator

import pytest

from agent.admin import ControlServer, application, forget_route
from agent.values.address import Address
from cli import forget
from tests.swarm import free_address, nothing_left_running, wait_until

DIGEST = "sha256:" + "0" * 64
Name = tuple[str, str, str]


class Process:
    """An agent or a supernode, as far as the command knows them."""

    def __init__(self) -> None:
        self.forgotten: list[Name] = []
        self.server = ControlServer(application(lambda: "", forget_route(self.forget)), Address("127.0.0.1", 0))
        self.where = str(self.server.surface.address)

    def forget(self, registry: str, repository: str, tag: str) -> int:
        self.forgotten.append((registry, repository, tag))
        return 1


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    with nothing_left_running():
        running = [Process(), Process()]
        for process in running:
            process.server.start()
            wait_until(lambda process=process: process.server.surface.started)  # type: ignore[misc]
        yield running
        for process in running:
            process.server.stop()


def typed(*argv: str, **environment: str) -> tuple[int, list[str]]:
    output = io.StringIO()
    return forget.run(argv, environment, output), output.getvalue().splitlines()


def test_agent_and_supernode_are_told_of_each_image(processes: list[Process]) -> None:
    agent, supernode = processes
    local = "127.0.0.1:65001/reg.test_5000/a/b:1"
    status, lines = typed("nginx", local, "--agent", agent.where, "--supernode", supernode.where)
    names = [("docker.io", "library/nginx", "latest"), ("reg.test:5000", "a/b", "1")]
    assert (status, agent.forgotten, supernode.forgotten) == (0, names, names)
    assert lines[0] == f"{agent.where}: 1 answers about docker.io/library/nginx are forgotten"
    assert len(lines) == 4


def test_without_an_address_the_process_of_this_container_is_told(processes: list[Process]) -> None:
    listen = processes[0].where
    for where in (listen, listen.replace("127.0.0.1", "[127.0.0.1]"), listen.replace("127.0.0.1", "0.0.0.0")):
        assert typed("nginx:1", DARNER_HTTP_LISTEN=where)[0] == 0
    assert processes[0].forgotten == [("docker.io", "library/nginx", "1")] * 3


def test_whoever_cannot_be_told_is_named_and_the_others_are_told(processes: list[Process]) -> None:
    nobody = free_address()
    status, lines = typed("nginx:1", "--agent", str(nobody), "--supernode", processes[1].where)
    assert (status, len(lines), len(processes[1].forgotten)) == (2, 2, 1)
    assert lines[0].startswith(f"{nobody}: docker.io/library/nginx:1: nobody answers there: ")


def test_something_else_that_listens_there_is_no_success() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0)
        where = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(forget, "ANSWER_SECONDS_MAX", 0.2)
            assert typed("nginx:1", "--agent", where)[0] == 2


@pytest.mark.parametrize(
    ("argv", "environment"),
    [
        ([], {}),
        (["UPPER"], {}),
        ([f"nginx@{DIGEST}"], {}),
        (["127.0.0.1:65001/nginx"], {}),
        (["nginx", "--agent", "here"], {}),
        (["nginx", "--supernode", "0.0.0.0:65003"], {}),
        (["nginx", "--surprise"], {}),
        (["nginx"], {"DARNER_HTTP_LISTEN": "here"}),
    ],
)
def test_a_mistake_is_one_line_and_status_1_and_nobody_is_told(
    argv: list[str], environment: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forget.os, "environ", environment)
    assert forget.main(argv) == 1
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith("darner forget: ")
