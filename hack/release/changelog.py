"""What CHANGELOG.md (Keep a Changelog 1.1.0) says about one version."""

from __future__ import annotations

import re

KINDS = {
    "Added": "added",
    "Changed": "changed",
    "Deprecated": "deprecated",
    "Removed": "removed",
    "Fixed": "fixed",
    "Security": "security",
}
"""Its headings that Artifact Hub knows as kinds of changes; others, such as known limits, are no changes."""


def section(changelog: str, version: str) -> str:
    """Of the version; a prerelease has what is not released yet. Raises LookupError if there is none."""
    wanted = {version, "Unreleased"} if "-" in version else {version}
    for part in re.split(r"(?m)^## ", changelog)[1:]:
        heading, _, text = part.partition("\n")
        if heading.partition("]")[0].lstrip("[") in wanted:
            return text
    raise LookupError(f"CHANGELOG.md has no section [{version}]: make it of [Unreleased] first")


def changes(changelog: str, version: str) -> list[dict[str, str]]:
    """Kind and description of each, in the order of the page."""
    found = []
    for part in re.split(r"(?m)^### ", section(changelog, version))[1:]:
        heading, _, text = part.partition("\n")
        if kind := KINDS.get(heading.strip()):
            lines = re.split(r"(?m)^- ", text)[1:]
            found += [{"kind": kind, "description": " ".join(line.split())} for line in lines]
    return found
