"""The list of modules, folder by folder, each with the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
PACKAGES = ("agent", "supernode", "webhook", "cli")


def module_tables() -> str:
    return "\n".join(line for package in PACKAGES for folder in _folders(TREE / package) for line in _table(folder))


def _folders(package: Path) -> list[Path]:
    """The package, then its folders in the order of their layers, the lowest first."""
    rank = {name: number for number, name in enumerate(_layers(package.name))}
    folders = sorted(
        {path.parent for path in package.rglob("*.py")} - {package}, key=lambda folder: rank.get(folder.name, len(rank))
    )
    return [package, *folders]


def _layers(package: str) -> Iterator[str]:
    """Names of a package's parts as the import contracts stack them, from the bottom up."""
    contracts = tomllib.loads((TREE / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    for contract in contracts:
        if contract["type"] == "layers" and contract["layers"][0].startswith(f"{package}."):
            for layer in reversed(contract["layers"]):
                yield from (name.rpartition(".")[2] for name in layer.split(" | "))


def _table(folder: Path) -> list[str]:
    modules = sorted(path for path in folder.glob("*.py") if path.stem not in ("__init__", "__main__"))
    rows = [f"| `{path.name}` | {_first_sentence(path)} |" for path in modules]
    return [f"**{folder.relative_to(TREE)}/**", "", "| file | owns |", "|---|---|", *rows, ""]


def _first_sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return re.split(r"(?<=\.) ", paragraph, maxsplit=1)[0].replace("|", "\\|")
