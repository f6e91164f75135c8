"""`darner load` into two supernodes of this process: a runtime pulls by the original names, and no registry is there."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.values.credential import Credential
from cli.errors import ExitCode
from hack.lab import apiserver
from hack.origin.image import Image
from supernode.loaded import pipe
from tests.archives import blob_path, layout_of, saved_of, write_directory, write_tar
from tests.endpoint import Endpoint, runtime_at_node
from tests.swarm import Lab, noise
from tests.unit.cli.installed import NAMESPACE, install, put_pod
from tests.unit.cli.podserver import PodServer
from tests.unit.cli.typed import Typed, typed_with

GONE = "registry.gone.invalid"
"""Where no registry ever was."""
NAME = f"{GONE}/team/app:1"
PATH = f"/v2/{GONE}/team/app"
QUOTA = 64 << 20
LAYER = noise(1_700_000)
IMAGE = Image.of([LAYER])


class Cluster:
    """An API server whose supernode pods are the lab's."""

    def __init__(self, lab: Lab, api: PodServer, typed: Typed) -> None:
        self.lab, self.api, self.typed = lab, api, typed
        install(api)
        put_pod(api, "darner-supernode-1", "supernode")
        api.dialogues = self.speak

    def speak(self, pod: str, command: list[str], source: int, sink: int) -> int:
        assert command == ["darner", "loaded"]
        supernode = self.lab.supernodes[int(pod[-1])]
        assert supernode
        return pipe.run([], {"DARNER_STORE": supernode._settings.store}, source, sink)

    def load(self, *arguments: str | Path) -> tuple[int, str]:
        status, out, errors = self.typed("load", *map(str, arguments))
        return status, out if status == 0 else errors

    def loaded(self, number: int = 0) -> list[str]:
        return [item["name"] for item in self.lab.state(number)["loaded"]]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cluster]:
    api = PodServer()
    (tmp_path / "key").write_text("k" * 32)
    key = str(tmp_path / "key")
    with apiserver.running(api), Lab(tmp_path / "lab", supernodes=2, store_quota=QUOTA, swarm_key_file=key) as lab:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        yield Cluster(lab, api, typed_with(capsys))


def pulls(cluster: Cluster) -> bool:
    """A runtime at a new node pulls all of it by its name."""
    with runtime_at_node(cluster.lab.node(), cluster.lab.origin) as runtime:
        return pulls_from(runtime)


def pulls_from(runtime: Endpoint, path: str = PATH, image: Image = IMAGE, **headers: str) -> bool:
    """As containerd asks."""
    head = runtime.ask(f"{path}/manifests/1", "HEAD", **headers)
    manifest = runtime.ask(f"{path}/manifests/{image.digest}", **headers)
    blobs = [runtime.ask(f"{path}/blobs/{digest}", **headers) for digest in image.blobs]
    assert head.headers["docker-content-digest"] == image.digest
    assert "warning" not in {name.lower() for name in head.headers}
    return manifest.body == image.manifest and [answer.body for answer in blobs] == list(image.blobs.values())


def test_a_loaded_image_is_pulled_by_its_name_without_a_registry_also_after_a_restart(cluster: Cluster, tmp_path: Path) -> None:
    status, said = cluster.load(write_tar(tmp_path / "app.tar", layout_of({NAME: IMAGE})))
    assert (status, said) == (0, f"{NAME} {IMAGE.digest} 1.6 MiB, in 2 of 2 supernodes\n")
    assert cluster.loaded(0) == cluster.loaded(1) == [NAME]
    assert pulls(cluster)
    for number in range(2):
        cluster.lab.stop_supernode(number)
        cluster.lab.start_supernode(number, empty=False)
    assert pulls(cluster)


def test_a_layer_that_came_by_another_name_is_given_by_this_one_too(cluster: Cluster, tmp_path: Path) -> None:
    """No registry is there that could prove that it has the bytes: who loaded them has."""
    other = Image.of([LAYER, b"more"])
    archive = write_tar(tmp_path / "app.tar", layout_of({NAME: IMAGE, "other.gone.invalid/app:1": other}))
    assert cluster.load(archive)[0] == 0
    first, second = cluster.lab.node(), cluster.lab.node()
    with runtime_at_node(first, cluster.lab.origin) as runtime, runtime_at_node(second, cluster.lab.origin) as later:
        assert pulls_from(runtime)
        assert pulls_from(runtime, "/v2/other.gone.invalid/app", other)
        assert pulls_from(later, "/v2/other.gone.invalid/app", other)


def test_whoever_sends_a_credential_is_given_it_as_well(cluster: Cluster, tmp_path: Path) -> None:
    cluster.load(write_tar(tmp_path / "app.tar", layout_of({NAME: IMAGE})))
    node = cluster.lab.node()
    node.manifests.shared = node.swarm
    with runtime_at_node(node, cluster.lab.origin) as runtime:
        assert pulls_from(runtime, Authorization=Credential("alice", "s3cret").header)


