"""The pages and the tree agree: no page points to nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

TREE = Path(__file__).parents[3]
PAGES = sorted([*TREE.glob("*.md"), *TREE.glob("docs/**/*.md")])
PACKAGES = ("agent", "supernode", "webhook", "cli")
LISTS = ("requirements.txt", "requirements-dev.txt", "requirements-bench.txt", "requirements-fuzz.txt")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TREE)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("https://", "http://", "mailto:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TREE)))
def test_the_yaml_of_a_page_can_be_applied_as_it_stands(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        assert all(isinstance(document, dict) for document in yaml.safe_load_all(block))


def test_every_decision_that_the_code_refers_to_is_written_down() -> None:
    written = {path.name[:4] for path in (TREE / "docs" / "decisions").glob("[0-9][0-9][0-9][0-9]-*.md")}
    for package in PACKAGES:
        for module in (TREE / package).rglob("*.py"):
            for number in re.findall(r"docs/decisions/(\d{4})", module.read_text()):
                assert number in written, module


def test_the_changelog_tells_what_is_not_released_yet() -> None:
    assert "## [Unreleased]" in (TREE / "CHANGELOG.md").read_text()


def test_the_lists_of_requirements_agree_and_name_no_index_and_no_place_of_a_machine() -> None:
    lists = {name: (TREE / name).read_text() for name in LISTS}
    pins = {name: set(re.findall(r"^([\w.-]+==\S+)", text, re.MULTILINE)) for name, text in lists.items()}
    assert all(pins["requirements.txt"] <= pins[name] for name in LISTS)
    assert any(pin.startswith("setuptools==") for pin in pins["requirements-dev.txt"])
    for text in lists.values():
        assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host|://|^[^#\n]*\s/", text, re.MULTILINE)
        for requirement in re.split(r"\n(?=[\w.-]+==)", text.strip()):
            assert "--hash=sha256:" in requirement
