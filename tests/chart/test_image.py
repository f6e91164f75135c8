"""The Dockerfile, as far as it can be judged without building it: what goes in, and what the chart expects of what comes out."""

from __future__ import annotations

import re
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hack.chart.helm import ROOT, Object, pod_template

LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
INSTRUCTIONS = [line.split(maxsplit=1) for line in LINES if line and not line.startswith("#")]
LAST_STAGE = INSTRUCTIONS[max(index for index, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM") :]


def arguments(name: str) -> list[str]:
    return [rest for instruction, rest in INSTRUCTIONS if instruction == name]


def needs(package: str) -> set[str]:
    """What an installed package takes to be installed here, by the names that pins have."""
    found = [Requirement(text) for text in requires(package) or []]
    return {canonicalize_name(one.name) for one in found if not one.marker or one.marker.evaluate({"extra": ""})}


def test_both_stages_are_made_from_the_bases_that_the_builder_chooses_and_those_are_of_one_python() -> None:
    base, build_base = arguments("ARG")[:2]
    assert re.fullmatch(r"BASE=docker\.io/library/python:3\.\d+-slim", base)
    assert f"BUILD_{base}" == f"{build_base}-slim"
    assert arguments("FROM") == ["${BUILD_BASE} AS build", "${BASE}"]


def test_the_scheduler_is_compiled_unless_the_builder_says_no_by_what_the_tests_have() -> None:
    assert "COMPILE=1" in arguments("ARG")
    assert [line for line in arguments("RUN") if "DARNER_COMPILE=${COMPILE} " in line]
    (named,) = re.findall(r"\^\(setuptools\$\{COMPILE:\+\|([a-z|-]+)\}\)==", "\n".join(LINES))
    tools, needed = set(named.split("|")), {"mypy"}
    while more := {name for tool in needed for name in needs(tool)} - needed:
        needed |= more
    assert tools == needed
    (downloaded,) = re.findall(r"^tools='setuptools\|([a-z|-]+)'$", (ROOT / "hack/cluster/image.sh").read_text(), re.MULTILINE)
    shipped = set(re.findall(r"^([a-z-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert set(downloaded.split("|")) == tools - shipped


def test_the_last_stage_runs_nothing_and_so_leaves_no_tool_behind() -> None:
    assert [name for name, _ in LAST_STAGE] == ["FROM", "LABEL", "COPY", "ENV", "USER", "ENTRYPOINT"]
    assert ["COPY", "--from=build /opt/darner /opt/darner"] in LAST_STAGE
    assert ["ENTRYPOINT", '["darner"]'] in LAST_STAGE


@pytest.mark.parametrize("component", ["supernode", "webhook"])
def test_the_images_user_is_the_charts(default: list[Object], component: str) -> None:
    context = pod_template(default, component)["spec"]["securityContext"]
    assert arguments("USER") == [f"{context['runAsUser']}:{context['runAsGroup']}"]


def test_everything_that_is_copied_is_there_and_nothing_else_is_sent_to_the_builder() -> None:
    copied = {source for line in arguments("COPY") if "--from" not in line for source in line.split()[:-1]}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


def test_every_dependency_is_checked_by_its_hash_and_comes_from_wherever_the_builder_says() -> None:
    installs = [line for line in arguments("RUN") if "pip" in line and " install " in line]
    assert installs
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    assert not [line for line in LINES if "://" in line]
    for name in ("requirements.txt", "requirements-dev.txt"):
        pins = re.findall(r"^[a-z0-9].*$", (ROOT / name).read_text(), re.MULTILINE)
        assert pins
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+==\S+ \\", pin) for pin in pins)
    assert re.search(r"^setuptools==", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
