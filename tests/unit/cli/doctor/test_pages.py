"""Each finding has its page: a heading of docs/troubleshooting.md for every symptom that a check may name, and none besides."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from cli.doctor.checks import CHECKS
from cli.doctor.finding import PAGE

TREE = Path(__file__).resolve().parents[4]
MAKERS = {"problem", "warning", "unknown"}


def named(module: ast.Module) -> set[str]:
    """The symptoms of the findings that are made there: the third argument, as it stands or under the name of a constant."""
    constants = {
        target.id: node.value.value
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    symptoms = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS and len(node.args) == 3:
            symptom = node.args[2]
            symptoms.add(symptom.value if isinstance(symptom, ast.Constant) else constants[ast.unparse(symptom)])
    return {str(symptom) for symptom in symptoms}


def anchors() -> set[str]:
    """Of the third level, as GitHub makes them of headings."""
    headings = re.findall(r"^### (.+)$", (TREE / PAGE).read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_finding_has_its_heading_and_every_heading_a_finding() -> None:
    modules = [ast.parse(path.read_text()) for path in (TREE / "cli" / "doctor").glob("*.py") if path.name != "finding.py"]
    assert set[str]().union(*map(named, modules)) == anchors()


def test_every_check_is_in_its_page() -> None:
    page = (TREE / "docs" / "doctor.md").read_text()
    assert re.findall(r"^\| ([a-z ]+) \|", page, re.MULTILINE)[1:] == list(CHECKS)
