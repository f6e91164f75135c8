"""The demo's image: made of real files, large enough, and the same every time."""

from __future__ import annotations

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


def test_it_is_found_in_the_cache_and_made_again_alike_when_half_of_it_is_gone(cache: Path) -> None:
    first = pythonimage.python_image(cache)
    made = (cache / "made-from").stat().st_mtime_ns
    assert pythonimage.python_image(cache).digest == first.digest
    assert (cache / "made-from").stat().st_mtime_ns == made
    (cache / "made-from").unlink()
    assert pythonimage.python_image(cache).digest == first.digest


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
