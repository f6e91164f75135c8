from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent.runtimes.registries_conf import RegistriesConf
from agent.values.address import Address

AGENT = Address("127.0.0.1", 65001)
ITSELF = {"location": "127.0.0.1:65001", "insecure": True}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "registries.conf.d").mkdir()
    return tmp_path


def tables(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((root / "registries.conf.d" / "00-darner.conf").read_text())["registry"]
    return found


def test_the_agent_is_asked_in_plain_http_and_is_the_mirror_of_the_registries(root: Path) -> None:
    assert RegistriesConf(root, {"b:5000"}).write(["docker.io", "b:5000", "_default"], AGENT) == []
    assert tables(root) == [
        ITSELF,
        {"location": "docker.io", "mirror": [{"location": "127.0.0.1:65001/docker.io", "insecure": True}]},
        {"location": "b:5000", "insecure": True, "mirror": [{"location": "127.0.0.1:65001/b_5000", "insecure": True}]},
    ]


@pytest.mark.parametrize("file", ["registries.conf", "registries.conf.d/zz.conf"])
@pytest.mark.parametrize(
    "table",
    [
        'location = "docker.io"\nblocked = true',
        'prefix = "docker.io"\nlocation = "mirror.example.com"',
        'prefix = "*.io"\nlocation = "mirror.example.com"',
    ],
)
def test_a_registry_that_an_administrator_has_a_table_for_is_left_to_them(root: Path, file: str, table: str) -> None:
    theirs = root / file
    theirs.write_text(f"[[registry]]\n{table}\n")
    conf = RegistriesConf(root, set())
    assert conf.write(["docker.io", "quay.example.com"], AGENT) == ["docker.io"]
    assert [found["location"] for found in tables(root)] == ["127.0.0.1:65001", "quay.example.com"]
    conf.remove()
    assert [path for path in root.rglob("*") if path.is_file()] == [theirs]
    assert theirs.read_text() == f"[[registry]]\n{table}\n"


@pytest.mark.parametrize("text", ["not toml [", 'registry = "x"', "registry = [1]", "[[registry]]\nprefix = 1\n"])
def test_files_that_say_nothing_are_passed_over(root: Path, text: str) -> None:
    (root / "registries.conf").write_text(text)
    assert RegistriesConf(root, set()).write([], AGENT) == []
    assert tables(root) == [ITSELF]


def test_what_the_runtime_may_read_and_the_agent_may_not_is_not_overruled(root: Path) -> None:
    (root / "registries.conf").symlink_to("/nowhere/in/the/container")
    with pytest.raises(FileNotFoundError, match="registries"):
        RegistriesConf(root, set()).write(["docker.io"], AGENT)
    assert not (root / "registries.conf.d" / "00-darner.conf").exists()


def test_a_file_of_that_name_without_our_mark_is_left_alone(root: Path) -> None:
    theirs = root / "registries.conf.d" / "00-darner.conf"
    theirs.write_text("# mine\n")
    conf = RegistriesConf(root, set())
    assert conf.write(["docker.io"], AGENT) == [str(theirs)]
    conf.remove()
    assert theirs.read_text() == "# mine\n"


def test_one_of_ours_that_somebody_has_added_to_is_written_anew_whatever_is_in_it(root: Path) -> None:
    conf = RegistriesConf(root, set())
    conf.write([], AGENT)
    with (root / "registries.conf.d" / "00-darner.conf").open("ab") as file:
        file.write(b"# \xe9\n")
    assert conf.write([], AGENT) == []
    assert tables(root) == [ITSELF]


def test_the_next_agent_takes_up_what_a_killed_one_left(root: Path) -> None:
    RegistriesConf(root, set()).write(["docker.io"], Address("127.0.0.1", 1))
    next_one = RegistriesConf(root, set())
    (root / "registries.conf.d" / "00-darner.part").write_text("half")
    next_one.write([], AGENT)
    (root / "registries.conf.d" / "00-darner.part").write_text("half")
    assert tables(root) == [ITSELF]
    next_one.remove()
    assert [path for path in root.rglob("*") if path.is_file()] == []
