"""The demo's image: made of real files, large enough, and the same every time."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from hack.origin import pythonimage
from hack.origin.image import sha256


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_it_has_at_least_three_layers_and_150_mib_of_real_files(cache: Path) -> None:
    image = pythonimage.python_image(cache)
    assert len(set(image.layers)) >= 3
    assert image.size >= 150 << 20
    names: list[str] = []
    for layer in image.layers:
        with tarfile.open(image.blobs[layer]) as archive:
            names += archive.getnames()
    assert len(names) == len(set(names)) > 1000
    assert any(name.endswith("/http/client.py") for name in names)
    assert not any("__pycache__" in name or name.startswith("/") for name in names)


def test_it_is_found_in_the_cache_and_made_again_alike(cache: Path) -> None:
    first = pythonimage.python_image(cache)
    (folder,) = cache.iterdir()
    made = folder.stat().st_mtime_ns
    assert pythonimage.python_image(cache).digest == first.digest
    assert folder.stat().st_mtime_ns == made
    folder.rename(cache / "elsewhere")
    assert pythonimage.python_image(cache).digest == first.digest


def test_what_somebody_may_be_serving_is_not_touched_when_the_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pythonimage, "IMAGE_BYTES", 1)
    (file := tmp_path / "file").write_text("content")
    monkeypatch.setattr(pythonimage, "real_files", lambda: iter([file, file]))
    monkeypatch.setattr(pythonimage, "LAYER_BYTES", 1)
    first = pythonimage.python_image(tmp_path / "cache")
    file.write_text("other content")
    second = pythonimage.python_image(tmp_path / "cache")
    assert first.digest != second.digest
    assert [sha256(content) for content in first.blobs.values()] == list(first.blobs)


def test_an_image_of_a_python_that_is_gone_is_deleted_after_a_day(tmp_path: Path) -> None:
    old, young = tmp_path / "python-image-old", tmp_path / "python-image-young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (0, 0))
    with pytest.raises(RuntimeError):
        pythonimage.make([], tmp_path / "python-image-new")
    assert list(tmp_path.iterdir()) == [young]


def test_owners_and_times_of_this_machine_are_not_in_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("content")
    archives = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        file.touch()
        with pytest.raises(RuntimeError, match="this Python has only"):
            pythonimage.write_layers([file], folder)
        archives.append(folder / "layer-1.tar")
    assert sha256(archives[0]) == sha256(archives[1])
