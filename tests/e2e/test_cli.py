"""The command line at a real cluster: what it shows of one that is well, what it changes, and how it fails."""

from __future__ import annotations

import base64
import json
import subprocess
import tarfile
from typing import Any

import pytest
import yaml
from playwright.sync_api import expect

from cli.errors import ExitCode
from hack.cluster.api import Api
from hack.lab.process import wait_until
from tests.browser import PATIENCE_MS, Watched, chromium
from tests.e2e.person import DARNER, Person
from tests.e2e.release import NAMESPACE, Release


def test_status_waits_until_all_is_ready_and_shows_it(darner: Release, person: Person) -> None:
    assert person.types("status", "--wait", "90s").returncode == ExitCode.FINE
    seen = person.sees("status")
    agents = len(darner.cluster.plan.nodes)
    assert [(name, item["wanted"]) for name, item in seen["components"].items()] == [
        ("webhook", 2),
        ("supernode", 2),
        ("agent", agents),
    ]
    assert (seen["webhookTrusted"], seen["unknown"]) == (True, [])
    assert seen["certificateSeconds"] > 0
    shown = person.types("status", program="kubectl-darner")
    assert f"agent       {agents}/{agents}" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_the_page_is_seen_in_a_browser_with_the_rights_of_the_kubeconfig(darner: Release, person: Person) -> None:
    command = [DARNER, "dashboard", "--no-open", "--port", "0", "--kubeconfig", str(person.kubeconfig)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shown, chromium() as browser:
        try:
            assert shown.stdout is not None
            url = shown.stdout.readline().split()[0]
            watched = Watched(browser, url.removeprefix("http://").rstrip("/"))
            nodes = len(darner.cluster.plan.nodes)
            expect(watched.page.locator("#nodes-count")).to_have_text(f"{nodes} nodes are connected", timeout=PATIENCE_MS)
            for node in darner.cluster.plan.nodes:
                expect(watched.page.locator("#nodes")).to_contain_text(node)
            assert (watched.troubles, watched.elsewhere) == ([], [])
        finally:
            shown.terminate()


def test_a_node_in_quarantine_is_listed_until_it_is_released(darner: Release, person: Person) -> None:
    def quarantined() -> dict[str, str]:
        return {row["name"]: row["quarantine"]["reason"] for row in person.sees("list", "nodes") if row["quarantine"]}

    assert sorted(row["name"] for row in person.sees("list", "nodes")) == sorted(darner.cluster.plan.nodes)
    told = person.sees("quarantine", "n0", "--for", "1h", "--reason", "a test")
    assert [item["done"] for item in told] == [True, True]
    assert quarantined() == {"n0": "a test"}
    assert [row["name"] for row in person.sees("list", "pauses") if row["kind"] == "quarantine"] == ["n0"]
    person.sees("release", "n0")
    assert quarantined() == {}
    assert person.types("quarantine", "n77", "--for", "1h").returncode == ExitCode.PROBLEM


def test_all_lists_are_shown(darner: Release, person: Person) -> None:
    for what in ("images", "swarms", "pauses"):
        assert isinstance(person.sees("list", what), list)


def test_a_sysdump_has_the_state_of_all_and_no_secret(darner: Release, api: Api, person: Person) -> None:
    done = person.types("sysdump")
    assert done.returncode == ExitCode.FINE, done.stderr
    with tarfile.open(person.home / "darner-sysdump.tar.gz") as archive:
        found = {member.name.partition("/")[2]: archive.extractfile(member).read().decode() for member in archive}  # type: ignore[union-attr]
    assert json.loads(found["missing.json"]) == {}
    for component in ("agent", "supernode"):
        for pod in darner.pods(component):
            name = pod["metadata"]["name"]
            assert json.loads(found[f"state/{name}.json"])
            assert "darner_" in found[f"metrics/{name}.txt"]
            assert found[f"logs/{name}.log"]
    assert json.loads(found["values.json"])["values"]["registries"]
    everything = " ".join(found.values())
    for secret in api.all("Secret", NAMESPACE, ""):
        if secret.get("type") != "helm.sh/release.v1":
            data = secret.get("data", {})
            # Certificates are public: the authority stands in the configuration of the webhook.
            values = [value for name, value in data.items() if len(value) > 16 and not name.endswith(".crt")]
            assert not any(
                value in everything or base64.b64decode(value).decode(errors="replace") in everything for value in values
            )


def test_a_supernode_that_is_gone_is_told_and_waited_for(darner: Release, person: Person) -> None:
    with darner.without_supernodes():
        wait_until(lambda: not darner.pods("supernode"))
        seen = person.sees("list", "nodes")
        assert {row["supernodes"] for row in seen} == {0}
        assert person.types("dashboard", "--no-open").returncode == ExitCode.PROBLEM
    darner.wait_ready()


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["status", "--nonsense"], ExitCode.USAGE, "--nonsense"),
        (["status", "--wait", "soon"], ExitCode.USAGE, "soon"),
        (["status", "--kubeconfig", "/none"], ExitCode.UNREACHABLE, "/none"),
        (["status", "--context", "elsewhere"], ExitCode.UNREACHABLE, "elsewhere"),
        (["status", "-n", "nowhere"], ExitCode.PROBLEM, "there is no namespace nowhere"),
        (["status", "-n", "default"], ExitCode.PROBLEM, "not installed in namespace default"),
        (["list", "nodes", "--release", "other"], ExitCode.PROBLEM, "no release other"),
    ],
)
def test_what_goes_wrong_is_one_line(release: Release, person: Person, argv: list[str], status: ExitCode, words: str) -> None:
    done = person.types(*argv)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (status, 1, ""), done.stderr
    assert words in done.stderr


def test_wrong_credentials_rights_and_addresses_are_told_apart(release: Release, person: Person, api: Api) -> None:
    document = yaml.safe_load(person.kubeconfig.read_text())

    def with_kubeconfig(change: dict[str, Any], user: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        changed = json.loads(json.dumps(document))
        changed["clusters"][0]["cluster"] |= change
        if user is not None:
            changed["users"][0]["user"] = user
        path = person.home / "kubeconfig"
        path.write_text(yaml.safe_dump(changed))
        return person.types("status", KUBECONFIG=str(path))

    expired = with_kubeconfig({}, {"token": "wrong"})
    assert (expired.returncode, expired.stderr.count("\n")) == (ExitCode.UNREACHABLE, 1)
    assert "(401)" in expired.stderr
    refused = with_kubeconfig({"server": "https://127.0.0.1:1"})
    assert (refused.returncode, refused.stderr.count("\n")) == (ExitCode.UNREACHABLE, 1)
    assert "refused" in refused.stderr
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": "default"}}
    api.create(account)
    try:
        token = release.cluster.kubectl("create", "token", "nobody", "--namespace", "default").strip()
        forbidden = with_kubeconfig({}, {"token": token})
        assert (forbidden.returncode, forbidden.stderr.count("\n")) == (ExitCode.PROBLEM, 1)
        assert "Kubernetes does not allow it" in forbidden.stderr
    finally:
        api.delete("ServiceAccount", "default", "nobody")
