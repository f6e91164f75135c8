"""The tree as a newcomer searches it."""

from __future__ import annotations

import ast
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]


def test_no_two_classes_of_the_product_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path in sorted(path for package in ("agent", "supernode", "webhook", "cli") for path in (TREE / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(f"{path.relative_to(TREE)}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
