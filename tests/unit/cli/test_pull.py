"""`darner pull`: an image through an agent's registry endpoint, written as an OCI layout or as docker's archive."""

from __future__ import annotations

import functools
import gzip
import json
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from agent.values.reference import Reference
from cli.app import app
from cli.errors import ClosedPipe, CommandError, ExitCode
from cli.layout.archive import archive_at
from cli.layout.sinks import sink_at
from cli.registry import AgentRegistry
from hack.origin import Image, Origin
from hack.origin.access import Access
from hack.origin.faults import Fault
from hack.origin.image import sha256
from tests.archives import INDEX_TYPE, blob_path, content_of, index_of, layout_of, write_directory
from tests.endpoint import REPOSITORY, Endpoint
from tests.swarm import noise
from tests.unit.cli.typed import Typed
from tests.web_server import Page, WebServer

IMAGE = Image.of([noise(700_000), b"small"])
OTHER = Image.of([b"for another machine"])


@pytest.fixture
def endpoint(tmp_path: Path, kubeconfig: Path) -> Iterator[Endpoint]:
    """Of an agent; the kubeconfig's home has no credentials."""
    access = Access(users={"alice": "s3cret"}, private=frozenset({"team/private"}))
    with Origin(access=access) as origin, Endpoint(tmp_path / "store", origin) as endpoint:
        origin.push(REPOSITORY, "1", IMAGE)
        yield endpoint


@pytest.fixture
def pull(endpoint: Endpoint, typed: Typed) -> Callable[..., tuple[int, str, str]]:
    def pull(output: Path | str, *options: str, name: str = f"{REPOSITORY}:1") -> tuple[int, str, str]:
        image = f"{endpoint.origin.address}/{name}"
        return typed("pull", image, "-o", str(output), "--agent", str(endpoint.listener.address), *options)

    return pull


Pull = Callable[..., tuple[int, str, str]]


def contents(where: Path) -> dict[str, dict[str, bytes]]:
    """By name, all blobs of each image of an archive, which were found to be right."""
    found: dict[str, dict[str, bytes]] = {}
    with archive_at(str(where)) as archive:
        for image in archive.images:
            archive.check(image)
            blobs = found[image.name] = {}
            for digest in image.blobs:
                with archive.blob(digest) as file:
                    blobs[digest] = file.read()
    return found


def test_a_directory_and_a_tar_have_the_image_under_its_name(endpoint: Endpoint, pull: Pull, tmp_path: Path) -> None:
    name = f"{endpoint.origin.address}/{REPOSITORY}:1"
    for output in (tmp_path / "d", tmp_path / "a.tar"):
        assert pull(output) == (ExitCode.FINE, f"{name} {IMAGE.digest} is in {output}\n", "")
        assert contents(output) == {name: {digest: content_of(content) for digest, content in IMAGE.blobs.items()}}
    assert not list(tmp_path.rglob("*.partial"))


def test_an_image_takes_the_place_of_one_that_another_program_wrote_under_its_name(
    endpoint: Endpoint, pull: Pull, tmp_path: Path
) -> None:
    name = f"{endpoint.origin.address}/{REPOSITORY}:1"
    annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "1"}
    write_directory(tmp_path / "d", layout_of({name: OTHER}))
    index = json.loads((tmp_path / "d" / "index.json").read_text())
    index["manifests"] = [index["manifests"][0] | {"annotations": annotations}, {"annotations": None}]
    (tmp_path / "d" / "index.json").write_text(json.dumps(index))
    assert pull(tmp_path / "d")[0] == ExitCode.FINE
    first, second = json.loads((tmp_path / "d" / "index.json").read_text())["manifests"]
    assert (first, second["digest"]) == ({"annotations": None}, IMAGE.digest)


def test_docker_loads_its_archive(pull: Pull, tmp_path: Path) -> None:
    output = tmp_path / "a.tar"
    assert pull(output, "--format", "docker", "--platform", "linux/amd64")[0] == ExitCode.FINE
    with tarfile.open(output) as tar:
        names = tar.getnames()
    config = json.loads(IMAGE.manifest)["config"]["digest"].removeprefix("sha256:")
    layers = [f"{digest.removeprefix('sha256:')}.tar" for digest in IMAGE.layers]
    assert names == [f"{config}.json", *layers, "manifest.json"]
    (found,) = contents(output).values()
    assert list(found) == list(IMAGE.blobs)[-1:] + IMAGE.layers


