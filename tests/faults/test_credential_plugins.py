"""FAULTS 76: the node's credential providers as programs, at a real endpoint whose origin wants Basic credentials or tokens."""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.origin import credential_plugin, credential_provider
from agent.origin.credential_config import ProviderError
from agent.origin.credential_provider import CredentialProviders
from agent.values.credential import Credential
from hack.origin import Origin
from hack.origin.access import Access
from tests.endpoint import DIGEST, LAYER, REPOSITORY, Endpoint, push, wait_until

V1 = "credentialprovider.kubelet.k8s.io/v1"
ALICE = Credential("alice", "s3cret")
ANSWERS = """
import json, os, sys
question = json.load(sys.stdin)
with open(os.environ["LOG"], "a") as log:
    print(json.dumps([question, sys.argv[1:]]), file=log)
print(json.dumps({"kind": "CredentialProviderResponse", "apiVersion": question["apiVersion"], "cacheKeyType": "Registry",
    "auth": {question["image"].split("/")[0]: {"username": "alice", "password": os.environ["PASSWORD"]}}}))
"""


class Node:
    """A node's directory of plugins with one in it, and its configuration."""

    def __init__(self, root: Path) -> None:
        self.bin = root / "plugins"
        self.config = root / "config.json"
        self.log = root / "log"
        self.bin.mkdir(parents=True)

    def plugin(self, text: str, name: str = "cloud", **more: Any) -> None:
        program = self.bin / name
        program.write_text(f"#!{sys.executable} -S\n{text}")
        program.chmod(0o755)
        environment = [{"name": "LOG", "value": str(self.log)}, {"name": "PASSWORD", "value": "s3cret"}]
        item = {"name": name, "apiVersion": V1, "matchImages": ["127.0.0.1:*", "*.0.0.1"], "defaultCacheDuration": "1h"}
        self._item = item | {"env": environment, "args": ["--verbose", "a b; exit 1"]} | more

    def providers(self, registry: str) -> CredentialProviders:
        item = self._item | {"matchImages": [registry]}
        whole = {"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [item]}
        self.config.write_text(json.dumps(whole))
        return CredentialProviders.of_node(str(self.config), str(self.bin))

    @property
    def questions(self) -> list[Any]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path / "node")
    node.plugin(ANSWERS)
    return node


@pytest.fixture(params=["basic", "bearer"])
def origin(request: pytest.FixtureRequest) -> Iterator[Origin]:
    with Origin(access=Access({"alice": "s3cret", "bob": "other"}, frozenset({REPOSITORY}), request.param == "bearer")) as origin:
        push(origin)
        yield origin


@pytest.fixture
def begin(origin: Origin, node: Node, tmp_path: Path) -> Iterator[Callable[[], Endpoint]]:
    running: list[Endpoint] = []

    def start() -> Endpoint:
        endpoint = Endpoint(tmp_path / f"store{len(running)}", origin, providers=node.providers(origin.address))
        running.append(endpoint.__enter__())
        return endpoint

    yield start
    for endpoint in running:
        endpoint.__exit__()


def pulled(endpoint: Endpoint, **headers: str) -> bool:
    """Whether a client gets manifest and layer as a runtime asks for them."""
    answers = [endpoint.ask(path, method, **headers) for path, method in PULL]
    assert {answer.status for answer in answers} in ({200}, {401})
    for answer in answers:
        assert answer.status == 200 or "Basic" in answer.headers["WWW-Authenticate"]
    return answers[-1].status == 200 and answers[-1].body == LAYER


PULL = (("manifests/1", "HEAD"), ("manifests/1", "GET"), (f"blobs/{DIGEST}", "GET"))


