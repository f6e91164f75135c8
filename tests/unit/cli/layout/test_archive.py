"""Archives of images are read as they are written by others; one that is not what it says is refused in a line."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli.errors import CommandError
from cli.layout.archive import archive_at
from cli.layout.files import BadArchive
from cli.layout.images import ImageArchive
from hack.origin.image import MANIFEST, Image, sha256
from tests.archives import INDEX_TYPE, blob_path, content_of, index_of, layout_of, saved_of, write_directory, write_tar

NAME = "docker.io/library/app:1"
IMAGE = Image.of([b"one" * 1000, b"two" * 1000])
OTHER = Image.of([b"other"])


def blobs_in(archive: ImageArchive, digest: str) -> dict[str, bytes]:
    """All blobs of an image, found to be right."""
    (image,) = {image.digest: image for image in archive.images if image.digest == digest}.values()
    archive.check(image)
    found = {}
    for blob in image.blobs:
        with archive.blob(blob) as file:
            found[blob] = file.read()
    return found


def check_all(path: Path) -> None:
    with archive_at(str(path)) as archive:
        for image in archive.images:
            archive.check(image)


def contents(image: Image) -> dict[str, bytes]:
    return {digest: content_of(content) for digest, content in image.blobs.items()}


@pytest.mark.parametrize("form", ["directory", "tar", "gzip", "stdin", "dots"])
def test_an_oci_layout_is_read_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    files = layout_of({NAME: IMAGE, "gone.test/other:2": OTHER})
    if form == "dots":
        files = {f"./{path}": content for path, content in files.items()}
    where = str(write_directory(tmp_path / "d", files) if form == "directory" else write_tar(tmp_path / "a.tar", files))
    if form == "gzip":
        where += ".gz"
        Path(where).write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    if form == "stdin":
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(Path(where).read_bytes())))
        where = "-"
    with archive_at(where) as archive:
        assert [(image.name, image.digest) for image in archive.images] == [
            (NAME, IMAGE.digest),
            ("gone.test/other:2", OTHER.digest),
        ]
        assert blobs_in(archive, IMAGE.digest) == contents(IMAGE)


def test_what_docker_saves_gets_the_manifest_that_its_layers_and_config_make(tmp_path: Path) -> None:
    files = saved_of("app:1", IMAGE)
    first, second = json.loads(files["manifest.json"])[0]["Layers"]
    link = (second, f"../{first.rpartition('/')[0]}/layer.tar")
    twice = Image.of([b"one" * 1000] * 2)
    files = saved_of("app:1", twice) | {first: files[first]}
    with archive_at(str(write_tar(tmp_path / "a.tar", files, [link]))) as archive:
        (image,) = archive.images
        assert image.name == NAME
        assert blobs_in(archive, image.digest) == contents(twice)
        document = json.loads(image.manifests[image.digest].body)
        assert (document["mediaType"], [layer["digest"] for layer in document["layers"]]) == (MANIFEST, twice.layers)


def test_of_an_index_those_platforms_are_read_of_which_all_is_there(tmp_path: Path) -> None:
    index = index_of({"linux/amd64": IMAGE, "linux/arm64": OTHER})
    files = layout_of({"": IMAGE}) | {blob_path(sha256(index)): index, blob_path(OTHER.digest): OTHER.manifest}
    entry = {"mediaType": INDEX_TYPE, "digest": sha256(index), "annotations": {"org.opencontainers.image.ref.name": NAME}}
    files["index.json"] = json.dumps({"manifests": [entry]}).encode()
    with archive_at(str(write_tar(tmp_path / "a.tar", files))) as archive:
        (image,) = archive.images
        assert (image.name, image.digest) == (NAME, sha256(index))
        assert image.manifests.keys() == {sha256(index), IMAGE.digest}
        assert blobs_in(archive, image.digest) == contents(IMAGE)


MANIFEST_PATH, LAYER_PATH = blob_path(IMAGE.digest), blob_path(IMAGE.layers[0])
CONFIG_PATH = blob_path(json.loads(IMAGE.manifest)["config"]["digest"])
GOOD = layout_of({NAME: IMAGE})
SPOILED: dict[str, dict[str, bytes | None]] = {
    "path that leads out": {"../../etc/passwd": b"root"},
    "absolute path": {"/etc/passwd": b"root"},
    "other manifest": {MANIFEST_PATH: OTHER.manifest},
    "no layer": {LAYER_PATH: None},
    "longer layer": {LAYER_PATH: GOOD[LAYER_PATH] + b"x"},
    "other config": {CONFIG_PATH: GOOD[CONFIG_PATH][::-1]},
    "no index": {"index.json": None},
    "index of nothing": {"index.json": b'{"manifests": []}'},
    "index that is none": {"index.json": b"[" * 100_000},
    "digest that is a path": {"index.json": b'{"manifests": [{"digest": "sha256:../../../etc/passwd"}]}'},
    "name that is none": {"index.json": GOOD["index.json"].replace(NAME.encode(), b"a b/\\u001b[2J:1")},
    "endless index": {"index.json": GOOD["index.json"] + b" " * (5 << 20)},
}
"""Files that are changed, or not there."""


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("path that leads out", "leads out of it"),
        ("absolute path", "leads out of it"),
        ("other manifest", "has another digest; copy it again"),
        ("no layer", "save the image again"),
        ("longer layer", "save the image again"),
        ("other config", "has another digest; copy it again"),
        ("no index", "neither an OCI layout"),
        ("index of nothing", "lists no image"),
        ("index that is none", "lists no image"),
        ("digest that is a path", "is not a digest"),
        ("name that is none", "in a way that none is"),
        ("endless index", "is longer than 4 MiB"),
    ],
)
def test_an_archive_that_is_not_what_it_says_is_refused(tmp_path: Path, how: str, words: str) -> None:
    files = {path: content for path, content in (GOOD | SPOILED[how]).items() if content is not None}
    path = write_tar(tmp_path / "a.tar", files)
    with pytest.raises(BadArchive, match=words) as refused:
        check_all(path)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("length", [0, 100, 5000])
def test_a_tar_that_is_cut_short_is_said_to_be(tmp_path: Path, length: int) -> None:
    path = write_tar(tmp_path / "a.tar", layout_of({NAME: IMAGE}))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BadArchive, match=r"is cut short|is no tar|neither"), archive_at(str(path)):
        pass
    compressed = tmp_path / "a.tar.gz"
    compressed.write_bytes(gzip.compress(layout_of({NAME: IMAGE})["index.json"] * 1000)[:200])
    with pytest.raises(BadArchive, match="cut short"), archive_at(str(compressed)):
        pass


def test_a_layer_of_docker_that_is_not_what_the_config_says_is_refused(tmp_path: Path) -> None:
    files = saved_of("app:1", IMAGE)
    layer = json.loads(files["manifest.json"])[0]["Layers"][0]
    with (
        pytest.raises(BadArchive, match="is damaged: the layer"),
        archive_at(str(write_directory(tmp_path / "d", files | {layer: b"other"}))),
    ):
        pass


def test_what_is_not_there_or_finds_no_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="cannot be read: No such file"), archive_at(str(tmp_path / "nothing.tar")):
        pass
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"x" * 100)))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(CommandError, match="No space left on device; set TMPDIR"), archive_at("-"):
        pass
