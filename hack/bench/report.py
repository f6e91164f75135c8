"""The figures as people read them: a table on the screen, a page in Markdown, and JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from hack.bench.figures import Measured, Verdict

COLUMNS = ("figure", "Darner", "rounds", "beside it, same run", "must", "aim", "", "measured for others in such a lab", "note")
_PAGE = Path(__file__).with_name("page.md")
_STYLES = {Verdict.SHORT: "red", Verdict.AIM: "green", Verdict.MUST: "yellow", Verdict.SHOWN: ""}


@dataclass(frozen=True)
class Report:
    machine: str
    date: str
    command: str
    measured: Sequence[Measured]
    failed: Mapping[str, str] = field(default_factory=dict)
    """Scenarios that could not be measured, and why."""

    @property
    def short(self) -> list[Measured]:
        """Those that are not what they must be."""
        return [one for one in self.measured if one.verdict is Verdict.SHORT]


def number(value: float) -> str:
    """So exact that it can be told on which side of its must a figure is."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 20 else f"{value:.3f}"


def limit(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def cells(one: Measured) -> tuple[str, ...]:
    """One row of the table."""
    unit = f" {one.figure.unit}" if one.figure.unit else ""
    beside = ", ".join(f"{system} {number(median(values))}" for system, values in one.beside.items() if values)
    return (
        one.figure.what,
        number(one.value) + unit,
        " ".join(map(number, one.values)),
        beside,
        limit(one.figure.must),
        limit(one.figure.aim),
        one.verdict.value,
        one.figure.others,
        one.note,
    )


def failures(report: Report) -> list[str]:
    return [f"not measured: {name}: {reason}" for name, reason in report.failed.items()]


def show(report: Report, console: Console) -> None:
    table = Table(show_lines=True)
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in ("Darner", "must", "aim") else "left")
    for one in report.measured:
        table.add_row(*cells(one), style=_STYLES[one.verdict])
    console.print(table)
    for failure in failures(report):
        console.print(failure, style="red", markup=False)
    console.print(f"{report.machine}; {report.date}; {report.command}", highlight=False)


def as_json(report: Report) -> str:
    rows = [
        {
            **dataclasses.asdict(one.figure),
            "value": one.value,
            "rounds": list(one.values),
            "beside": {system: list(values) for system, values in one.beside.items()},
            "verdict": one.verdict.value,
            "note": one.note,
        }
        for one in report.measured
    ]
    return json.dumps(
        {
            "machine": report.machine,
            "date": report.date,
            "command": report.command,
            "figures": rows,
            "failed": dict(report.failed),
        },
        indent=2,
        ensure_ascii=False,
    )


def as_markdown(report: Report) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (COLUMNS, *map(cells, report.measured))]
    lines.insert(1, "|---" * len(COLUMNS) + "|")
    table = "\n".join([*lines, *(f"\n{failure}" for failure in failures(report))])
    page = _PAGE.read_text()
    return page.format(machine=report.machine, date=report.date, command=report.command, table=table)
