"""What a check found: how bad it is, what it is, what to do about it, and the page that says more. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

PAGE = "docs/troubleshooting.md"


class Severity(StrEnum):
    FINE = "fine"
    UNKNOWN = "unknown"
    """It could not be found out; the finding says why."""
    WARNING = "warning"
    """Darner works, or will, but less well than it could."""
    PROBLEM = "problem"
    """Images are not distributed, somewhere or everywhere."""


@dataclass(frozen=True)
class Finding:
    severity: Severity
    what: str
    remedy: str = ""
    """What to do, where there is something to do."""
    symptom: str = ""
    """The heading in the page of symptoms that is about this, as its anchor."""

    @property
    def page(self) -> str:
        return f"{PAGE}#{self.symptom}" if self.symptom else ""

    def as_json(self) -> dict[str, str]:
        return {"severity": self.severity.value, "what": self.what, "remedy": self.remedy, "page": self.page}


def fine(what: str) -> Finding:
    return Finding(Severity.FINE, what)


def unknown(what: str, remedy: str = "", symptom: str = "") -> Finding:
    return Finding(Severity.UNKNOWN, what, remedy, symptom)


def warning(what: str, remedy: str, symptom: str) -> Finding:
    return Finding(Severity.WARNING, what, remedy, symptom)


def problem(what: str, remedy: str, symptom: str) -> Finding:
    return Finding(Severity.PROBLEM, what, remedy, symptom)


def found_a_problem(findings: Iterable[Finding]) -> bool:
    return any(finding.severity is Severity.PROBLEM for finding in findings)


NAMES_SHOWN_MAX = 5


def some(names: Iterable[str]) -> str:
    """The first of many names, and how many more there are: a cluster may have ten thousand nodes."""
    sorted_names = sorted(names)
    shown, more = sorted_names[:NAMES_SHOWN_MAX], len(sorted_names) - NAMES_SHOWN_MAX
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
