"""How `darner doctor` ends, and what it prints."""

from __future__ import annotations

import json

import pytest

from cli.doctor.command import doctor
from cli.errors import ExitCode, NotThere, WrongUsage
from cli.output import OutputFormat
from cli.session import Session
from tests.unit.cli.doctor.conftest import TableCluster

NODES = "/api/v1/nodes"


def session(cluster: TableCluster, output: OutputFormat = OutputFormat.JSON, namespace: str = "") -> Session:
    made = Session(namespace=namespace, output=output)
    made.__dict__["access"] = cluster.access
    return made


def node(runtime: str) -> dict[str, object]:
    return {"metadata": {"name": "n0"}, "status": {"nodeInfo": {"containerRuntimeVersion": runtime, "operatingSystem": "linux"}}}


def test_without_a_problem_it_ends_with_0(cluster: TableCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.lists[NODES] = [node("containerd://2.2.9")]
    assert doctor(session(cluster), pre=True) == ExitCode.FINE
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {"check": "kubernetes", "severity": "fine", "what": "Kubernetes v1.36.3", "remedy": "", "page": ""} in findings
    assert not [item for item in findings if item["severity"] == "problem"]


def test_a_problem_comes_first_with_its_remedy_and_its_page_and_ends_with_1(
    cluster: TableCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.lists[NODES] = [node("cri-o://1.35.1")]
    assert doctor(session(cluster, OutputFormat.TABLE), pre=True) == ExitCode.PROBLEM
    what, remedy, page, *_ = capsys.readouterr().out.splitlines()
    assert what.startswith("problem  CRI-O 1.35.1 does not pull from 127.0.0.1")
    assert remedy.strip().startswith("do: set agent.crio.configPath to /etc/containers")
    assert page.strip() == "see: docs/troubleshooting.md#the-runtime-does-not-pull-from-the-agent"


def test_where_nothing_is_installed_it_says_what_looks_before_that(cluster: TableCluster) -> None:
    with pytest.raises(NotThere, match="darner doctor --pre"):
        doctor(session(cluster))


def test_options_that_do_not_fit_are_wrong_usage(cluster: TableCluster) -> None:
    with pytest.raises(WrongUsage, match="write one of them"):
        doctor(session(cluster), pre=True, pull="nginx")
    with pytest.raises(WrongUsage, match="write --pull IMAGE too"):
        doctor(session(cluster), pull_in="shop")
    assert cluster.asked == [], "nobody is asked for that"
