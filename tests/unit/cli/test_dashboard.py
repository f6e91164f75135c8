"""`darner dashboard`: the supernode's page on this machine, for as long as the command runs."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

from cli.errors import ExitCode
from tests.unit.cli.installed import NAMESPACE
from tests.unit.cli.podserver import PodServer
from tests.unit.cli.test_app import DARNER
from tests.unit.cli.typed import Typed


def test_what_the_supernode_serves_is_served_here_until_ctrl_c(darner: PodServer, kubeconfig: Path) -> None:
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    command = [DARNER, "dashboard", "--port", "0", "--no-open"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert running.stderr
        line = running.stdout.readline()
        match = re.match(r"http://127\.0\.0\.1:(\d+)/ shows supernode darner-supernode-0; Ctrl-C ends it", line)
        assert match, line
        for _ in range(2):
            connection = http.client.HTTPConnection("127.0.0.1", int(match[1]), timeout=60)
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b"ok\n"
            connection.close()
        running.send_signal(signal.SIGINT)
        assert (running.wait(60), running.stderr.read()) == (ExitCode.INTERRUPTED, "")


def test_a_port_that_is_taken_and_a_supernode_that_is_not_ready_are_told(darner: PodServer, typed: Typed) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, said = typed("dashboard", "--port", str(port))
        assert (status, said.count("\n")) == (ExitCode.PROBLEM, 1)
        assert f"port {port} cannot be taken" in said
    darner.remove(f"/api/v1/namespaces/{NAMESPACE}/pods/darner-supernode-0")
    status, _, said = typed("dashboard")
    assert (status, "no supernode is ready" in said) == (ExitCode.PROBLEM, True)