def test_layers_are_uncompressed_for_docker(endpoint: Endpoint, pull: Pull, tmp_path: Path) -> None:
    plain = noise(300_000) + bytes(300_000)
    packed = gzip.compress(plain[:1000]) + gzip.compress(plain[1000:])
    image = Image.of([packed])
    config = json.loads(content_of(image.blobs[json.loads(image.manifest)["config"]["digest"]]))
    config["rootfs"]["diff_ids"] = Image.of([plain]).layers
    changed = Image.of([packed], {})
    document, body = json.loads(changed.manifest), json.dumps(config).encode()
    document["config"] |= {"digest": sha256(body), "size": len(body)}
    endpoint.origin.push(REPOSITORY, "gzip", Image(json.dumps(document).encode(), {sha256(body): body, sha256(packed): packed}))
    assert pull(tmp_path / "a.tar", "--format", "docker", name=f"{REPOSITORY}:gzip")[0] == ExitCode.FINE
    (found,) = contents(tmp_path / "a.tar").values()
    assert plain in found.values()


def test_of_several_platforms_one_is_chosen_or_all(endpoint: Endpoint, pull: Pull, tmp_path: Path) -> None:
    index = index_of({"linux/amd64": IMAGE, "linux/arm64": OTHER})
    endpoint.origin.push(REPOSITORY, "other", OTHER)
    endpoint.origin.push(REPOSITORY, "all", Image(index, {}, INDEX_TYPE))
    for platform, blobs in {
        "linux/arm64": OTHER.blobs,
        "linux/amd64": IMAGE.blobs,
        "all": {**IMAGE.blobs, **OTHER.blobs},
    }.items():
        output = tmp_path / platform.replace("/", "-")
        assert pull(output, "--platform", platform, name=f"{REPOSITORY}:all")[0] == ExitCode.FINE
        assert set(*map(frozenset, contents(output).values())) == blobs.keys()
    status, _, said = pull(tmp_path / "x", "--platform", "linux/s390x", name=f"{REPOSITORY}:all")
    assert (status, said.count("\n")) == (ExitCode.PROBLEM, 1)
    assert "it is for linux/amd64, linux/arm64" in said
    assert pull(tmp_path / "x", "--platform", "pdp11")[0] == ExitCode.USAGE
    assert pull(tmp_path / "x", "--platform", "all", "--format", "docker")[0] == ExitCode.USAGE


def test_a_private_image_takes_a_credential(endpoint: Endpoint, pull: Pull, tmp_path: Path) -> None:
    endpoint.origin.push("team/private", "1", IMAGE)
    status, _, said = pull(tmp_path / "d", name="team/private:1")
    assert (status, said.count("\n")) == (ExitCode.PROBLEM, 1)
    assert "there is no credential for it here; name a file of them by --authfile" in said
    entry = {"username": "alice", "password": "s3cret"}
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {endpoint.origin.address: entry}}))
    assert pull(tmp_path / "d", "--authfile", str(tmp_path / "auth.json"), name="team/private:1")[0] == ExitCode.FINE
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {endpoint.origin.address: entry | {"password": "wrong"}}}))
    status, _, said = pull(tmp_path / "d", "--authfile", str(tmp_path / "auth.json"), name="team/private:1")
    assert "no credential that is here is good for it" in said
    assert "wrong" not in said
    assert pull(tmp_path / "d", "--authfile", str(tmp_path / "none"))[0] == ExitCode.USAGE


