"""The supernode's socket: what it is asked by whoever may exec into its pod is checked like everything else."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.storage.store import Store
from agent.values.errors import DarnerError, UsageError
from hack.origin.image import MANIFEST, Image
from supernode.loaded import pipe
from supernode.loaded.conversation import LoadedManifest, LoadImage
from supernode.loaded.images import LoadedImages
from supernode.loaded.place import SOCKET, socket_path
from supernode.loaded.receiver import LoadReceiver
from tests.archives import INDEX_TYPE, content_of, index_of
from tests.swarm import nothing_left_running

NAME = "gone.test/team/app:1"
IMAGE = Image.of([b"layer" * 1000])


class Receiving:
    """A receiver, and one client."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root, quota=1 << 30, free=0, age=3600.0)
        self.images = LoadedImages(root, self.store)
        self.receiver = LoadReceiver(root, self.store, self.images)
        self.receiver.start()
        self.client = socket.socket(socket.AF_UNIX)
        self.client.settimeout(10)
        with socket_path(root) as path:
            self.client.connect(path)
        self.lines = self.client.makefile("rb")

    def close(self) -> None:
        self.lines.close()
        self.client.close()
        self.receiver.stop()
        self.store.close()

    def ask(self, what: LoadImage | bytes) -> dict[str, Any]:
        self.client.sendall((what if isinstance(what, bytes) else msgspec.json.encode(what)) + b"\n")
        return self.hear()

    def hear(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.lines.readline())
        return said


@pytest.fixture
def receiving(tmp_path: Path) -> Iterator[Receiving]:
    with nothing_left_running():
        receiving = Receiving(tmp_path / ("a" * 100) / "store")
        yield receiving
        receiving.close()


def load_of(image: Image, name: str = NAME, **changed: Any) -> LoadImage:
    manifests = {image.digest: LoadedManifest(MANIFEST, image.manifest)}
    return msgspec.structs.replace(LoadImage(name, image.digest, manifests), **changed)


def test_only_what_is_missing_is_asked_for_and_the_next_name_of_it_is_loaded_at_once(receiving: Receiving) -> None:
    missing = receiving.ask(load_of(IMAGE))["missing"]
    assert set(missing) == IMAGE.blobs.keys()
    receiving.client.sendall(b"".join(content_of(IMAGE.blobs[digest]) for digest in missing))
    assert receiving.hear() == {}
    assert receiving.ask(load_of(IMAGE, "gone.test/team/app:2")) == {"missing": []}
    assert receiving.hear() == {}
    for reference in ("1", "2", IMAGE.digest):
        manifest = receiving.images.manifest("gone.test", "team/app", reference)
        assert manifest
        assert manifest.body == IMAGE.manifest
    assert receiving.images.manifest("gone.test", "team/other", "1") is None
    assert receiving.images.blob_size("gone.test", "team/app", IMAGE.layers[0]) == 5000
    assert receiving.images.blob_size("gone.test", "team/other", IMAGE.layers[0]) is None


def test_what_is_loaded_is_there_after_a_restart_and_a_file_that_a_crash_left_is_not(tmp_path: Path) -> None:
    first = Receiving(tmp_path)
    missing = first.ask(load_of(IMAGE))["missing"]
    first.client.sendall(b"".join(content_of(IMAGE.blobs[digest]) for digest in missing))
    assert first.hear() == {}
    first.close()
    (tmp_path / "loaded" / ("e" * 64)).write_bytes(b"half")
    (tmp_path / "loaded" / "x.new").write_bytes(next((tmp_path / "loaded").iterdir()).read_bytes())
    second = Receiving(tmp_path)
    assert [item["name"] for item in second.images.described()] == [NAME]
    assert len(list((tmp_path / "loaded").iterdir())) == 1
    second.store.drop(second.store.blob(IMAGE.layers[0]) or pytest.fail("it is not there"))
    assert second.images.described()[0]["blobsMissing"] == 1
    assert second.images.blob_size("gone.test", "team/app", IMAGE.layers[0]) is None
    second.close()


def test_what_a_smaller_quota_has_no_room_for_is_there_again_with_the_larger_one_unless_it_is_unloaded(tmp_path: Path) -> None:
    first = Receiving(tmp_path)
    for name in (NAME, "gone.test/team/app:2"):
        missing = first.ask(load_of(IMAGE, name))["missing"]
        first.client.sendall(b"".join(content_of(IMAGE.blobs[digest]) for digest in missing))
        assert first.hear() == {}
    first.close()
    store = Store(tmp_path, quota=1000, free=0, age=3600.0)
    images = LoadedImages(tmp_path, store)
    assert images.described() == []
    assert images.unload(NAME)
    assert not images.unload(NAME)
    store.close()
    second = Receiving(tmp_path)
    assert [item["name"] for item in second.images.described()] == ["gone.test/team/app:2"]
    second.close()