def test_an_image_that_docker_saved_is_loaded_by_the_name_that_is_given(cluster: Cluster, tmp_path: Path) -> None:
    saved = write_directory(tmp_path / "saved", saved_of("team/app:old", IMAGE))
    status, said = cluster.load(saved, "--name", NAME, "--output", "json")
    (image,) = json.loads(said)["images"]
    assert (status, image["name"]) == (0, NAME)
    with runtime_at_node(cluster.lab.node(), cluster.lab.origin) as runtime:
        manifest = json.loads(runtime.ask(f"{PATH}/manifests/1").body)
        assert [layer["digest"] for layer in manifest["layers"]] == IMAGE.layers
        assert runtime.ask(f"{PATH}/blobs/{IMAGE.layers[0]}").body == LAYER


def test_what_is_loaded_stays_when_the_cache_is_full_and_goes_when_it_is_unloaded(cluster: Cluster, tmp_path: Path) -> None:
    cluster.load(write_tar(tmp_path / "app.tar", layout_of({NAME: IMAGE})))
    supernode = cluster.lab.supernode
    supernode._store.quota = 2_000_000
    supernode._store.age = -1.0
    supernode._collector.look(evict=True)
    assert supernode._store.holdings().keys() >= IMAGE.blobs.keys()
    assert cluster.typed("unload", NAME)[0] == 0
    assert cluster.loaded() == []
    supernode._collector.look(evict=True)
    assert not supernode._store.holdings().keys() & IMAGE.blobs.keys()
    status, _, errors = cluster.typed("unload", NAME)
    assert status == 1
    assert f"{NAME} is not loaded" in errors


@pytest.mark.parametrize("spoil", ["digest", "short", "missing", "quota", "disk"])
def test_an_image_that_cannot_be_loaded_is_said_in_a_line_and_named_nowhere(cluster: Cluster, tmp_path: Path, spoil: str) -> None:
    files = layout_of({NAME: IMAGE})
    layer = blob_path(IMAGE.layers[0])
    match spoil:
        case "digest":
            files[layer] = b"x" + LAYER[1:]
        case "missing":
            del files[layer]
        case "quota":
            for supernode in cluster.lab.supernodes:
                assert supernode
                supernode._store.quota = 1 << 20
        case "disk":
            for supernode in cluster.lab.supernodes:
                assert supernode
                supernode._store.limit = 1 << 20
    archive = write_tar(tmp_path / "app.tar", files)
    if spoil == "short":
        archive.write_bytes(archive.read_bytes()[: 1 << 20])
    status, errors = cluster.load(archive)
    words = {
        "digest": "has another digest; copy it again",
        "short": "is cut short; copy it again",
        "missing": "save the image again",
        "quota": "bytes more cannot be pinned: the quota of",
        "disk": "has no room for 1700000 bytes: the disk is full",
    }
    assert status == 1
    assert words[spoil] in errors
    assert errors.count("\n") == 1
    assert cluster.loaded() == []
    assert not (cluster.lab.supernode._store._pins)


def test_a_load_that_is_interrupted_names_nothing_and_the_next_one_ends_it(cluster: Cluster, tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "app.tar", layout_of({NAME: IMAGE}))

    def leaves(pod: str, command: list[str], source: int, sink: int) -> int:
        """As if the connection ended in the middle of the layer."""
        some, end = os.pipe()

        def pass_on() -> None:
            for _ in range(16):
                os.write(end, os.read(source, 1 << 16))
            os.close(end)

        passing = threading.Thread(target=pass_on)
        passing.start()
        status = cluster.speak(pod, command, some, sink)
        passing.join()
        os.close(some)
        return status

    cluster.api.dialogues = leaves
    status, errors = cluster.load(archive)
    assert (status, errors.count("\n")) == (1, 1)
    assert "was interrupted" in errors
    assert cluster.loaded() == []
    cluster.api.dialogues = cluster.speak
    assert cluster.load(archive)[0] == 0
    assert pulls(cluster)


def test_whoever_may_not_exec_into_the_pods_loads_nothing(cluster: Cluster, tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "app.tar", layout_of({NAME: IMAGE}))
    cluster.api.refused_streams = 403
    status, errors = cluster.load(archive)
    assert status == 1
    assert "Kubernetes does not allow it" in errors
    assert cluster.loaded() == []
    assert NAMESPACE in errors or "darner-supernode-0" in errors


def test_an_api_server_that_asks_who_is_there_holds_up_nothing(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.streams.SEND_SECONDS_MAX", 1.0)
    cluster.api.pings = True
    assert cluster.load(write_tar(tmp_path / "app.tar", layout_of({NAME: IMAGE})))[0] == 0


def test_who_interrupts_a_load_waits_for_no_supernode(cluster: Cluster, tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "app.tar", layout_of({NAME: IMAGE}))
    heard = threading.Semaphore(0)

    def listen(pod: str, command: list[str], source: int, sink: int) -> int:
        while os.read(source, 1 << 16):
            heard.release()
        return 0

    def interrupt() -> None:
        for _ in range(2):
            heard.acquire(timeout=10)
        os.kill(os.getpid(), signal.SIGINT)

    cluster.api.dialogues = listen
    threading.Thread(target=interrupt).start()
    began = time.monotonic()
    assert cluster.load(archive)[0] == ExitCode.INTERRUPTED
    assert time.monotonic() - began < 20
