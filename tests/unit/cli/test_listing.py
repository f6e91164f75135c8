"""`darner list`, and the two commands that change what it shows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from cli import listing
from cli.errors import ExitCode
from tests.unit.cli.installed import NAMESPACE
from tests.unit.cli.podserver import PodServer
from tests.unit.cli.typed import STATE, Typed
from webhook.breaker.pauses import Pauses
from webhook.kube.lease import SHARED


def words(shown: str) -> list[str]:
    return [" ".join(line.split()) for line in shown.splitlines()]


def test_nodes_are_listed_with_who_is_no_source(darner: PodServer, typed: Typed) -> None:
    status, shown, _ = typed("list", "nodes")
    assert (status, words(shown)[1:]) == (
        ExitCode.FINE,
        ["n0 ready 1 z 4 1.0 MiB yes", "n1 ready 0 - - - no, for another 60m: its disk"],
    )


def test_images_are_those_of_all_agents_and_those_that_were_loaded(darner: PodServer, typed: Typed) -> None:
    assert words(typed("list", "images")[1])[1:] == [
        f"docker.io/library/nginx sha256:{'b' * 12} 5.0 MiB 2 - -",
        f"gone.test/a:1 sha256:{'c' * 12} 1.0 MiB 0 - pinned",
    ]
    pulled, loaded = json.loads(typed("list", "images", "-o", "json")[1])
    assert pulled["nodes"] == ["n0", "n1"]
    assert (loaded["nodes"], loaded["loadedInto"]) == ([], ["darner-supernode-0"])


def test_an_image_that_is_not_whole_in_every_supernode_is_to_be_loaded_again(
    darner: PodServer, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STATE["loaded"][0], "blobsMissing", 2)
    assert words(typed("list", "images")[1])[2].endswith("0 - whole in 0 of 1 supernodes: load it again")


def test_an_agent_that_does_not_answer_is_named_and_the_others_are_shown(darner: PodServer, typed: Typed) -> None:
    before = darner.commands
    darner.commands = lambda pod, command: (1, "", "nobody answers\n") if pod == "darner-agent-0" else before(pod, command)
    status, shown, said = typed("list", "images")
    assert (status, len(words(shown))) == (ExitCode.PROBLEM, 3)
    assert "not known: `darner local` in pod darner-agent-0 ended with status 1: nobody answers" in said


def test_swarms_are_listed(darner: PodServer, typed: Typed) -> None:
    assert words(typed("list", "swarms")[1])[1:] == [f"sha256:{'a' * 12} docker.io/library/nginx 100 B 1 2 - -"]


def test_pauses_are_those_of_the_webhook_and_of_supernodes(darner: PodServer, typed: Typed) -> None:
    shared = Pauses().with_another("registry down.test", time.time())[0].text(time.time())
    metadata = {"annotations": {SHARED: shared}}
    darner.put(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/darner-webhook", {"metadata": metadata})
    rows = json.loads(typed("list", "pauses", "-o", "json")[1])
    assert [(row["kind"], row["name"]) for row in rows] == [
        ("registry", "down.test"),
        ("registry", "slow.test"),
        ("quarantine", "n1"),
    ]


def test_watching_prints_what_changed_until_ctrl_c(darner: PodServer, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Callable[[], object]] = [
        lambda: None,
        lambda: darner.remove(f"/api/v1/namespaces/{NAMESPACE}/pods/darner-agent-1"),
    ]

    def sleep(_: float) -> None:
        if not looks:
            raise KeyboardInterrupt
        looks.pop(0)()

    monkeypatch.setattr(listing, "time", SimpleNamespace(sleep=sleep, time=time.time))
    status, shown, said = typed("list", "nodes", "-w")
    assert (status, said) == (ExitCode.INTERRUPTED, "")
    assert [line.split()[0] for line in shown.splitlines()] == ["NODE", "n0", "n1", "NODE", "n0"]


def test_every_supernode_is_told_of_a_quarantine_by_a_command_in_its_pod(darner: PodServer, typed: Typed) -> None:
    ran: list[tuple[str, list[str]]] = []
    darner.commands = lambda pod, command: ran.append((pod, command)) or (0, "n1 is no source for 3600 s\n", "")
    assert typed("quarantine", "n1", "--for", "1h", "--reason", "its disk")[:2] == (
        ExitCode.FINE,
        "darner-supernode-0: n1 is no source for 3600 s\n",
    )
    assert typed("release", "n1")[0] == ExitCode.FINE
    told = ["/api/v1/quarantine?node=n1&seconds=3600&reason=its+disk", "/api/v1/release?node=n1"]
    assert ran == [("darner-supernode-0", ["darner", "local", "POST", path]) for path in told]


def test_a_node_that_is_not_there_and_a_time_that_is_none_are_told(darner: PodServer, typed: Typed) -> None:
    status, _, said = typed("quarantine", "n7", "--for", "1h")
    assert (status, said) == (ExitCode.PROBLEM, "darner: no agent runs on a node called n7; there are n0, n1\n")
    assert typed("quarantine", "n1", "--for", "soon")[0] == ExitCode.USAGE
    assert typed("quarantine", "n1")[0] == ExitCode.USAGE


def test_a_supernode_that_could_not_be_told_makes_it_a_problem(darner: PodServer, typed: Typed) -> None:
    darner.commands = lambda pod, command: (1, "", "answered 422: seconds\n")
    status, shown, _ = typed("release", "n1")
    assert status == ExitCode.PROBLEM
    assert "answered 422" in shown
