"""What Helm prints after an installation: the commands of this release, and only those that there is a use for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hack.chart.helm import CHART, Helm, Values

Notes = Callable[[Values], str]


@pytest.fixture(scope="session")
def notes(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Notes:
    """Helm prints them only to those who have a cluster, so a copy of the chart has an object that they are in."""
    chart = tmp_path_factory.mktemp("notes") / "darner"
    shutil.copytree(CHART, chart)
    template = 'notes: {{ include (print $.Template.BasePath "/NOTES.txt") . | toJson }}'
    (Path(chart) / "templates" / "notes.yaml").write_text(template)

    def notes(values: Values) -> str:
        flags = ("--namespace", "ns", "--show-only", "templates/notes.yaml")
        rendered = helm("template", "r", str(chart), *flags, values=values)
        assert rendered.returncode == 0, rendered.stderr
        text: str = yaml.safe_load(rendered.stdout)["notes"]
        return text

    return notes


def test_by_default_they_say_how_to_watch_allow_and_use_it(notes: Notes) -> None:
    text = notes({})
    for command in (
        "kubectl -n ns get pods -l app.kubernetes.io/instance=r",
        "kubectl label namespace ns pod-security.kubernetes.io/enforce=privileged",
        "kubectl label namespace NAMESPACE darner.dev/inject=enabled",
    ):
        assert f"    {command}\n" in text
    assert "2 supernode(s) and 2 webhook(s)" in text


def test_where_every_namespace_is_in_they_say_how_one_stays_out(notes: Notes) -> None:
    text = notes({"webhook": {"namespaces": {"mode": "opt-out"}, "label": "example.com/darner"}})
    assert "label example.com/darner=disabled" in text
    assert "apart from ns, kube-system" in text
    assert "=enabled" not in text


def test_without_a_webhook_they_do_not_speak_of_what_it_does(notes: Notes) -> None:
    text = notes({"webhook": {"enabled": False}, "supernode": {"enabled": False}, "swarm": {"existingSecret": "key"}})
    assert "nothing is rewritten" in text
    assert "supernode" not in text
    assert "webhook(s)" not in text


def test_where_nothing_is_installed_they_say_just_that(notes: Notes) -> None:
    assert notes({"enabled": False}).strip() == "Nothing is installed: `enabled` is false."