class Crowded(socket.socket):
    """The first that comes finds no descriptor."""

    failed = False

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.failed:
            Crowded.failed = True
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def test_a_moment_without_descriptors_is_not_the_end_of_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supernode.loaded.receiver.socket.socket", Crowded)
    receiving = Receiving(tmp_path)
    assert Crowded.failed
    assert "missing" in receiving.ask(load_of(IMAGE))
    receiving.close()


def without_sizes(image: Image) -> bytes:
    document = json.loads(image.manifest)
    del document["layers"][0]["size"]
    return json.dumps(document).encode()


def absurd(image: Image) -> bytes:
    document = json.loads(image.manifest)
    document["layers"][0]["size"] = 1 << 60
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (b"x", "does not know what it is asked"),
        (b'{"type": "load"}', "does not know what it is asked"),
        (load_of(IMAGE, "app"), "not a full name"),
        (load_of(IMAGE, "gone.test/team/app"), "not a full name"),
        (load_of(IMAGE, digest="sha256:" + "0" * 64), "does not have the manifest"),
        (load_of(IMAGE, digest="../x"), "is not a digest"),
        (load_of(IMAGE, f"gone.test/team/app@sha256:{'0' * 64}"), "does not have the manifest"),
        (load_of(IMAGE, manifests={IMAGE.digest: LoadedManifest(MANIFEST, b"{}")}), "has a manifest that is not"),
        (load_of(Image(b"{}", {})), "does not say which blobs"),
        (load_of(Image(without_sizes(IMAGE), {})), "how long they are"),
        (load_of(Image(absurd(IMAGE), {})), "or one that no blob has"),
        (load_of(Image(index_of({"linux/amd64": IMAGE}), {}, INDEX_TYPE)), "no platform of which all is there"),
    ],
)
def test_what_is_no_image_is_refused_in_a_line(receiving: Receiving, asked: LoadImage | bytes, words: str) -> None:
    assert words in receiving.ask(asked)["error"]
    assert receiving.lines.readline() == b"", "that is the last that is said"
    assert receiving.images.described() == []


def test_a_blob_that_is_wrong_leaves_nothing_and_neither_does_a_client_that_leaves(receiving: Receiving) -> None:
    missing = receiving.ask(load_of(IMAGE))["missing"]
    receiving.client.sendall(b"".join(content_of(IMAGE.blobs[digest])[::-1] for digest in missing))
    assert "do not have that digest" in receiving.hear()["error"]
    with socket.socket(socket.AF_UNIX) as client:
        with socket_path(receiving.root) as path:
            client.connect(path)
        client.sendall(msgspec.json.encode(load_of(IMAGE)) + b"\n")
        assert client.recv(1000).startswith(b'{"missing"')
        client.sendall(b"x")
        client.shutdown(socket.SHUT_WR)
        assert b"was interrupted" in client.recv(1000)
    assert receiving.images.described() == []
    assert receiving.store.holdings() == {}


def test_one_is_loaded_at_a_time(receiving: Receiving) -> None:
    receiving.ask(load_of(IMAGE))
    with socket.socket(socket.AF_UNIX) as client:
        with socket_path(receiving.root) as path:
            client.connect(path)
        client.sendall(msgspec.json.encode(load_of(IMAGE)) + b"\n")
        assert b"another image is being loaded here; try again" in client.recv(1000)


def test_where_no_socket_can_be_made_the_supernode_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, quota=1 << 30, free=0, age=3600.0)
    monkeypatch.setattr("supernode.loaded.receiver.SOCKET", "x" * 200)
    monkeypatch.setattr("supernode.loaded.place.SOCKET", "x" * 200)
    receiver = LoadReceiver(tmp_path, store, LoadedImages(tmp_path, store))
    receiver.start()
    receiver.stop()
    store.close()
    assert "no image can be loaded here" in caplog.text


def test_nobody_else_comes_to_the_socket(receiving: Receiving) -> None:
    assert stat.S_IMODE(os.stat(receiving.root).st_mode) == 0o700
    assert stat.S_ISSOCK(os.stat(receiving.root / SOCKET).st_mode)


def test_the_pipe_says_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="in the container of a supernode"):
        pipe.run([], {}, 0, 1)
    with pytest.raises(DarnerError, match=r"does not answer: .*; try again when it is ready"):
        pipe.run([], {"DARNER_STORE": str(tmp_path)}, 0, 1)
