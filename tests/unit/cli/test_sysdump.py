"""`darner sysdump`: what is in the archive, and that no secret is."""

from __future__ import annotations

import base64
import gzip
import json
import tarfile
from pathlib import Path

import pytest

from cli.errors import ExitCode
from cli.secrecy import LEFT_OUT, without_secrets
from tests.unit.cli.installed import NAMESPACE, put_pod
from tests.unit.cli.podserver import PodServer
from tests.unit.cli.typed import Typed

CANARY = "c4narybird"


def contents(file: Path) -> dict[str, str]:
    with tarfile.open(file) as archive:
        found = {}
        for member in archive.getmembers():
            reader = archive.extractfile(member)
            assert reader
            found[member.name.removeprefix("darner-sysdump/")] = reader.read().decode()
        return found


def test_all_that_says_what_went_on_is_in_it_and_no_secret(darner: PodServer, typed: Typed, tmp_path: Path) -> None:
    config = {"registries": {"insecure": ["reg.test"]}, "extraEnv": [{"name": "REG_PASSWORD", "value": CANARY}], "apiKey": CANARY}
    helm = {"chart": {"metadata": {"name": "darner", "version": "0.1.0"}}, "config": config, "version": 3, "manifest": CANARY}
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(helm).encode()))).decode()
    labels = {"owner": "helm", "name": "darner", "version": "3"}
    secrets = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    darner.put(f"{secrets}/sh.helm.release.v1.darner.v3", {"metadata": {"labels": labels}, "data": {"release": packed}})
    darner.put(f"{secrets}/darner-swarm", {"data": {"key": base64.b64encode(CANARY.encode()).decode()}})
    pod = put_pod(darner, "darner-agent-0", "agent")
    variables = [{"name": "HTTPS_PROXY", "value": f"http://me:{CANARY}@proxy:1"}]
    pod["spec"]["containers"] = [{"name": "agent", "env": variables}]
    darner.put(f"/api/v1/namespaces/{NAMESPACE}/pods/darner-agent-0", pod)
    darner.logs["darner-agent-0"] = f"agent n0 is ready\nasked with Authorization: Bearer {CANARY}\n"
    file = tmp_path / "dump.tar.gz"
    assert typed("sysdump", "-f", str(file))[0] == ExitCode.FINE
    found = contents(file)
    assert CANARY not in " ".join(found.values())
    assert json.loads(found["values.json"])["values"]["registries"] == {"insecure": ["reg.test"]}
    assert "agent n0 is ready" in found["logs/darner-agent-0.log"]
    assert "darner_webhook_reverted_pods_total" in found["metrics/darner-webhook-0.txt"]
    assert json.loads(found["state/darner-supernode-0.json"])["nodes"]
    assert json.loads(found["objects/daemonsets.json"])[0]["metadata"]["name"] == "darner-agent"
    assert not any("secrets" in name for name in found)


def test_what_could_not_be_had_is_said_in_it(darner: PodServer, typed: Typed, tmp_path: Path) -> None:
    file = tmp_path / "dump.tar.gz"
    status, shown, _ = typed("sysdump", "-f", str(file))
    missing = json.loads(contents(file)["missing.json"])
    assert (status, "values.json" in missing) == (ExitCode.FINE, True)
    assert "not in it: values.json: Helm keeps no release darner" in shown


def test_a_file_that_cannot_be_written_is_named(darner: PodServer, typed: Typed) -> None:
    status, _, said = typed("sysdump", "-f", "/nowhere/dump.tar.gz")
    assert (status, said) == (ExitCode.PROBLEM, "darner: /nowhere/dump.tar.gz cannot be written: No such file or directory\n")


@pytest.mark.parametrize(
    "value",
    [
        {"password": CANARY},
        {"auths": {"reg.test": {"auth": CANARY}}},
        {"name": "API_TOKEN", "value": CANARY},
        f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END RSA PRIVATE KEY-----",
        f"https://me:{CANARY}@reg.test/v2/",
        [{"deep": {"privateKey": CANARY}}],
        f"Authorization: Basic {CANARY}",
        {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": CANARY}},
    ],
)
def test_no_form_of_a_secret_passes(value: object) -> None:
    assert CANARY not in json.dumps(without_secrets(value))


def test_what_is_none_stays_as_it_is() -> None:
    kept = {
        "image": "reg.test/a/b:1",
        "secretName": "pull",
        "key": "",
        "number": 3,
        "tokenExpirationSeconds": 3600,
        "url": "http://a/b",
    }
    assert without_secrets(kept) == kept
    assert without_secrets({"password": "x"}) == {"password": LEFT_OUT}
