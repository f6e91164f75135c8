"""What pages have from the code is what the code has now."""

from __future__ import annotations

from dataclasses import fields

import pytest

from agent.config import flag
from agent.download.planner import STEPS, Mode, Planner
from hack.pages.marks import DOCS, between_marks, written_anew
from hack.pages.modules import PACKAGES, TREE, module_tables
from hack.pages.settings import PROCESSES
from hack.pages.site import as_the_site_has_it


def test_the_pages_show_states_events_and_modules_as_the_code_has_them() -> None:
    for page, text in written_anew().items():
        assert page.read_text() == text, "write them anew: .venv/bin/python -m hack.pages"


def test_a_page_without_a_place_for_a_thing_is_refused() -> None:
    with pytest.raises(LookupError, match="modules"):
        between_marks("# Architecture", "modules", "")


def test_every_state_of_the_planner_is_reached_from_the_first_one() -> None:
    reached = {Planner().mode}
    for _ in STEPS:
        reached |= {after for before, after in STEPS if before in reached}
    assert reached == set(Mode)


def test_every_module_is_listed_with_what_it_owns() -> None:
    listed = module_tables()
    for package in PACKAGES:
        for path in (TREE / package).rglob("*.py"):
            if path.stem not in ("__init__", "__main__"):
                assert f"| `{path.name}` | " in listed
    assert "| |" not in listed.replace("|  |", "| |"), "a module without a docstring"


@pytest.mark.parametrize("process", PROCESSES)
def test_every_setting_is_shown_with_its_default_and_its_meaning(process: str) -> None:
    page = (DOCS / "settings.md").read_text().partition(f"## darner {process}\n")[2].partition("\n## ")[0]
    for item in fields(PROCESSES[process]):
        row = next(line for line in page.splitlines() if line.startswith(f"| `{flag(item.name)}` | "))
        assert item.metadata["help"].replace("<", "&lt;") in row
        assert f"`{item.metadata['default']}`" in row or not item.metadata["default"]


@pytest.mark.parametrize(
    ("source", "page", "written", "shown"),
    [
        ("docs/install.md", "install.md", "[w](webhook.md#x)", "[w](webhook.md#x)"),
        ("docs/install.md", "install.md", "[all](../charts/darner/README.md)", "[all](values.md)"),
        ("docs/decisions/0001-a.md", "decisions/0001-a.md", "[s](../../SECURITY.md#who)", "[s](../security-policy.md#who)"),
        ("docs/install.md", "install.md", "[the client](../webhook/kube/client.py)", "the client"),
        ("docs/install.md", "install.md", "[load](../hack/load)", "load"),
        ("CHANGELOG.md", "changelog.md", "[m](docs/mirrors.md)", "[m](mirrors.md)"),
        ("CHANGELOG.md", "changelog.md", "[k](https://keepachangelog.com)", "[k](https://keepachangelog.com)"),
        ("docs/install.md", "install.md", "[gone](../nowhere.md)", "[gone](../nowhere.md)"),
        ("docs/index.md", "index.md", "![p](images/how.svg)", "![p](images/how.svg)"),
    ],
)
def test_links_lead_to_where_the_site_has_a_page_and_those_to_code_are_names(
    source: str, page: str, written: str, shown: str
) -> None:
    assert as_the_site_has_it(written, source, page) == shown