def test_what_cannot_be_pulled_is_said_in_a_line(endpoint: Endpoint, pull: Pull, typed: Typed, tmp_path: Path) -> None:
    status, _, said = typed("pull", "nginx", "-o", str(tmp_path / "d"), "--agent", "127.0.0.1:1")
    assert (status, said.count("\n")) == (ExitCode.PROBLEM, 1)
    assert "no agent serves pulls at 127.0.0.1:1" in said
    assert typed("pull", "a b", "-o", "d")[0] == ExitCode.USAGE
    assert typed("pull", "nginx", "-o", "d", "--agent", "nowhere")[0] == ExitCode.USAGE
    assert "is not there" in pull(tmp_path / "d", name=f"{REPOSITORY}:none")[2]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    assert "a directory of something else" in pull(tmp_path / "other")[2]
    assert "cannot be written" in pull("/proc/a.tar")[2]


def test_what_is_wrong_is_not_there_and_a_directory_goes_on_where_it_was(endpoint: Endpoint, pull: Pull, tmp_path: Path) -> None:
    endpoint.origin.fail(Fault(path="blobs/" + IMAGE.layers[0], flip_byte=1000))
    for output in (tmp_path / "d", tmp_path / "a.tar"):
        status, _, said = pull(output)
        assert (status, said.count("\n")) == (ExitCode.PROBLEM, 1)
    assert not (tmp_path / "a.tar").exists()
    assert not (tmp_path / "d" / "index.json").exists()
    assert not (tmp_path / "d" / blob_path(IMAGE.layers[0])).exists()
    assert not list(tmp_path.rglob("*.partial"))
    endpoint.origin.heal()
    assert pull(tmp_path / "d")[0] == ExitCode.FINE
    before = (tmp_path / "d" / blob_path(IMAGE.layers[0])).stat().st_ino
    assert pull(tmp_path / "d")[0] == ExitCode.FINE
    assert (tmp_path / "d" / blob_path(IMAGE.layers[0])).stat().st_ino == before


class Pipe:
    """Standard output, whose reader does this."""

    def __init__(self, error: OSError) -> None:
        self._error = error
        self.buffer = self

    def isatty(self) -> bool:
        return False

    def write(self, _: bytes) -> int:
        raise self._error

    def flush(self) -> None:
        pass


def test_a_reader_that_leaves_is_told_to_nobody_and_a_full_disk_to_everybody(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = ["pull", f"{endpoint.origin.address}/{REPOSITORY}:1", "-o", "-", "--agent", str(endpoint.listener.address)]
    for error, raised in ((BrokenPipeError(32, "gone"), ClosedPipe), (OSError(28, "No space left on device"), CommandError)):
        monkeypatch.setattr("sys.stdout", Pipe(error))
        with pytest.raises(raised):
            typer.main.get_command(app).main(registry, standalone_mode=False)


def test_without_room_for_a_layer_that_is_read_twice_it_is_said(
    pull: Pull, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", functools.partial(open, "/dev/full", "w+b", buffering=1 << 19))
    status, _, said = pull(tmp_path / "a.tar", "--format", "docker", "--platform", "linux/amd64")
    assert (status, said.count("\n")) == (ExitCode.PROBLEM, 1)
    assert "No space left on device; set TMPDIR to a larger place" in said


class Late(Page):
    """Comes at the second try."""

    tries = 0

    @property
    def status(self) -> int:
        self.tries += 1
        return 504 if self.tries == 1 else 200

    @status.setter
    def status(self, value: int) -> None:
        pass


def test_what_has_not_come_in_time_is_asked_for_again(tmp_path: Path) -> None:
    with WebServer() as web:
        web.pages["/v2/late.test/team/app/manifests/1"] = Late(IMAGE.manifest)
        host, port = web.address.split(":")
        registry = AgentRegistry(lambda: socket.create_connection((host, int(port))), "the agent")
        assert registry.manifest(Reference.parse("late.test/team/app:1")).body == IMAGE.manifest


@pytest.mark.parametrize("name", ["two.tar", "two"])
def test_two_at_once_do_not_write_one_place(pull: Pull, tmp_path: Path, name: str) -> None:
    with sink_at(str(tmp_path / name)) as sink:
        sink.put("oci-layout", 1, [b"x"])
        status, _, said = pull(tmp_path / name)
        assert (status, "is being written by another command" in said) == (ExitCode.PROBLEM, True)
        sink.finish()
    assert (tmp_path / name).exists()
    assert not list(tmp_path.glob("*.partial"))