def test_a_private_image_is_pulled_without_a_secret_by_the_nodes_identity(
    begin: Callable[[], Endpoint], node: Node, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = begin()
    assert pulled(endpoint)
    assert endpoint.ask("tags/list").status == 200
    question = {"kind": "CredentialProviderRequest", "apiVersion": V1, "image": f"{origin.address}/{REPOSITORY}"}
    assert node.questions == [[question, ["--verbose", "a b; exit 1"]]]
    assert "s3cret" not in caplog.text
    assert ALICE.header not in caplog.text


def test_a_repository_that_wants_the_nodes_credential_is_remembered_to(begin: Callable[[], Endpoint], origin: Origin) -> None:
    endpoint = begin()
    assert endpoint.ask("manifests/1").status == 200
    refused = [seen for seen in origin.asked("/v2/") if seen.status == 401]
    for _ in range(3):
        assert pulled(endpoint)
    assert [seen for seen in origin.asked("/v2/") if seen.status == 401] == refused


def test_a_public_image_needs_no_plugin(begin: Callable[[], Endpoint], node: Node, origin: Origin) -> None:
    origin.repositories.access = Access()
    assert pulled(begin())
    assert node.questions == []


def test_a_pods_own_credential_goes_before_the_nodes(begin: Callable[[], Endpoint], node: Node) -> None:
    assert pulled(begin(), Authorization=Credential("bob", "other").header)
    assert node.questions == []


def test_a_pods_wrong_credential_is_not_made_right_by_the_nodes(begin: Callable[[], Endpoint], node: Node) -> None:
    assert not pulled(begin(), Authorization=Credential("bob", "wrong").header)
    assert node.questions == []


def test_a_wrong_credential_of_the_node_leaves_the_pod_its_own(begin: Callable[[], Endpoint], node: Node) -> None:
    node.plugin(ANSWERS, env=[{"name": "LOG", "value": str(node.log)}, {"name": "PASSWORD", "value": "wrong"}])
    endpoint = begin()
    assert not pulled(endpoint)
    assert pulled(endpoint, Authorization=ALICE.header)


def test_an_image_that_another_registry_has_is_none_of_the_plugins_business(node: Node, origin: Origin, tmp_path: Path) -> None:
    with Endpoint(tmp_path / "store", origin, providers=node.providers("*.example.com")) as endpoint:
        assert not pulled(endpoint)
    assert node.questions == []


@pytest.mark.parametrize(
    "text",
    [
        "import sys; sys.exit(3)",
        "print('s3cret, but no JSON')",
        "import sys; sys.stdin.close(); print('{}')",
        "import sys; [sys.stdout.write('s3cret' * 1000) for _ in iter(int, 1)]",
        "import time; time.sleep(60)",
        "import os; os.close(1); import time; time.sleep(60)",
        "import subprocess, sys; subprocess.Popen(['sleep', '60']); print('{}')",
        ANSWERS.replace('"Registry"', '"Cluster"'),
        ANSWERS.replace('question["apiVersion"], ', '"v2", '),
        ANSWERS.replace("{question", "{'x' + question"),
    ],
    ids=["fails", "garbage", "deaf", "endless", "slow", "silent", "a child", "key type", "version", "another's key"],
)
def test_a_plugin_that_is_no_use_costs_a_bounded_time_and_the_pull_goes_on_without(
    begin: Callable[[], Endpoint], node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    monkeypatch.setattr(credential_provider, "WAIT_SECONDS_MAX", 1.0)
    node.plugin(text)
    endpoint = begin()
    began = time.monotonic()
    assert endpoint.ask("manifests/1", "HEAD").status == 401
    assert time.monotonic() - began < 5.0
    assert pulled(endpoint, Authorization=ALICE.header)
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("wrong", ["missing", "not executable", "no program"])
def test_a_plugin_that_cannot_be_run_is_named_and_the_pull_goes_on_without(
    begin: Callable[[], Endpoint], node: Node, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    program = node.bin / "cloud"
    if wrong == "missing":
        program.unlink()
    elif wrong == "not executable":
        program.chmod(0o644)
    else:
        program.write_bytes(b"\x7fELF, but not really")
    assert not pulled(begin())
    assert "the credential provider cloud has nothing for" in caplog.text
    assert "it cannot be run" in caplog.text


def test_a_slow_plugin_does_not_keep_a_client_past_its_patience(node: Node, origin: Origin, tmp_path: Path) -> None:
    node.plugin("import time; time.sleep(60)")
    providers = node.providers(origin.address)
    with Endpoint(tmp_path / "store", origin, head_seconds=1.0, providers=providers) as endpoint:
        began = time.monotonic()
        assert endpoint.ask("manifests/1", "HEAD").status == 504
        assert time.monotonic() - began < 3.0


def test_many_pulls_at_once_are_one_run(begin: Callable[[], Endpoint], node: Node) -> None:
    node.plugin("import time; time.sleep(0.5)" + ANSWERS)
    endpoint = begin()
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(endpoint.ask("manifests/1").status)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8
    assert len(node.questions) == 1


# One run.


def program(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "program"
    path.write_text(f"#!{sys.executable} -S\n{text}")
    path.chmod(0o755)
    return [str(path)]


def test_a_program_has_the_agents_environment_besides_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("REGION", "south")
    said = "import os; print(os.environ['HTTPS_PROXY'], os.environ['REGION'])"
    assert credential_plugin.run(program(tmp_path, said), {"REGION": "north"}, b"") == b"http://proxy:1 north\n"


def test_what_a_program_began_ends_with_it_when_it_is_stopped(tmp_path: Path) -> None:
    child = (
        f"import subprocess, time; c = subprocess.Popen(['sleep', '60']); open({str(tmp_path / 'pid')!r}, 'w').write(str(c.pid))"
    )
    with pytest.raises(ProviderError, match="did not end in time"):
        credential_plugin.run(program(tmp_path, child + "; time.sleep(60)"), {}, b"", seconds=1.0)
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not os.path.exists(f"/proc/{pid}") or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")


def test_more_output_than_any_answer_has_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="writes more than"):
        credential_plugin.run(program(tmp_path, "print('x' * (2 << 20))"), {}, b"")


def test_what_a_program_says_on_standard_error_is_nobodys(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = "import sys; print('s3cret', file=sys.stderr); sys.exit(1)"
    with pytest.raises(ProviderError, match="status 1") as failed:
        credential_plugin.run(program(tmp_path, said), {}, base64.b64encode(b"question"))
    assert "s3cret" not in str(failed.value)
    assert "s3cret" not in capfd.readouterr().err
