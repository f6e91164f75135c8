"""Into a pod and back: what a command prints, what a port answers, and each way in which that ends early."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.admin import ControlServer, application
from agent.values.address import Address
from cli.cluster import ClusterAccess
from cli.errors import ClusterUnreachable, CommandError, NotAllowed, NotThere
from tests.swarm import wait_until
from tests.unit.cli.installed import NAMESPACE, put_pod
from tests.unit.cli.podserver import PodServer


@pytest.fixture
def access(api: PodServer, kubeconfig: Path) -> ClusterAccess:
    put_pod(api, "p", "supernode")
    return ClusterAccess()


@pytest.fixture
def process() -> Iterator[int]:
    """The port of a process with health routes."""
    server = ControlServer(application(lambda: "the cat sleeps"), Address("127.0.0.1", 0))
    server.start()
    wait_until(lambda: server.surface.started)
    yield server.surface.address.port
    server.stop()


def test_a_command_prints_says_and_ends_as_it_does_in_the_pod(api: PodServer, access: ClusterAccess) -> None:
    api.commands = lambda pod, command: (7, f"{pod} {' '.join(command)}\n" * 5000, "no\nway\n")
    ended = access.execute(NAMESPACE, "p", ["a", "b c"])
    assert (ended.status, ended.output, ended.errors) == (7, "p a b c\n" * 5000, "no\nway\n")
    with pytest.raises(CommandError, match="it ended with status 7: way"):
        ended.ended_well("it")


def test_a_pod_that_goes_away_meanwhile_is_said_to_have(api: PodServer, access: ClusterAccess) -> None:
    api.commands = lambda pod, command: None
    with pytest.raises(CommandError, match="pod darner-system/p went away while a command ran in it; try again"):
        access.execute(NAMESPACE, "p", ["a"])


def test_refusals_are_told_apart(api: PodServer, access: ClusterAccess) -> None:
    with pytest.raises(NotThere, match="pod darner-system/q is not there any more"):
        access.execute(NAMESPACE, "q", ["a"])
    api.refused_streams = 403
    with pytest.raises(NotAllowed, match='Kubernetes does not allow it: pods "p" is not for you'):
        access.forward(NAMESPACE, "p", 1)
    api.refused_streams = 401
    with pytest.raises(ClusterUnreachable, match="log in anew"):
        access.execute(NAMESPACE, "p", ["a"])
    api.refused_streams = 500
    with pytest.raises(CommandError, match="status 500"):
        access.execute(NAMESPACE, "p", ["a"])


def test_a_port_of_a_pod_answers_as_on_its_own_machine(api: PodServer, access: ClusterAccess, process: int) -> None:
    api.ports["p"] = process
    assert access.fetch(NAMESPACE, "p", 65003, "/healthz") == b"ok\n"
    with pytest.raises(CommandError, match="answered 503 to /readyz: the cat sleeps"):
        access.fetch(NAMESPACE, "p", 65003, "/readyz")
    with pytest.raises(CommandError, match="no JSON object"):
        access.fetch_json(NAMESPACE, "p", 65003, "/healthz")


def test_a_port_that_nobody_listens_on_is_said_to_be_one(access: ClusterAccess) -> None:
    with pytest.raises(CommandError, match="pod darner-system/p does not answer on port 65003"):
        access.fetch(NAMESPACE, "p", 65003, "/healthz")
