"""How commands find a cluster and a release, and what they say of each way in which that fails."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml

from cli.cluster import ClusterAccess
from cli.errors import ClusterUnreachable, CommandError, ExitCode, NotAllowed, NotThere, WrongUsage
from cli.release import find
from hack.lab.apiserver import ApiServer
from tests.unit.cli.installed import install


def said(error: pytest.ExceptionInfo[CommandError]) -> str:
    words = str(error.value)
    assert "\n" not in words
    return words


def test_without_a_kubeconfig_it_is_said_where_to_put_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ClusterUnreachable) as error:
        ClusterAccess(environment={})
    assert "set KUBECONFIG" in said(error)
    assert error.value.exit_code == ExitCode.UNREACHABLE


@pytest.mark.parametrize("content", ["", "nothing: here", "- 1", "{", "apiVersion: v1\nkind: Config\nclusters: 3\n"])
def test_a_file_that_is_no_kubeconfig_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    with pytest.raises(ClusterUnreachable) as error:
        ClusterAccess(str(path))
    assert str(path) in said(error)


def test_a_kubeconfig_that_is_not_there_is_named() -> None:
    with pytest.raises(ClusterUnreachable, match="there is no file /none; write another one after --kubeconfig"):
        ClusterAccess("/none")


def test_a_context_that_the_kubeconfig_does_not_know_is_named(kubeconfig: Path) -> None:
    with pytest.raises(ClusterUnreachable, match="elsewhere"):
        ClusterAccess(context="elsewhere")


def test_a_list_of_kubeconfigs_is_one_as_for_kubectl(api: ApiServer, kubeconfig: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(kubeconfig.read_text())
    users = {"apiVersion": "v1", "kind": "Config", "users": document.pop("users")}
    (tmp_path / "a").write_text(yaml.safe_dump(document))
    (tmp_path / "b").write_text(yaml.safe_dump(users))
    access = ClusterAccess(environment={"KUBECONFIG": f"{tmp_path}/none:{tmp_path}/a:{tmp_path}/b"})
    assert access.items("/api/v1/nodes") == []


def test_nobody_at_the_address_is_said_in_a_few_words(kubeconfig: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        document = yaml.safe_load(kubeconfig.read_text())
        document["clusters"][0]["cluster"]["server"] = server = f"http://127.0.0.1:{silent.getsockname()[1]}"
        kubeconfig.write_text(yaml.safe_dump(document))
        with pytest.raises(ClusterUnreachable) as error:
            ClusterAccess().get("/version")
    words = said(error)
    assert words.startswith(f"the cluster at {server} does not answer: ")
    assert "refused" in words
    assert "HTTPConnection" not in words


def test_credentials_that_have_expired_are_told_from_rights_that_are_missing(api: ApiServer, kubeconfig: Path) -> None:
    access = ClusterAccess()
    api.refusal = 401
    with pytest.raises(ClusterUnreachable, match="log in anew"):
        access.get("/api/v1/nodes")
    api.refusal = 403
    with pytest.raises(NotAllowed, match="Kubernetes does not allow it"):
        access.get("/api/v1/nodes")


def test_a_release_is_found_in_whatever_namespace_it_is(api: ApiServer, kubeconfig: Path) -> None:
    install(api, namespace="elsewhere")
    found = find(ClusterAccess())
    assert (found.namespace, found.name, sorted(found.workloads)) == ("elsewhere", "darner", ["agent", "supernode", "webhook"])
    assert [found.http_port(component) for component in ("supernode", "webhook")] == [65003, 8081]
    assert [pod["metadata"]["name"] for pod in found.pods("agent")] == ["darner-agent-0", "darner-agent-1"]


def test_who_may_not_look_everywhere_finds_it_in_its_usual_namespace(api: ApiServer, kubeconfig: Path) -> None:
    install(api)
    api.refusals = {f"GET /apis/apps/v1/{resource}": 403 for resource in ("daemonsets", "statefulsets", "deployments")}
    assert find(ClusterAccess()).namespace == "darner-system"


def test_of_several_releases_one_has_to_be_named(api: ApiServer, kubeconfig: Path) -> None:
    install(api)
    install(api, release="second", namespace="other")
    access = ClusterAccess()
    with pytest.raises(WrongUsage, match="darner-system/darner, other/second"):
        find(access)
    assert find(access, release="second").namespace == "other"
    assert find(access, namespace="other").name == "second"
    with pytest.raises(NotThere, match="no release third"):
        find(access, release="third")


def test_an_unknown_namespace_is_told_from_one_without_darner(api: ApiServer, kubeconfig: Path) -> None:
    api.put("/api/v1/namespaces/empty", {})
    with pytest.raises(NotThere, match="there is no namespace unknown"):
        find(ClusterAccess(), namespace="unknown")
    with pytest.raises(NotThere, match="not installed in namespace empty"):
        find(ClusterAccess(), namespace="empty")
