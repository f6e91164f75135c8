"""`darner save`: what a namespace runs, as its pods name it, with the digests that run, by way of an agent's pod."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.cluster import ClusterAccess
from cli.errors import ExitCode
from cli.layout.archive import archive_at
from cli.save import RunningImage, running_images
from hack.origin import Image, Origin
from hack.origin.access import Access
from tests.archives import INDEX_TYPE, index_of
from tests.endpoint import REPOSITORY, Endpoint
from tests.swarm import noise
from tests.unit.cli.podserver import PodServer
from tests.unit.cli.typed import Typed
from webhook.kube.api import ApiAnswer

OLD, NEW, ARM = Image.of([noise(300_000)]), Image.of([b"new"]), Image.of([b"arm"])
INDEX = Image(index_of({"linux/amd64": NEW, "linux/arm64": ARM}), {}, INDEX_TYPE)
LOCAL = "127.0.0.1:65001"


def pod(image: str, digest: str = "", made: str = "2026-01-01T00:00:00Z", **spec: Any) -> dict[str, Any]:
    """One that runs an image of that digest."""
    status = [{"name": "app", "imageID": f"{LOCAL}/x/y@{digest}"}] if digest else []
    return {
        "metadata": {"creationTimestamp": made},
        "spec": {"containers": [{"name": "app", "image": image}], **spec},
        "status": {"containerStatuses": status},
    }


@pytest.fixture
def origin(tmp_path: Path, darner: PodServer) -> Iterator[Origin]:
    """What the agent of a cluster serves, with a node of each of two kinds."""
    access = Access(users={"alice": "s3cret"}, private=frozenset({"team/private"}))
    with Origin(access=access) as origin, Endpoint(tmp_path / "store", origin) as endpoint:
        darner.ports |= {"darner-agent-0": endpoint.listener.address.port}
        darner.put("/api/v1/namespaces/team", {})
        darner.put("/api/v1/nodes/n0", {"metadata": {"labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}}})
        for tag, image in {"old": OLD, "new": NEW, "arm": ARM, "index": INDEX}.items():
            origin.push(REPOSITORY, tag, image)
        origin.push(REPOSITORY, "1", NEW)
        yield origin


def saved(where: Path) -> dict[str, tuple[str, set[str]]]:
    """By name, the digest and the blobs, which were found to be right."""
    with archive_at(str(where)) as archive:
        for image in archive.images:
            archive.check(image)
        return {image.name: (image.digest, set(image.blobs)) for image in archive.images}


def test_a_namespace_is_saved_as_its_pods_name_it_with_what_runs(
    darner: PodServer, origin: Origin, typed: Typed, tmp_path: Path
) -> None:
    name = f"{origin.address}/{REPOSITORY}:1"
    local = f"{LOCAL}/{origin.address.replace(':', '_')}/{REPOSITORY}:index"
    darner.put("/api/v1/namespaces/team/pods/a", pod(name, OLD.digest, "2026-01-02T00:00:00Z"))
    darner.put("/api/v1/namespaces/team/pods/b", pod(name, NEW.digest, "2026-01-01T00:00:00Z"))
    darner.put("/api/v1/namespaces/team/pods/c", pod(local, INDEX.digest))
    status, shown, said = typed("save", "team", f"{origin.address}/{REPOSITORY}:old", "-o", str(tmp_path / "a.tar"))
    index = f"{origin.address}/{REPOSITORY}:index"
    assert (status, said) == (ExitCode.FINE, f"two images of the name {name} run; {OLD.digest} is saved\n")
    assert saved(tmp_path / "a.tar") == {
        name: (OLD.digest, set(OLD.blobs)),
        index: (INDEX.digest, set(NEW.blobs)),
        f"{origin.address}/{REPOSITORY}:old": (OLD.digest, set(OLD.blobs)),
    }, "of an index what the cluster's nodes need, and its own digest"
    assert f"{index} {INDEX.digest}\n" in shown


def test_the_right_to_list_its_pods_is_enough_for_a_namespace(
    darner: PodServer, origin: Origin, typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{origin.address}/{REPOSITORY}:1"
    darner.put("/api/v1/namespaces/team/pods/a", pod(name, NEW.digest))
    ask = ClusterAccess.ask

    def refuse(access: ClusterAccess, method: str, path: str, *more: Any, **query: Any) -> ApiAnswer:
        return ApiAnswer(403, {}) if path == "/api/v1/namespaces/team" else ask(access, method, path, *more, **query)

    monkeypatch.setattr(ClusterAccess, "ask", refuse)
    assert typed("save", "team", "-o", str(tmp_path / "a.tar"))[0] == ExitCode.FINE
    assert saved(tmp_path / "a.tar").keys() == {name}


def test_all_platforms_are_saved_where_that_is_asked(darner: PodServer, origin: Origin, typed: Typed, tmp_path: Path) -> None:
    name = f"{origin.address}/{REPOSITORY}:index"
    assert typed("save", name, "-o", str(tmp_path / "d"), "--platform", "all")[0] == ExitCode.FINE
    assert saved(tmp_path / "d") == {name: (INDEX.digest, {*NEW.blobs, *ARM.blobs})}


def test_private_images_are_saved_with_the_pull_secrets_of_their_pods(
    darner: PodServer, origin: Origin, typed: Typed, tmp_path: Path
) -> None:
    origin.push("team/private", "1", NEW)
    name = f"{origin.address}/team/private:1"
    darner.put(
        "/api/v1/namespaces/team/pods/a", pod(name, NEW.digest, imagePullSecrets=[{"name": "darner-own"}, {"name": "own"}])
    )
    status, _, said = typed("save", "team", "-o", str(tmp_path / "a.tar"))
    assert (status, said.count("\n")) == (ExitCode.PROBLEM, 1)
    assert "name a file of them by --authfile" in said
    assert not (tmp_path / "a.tar").exists()
    config = {"auths": {origin.address: {"username": "alice", "password": "s3cret"}}}
    data = {".dockerconfigjson": base64.b64encode(json.dumps(config).encode()).decode()}
    darner.put("/api/v1/namespaces/team/secrets/own", {"type": "kubernetes.io/dockerconfigjson", "data": data})
    assert typed("save", "team", "-o", str(tmp_path / "a.tar"))[0] == ExitCode.FINE
    assert saved(tmp_path / "a.tar").keys() == {name}


def test_what_cannot_be_saved_is_said_in_a_line(darner: PodServer, origin: Origin, typed: Typed, tmp_path: Path) -> None:
    output = str(tmp_path / "a.tar")
    for words, arguments in {
        "nothing runs in team": ["team"],
        "is not there": [f"{origin.address}/{REPOSITORY}:none"],
        "nor is it a namespace": ["a b"],
        "it is for linux/amd64": [f"{origin.address}/{REPOSITORY}:index", "--platform", "linux/s390x"],
    }.items():
        status, _, said = typed("save", *arguments, "-o", output)
        assert (status in (ExitCode.PROBLEM, ExitCode.USAGE), said.count("\n")) == (True, 1)
        assert words in said
    darner.refused_streams = 403
    assert "Kubernetes does not allow it" in typed("save", f"{origin.address}/{REPOSITORY}:1", "-o", output)[2]
    darner.refused_streams = 0
    darner.ports.clear()
    assert "broke off" in typed("save", f"{origin.address}/{REPOSITORY}:1", "-o", output)[2]
    assert not list(tmp_path.glob("a.tar*"))


def test_images_of_pods_are_those_of_all_places_that_name_one() -> None:
    volumes = [{"name": "model", "image": {"reference": f"docker.io/models/a@{OLD.digest}"}}, {"name": "other", "emptyDir": {}}]
    made = pod("nginx", "", volumes=volumes, initContainers=[{"name": "i", "image": "a b"}, {"name": "j"}])
    made["status"]["containerStatuses"] = [{"name": "app", "imageID": "sha256:" + "1" * 64}]
    assert running_images([made]) == [
        RunningImage("docker.io/library/nginx:latest"),
        RunningImage(f"docker.io/models/a@{OLD.digest}"),
    ]
    assert str(RunningImage("docker.io/library/nginx:1", OLD.digest).reference) == f"docker.io/library/nginx@{OLD.digest}"
