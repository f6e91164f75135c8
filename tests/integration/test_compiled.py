"""The compiled scheduler is the scheduler: what its sources are held to holds for it, and it grants the same pieces.

`hack/compiled.sh` makes the wheel that the image has, which takes the compiler ten seconds after each change of the sources.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(600)  # a compiler that shares its processor is no failure
TREE = Path(__file__).parents[2]
SCRIPT = TREE / "hack" / "compiled.sh"
COMPILED: list[str] = tomllib.loads((TREE / "pyproject.toml").read_text())["tool"]["darner"]["compiled"]
SOURCES = {name: str(TREE / f"{name.replace('.', '/')}.py") for name in COMPILED}
TESTS = (
    "tests/unit/supernode/scheduler/test_machine.py",
    "tests/unit/agent/values/test_pieces.py",
    "tests/unit/supernode/tracker/test_tasks.py",
    "tests/unit/supernode/tracker/test_nodes.py",
    "tests/property/test_scheduler_properties.py",
    "tests/property/test_pieces_properties.py",
)
WHERE = """
import importlib, json, sys
print(json.dumps({name: importlib.import_module(name).__file__ for name in sys.argv[1:]}))
"""
TESTED = """
import json, sys, pytest
count = sys.argv.index("--")
# No path of the tree goes before the compiled modules, as it would by the tree's own settings.
failed = pytest.main(["-q", "-p", "no:cacheprovider", "-o", "pythonpath=", *sys.argv[1:count]])
print(json.dumps({name: sys.modules[name].__file__ for name in sys.argv[count + 1:]}))
sys.exit(failed)
"""


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=TREE, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def directory() -> Path:
    made = run(SCRIPT)
    assert made.returncode == 0, f"{made.stderr}\nhack/setup.sh installs a compiler"
    return Path(made.stdout.strip())


def are_compiled(directory: Path, files: dict[str, str]) -> bool:
    return list(files) == COMPILED and all(
        Path(file).is_relative_to(directory) and Path(file).suffix == ".so" for file in files.values()
    )


def test_the_tests_of_the_scheduler_pass_for_what_was_compiled(directory: Path) -> None:
    tested = run(SCRIPT, sys.executable, "-c", TESTED, *TESTS, "--", *COMPILED)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert are_compiled(directory, json.loads(tested.stdout.splitlines()[-1]))


@pytest.mark.parametrize("more", [(), ("--zones", "2", "--failing", "0.1", "--lying", "0.1", "--slow", "0.1")])
def test_one_seed_gives_the_same_rollout_compiled_and_not(directory: Path, more: tuple[str, ...]) -> None:
    plan = ("--nodes", "64", "--pieces", "128", "--seed", "5", *more)
    command = (sys.executable, "-m", "hack.simulate", "--output", "json", *plan)
    figures: list[dict[str, Any]] = []
    for done in (run(SCRIPT, *command), run(*command)):
        assert done.returncode == 0, done.stderr
        figures.append(json.loads(done.stdout))
        del figures[-1]["scheduling_cpu_seconds"]
    assert [one.pop("compiled") for one in figures] == [True, False]
    assert figures[0] == figures[1]


def test_the_wheel_has_machine_code_beside_its_sources_and_needs_nothing_of_the_compiler(directory: Path) -> None:
    compiled = {str(path.relative_to(directory)).split(".")[0].replace("/", ".") for path in directory.rglob("*.so")}
    assert compiled == {"darner__mypyc", *COMPILED}
    for source in SOURCES.values():
        assert (directory / Path(source).relative_to(TREE)).read_bytes() == Path(source).read_bytes()
    without = "import sys; sys.modules.update(dict.fromkeys(('mypy', 'mypyc', 'mypy_extensions', 'librt')))\n" + WHERE
    found = run(SCRIPT, sys.executable, "-c", without, *COMPILED)
    assert are_compiled(directory, json.loads(found.stdout))


def test_beside_the_sources_themselves_there_is_nothing_but_sources() -> None:
    assert [path for package in ("agent", "cli", "supernode", "webhook") for path in (TREE / package).rglob("*.so")] == []


def test_a_wheel_is_pure_python_unless_it_is_asked_to_be_compiled(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    for name in ("agent", "cli", "supernode", "webhook"):
        shutil.copytree(TREE / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(TREE / name, sources)
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", tmp_path)
    built = run(*pip, sources, DARNER_COMPILE="", CC="false")
    assert built.returncode == 0, built.stderr
    assert [path.name.partition("-py3-")[2] for path in tmp_path.glob("*.whl")] == ["none-any.whl"]


def test_without_a_compiler_the_sources_are_measured_and_that_is_said(tmp_path: Path) -> None:
    found = run(SCRIPT, sys.executable, "-c", WHERE, *COMPILED, CC="false", DARNER_CACHE=str(tmp_path), PYTHONPATH=str(TREE))
    assert json.loads(found.stdout) == SOURCES
    assert "uncompiled" in found.stderr
    assert run(SCRIPT, CC="false", DARNER_CACHE=str(tmp_path)).returncode == 1


def test_a_build_that_fails_is_an_error_and_leaves_nothing_that_would_be_taken_for_one(tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\ncase " $* " in *" -fsyntax-only "*) exit 0 ;; esac\nexit 1\n')
    compiler.chmod(0o755)
    cache = tmp_path / "cache"
    built = run(SCRIPT, sys.executable, "-c", WHERE, CC=str(compiler), DARNER_CACHE=str(cache))
    assert built.returncode == 1
    assert built.stdout == ""
    assert [path for path in (cache / "compiled").iterdir() if path.is_dir()] == []
