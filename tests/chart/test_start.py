"""The processes start with exactly the variables and the privileges that the chart gives them.

Only the user is another one: this tree and its Python may lie where nobody but root may go. And what the chart mounts is
elsewhere, because the root file system is as read-only as in the cluster.
"""

from __future__ import annotations

import contextlib
import http.client
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.chart.helm import ROOT, Object, environment, pod_template
from hack.lab import Host, Lab
from hack.lab.process import wait_until

pytestmark = pytest.mark.needs_root

Render = Callable[..., list[Object]]


@pytest.fixture
def host() -> Iterator[Host]:
    with Lab() as lab:
        yield lab.host("pod")


def confined(pod: Object, writable: Path) -> list[str]:
    """A command that runs another as a container with this security context: its volumes alone can be written."""
    (container,) = pod["containers"]
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    read_only = f'mount --bind {writable} {writable} && mount -o remount,bind,ro / && exec "$@"'
    return [
        *("unshare", "--mount", "--propagation", "private", "sh", "-c", read_only, "sh"),
        *("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"),
    ]


def status(host: Host, port: int, path: str) -> int:
    with contextlib.closing(http.client.HTTPConnection(host.address, port)) as connection:
        connection.sock = host.connect(port, host.address)
        connection.request("GET", path)
        return int(connection.getresponse().status)


@pytest.mark.parametrize(("component", "port"), [("agent", 65003), ("supernode", 65003), ("webhook", 8080)])
def test_a_process_is_ready_with_what_the_chart_gives_it(render: Render, host: Host, component: str, port: int) -> None:
    # with Secrets that exist, so that the webhook looks for no cluster
    objects = render({"webhook": {"certificate": {"existingSecret": "certificate"}}, "swarm": {"existingSecret": "swarm-key"}})
    mounted = host.lab.directory
    (mounted / "swarm-key").write_bytes(secrets.token_bytes(32))
    variables = environment(objects, component, host.address)
    for name, place in (("STORE", "store"), ("SWARM_KEY_FILE", "swarm-key"), ("CERTIFICATE_DIR", "certificate")):
        if f"DARNER_{name}" in variables:
            variables[f"DARNER_{name}"] = str(mounted / place)
    command = confined(pod_template(objects, component)["spec"], mounted)
    if component == "webhook":  # there is no cluster here whose agents, Secrets and pods it could follow
        variables |= {"DARNER_AGENT_SERVICE": "", "DARNER_LEASE": "", "DARNER_PULL_SECRETS": "false"}
    process = host.start(component, [*command, sys.executable, "-m", component], variables | {"PYTHONPATH": str(ROOT)})
    process.wait_until(process.printed)
    assert "CapEff:\t0000000000000000\n" in Path(f"/proc/{process.pid}/status").read_text()
    wait_until(lambda: status(host, port, "/readyz") == 200)
    assert status(host, port, "/healthz") == 200
    assert process.stop() == 0
