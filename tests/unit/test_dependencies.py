"""What the product imports is what pyproject.toml asks for, and its lower bounds are versions that have what is used."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import uvicorn

TREE = Path(__file__).resolve().parents[2]
PRODUCT = ("agent", "supernode", "webhook", "cli")


def normal(name: str) -> str:
    """A distribution's name as PyPA's specification on names compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extra: str = "") -> dict[str, tuple[int, ...]]:
    """The lowest version allowed of each distribution that the product depends on, or that an extra of it does."""
    project = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    matches = [re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)(?:,.*)?", line) for line in wanted]
    assert all(matches), wanted
    return {normal(match[1]): tuple(map(int, match[2].split("."))) for match in matches if match}


def imported() -> dict[str, set[str]]:
    """The top-level modules from elsewhere that the product imports, at any place in a file, and the files that do."""
    found: dict[str, set[str]] = {}
    for path in (path for package in PRODUCT for path in (TREE / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {*PRODUCT}:
                found.setdefault(name, set()).add(str(path.relative_to(TREE)))
    return found


IMPORTED = imported()


@pytest.mark.parametrize("module", sorted(IMPORTED))
def test_a_module_that_the_product_imports_belongs_to_a_declared_dependency(module: str) -> None:
    distributions = {normal(name) for name in packages_distributions()[module]}
    allowed = declared().keys()
    if all(path.startswith("cli/") for path in IMPORTED[module]):
        allowed |= declared("cli").keys()
    assert distributions & allowed, f"{module} is imported by {', '.join(sorted(IMPORTED[module]))}"


def test_uvicorn_is_at_least_the_version_that_takes_a_tls_context_from_a_function() -> None:
    assert "ssl_context_factory" in inspect.signature(uvicorn.Config).parameters
    assert declared()["uvicorn"] >= (0, 47), "uvicorn 0.47.0 brought ssl_context_factory"
